"""Aliases of the running product over HTTP: /v1, and the conflicts of the Intel-compatible API."""

from collections.abc import Iterator

import httpx
import pytest
from modelregistry.v1 import alias_service_pb2 as pb

from tests.client import sha256
from tests.products import Product

LINEAGE = {"lineage.name": "aliased / über", "lineage.project_name": "a project"}


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


def test_an_alias_lives_its_whole_life_through_http(product: Product, http: httpx.Client) -> None:
    one, two = (
        product.client.register(data, name="aliased / über", version=version, project_name="a project")
        for data, version in ((b"one", "1"), (b"two", "2"))
    )
    set_path, rollback_path = "/v1/aliases/production:set", "/v1/aliases/production:rollback"
    first = http.post(set_path, json={"model_id": one.id, "expected_model_id": "", "reason": "first"}).json()
    assert (first["changed"], first["alias"]["sha256"]) == (True, sha256(b"one"))

    bounds = {"metrics": [{"metric": "top1", "min": 0.7}]}
    unmet = http.post(set_path, json={"model_id": two.id, "requirements": bounds})
    assert unmet.status_code == 400
    [failure] = [d for d in unmet.json()["details"] if d["@type"].endswith("PreconditionFailure")]
    assert [violation["subject"] for violation in failure["violations"]] == ["metrics.top1"]
    told = http.post(set_path, json={"model_id": two.id, "requirements": bounds, "validate_only": True}).json()
    assert (told["changed"], told["checks"][0]["passed"]) == (False, False)

    moved = http.post(set_path, json={"model_id": two.id, "requirements": {"verified": True}}).json()
    assert moved["before"]["model_id"] == one.id
    late = http.post(set_path, json={"model_id": two.id, "expected_model_id": one.id})
    assert (late.status_code, late.json()["details"][0]["reason"]) == (409, "ALIAS_CHANGED")

    alias = http.get("/v1/aliases/production", params=LINEAGE).json()["alias"]
    assert alias == moved["alias"]
    assert http.get(f"/v1/models/{alias['model_id']}/artifact").content == b"two"
    then = http.get("/v1/aliases/production", params=LINEAGE | {"at_time": first["alias"]["update_time"]})
    assert then.json()["alias"] == first["alias"]
    future = http.get("/v1/aliases/production", params=LINEAGE | {"at_time": "9999-01-01T00:00:00Z"})
    assert future.status_code == 400

    lineage = {"name": "aliased / über", "project_name": "a project"}
    back = http.post(rollback_path, json={"lineage": lineage, "reason": "trouble", "etag": alias["etag"]}).json()
    assert (back["alias"]["model_id"], back["alias"]["revision"]) == (one.id, "3")
    assert http.get("/v1/aliases", params=LINEAGE).json()["aliases"] == [back["alias"]]
    page = http.get("/v1/aliases/production/history", params=LINEAGE | {"page_size": 2}).json()
    assert [move["kind"] for move in page["moves"]] == ["KIND_ROLLED_BACK", "KIND_SET"]
    rest = http.get("/v1/aliases/production/history", params=LINEAGE | {"page_token": page["next_page_token"]})
    assert [move["reason"] for move in rest.json()["moves"]] == ["first"]
    request = pb.GetAliasRequest(alias="production", lineage=lineage)
    assert product.client.aliases.GetAlias(request).alias.etag == back["alias"]["etag"]

    for answer in (http.delete(f"/models/{one.id}"), http.put(f"/models/{one.id}", data={"name": "another"})):
        assert (answer.status_code, "production" in answer.text) == (409, True)
        assert answer.headers["content-type"].startswith("text/plain")
    assert http.delete(f"/v1/models/{one.id}").json()["details"][0]["reason"] == "MODEL_IN_USE"
    assert http.delete(f"/v1/models/{one.id}", params={"force": True}).status_code == 200
    assert http.get("/v1/aliases/production", params=LINEAGE).status_code == 404
    assert http.delete("/v1/aliases/production", params=LINEAGE).status_code == 404
    assert http.delete("/v1/aliases/production", params=LINEAGE | {"allow_missing": True}).json() == {}
    assert http.delete(f"/models/{two.id}").status_code == 204


def test_the_query_of_a_delete_names_no_other_alias(http: httpx.Client) -> None:
    answer = http.delete("/v1/aliases/one", params=LINEAGE | {"alias": "two"})
    assert (answer.status_code, answer.json()["message"]) == (
        400,
        "A query parameter must not repeat a variable of the path.",
    )
