"""Invalid JSON is refused with its position by every route of /v1 with a body, and changes nothing."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from modelregistry.v1 import model_pb2

from registry_service.transport.http_routes import http_routes
from tests.products import Product

BODIES = http_routes().bodies


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def model(product: Product) -> model_pb2.Model:
    return product.client.register(
        name="judged", version="1", project_name="json bodies", metrics={"loss": 0.5}, tags={"team": "audio"}
    )


def refusal(answer: httpx.Response, reason: str = "GATEWAY_INVALID_REQUEST") -> dict[str, str]:
    """Return the only field violation of an answer."""
    status = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json"), status
    details = {detail["@type"].rpartition(".")[2]: detail for detail in status["details"]}
    assert status["code"] == 3
    assert details["RequestInfo"]["request_id"] == answer.headers["x-request-id"]
    assert (details["ErrorInfo"]["reason"], details["ErrorInfo"]["domain"]) == (reason, "modelregistry")
    [violation] = details["BadRequest"]["field_violations"]
    assert details["ErrorInfo"]["metadata"] == {"field": violation["field"]}
    assert status["message"] == f"{violation['field']}: {violation['description']}"
    found: dict[str, str] = violation
    return found


WRONG = {
    "an unknown field": ('{"score": 1, "vresion": "2"}', "vresion", "unknown field. Did you mean version?"),
    "an unknown field inside": ('{"provenance": {"sead": 1}}', "provenance.sead", "unknown field. Did you mean seed?"),
    "an unknown field in a list": (
        '{"provenance": {"datasets": [{"name": "a"}, {"url": "b"}]}}',
        "provenance.datasets[1].url",
        "unknown field. Did you mean uri?",
    ),
    "a name almost right": (
        '{"provenance": {"hyper_params": {}}}',
        "provenance.hyper_params",
        "unknown field.",
    ),
    "a name written otherwise": ('{"projectID": "x"}', "projectID", "unknown field. Did you mean project_id?"),
    "a type of Any": ('{"@type": "x"}', "@type", "unknown field."),
    "an escaped name": ('{"sc\\u006fres": 1}', "scores", "unknown field. Did you mean score?"),
    "null as a metric": (
        '{"metrics": {"loss": null}}',
        "metrics.loss",
        "must be a number, not null. Omit it where there is no value.",
    ),
    "null as a tag": (
        '{"tags": {"a b": null}}',
        "tags.a b",
        "must be a string, not null. Omit it where there is no value.",
    ),
    "null in a list": (
        '{"precisions": ["fp16", null]}',
        "precisions[1]",
        "must be a string, not null. Omit it where there is no value.",
    ),
    "null as a text": ('{"name": null}', "name", "must be a string, not null. Omit it where there is no value."),
    "null as a list": ('{"labels": null}', "labels", "must be a list, not null. Omit it where there is no value."),
    "null as a message": (
        '{"provenance": null}',
        "provenance",
        "must be an object, not null. Omit it where there is no value.",
    ),
    "null alone": ("null", "body", "must be an object, not null. Omit it where there is no value."),
    "NaN as Python writes it": (
        '{"metrics": {"loss": NaN}}',
        "metrics.loss",
        "must be a finite number, not NaN. Omit it where there is no value.",
    ),
    "Infinity": (
        '{"overview": {"a": [1, -Infinity]}}',
        "overview.a[1]",
        "must be a finite number, not -Infinity. Omit it where there is no value.",
    ),
    "a whole number that a double rounds": (
        '{"overview": {"a": 9007199254740993}}',
        "overview.a",
        "9007199254740993 cannot be stored exactly as a double. Write it as a string.",
    ),
    "a negative one": (
        '{"provenance": {"hyperparameters": {"a": {"b": [-9007199254740993]}}}}',
        "provenance.hyperparameters.a.b[0]",
        "-9007199254740993 cannot be stored exactly as a double. Write it as a string.",
    ),
    "one of a metric": (
        '{"metrics": {"tokens": 123456789012345678901}}',
        "metrics.tokens",
        "123456789012345678901 cannot be stored exactly as a double.",
    ),
    "one in quotes": (
        '{"score": "9007199254740993"}',
        "score",
        "9007199254740993 cannot be stored exactly as a double.",
    ),
    "a number too large": ('{"score": 1e400}', "score", "1e400 is beyond the range of a double."),
    "a number too small": ('{"overview": [0.1e-400]}', "overview[0]", "0.1e-400 is beyond the range of a double."),
    "a number for a text": ('{"version": 1.0}', "version", "must be a string, not a number."),
    "a text for a list": ('{"precisions": "fp16"}', "precisions", "must be a list, not a string."),
    "a text for a boolean": ('{"score": true}', "score", "must be a number, not true."),
    "a list for a map": ('{"metrics": []}', "metrics", "must be an object, not a list."),
    "an object for a list": ('{"labels": {}}', "labels", "must be a list, not an object."),
    "an object for a text": ('{"name": {"a": 1}}', "name", "must be a string, not an object."),
    "a list alone": ("[]", "body", "must be an object, not a list."),
    "the same field twice": ('{"score": 1, "score": 2}', "score", "is set twice."),
    "both spellings of a field": (
        '{"target_device": "CPU", "targetDevice": "GPU"}',
        "targetDevice",
        "is set twice, also as target_device.",
    ),
    "the same metric twice": ('{"metrics": {"a": 1, "\\u0061": 2}}', "metrics.a", "is set twice."),
    "the same key of JSON twice": ('{"overview": {"a": {"b": 1, "b": 2}}}', "overview.a.b", "is set twice."),
    "the same key in other escapes": (
        '{"tags": {"😀\\n\\/": "1", "\\uD83D\\ude00\\u000a/": "2"}}',
        "tags.😀\n/",
        "is set twice.",
    ),
    "single quotes": ("{'score': 1}", "body", "is not valid JSON (RFC 8259, byte 2)."),
    "a name without quotes": ("{score: 1}", "body", "is not valid JSON (RFC 8259, byte 2)."),
    "a trailing comma": ('{"score": 1,}', "body", "is not valid JSON (RFC 8259, byte 13)."),
    "a leading zero": ('{"score": 01}', "score", "is not valid JSON (RFC 8259, byte 11)."),
    "a plus": ('{"score": +1}', "score", "is not valid JSON (RFC 8259, byte 11)."),
    "an escape that is none": ('{"name": "\\x41"}', "name", "is not valid JSON (RFC 8259, byte 11)."),
    "a raw line feed": ('{"name": "a\nb"}', "name", "is not valid JSON (RFC 8259, byte 12)."),
    "a comment": ('{"score": 1} // x', "body", "is not valid JSON (RFC 8259, byte 14)."),
    "two documents": ('{"score": 1} {"score": 2}', "body", "is not valid JSON (RFC 8259, byte 14)."),
    "a byte order mark": ('\ufeff{"score": 1}', "body", "is not valid JSON (RFC 8259, byte 1)."),
    "half a document": ('{"name": "a', "name", "the JSON is incomplete."),
    "blanks": ("  ", "body", "the JSON is incomplete."),
    "a form": ("score=1", "body", "is not valid JSON (RFC 8259, byte 1)."),
    "too deep": ('{"overview": ' + "[" * 100 + "]" * 100 + "}", "overview" + "[0]" * 63, "is nested deeper than 64."),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_json_is_refused_with_its_position_and_changes_nothing(
    product: Product, http: httpx.Client, model: model_pb2.Model, name: str
) -> None:
    body, field, description = WRONG[name]
    answer = http.patch(f"/v1/models/{model.id}", content=body, headers={"content-type": "application/json"})
    # A field path is cut after 120 bytes.
    path = field if field == "body" else f"model.{field}"
    shown = path if len(path) <= 120 else path[:120] + "…"
    assert refusal(answer) == {"field": shown, "description": description}
    assert product.client.get(model.id) == model


@pytest.mark.parametrize(
    ("body", "field", "description"),
    [
        (b'{"qu\xffux": 1}', "body", "must be UTF-8."),
        (b'{"\xed\xa0\x80": 1}', "body", "must be UTF-8."),
        (b'{"name": "\xff"}', "model.name", "must be UTF-8."),
        (b'{"name": "\\ud800"}', "model.name", "has half of a surrogate pair (byte 11)."),
        (b'{"tags": {"a": "\\udfff"}}', "model.tags.a", "has half of a surrogate pair (byte 17)."),
        (b'{"tags": {"a": "\\uDbff\\u0041"}}', "model.tags.a", "has half of a surrogate pair (byte 17)."),
        (b'{"\xc3\xa9\xc3\xa9": 1}', "model.éé", "unknown field."),
    ],
)
def test_invalid_utf_8_is_refused_in_a_valid_answer(
    http: httpx.Client, model: model_pb2.Model, body: bytes, field: str, description: str
) -> None:
    answer = http.patch(f"/v1/models/{model.id}", content=body)
    assert refusal(answer) == {"field": field, "description": description}


def test_every_json_value_passes_unchanged(product: Product, http: httpx.Client) -> None:
    fields: dict[str, Any] = {
        "name": 'é€😀 "quoted" \\ / \t',
        "version": "1",
        "projectName": "json bodies",
        "score": -1.5e-3,
        "overview": {"": None, "a": [None, True, False, [], {}, {"fields": {"b": 9007199254740991}}], "é": 1e300},
        "optimizationCapabilities": {"\\u0061": 1, "a": 2, "\\\\ud83d\\ude00": 3, "\\😀": 4, "\\\\": 5, "\\": 6},
        "labels": ["a", {"name": "b", "deep": {"null": None}}],
        "metrics": {"a.b": 1, "c d": 0.1, "e": -0.0},
        "tags": {"ownerTeam": "", "owner_team": "x"},
        "provenance": {"seed": 9223372036854775807, "datasets": [], "hyperparameters": {"lr": 1e-300}},
    }
    # With Python's escapes, and with every kind of white space.
    body = json.dumps({"spec": {"model": fields}}, indent="\t").replace("\n", " \r\n")
    created = http.post("/v1/uploads", content=body)
    assert created.status_code == 200, created.text
    model = created.json()["spec"]["model"]
    assert model["provenance"].pop("seed") == str(fields["provenance"].pop("seed"))
    assert (model.pop("project_name"), model["name"]) == (fields.pop("projectName"), fields["name"])
    assert model.pop("optimization_capabilities") == fields.pop("optimizationCapabilities")
    for name in set(fields) - {"provenance"}:
        assert model[name] == fields[name]
    assert model["provenance"]["hyperparameters"] == {"lr": 1e-300}
    assert http.delete(f"/v1/uploads/{created.json()['id']}").status_code == 200


def test_a_model_can_be_sent_back_as_read(http: httpx.Client, model: model_pb2.Model) -> None:
    read = http.get(f"/v1/models/{model.id}").json()
    assert http.patch(f"/v1/models/{model.id}", json=read).json() == read


@pytest.mark.parametrize(
    "path", [path for path, methods in BODIES.methods.items() if any("message" in body for body in methods.values())]
)
def test_every_body_accepts_only_its_own_fields(http: httpx.Client, path: str) -> None:
    [(verb, body)] = [(verb, body) for verb, body in BODIES.methods[path].items() if "message" in body]
    answer = http.request(verb, path.replace("[^/]+", "anything").replace("\\", ""), json={"unheard_of": 1})
    field = "unheard_of" if body["field"] == "*" else f"{body['field']}.unheard_of"
    assert refusal(answer) == {"field": field, "description": "unknown field."}


def test_a_misspelled_precondition_is_refused_and_the_alias_stays(product: Product, http: httpx.Client) -> None:
    first = product.client.register(name="judged", version="3", project_name="json bodies")
    other = product.client.register(name="judged", version="2", project_name="json bodies")
    path = f"/v1/modelGroups/{first.model_group_id}/aliases/guarded"
    assert http.post(f"{path}:set", json={"model_id": first.id}).status_code == 200
    for guard in ({"expected_model": other.id}, {"expected_model_id": None}, {"eTag": "x"}):
        [field] = guard
        answer = http.post(f"{path}:set", json={"model_id": other.id} | guard)
        assert refusal(answer)["field"] == field
        in_query = http.post(f"{path}:set", params={"expected_model_id": other.id}, json={"model_id": other.id})
        assert refusal(in_query) == {
            "field": "expected_model_id",
            "description": "must be in the body, not in the query.",
        }
    assert http.get(path).json()["model_id"] == first.id


def test_the_most_similar_field_name_is_suggested(http: httpx.Client, model: model_pb2.Model) -> None:
    # Other names share the prefix: model_group_id.
    path = f"/v1/modelGroups/{model.model_group_id}/aliases/similar:set"
    answer = http.post(path, json={"model": model.id})
    assert refusal(answer) == {"field": "model", "description": "unknown field. Did you mean model_id?"}


def test_a_misspelled_checksum_completes_no_upload(http: httpx.Client) -> None:
    spec = {"model": {"name": "checksummed", "version": "1", "project_name": "json bodies"}}
    upload = http.post("/v1/uploads", json={"spec": spec}).json()["id"]
    assert http.put(f"/v1/uploads/{upload}/content", params={"write_offset": 0}, content=b"data").status_code == 200
    answer = http.post(f"/v1/uploads/{upload}:complete", json={"sha_256": "0" * 64})
    assert refusal(answer) == {"field": "sha_256", "description": "unknown field. Did you mean sha256?"}
    assert http.get(f"/v1/uploads/{upload}").json()["state"] == "STATE_ACTIVE"
    assert http.post(f"/v1/uploads/{upload}:complete").status_code == 200


def test_a_method_without_a_body_refuses_one(product: Product, http: httpx.Client, model: model_pb2.Model) -> None:
    for verb, path in (("DELETE", f"/v1/models/{model.id}"), ("GET", "/v1/models"), ("GET", f"/v1/models/{model.id}")):
        answer = http.request(verb, path, json={"filter": "x"})
        assert refusal(answer) == {
            "field": "body",
            "description": "must be empty. Use query parameters instead.",
        }
    assert product.client.get(model.id) == model


def test_a_field_of_the_body_cannot_be_in_the_query(
    product: Product, http: httpx.Client, model: model_pb2.Model
) -> None:
    answer = http.patch(f"/v1/models/{model.id}?%6dodel.version=7", json={"score": 1})
    assert refusal(answer)["field"] == "model.version"
    assert product.client.get(model.id) == model


@pytest.mark.parametrize("header", ["If-None-Match", "If-Unmodified-Since"])
def test_an_unsupported_condition_is_refused(
    product: Product, http: httpx.Client, model: model_pb2.Model, header: str
) -> None:
    path, condition = f"/v1/models/{model.id}", {header: '"stale"'}
    for answer in (http.patch(path, json={"score": 1}, headers=condition), http.delete(path, headers=condition)):
        assert refusal(answer)["field"] == header.lower()
    assert product.client.get(model.id) == model
    assert http.get(path, headers=condition).status_code == 200


def test_if_match_is_the_etag(product: Product, http: httpx.Client) -> None:
    model = product.client.register(name="matched", project_name="json bodies")
    path, stale = f"/v1/models/{model.id}", {"If-Match": '"stale"'}
    for answer in (http.patch(path, json={"score": 1}, headers=stale), http.delete(path, headers=stale)):
        assert (answer.status_code, answer.json()["details"][0]["reason"]) == (412, "ETAG_MISMATCH")
    assert http.delete(f"{path}?etag=stale").status_code == 409
    both = http.patch(path, json={"score": 1, "etag": "another"}, headers={"If-Match": f'"{model.etag}"'})
    assert refusal(both, "INVALID_ARGUMENT")["field"] == "if-match"
    for wrong in (model.etag, f'W/"{model.etag}"', f'"{model.etag}", "other"', '""'):
        answer = http.patch(path, json={"score": 1}, headers={"If-Match": wrong})
        assert refusal(answer, "INVALID_ARGUMENT")["field"] == "if-match"
    changed = http.patch(path, json={"score": 1}, headers={"If-Match": f'"{model.etag}"'})
    assert changed.json()["score"] == 1
    alias = f"/v1/modelGroups/{model.model_group_id}/aliases/matched"
    moved = http.post(f"{alias}:set", json={"model_id": model.id}, headers={"If-Match": "*"})
    assert (moved.status_code, moved.json()["details"][0]["reason"]) == (412, "ALIAS_CHANGED")
    assert http.get(alias).status_code == 404
    assert http.post(f"{alias}:set", json={"model_id": model.id}).status_code == 200
    moved = http.post(f"{alias}:set", json={"model_id": model.id}, headers={"If-Match": "*"})
    assert moved.status_code == 200
    assert http.delete(alias, headers=stale).status_code == 412
    group = f"/v1/modelGroups/{model.model_group_id}"
    assert http.patch(group, json={"owner": "me"}, headers=stale).status_code == 412
    assert http.delete(alias, headers={"If-Match": f'"{moved.json()["alias"]["etag"]}"'}).status_code == 200
    assert http.delete(path, headers={"If-Match": f'"{changed.json()["etag"]}"'}).status_code == 200


def test_if_match_with_a_star_creates_nothing(product: Product, http: httpx.Client) -> None:
    model = product.client.register(name="existing", project_name="json bodies")
    group, any_etag = f"/v1/modelGroups/{model.model_group_id}", {"If-Match": "*"}
    set_body: dict[str, Any] = {"model_id": model.id}
    for body in (set_body, set_body | {"validate_only": True}, set_body | {"expected_model_id": ""}):
        answer = http.post(f"{group}/aliases/none:set", json=body, headers=any_etag)
        assert (answer.status_code, answer.json()["code"]) == (412, 10)
    # Without the condition they would also fail, so it is not evaluated (RFC 9110, section 13.2.1).
    missing = "/v1/models/no-such-model-0000"
    for path in (missing, "/v1/modelGroups/none"):
        assert http.patch(path, json={}, headers=any_etag).status_code == 404
    for path in (missing, "/v1/modelGroups/none", f"{group}/aliases/none"):
        assert http.delete(path, headers=any_etag).status_code == 404
    rollback = http.post(f"{group}/aliases/none:rollback", json={"to_model_id": model.id}, headers=any_etag)
    assert rollback.status_code == 404
    # Deleting again what is already deleted succeeds (section 13.1.1).
    for path in (missing, "/v1/modelGroups/none", f"{group}/aliases/none"):
        assert http.delete(f"{path}?allow_missing=true", headers=any_etag).status_code == 200
    assert http.patch(group, json={"owner": "me"}, headers=any_etag).status_code == 200
    assert http.delete(f"/v1/models/{model.id}", headers=any_etag).status_code == 200


def test_server_and_gateway_name_fields_alike(http: httpx.Client, model: model_pb2.Model) -> None:
    def wrong(version: object) -> dict[str, object]:
        return {"name": "x", "version": version, "project_name": "json bodies"}

    for version, reason in ((7, "GATEWAY_INVALID_REQUEST"), ("\0", "INVALID_ARGUMENT")):
        created = http.post("/v1/uploads", json={"spec": {"model": wrong(version)}})
        assert refusal(created, reason)["field"] == "upload.spec.model.version"
        changed = http.patch(f"/v1/models/{model.id}", json={"version": version})
        assert refusal(changed, reason)["field"] == "model.version"
    for owner, reason in ((7, "GATEWAY_INVALID_REQUEST"), ("\0", "INVALID_ARGUMENT")):
        changed = http.patch(f"/v1/modelGroups/{model.model_group_id}", json={"owner": owner})
        assert refusal(changed, reason)["field"] == "model_group.owner"


@pytest.mark.parametrize("value", ["KIND_UNHEARD_OF", "", "FILE ", "KIND_FÍLE", "kindFile", "3", "-1"])
def test_an_unknown_value_of_an_enum_is_named(http: httpx.Client, model: model_pb2.Model, value: str) -> None:
    spec = {"model": {"name": "enums", "version": "1"}, "artifact": {"kind": value}}
    assert refusal(http.post("/v1/uploads", json={"spec": spec})) == {
        "field": "upload.spec.artifact.kind",
        "description": f'must be one of KIND_FILE, KIND_FOLDER, not "{value}".',
    }
    goals = {"metric_goals": {"mAP50": value}}
    assert refusal(http.patch(f"/v1/modelGroups/{model.model_group_id}", json=goals)) == {
        "field": "model_group.metric_goals.mAP50",
        "description": f'must be one of METRIC_GOAL_MAXIMIZE, METRIC_GOAL_MINIMIZE, not "{value}".',
    }


def test_a_value_of_an_enum_may_be_written_in_any_case(http: httpx.Client) -> None:
    spec = json.dumps({"spec": {"model": {"name": "enums", "version": "1"}, "artifact": {"kind": "KIND"}}})
    for kind in ("KIND_FILE", "kind_file", "Kind-File", "1", "0", r"KIND_\u0046ILE", "KIND_UNSPECIFIED"):
        body = spec.replace('"KIND"', f'"{kind}"')
        created = http.post("/v1/uploads", content=body)
        assert created.json()["spec"]["artifact"]["kind"] == "KIND_FILE", created.text
        assert http.delete(f"/v1/uploads/{created.json()['id']}").status_code == 200


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('"99999999999999999999"', " of 64 bits"),
        ('"9223372036854775808"', " of 64 bits"),
        ('"-9223372036854775809"', " of 64 bits"),
        ("9223372036854775808", " of 64 bits"),
        ("1e19", " of 64 bits"),
        ("1.5", ""),
        ('"1e2"', ""),
        ('"1.0"', ""),
    ],
)
def test_a_number_that_is_no_64_bit_integer_is_named(http: httpx.Client, value: str, shown: str) -> None:
    text = '{"spec": {"model": {"name": "integers", "version": "1"}, "artifact": {"size_bytes": SIZE}}}'
    wanted = f"must be an integer{shown}, not {value}."
    assert refusal(http.post("/v1/uploads", content=text.replace("SIZE", value))) == {
        "field": "upload.spec.artifact.size_bytes",
        "description": wanted,
    }


@pytest.mark.parametrize("value", ["soon", "1", "1.5 s", "s", "315576000001s", "1m", ""])
def test_an_invalid_duration_is_named(http: httpx.Client, model: model_pb2.Model, value: str) -> None:
    requirements = {"verified": True, "max_verification_age": value}
    path = f"/v1/modelGroups/{model.model_group_id}/aliases/durations:set"
    assert refusal(http.post(path, json={"model_id": model.id, "requirements": requirements})) == {
        "field": "requirements.max_verification_age",
        "description": f'must be a duration such as 86400s, not "{value}".',
    }


@pytest.mark.parametrize(
    "value",
    [
        "yesterday",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-31t00:00:00z",
        "0000-01-01T00:00:00Z",
        "2026-01-31T24:00:00Z",
    ],
)
def test_an_invalid_time_is_named(http: httpx.Client, model: model_pb2.Model, value: str) -> None:
    description = f'must be a time such as 2026-01-31T23:59:59Z (RFC 3339), not "{value}".'
    changed = http.patch(f"/v1/models/{model.id}", json={"create_time": value})
    assert refusal(changed) == {"field": "model.create_time", "description": description}
    path = f"/v1/modelGroups/{model.model_group_id}/aliases/timed"
    assert refusal(http.get(path, params={"at_time": value})) == {"field": "at_time", "description": description}


@pytest.mark.parametrize(
    "value", ["2024-02-29T00:00:00Z", "2024-02-29T23:59:59.123456789-23:59", "0001-01-01T00:00:00Z"]
)
def test_a_time_may_be_written_with_a_fraction_and_a_zone(
    http: httpx.Client, model: model_pb2.Model, value: str
) -> None:
    answer = http.get(f"/v1/modelGroups/{model.model_group_id}/aliases/timed", params={"at_time": value})
    assert (answer.status_code, answer.json()["details"][0]["reason"]) == (404, "ALIAS_NOT_FOUND")


def test_the_body_must_name_the_resource_of_the_path(
    product: Product, http: httpx.Client, model: model_pb2.Model
) -> None:
    other = product.client.register(name="other", project_name="json bodies")
    alias = f"/v1/modelGroups/{model.model_group_id}/aliases/named"
    for verb, path, field, body in (
        ("PATCH", f"/v1/models/{model.id}", "model.id", {"id": other.id}),
        ("PATCH", f"/v1/modelGroups/{model.model_group_id}", "model_group.id", {"id": other.model_group_id}),
        ("POST", f"{alias}:set", "alias", {"alias": "else", "model_id": model.id}),
        ("POST", f"{alias}:set", "modelGroupId", {"modelGroupId": other.model_group_id, "model_id": model.id}),
        ("POST", f"{alias}:rollback", "alias", {"alias": "named%", "to_model_id": model.id}),
        ("POST", f"/v1/models/{model.id}/artifact:verify", "model_id", {"model_id": other.id}),
    ):
        answer = http.request(verb, path, json=body)
        assert refusal(answer) == {"field": field, "description": "must be the same as in the path."}
    assert http.get(alias).status_code == 404
    assert http.patch(f"/v1/models/{model.id}", json={"id": model.id, "score": model.score}).status_code == 200
    same = {"modelGroupId": model.model_group_id, "alias": "named", "model_id": model.id}
    assert http.post(f"{alias.replace('named', '%6Eamed')}:set", json=same).status_code == 200
    assert http.delete(alias).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 4-7/8"},
        {"Content-Range": "bytes 0-3/8"},
        {"Upload-Offset": "4"},
        {"Content-Encoding": "gzip"},
        {"Content-Md5": "jXd/OF09/siBXSD3SWAmMg=="},
        {"Digest": "sha-256=AAAA"},
        {"Content-Digest": "sha-256=:AAAA:"},
        {"Repr-Digest": "sha-256=:AAAA:"},
        {"If-Match": '"x"'},
    ],
    ids=str,
)
def test_an_unsupported_header_of_an_upload_stores_nothing(http: httpx.Client, headers: dict[str, str]) -> None:
    spec = {"model": {"name": "headers", "version": "1", "project_name": "json bodies"}}
    upload = http.post("/v1/uploads", json={"spec": spec}).json()["id"]
    path = f"/v1/uploads/{upload}"
    answer = http.put(f"{path}/content", content=b"data", headers=headers)
    reason = "GATEWAY_INVALID_REQUEST" if "If-Match" in headers else "INVALID_ARGUMENT"
    assert refusal(answer, reason)["field"] == next(iter(headers)).lower()
    assert http.get(path).json()["committed_size"] == "0"
    plain = http.put(f"{path}/content", content=b"data", headers={"Content-Encoding": "identity", "Range": "bytes=1-"})
    assert plain.json()["upload"]["committed_size"] == "4"
    assert http.delete(path).status_code == 200


@pytest.mark.parametrize(
    ("verb", "query", "field"),
    [
        ("DELETE", "etag=x&etag=y", "etag"),
        ("DELETE", "etag=%22%22&%65tag=y", "etag"),
        ("DELETE", "allow_missing=true&allowMissing=false", "allowMissing"),
        ("PATCH", "update_mask=score&update_mask=name", "update_mask"),
        ("PATCH", "update_mask=score&updateMask=name", "updateMask"),
    ],
)
def test_a_repeated_query_parameter_is_refused(
    product: Product, http: httpx.Client, model: model_pb2.Model, verb: str, query: str, field: str
) -> None:
    answer = http.request(verb, f"/v1/models/{model.id}?{query}")
    assert refusal(answer) == {"field": field, "description": "is set twice."}
    assert product.client.get(model.id) == model


@pytest.mark.parametrize(
    ("query", "field", "what"),
    [
        ("page_size", "page_size", "value"),
        ("page_size=1&filter", "filter", "value"),
        ("page%5Fsize", "page_size", "value"),
        ("page_size%3D1", "page_size=1", "value"),
        ("bogus", "bogus", "value"),
        ("=1", "=1", "name"),
        ("=", "=", "name"),
        ("page_size=1&=a%20b", "=a b", "name"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/auditEvents"])
def test_a_parameter_without_a_name_or_a_value_is_refused(
    http: httpx.Client, path: str, query: str, field: str, what: str
) -> None:
    answer = http.get(f"{path}?{query}")
    description = f"has no {what}; a query parameter is written as name=value."
    assert refusal(answer) == {"field": field, "description": description}


@pytest.mark.parametrize("query", ["", "&", "page_size=1&", "filter=", "&&page_size=1"])
def test_a_query_and_a_text_in_it_may_be_empty(http: httpx.Client, query: str) -> None:
    assert http.get(f"/v1/models?{query}").status_code == 200


@pytest.mark.parametrize(
    ("query", "field", "description"),
    [
        ("page_sizes=5", "page_sizes", "unknown query parameter. Did you mean page_size?"),
        ("page_sise=5", "page_sise", "unknown query parameter. Did you mean page_size?"),
        ("bogus=1", "bogus", "unknown query parameter."),
        ("page_size=many", "page_size", 'must be an integer, not "many".'),
        ("pageSize=1.5", "pageSize", 'must be an integer, not "1.5".'),
        ("page_size=", "page_size", 'must be an integer, not "".'),
        ("page_size=2147483648", "page_size", 'must be an integer of 32 bits, not "2147483648".'),
        ("view=all", "view", 'must be one of MODEL_VIEW_BASIC, MODEL_VIEW_FULL, not "all".'),
    ],
)
def test_an_unknown_query_parameter_is_named(http: httpx.Client, query: str, field: str, description: str) -> None:
    assert refusal(http.get(f"/v1/models?{query}")) == {"field": field, "description": description}


@pytest.mark.parametrize(
    "query", ["page_size=1", "pageSize=1", "view=model_view_full", "view=MODEL_VIEW_BASIC", "view=1"]
)
def test_a_query_parameter_passes_in_every_spelling(http: httpx.Client, model: model_pb2.Model, query: str) -> None:
    assert model.id
    assert len(http.get(f"/v1/models?{query}").json()["models"]) >= 1


def test_invalid_booleans_and_times_are_named(http: httpx.Client, model: model_pb2.Model) -> None:
    guard = http.delete(f"/v1/models/{model.id}?force=perhaps")
    assert refusal(guard) == {"field": "force", "description": 'must be true or false, not "perhaps".'}
    alias = http.get(f"/v1/modelGroups/{model.model_group_id}/aliases/production?at_time=yesterday")
    wanted = 'must be a time such as 2026-01-31T23:59:59Z (RFC 3339), not "yesterday".'
    assert refusal(alias) == {"field": "at_time", "description": wanted}


@pytest.mark.parametrize(
    ("query", "field", "description"),
    [
        ("content.data=YWJj", "content.data", "must be in the body, not in the query."),
        ("write_offset=5&write_offset=0", "write_offset", "is set twice."),
    ],
)
def test_an_upload_takes_bytes_from_the_body_only_and_one_offset(
    http: httpx.Client, query: str, field: str, description: str
) -> None:
    spec = {"model": {"name": "offsets", "version": "1", "project_name": "json bodies"}}
    path = f"/v1/uploads/{http.post('/v1/uploads', json={'spec': spec}).json()['id']}"
    answer = http.put(f"{path}/content?{query}", content=b"data")
    assert refusal(answer) == {"field": field, "description": description}
    assert http.get(path).json()["committed_size"] == "0"
    assert http.delete(path).status_code == 200


def test_a_repeated_field_may_be_repeated_in_a_query(http: httpx.Client, model: model_pb2.Model) -> None:
    answer = http.get("/v1/models:compare", params={"model_ids": [model.id, model.id]})
    assert answer.json()["details"][0]["metadata"]["field"].startswith("model_ids")
    paths = {"update_mask.paths": ["score", "category"]}
    assert http.patch(f"/v1/models/{model.id}", params=paths, json={}).status_code == 200
