"""An update over HTTP changes exactly the fields of its mask, as over gRPC."""

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from modelregistry.v1 import model_pb2

from tests.products import Product

KEYS = [
    "ownerTeam",
    "OwnerTeam",
    "owner_team",
    "a.b",
    "a b",
    "a+b",
    "a%b",
    "é€😀",
    "x-y",
    "A",
    "1",
    "a(b)",
    "it`s",
    "*",
]


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def model(product: Product) -> model_pb2.Model:
    return product.client.register(
        name="masked", version="1", project_name="update masks", tags=dict.fromkeys(KEYS, "0")
    )


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_map_is_matched_literally(
    product: Product, http: httpx.Client, model: model_pb2.Model, key: str
) -> None:
    others = {name: value for name, value in product.client.get(model.id).tags.items() if name != key}
    for mask in (f"update_mask=tags.{quote(key)}", f"updateMask=tags.{quote(key)}"):
        value = mask[:11]
        answer = http.patch(f"/v1/models/{model.id}?{mask}", json={"tags": {key: value, "unnamed": "x"}})
        assert answer.status_code == 200, answer.text
        assert product.client.get(model.id).tags == others | {key: value}
    assert http.patch(f"/v1/models/{model.id}?update_mask=tags.{quote(key)}", json={}).status_code == 200
    assert product.client.get(model.id).tags == others
    product.client.update(model.id, [f"tags.{key}"], tags={key: "0"})


def test_a_key_with_a_comma_is_quoted_by_backticks(product: Product) -> None:
    old = product.client.register(name="masked", version="2", project_name="update masks", tags={"a,b": "1", "a": "2"})
    mask = quote("tags.`a,b`,tags.```,```,metrics.mAP50,score")
    body = {"tags": {"a,b": "one", "`,`": "two", "a": "ignored"}, "metrics": {"mAP50": 0.5}, "score": 1}
    answer = httpx.patch(f"{product.rest_url}/v1/models/{old.id}?update_mask={mask}", json=body)
    assert answer.status_code == 200, answer.text
    new = product.client.get(old.id)
    assert new.tags == {"a,b": "one", "`,`": "two", "a": "2"}
    assert new.metrics == {"mAP50": 0.5}
    assert new.score == 1
    assert product.client.update(old.id, ["tags.`a,b`"]).tags == {"`,`": "two", "a": "2"}


def test_a_key_may_be_in_double_quotes(product: Product) -> None:
    old = product.client.register(name="masked", version="3", project_name="update masks", tags={"a,b": "1", "a": "2"})
    mask = quote('metrics."mAP50",tags."a,b",tags."say \\"hi\\"",score')
    body = {"tags": {"a,b": "one", 'say "hi"': "two", "a": "ignored"}, "metrics": {"mAP50": 0.5}, "score": 1}
    answer = httpx.patch(f"{product.rest_url}/v1/models/{old.id}?update_mask={mask}", json=body)
    assert answer.status_code == 200, answer.text
    new = product.client.get(old.id)
    assert new.tags == {"a,b": "one", 'say "hi"': "two", "a": "2"}
    assert new.metrics == {"mAP50": 0.5}
    assert new.score == 1
    assert product.client.update(old.id, ['tags."a,b"']).tags == {'say "hi"': "two", "a": "2"}


def test_a_field_may_be_in_snake_case_or_camel_case(
    product: Product, http: httpx.Client, model: model_pb2.Model
) -> None:
    for mask in ("targetDevice", "target_device"):
        body = {"target_device": f"named by {mask}", "category": "unnamed"}
        assert http.patch(f"/v1/models/{model.id}", params={"update_mask": mask}, json=body).status_code == 200
        changed = product.client.get(model.id)
        assert (changed.target_device, changed.category) == (f"named by {mask}", "")


@pytest.mark.parametrize(
    ("mask", "description"),
    [
        ("nonsense", "'nonsense' is not a field of Model."),
        ("score,", "'' is not a field of Model."),
        ("Score", "'Score' is not a field of Model."),
        ("score;name", "'score;name' is not a field of Model."),
        (" score", "' score' is not a field of Model."),
        ("createTime", "'create_time' cannot be changed."),
        ("provenance.seed", "'provenance.seed' cannot be changed."),
        ("tags.", "'tags.' cannot be changed."),
        ("", "must not be empty. Omit it to change every field that the model sets."),
        (",", "must not be empty. Omit it to change every field that the model sets."),
    ],
)
def test_an_invalid_mask_is_refused(
    product: Product, http: httpx.Client, model: model_pb2.Model, mask: str, description: str
) -> None:
    before = product.client.get(model.id)
    answer = http.patch(f"/v1/models/{model.id}", params={"update_mask": mask}, json={"score": 0.25})
    assert (answer.status_code, answer.json()["message"]) == (400, f"update_mask: {description}")
    assert product.client.get(model.id) == before
