"""References over HTTP: a reference that the client percent-encodes reaches the server unchanged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.products import Product

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "references.json").read_text())
RESOLVE = "/v1/models:resolve"


@pytest.fixture
def http(product: Product) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=product.rest_url, timeout=60, trust_env=False) as client:
        yield client


def reason_of(answer: httpx.Response) -> dict[str, Any]:
    """Return the ErrorInfo of an answer."""
    info: dict[str, Any] = answer.json()["details"][0]
    return info


def test_every_percent_encoded_reference_reaches_the_server_unchanged(http: httpx.Client) -> None:
    for vector in VECTORS["valid"]:
        answer = http.get(RESOLVE, params={"reference": vector["reference"]})
        assert answer.status_code == 404, answer.text
        info = reason_of(answer)
        assert (info["reason"], info["metadata"]["reference"]) == ("REFERENCE_NOT_FOUND", vector["reference"])
    for vector in VECTORS["invalid"]:
        # The gateway itself refuses a parameter without a value.
        if not vector["reference"]:
            continue
        answer = http.get(RESOLVE, params={"reference": vector["reference"]})
        assert answer.status_code == 400, answer.text
        info = reason_of(answer)
        assert (info["reason"], info["metadata"]["position"]) == ("INVALID_REFERENCE", str(vector["position"]))


def test_a_reference_is_resolved_over_http(product: Product, http: httpx.Client) -> None:
    model = product.client.register(
        name="resolved: a/b", version="1.0+cu118", project_id="50%", precisions=["int8", "fp16"], tags={"a": "b"}
    )
    set_at = product.client.set_alias(model.id).alias.update_time.ToJsonString()
    reference = "50%25/resolved%3A%20a%2Fb"
    expected = http.get(f"/v1/models/{model.id}").json()
    answer = http.get(RESOLVE, params={"reference": reference})
    assert answer.json() == {"model": expected, "alias": ""}
    version = http.get(RESOLVE, params={"reference": f"{reference}:1.0+cu118"})
    assert version.json()["model"] == expected
    by_alias = http.get(RESOLVE, params={"reference": f"{reference}@production", "at_time": set_at})
    assert by_alias.json() == {"model": expected, "alias": "production"}
    both: dict[str, Any] = {"reference": reference, "precisions": ["fp16", "int8"], "view": "MODEL_VIEW_BASIC"}
    assert http.get(RESOLVE, params=both).json()["model"]["id"] == model.id
    one = http.get(RESOLVE, params=both | {"precisions": "fp16"})
    assert reason_of(one)["metadata"]["part"] == "precisions"


def test_an_unencoded_plus_is_explained(http: httpx.Client) -> None:
    answer = http.get(f"{RESOLVE}?reference=vad:1.0+cu118")
    assert answer.status_code == 400
    assert reason_of(answer)["metadata"]["position"] == "8"
    assert "%2B" in answer.json()["message"]


def test_candidates_are_in_the_error_details(product: Product, http: httpx.Client) -> None:
    groups = {
        f"{project}/ambiguous@latest": product.client.register(name="ambiguous", project_id=project).model_group_id
        for project in ("acme", "zeta")
    }
    answer = http.get(RESOLVE, params={"reference": "ambiguous"})
    assert answer.status_code == 400
    assert reason_of(answer)["reason"] == "AMBIGUOUS_REFERENCE"
    found = [detail for detail in answer.json()["details"] if detail["@type"].endswith("google.rpc.ResourceInfo")]
    assert {detail["description"]: detail["resource_name"] for detail in found} == groups
    assert {detail["resource_type"] for detail in found} == {"modelregistry.v1.ModelGroup"}
