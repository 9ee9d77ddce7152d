"""Comparison, lineage and manifests as JSON over HTTP."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from modelregistry.v1 import model_pb2

from tests.products import Product
from tests.stub_client import sha256, zip_of

NAME = "compared/with a slash"
ZIP = {"file_name": "model.zip"}
BEFORE = zip_of({"model.bin": b"before", "same.txt": b"same"})
AFTER = zip_of({"model.bin": b"behind", "same.txt": b"same"})


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    """An HTTP client of the product's REST gateway."""
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def pair(product: Product) -> Iterator[tuple[model_pb2.Model, model_pb2.Model]]:
    """Two versions of a model: the parent of the second is the first, whose parent is not in the registry."""
    old = product.client.register(
        BEFORE,
        id="compared-version-one",
        name=NAME,
        version="1",
        project_name="über",
        metrics={"mAP": 0.5},
        artifact=ZIP,
        provenance=model_pb2.Provenance(parent_model_ids=["compared-not-here"]),
    )
    new = product.client.register(
        AFTER,
        id="compared-version-two",
        name=NAME,
        version="2",
        project_name="über",
        metrics={"mAP": 0.75},
        artifact=ZIP,
        provenance=model_pb2.Provenance(parent_model_ids=[old.id], seed=7),
    )
    yield old, new
    for model in (old, new):
        product.client.delete(model.id)


def got(http: httpx.Client, path: str, **params: Any) -> Any:
    answer = http.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_two_versions_are_compared(http: httpx.Client, pair: tuple[model_pb2.Model, model_pb2.Model]) -> None:
    old, new = pair
    found = got(http, "/v1/models:compare", model_ids=[old.id, new.id], diff_only=True, hash_files=True)
    assert [model["sha256"] for model in found["models"]] == [sha256(BEFORE), sha256(AFTER)]
    assert found["fields"] == [
        {"path": "version", "values": ["1", "2"], "equal": False},
        {
            "path": "provenance.parent_model_ids",
            "values": [["compared-not-here"], [old.id]],
            "equal": False,
        },
        {"path": "provenance.seed", "values": [None, 7], "equal": False},
    ]
    assert found["metrics"] == [
        {"name": "mAP", "values": [{"value": 0.5, "delta": 0}, {"value": 0.75, "delta": 0.25}], "equal": False}
    ]
    assert found.get("labels") is None
    [file] = found["artifacts"]["files"]
    assert file == {
        "path": "model.bin",
        "versions": [
            {"present": True, "size_bytes": "6", "digest": f"sha256:{sha256(b'before')}", "change": "CHANGE_SAME"},
            {"present": True, "size_bytes": "6", "digest": f"sha256:{sha256(b'behind')}", "change": "CHANGE_CHANGED"},
        ],
    }


def test_models_that_cannot_be_compared_are_named(
    http: httpx.Client, pair: tuple[model_pb2.Model, model_pb2.Model]
) -> None:
    few = http.get("/v1/models:compare", params={"model_ids": pair[0].id})
    assert few.status_code == 400
    assert few.json()["details"][0]["metadata"] == {"field": "model_ids"}
    missing = http.get("/v1/models:compare", params={"model_ids": [pair[0].id, "there-is-no-such-model"]})
    assert missing.status_code == 404
    assert missing.json()["details"][0]["metadata"] == {"model_id": "there-is-no-such-model"}


def test_ancestors_and_descendants_are_listed(
    http: httpx.Client, pair: tuple[model_pb2.Model, model_pb2.Model]
) -> None:
    old, new = pair
    up = got(http, f"/v1/models/{new.id}/lineage", direction="DIRECTION_ANCESTORS")
    assert [(found["depth"], found["model_id"], found.get("model") is None) for found in up["nodes"]] == [
        (1, old.id, False),
        (2, "compared-not-here", True),
    ]
    assert up["edges"] == [
        {"child_model_id": old.id, "parent_model_id": "compared-not-here"},
        {"child_model_id": new.id, "parent_model_id": old.id},
    ]
    first = got(http, f"/v1/models/{new.id}/lineage", direction="direction_ancestors", page_size=1)
    assert first["nodes"] == up["nodes"][:1]
    token = first["next_page_token"]
    rest = got(http, f"/v1/models/{new.id}/lineage", direction="DIRECTION_ANCESTORS", page_size=1, page_token=token)
    assert (rest["nodes"], rest["next_page_token"]) == (up["nodes"][1:], "")
    down = got(http, f"/v1/models/{old.id}/lineage", direction="DIRECTION_DESCENDANTS", max_depth=1)
    assert [found["model_id"] for found in down["nodes"]] == [new.id]
    assert down["truncated"] is False


def test_a_cycle_in_a_lineage_is_refused(http: httpx.Client, pair: tuple[model_pb2.Model, model_pb2.Model]) -> None:
    old, new = pair
    answer = http.patch(
        f"/v1/models/{old.id}?update_mask=provenance", json={"provenance": {"parent_model_ids": [new.id]}}
    )
    assert answer.status_code == 400
    assert answer.json()["details"][0]["reason"] == "PROVENANCE_CYCLE"
    assert answer.json()["details"][0]["metadata"]["model_ids"] == f"{old.id},{new.id},{old.id}"


def test_a_manifest_has_the_model_its_files_and_its_ancestors(
    http: httpx.Client, pair: tuple[model_pb2.Model, model_pb2.Model]
) -> None:
    old, new = pair
    manifest = got(http, f"/v1/models/{new.id}/manifest")
    assert manifest["api_version"] == "modelregistry.v1"
    assert manifest["model"] == got(http, f"/v1/models/{new.id}")
    assert [file["path"] for file in manifest["files"]] == ["model.bin", "same.txt"]
    assert [found["model_id"] for found in manifest["ancestors"]] == [old.id, "compared-not-here"]
    assert manifest["ancestors"][0]["model"]["artifact"]["sha256"] == sha256(BEFORE)
    assert manifest["unknown_model_ids"] == ["compared-not-here"]
