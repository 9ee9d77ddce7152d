"""The command `mreg` against the whole product: its JSON is that of the API under `/v1`."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelregistry.v1 import model_pb2

from tests.client.mreg import Mreg
from tests.model_files import onnx_model
from tests.products import Product
from tests.stub_client import zip_of


@pytest.fixture(params=["grpc", "gateway"])
def mreg(request: pytest.FixtureRequest, product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mreg:
    """The command line, once at the gRPC port and once at the gateway."""
    for variable in ("MODELREG_CONFIG", "MODELREG_STATE", "MODELREG_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    return Mreg(f"grpc://{product.grpc_address}" if request.param == "grpc" else product.rest_url)


@pytest.fixture
def get(product: Product) -> Callable[..., Any]:
    """A function that returns the JSON of a path under `/v1`."""

    def get(path: str, **parameters: Any) -> Any:
        response = httpx.get(f"{product.rest_url}/v1/{path}", params=parameters)
        assert response.status_code == 200, response.text
        return response.json()

    return get


@pytest.fixture
def models(product: Product) -> list[model_pb2.Model]:
    """Two versions of a model, with all kinds of metadata."""
    name = f"mreg-{uuid.uuid4()}"
    parent = product.client.register(
        zip_of({"model.onnx": onnx_model().SerializeToString(), "labels.txt": b"cat"}),
        name=name,
        version="1",
        project_id="acme",
        project_name="Ünïcode 日本",
        metrics={"f1": 0.1, "tiny": 1e-7, "large": 1e20, "whole": 5.0},
        artifact={"file_name": "model.zip"},
    )
    child = product.client.register(
        onnx_model().SerializeToString(),
        name=name,
        version="2",
        project_id="acme",
        project_name="Ünïcode 日本",
        metrics={"f1": 0.91},
        tags={"team": "audio"},
        score=0.5,
        description="# Text\n",
        provenance=model_pb2.Provenance(parent_model_ids=[parent.id], seed=2**53 + 1),
    )
    return [parent, child]


def test_the_json_of_mreg_is_that_of_the_api(
    mreg: Mreg, get: Callable[..., Any], models: list[model_pb2.Model]
) -> None:
    parent, child = models
    group = f"modelGroups/{child.model_group_id}"
    only = f'name = "{child.name}"'
    reference = f"acme/{child.name}"
    for version in (1, 2):
        assert mreg("promote", f"{reference}:{version}", "production", "--reason", "gate").code == 0
    for arguments, expected in [
        (["show", f"{reference}:2"], get(f"models/{child.id}")),
        (["show", parent.id], get(f"models/{parent.id}")),
        (["group", "show", reference], get(group)),
        (["ls", only], get("models", filter=only)),
        (["versions", reference], get("models", filter=only, order_by="version desc")),
        (["alias", "ls", reference], get(f"{group}/aliases")),
        (["alias", "history", f"{reference}@production"], get(f"{group}/aliases/production/history")),
        (["diff", parent.id, child.id], get("models:compare", model_ids=[parent.id, child.id], diff_only=True)),
        (["lineage", child.id], get(f"models/{child.id}/lineage", direction="DIRECTION_ANCESTORS")),
        (["log", only], get("auditEvents", filter=only)),
        (["uploads", "ls"], get("uploads")),
    ]:
        printed = mreg(*arguments, "--format", "json").json
        # As texts, because 5 and 5.0 are equal. Sorted, because the gateway has the entries of maps in any order.
        assert json.dumps(printed, sort_keys=True) == json.dumps(expected, sort_keys=True), arguments
        assert list(printed) == list(expected)


def test_the_json_of_a_promotion_is_that_of_the_api(
    mreg: Mreg, product: Product, models: list[model_pb2.Model]
) -> None:
    parent, child = models
    mreg("promote", parent.id, "production")

    printed = mreg("promote", child.id, "production", "--min-metric", "f1=0.5", "--dry-run", "--format", "json").json
    response = httpx.post(
        f"{product.rest_url}/v1/modelGroups/{child.model_group_id}/aliases/production:set",
        json={
            "model_id": child.id,
            "validate_only": True,
            "requirements": {"metrics": [{"metric": "f1", "min": 0.5}]},
        },
    )

    expected = response.json()
    for promotion in (printed, expected):
        # The time of each call.
        del promotion["alias"]["update_time"]
    assert printed == expected


def test_a_folder_goes_up_and_comes_down(mreg: Mreg, tmp_path: Path) -> None:
    name = f"mreg-{uuid.uuid4()}"
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "model.bin").write_bytes(bytes(3_000_000))
    (source / "labels.txt").write_bytes(b"cat\n")

    assert mreg("push", str(source), f"{name}:1", "--alias", "production").code == 0
    pulled = mreg("pull", f"{name}@production", "--to", str(tmp_path / "target"))

    assert pulled.code == 0, pulled.err
    files = {path.relative_to(tmp_path / "target"): path.read_bytes() for path in (tmp_path / "target").rglob("*.*")}
    assert files == {Path("deep/model.bin"): bytes(3_000_000), Path("labels.txt"): b"cat\n"}
    assert mreg("cat", f"{name}@production", "labels.txt").out == "cat\n"
    assert mreg("verify", f"{name}@production").code == 0
