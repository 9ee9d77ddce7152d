"""Aliases of the running product over HTTP: /v1, and the conflicts of the Intel-compatible API."""

from collections.abc import Iterator

import httpx
import pytest
from modelregistry.v1 import alias_service_pb2 as pb

from tests.products import Product
from tests.stub_client import sha256


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


def test_an_alias_is_set_read_rolled_back_and_deleted_over_http(product: Product, http: httpx.Client) -> None:
    one, two = (
        product.client.register(data, name="aliased / über", version=version, project_name="a project")
        for data, version in ((b"one", "1"), (b"two", "2"))
    )
    aliases_path = f"/v1/modelGroups/{one.model_group_id}/aliases"
    path = f"{aliases_path}/production"
    set_path, rollback_path = f"{path}:set", f"{path}:rollback"
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

    alias = http.get(path).json()
    assert alias == moved["alias"]
    assert http.get(f"/v1/models/{alias['model_id']}/artifact").content == b"two"
    then = http.get(path, params={"at_time": first["alias"]["update_time"]})
    assert then.json() == first["alias"]
    future = http.get(path, params={"at_time": "9999-01-01T00:00:00Z"})
    assert future.status_code == 400
    assert http.get(f"/v1/models/{two.id}").json()["aliases"] == ["production"]
    wanted = f'aliases : production AND model_group_id = "{one.model_group_id}"'
    found = http.get("/v1/models", params={"filter": wanted})
    assert [model["id"] for model in found.json()["models"]] == [two.id]

    back = http.post(rollback_path, json={"reason": "trouble", "etag": alias["etag"]}).json()
    assert (back["alias"]["model_id"], back["alias"]["revision"]) == (one.id, "3")
    assert http.get(aliases_path).json()["aliases"] == [back["alias"]]
    assert back["alias"] in http.get("/v1/modelGroups/-/aliases").json()["aliases"]
    page = http.get(f"{path}/history", params={"page_size": 2}).json()
    assert [move["kind"] for move in page["alias_moves"]] == ["KIND_ROLLED_BACK", "KIND_SET"]
    rest = http.get(f"{path}/history", params={"page_token": page["next_page_token"]})
    assert [move["reason"] for move in rest.json()["alias_moves"]] == ["first"]
    everything = http.get(f"{aliases_path}/-/history").json()["alias_moves"]
    assert everything == page["alias_moves"] + rest.json()["alias_moves"]
    assert http.get("/v1/modelGroups/-/aliases/-/history").json()["alias_moves"][:3] == everything
    request = pb.GetAliasRequest(alias="production", model_group_id=one.model_group_id)
    assert product.client.aliases.GetAlias(request).etag == back["alias"]["etag"]

    for answer in (http.delete(f"/models/{one.id}"), http.put(f"/models/{one.id}", data={"name": "another"})):
        assert (answer.status_code, "production" in answer.text) == (409, True)
        assert answer.headers["content-type"].startswith("text/plain")
    assert http.delete(f"/v1/models/{one.id}").json()["details"][0]["reason"] == "MODEL_IN_USE"
    assert http.delete(f"/v1/models/{one.id}", params={"force": True}).status_code == 200
    assert http.get(path).status_code == 404
    assert http.delete(path).status_code == 404
    assert http.delete(path, params={"allow_missing": True}).json() == {}
    assert http.delete(f"/models/{two.id}").status_code == 204


def test_a_group_is_read_updated_and_deleted_over_http(product: Product, http: httpx.Client) -> None:
    model = product.client.register(name="grouped / über", project_name="a project")
    path = f"/v1/modelGroups/{model.model_group_id}"
    group = http.get(path).json()
    assert (group["name"], group["project_name"], group["version_count"]) == ("grouped / über", "a project", "1")
    assert (group["latest_version"], group["latest_model_id"]) == (model.version, model.id)

    said = {"description": "# Title", "owner": "ada", "metric_goals": {"mAP50": "METRIC_GOAL_MAXIMIZE"}}
    changed = http.patch(path, json=said | {"etag": group["etag"]}).json()
    assert {name: changed[name] for name in said} == said
    late = http.patch(path, json={"owner": "bob", "etag": group["etag"]})
    assert (late.status_code, late.json()["details"][0]["reason"]) == (409, "ETAG_MISMATCH")
    masked = http.patch(path, params={"update_mask": "tags.ownerTeam,owner"}, json={"tags": {"ownerTeam": "v"}}).json()
    assert (masked["tags"], masked["owner"], masked["description"]) == ({"ownerTeam": "v"}, "", "# Title")
    assert http.patch(path, json={"version_count": "7"}).json()["version_count"] == "1"

    wanted = {"filter": 'name = "grouped / über"', "order_by": "version_count desc"}
    listed = http.get("/v1/modelGroups", params=wanted).json()
    assert listed == {"model_groups": [masked], "next_page_token": "", "total_size": "1"}
    refused = http.delete(path)
    assert (refused.status_code, refused.json()["details"][0]["reason"]) == (400, "MODEL_GROUP_NOT_EMPTY")
    assert http.delete(f"/v1/models/{model.id}").status_code == 200
    assert http.get("/v1/modelGroups", params=wanted).json()["model_groups"] == []
    refused = http.get("/v1/modelGroups", params=wanted | {"show_empty": True})
    assert (refused.status_code, refused.json()["details"][-1]["field_violations"][0]["field"]) == (400, "order_by")
    wanted = {"filter": wanted["filter"], "show_empty": "true"}
    empty = http.get("/v1/modelGroups", params=wanted).json()["model_groups"]
    assert [(found["id"], found["version_count"]) for found in empty] == [(model.model_group_id, "0")]
    assert http.delete(path, params={"validate_only": True}).json() == {}
    assert http.delete(path, params={"etag": masked["etag"]}).json() == {}
    assert http.get(path).status_code == 404
    assert http.delete(path, params={"allow_missing": True}).status_code == 200


def test_the_query_of_a_delete_cannot_name_another_alias(http: httpx.Client) -> None:
    answer = http.delete("/v1/modelGroups/any/aliases/one", params={"alias": "two"})
    assert (answer.status_code, answer.json()["message"]) == (400, "alias: unknown query parameter.")
