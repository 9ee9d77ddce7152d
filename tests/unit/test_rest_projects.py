"""Imports in the Intel-compatible API: what asks for one, and what answers it."""

import json
from typing import Any, cast

import pytest

from registry_service.compat.answers import RestError
from registry_service.compat.errors import text_of
from registry_service.compat.projects import import_answer, wanted_models
from registry_service.domain.errors import (
    AlreadyExistsError,
    ArtifactStoreUnavailableError,
    GetiDeploymentError,
    GetiRefusedError,
    GetiUnavailableError,
    RegistryError,
)
from registry_service.geti.imports import ImportProgress, ImportState
from registry_service.geti.port import ModelKey

NOTE = "Note: Only OpenVINO optimized active models are supported at this time.\n"
GOOD = b'{"models": [{"id": "a", "group_id": "g"}]}'


def details(content_type: str, body: bytes) -> list[tuple[str, list[str | int]]]:
    with pytest.raises(RestError) as caught:
        wanted_models(content_type, body)
    assert caught.value.answer.status == 422
    return [(item["type"], item["loc"]) for item in json.loads(caught.value.answer.body)["detail"]]


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "Application/JSON; charset=utf-8", "application/a+json"]
)
def test_json_may_be_declared_as_such_or_not_at_all(content_type: str) -> None:
    assert wanted_models(content_type, GOOD) == [ModelKey(id="a", group_id="g")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", [("missing", ["body"])]),
        (b"{nope", [("json_invalid", ["body", 1])]),
        (b"\xff", [("json_invalid", ["body", 0])]),
        (b"[" * 10**6, [("json_invalid", ["body", 0])]),
        (b"null", [("model_attributes_type", ["body"])]),
        (b"{}", [("missing", ["body", "models"])]),
        (b'{"models": {}}', [("list_type", ["body", "models"])]),
        (b'{"models": []}', [("too_short", ["body", "models"])]),
        (b'{"models": [1]}', [("model_attributes_type", ["body", "models", 0])]),
        (
            b'{"models": [{"id": 1}, {"group_id": null}]}',
            [
                ("string_type", ["body", "models", 0, "id"]),
                ("missing", ["body", "models", 0, "group_id"]),
                ("missing", ["body", "models", 1, "id"]),
                ("string_type", ["body", "models", 1, "group_id"]),
            ],
        ),
        (json.dumps({"models": [{"id": "a", "group_id": "g"}] * 101}).encode(), [("too_long", ["body", "models"])]),
    ],
)
def test_what_is_wrong_with_a_body_is_named(body: bytes, expected: Any) -> None:
    assert details("application/json", body) == expected


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"])
def test_what_is_declared_as_something_else_has_no_fields(content_type: str) -> None:
    assert details(content_type, GOOD) == [("model_attributes_type", ["body"])]


def ended(model_id: str, error: RegistryError | None = None) -> ImportProgress:
    state = ImportState.REGISTERED if error is None else ImportState.FAILED
    return ImportProgress(model_id=model_id, state=state, error=error)


def reasons(**errors: RegistryError) -> str:
    return "".join(f"Model {name} can not be registered: {text_of(error)}\n" for name, error in errors.items())


AWAY = GetiUnavailableError()
REFUSED = GetiRefusedError("Geti will not prepare the model 'x'.")
FAILED = GetiDeploymentError("The ZIP from Geti is empty.")
TAKEN = AlreadyExistsError("x", model_id="other", conflict="identity")


@pytest.mark.parametrize(
    ("results", "status", "text"),
    [
        ([ended("a"), ended("b")], 201, f"Model(s): a, b registered.\n{NOTE}"),
        ([ended("a", REFUSED), ended("b", REFUSED)], 403, f"Model(s): a, b can not be registered.\n{NOTE}"),
        (
            [ended("a", AWAY), ended("b"), ended("c", FAILED)],
            207,
            "Model(s): b registered.\n" + reasons(a=AWAY, c=FAILED) + NOTE,
        ),
        ([ended("a", AWAY)], 502, "Geti does not answer as it should; try again later.\n"),
        ([ended("a", FAILED)], 502, f"{FAILED.message}\n"),
        (
            [ended("a", AWAY), ended("b", REFUSED)],
            502,
            "No model(s) registered.\n" + reasons(a=AWAY, b=REFUSED),
        ),
        (
            [ended("a", TAKEN)],
            409,
            "The requested action could not be completed due to a conflict with model 'other'.",
        ),
        ([ended("a", ArtifactStoreUnavailableError())], 503, None),
    ],
)
def test_the_answer_tells_how_each_import_ended(results: Any, status: int, text: str | None) -> None:
    answer = import_answer(cast("list[ImportProgress]", results))
    assert answer.status == status
    if text is not None:
        assert answer.body.decode() == text
