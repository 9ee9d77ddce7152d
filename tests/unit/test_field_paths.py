"""Violations name fields by their paths from the request, whatever the domain calls them."""

import pytest

from registry_service.domain.errors import (
    InvalidArgumentError,
    InvalidFilterError,
    ModelNotFoundError,
    ProvenanceCycleError,
)
from registry_service.transport.grpc.field_paths import with_request_paths


def path_of(method: str, field: str) -> str:
    error = with_request_paths(InvalidArgumentError.of(field, "is wrong."), f"/modelregistry.v1.{method}")
    assert isinstance(error, InvalidArgumentError)
    [violation] = error.violations
    assert error.metadata == {"field": violation.field}
    assert error.message == f"{violation.field}: {violation.description}"
    return violation.field


@pytest.mark.parametrize(
    ("method", "prefix", "field"),
    [
        *(
            (method, f"{prefix}model.", field)
            for method, prefix in (
                ("ModelService/RegisterModel", "spec."),
                ("UploadService/CreateUpload", "upload.spec."),
                ("ModelService/UpdateModel", ""),
            )
            for field in ("name", "id", "precisions[0]", "metrics.a.b", "tags.spec", "provenance.datasets[1].uri")
        ),
        *(
            (method, prefix, field)
            for method, prefix in (
                ("ModelService/RegisterModel", "spec."),
                ("UploadService/CreateUpload", "upload.spec."),
            )
            for field in ("artifact", "artifact.sha256", "model")
        ),
        *(("ModelGroupService/UpdateModelGroup", "model_group.", field) for field in ("owner", "metric_goals.x")),
    ],
)
def test_a_field_is_found_where_the_request_has_it(method: str, prefix: str, field: str) -> None:
    assert path_of(method, field) == prefix + field


@pytest.mark.parametrize(
    ("method", "field"),
    [
        ("ModelService/RegisterModel", "chunk"),
        ("ModelService/UpdateModel", "model.id"),
        ("ModelService/UpdateModel", "model"),
        ("ModelService/UpdateModel", "update_mask"),
        ("ModelService/UpdateModel", "if-match"),
        ("ModelService/ResolveModel", "precisions[1]"),
        ("AliasService/SetAlias", "requirements.metrics[0].max"),
        ("UploadService/CompleteUpload", "sha256"),
        ("UploadService/WriteUploadContent", "content-range"),
        ("NoService/NoMethod", "name"),
    ],
)
def test_a_path_from_the_root_and_what_is_no_field_stay(method: str, field: str) -> None:
    assert path_of(method, field) == field


@pytest.mark.parametrize("method", ["WriteUpload", "WriteUploadContent", "CompleteUpload"])
def test_of_an_upload_that_is_there_the_id_is_named(method: str) -> None:
    assert path_of(f"UploadService/{method}", "artifact.sha256") == "upload_id"
    assert path_of(f"UploadService/{method}", "provenance.parent_model_ids") == "upload_id"


def test_all_else_of_an_error_stays() -> None:
    cycle = with_request_paths(ProvenanceCycleError(["a", "b", "a"]), "/modelregistry.v1.ModelService/RegisterModel")
    assert (cycle.reason, cycle.metadata) == (
        "PROVENANCE_CYCLE",
        {"field": "spec.model.provenance.parent_model_ids", "model_ids": "a,b,a"},
    )
    for error in (InvalidFilterError("missing value", 3), ModelNotFoundError("x")):
        same = with_request_paths(error, "/modelregistry.v1.ModelService/ListModels")
        assert (same.reason, same.metadata, same.message) == (error.reason, error.metadata, error.message)
