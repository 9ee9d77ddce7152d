"""The OpenAPI description is true and complete, and its pages need no other host."""

import json
import re
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import validate
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from registry_service.transport.http_routes import http_routes
from tests.products import Product

_EXAMPLES = 25
# Their answers do not end.
_WATCHES = [("GET", "/v1/auditEvents:watch"), ("GET", "/v1/models:watch")]


@pytest.fixture(scope="module")
def document(product: Product) -> Any:
    return httpx.get(f"{product.rest_url}/openapi.json").raise_for_status().json()


@pytest.fixture(scope="module")
def api(product: Product, document: Any) -> schemathesis.BaseSchema:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=product.rest_url)
    return schema


def operations() -> list[tuple[str, str]]:
    """Return every method and path of the generated description."""
    description = json.loads(http_routes().openapi.read_text(encoding="utf-8"))
    return [
        (verb.upper(), path) for path, item in description["paths"].items() for verb in item if verb != "parameters"
    ]


def test_the_description_is_openapi_3_1(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_the_description_has_every_http_method_of_the_protos_and_no_other(document: Any) -> None:
    assert document == json.loads(http_routes().openapi.read_text(encoding="utf-8"))
    described = {(re.sub(r"\{[^}]*\}", "{}", path), method) for method, path in operations()}
    bound = {
        (path.replace("[^/]+", "{}").replace("/.+", "/{}").replace("\\", ""), method)
        for path, methods in http_routes().paths
        for method in methods
    }
    assert described == bound


def test_changes_of_resources_with_an_etag_are_described_with_if_match(document: Any) -> None:
    conditional = {
        (path, method)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in {"delete", "patch", "post"}
        and {"$ref": "#/components/parameters/IfMatch"} in operation.get("parameters", [])
        and "412" in operation["responses"]
    }
    alias = "/v1/modelGroups/{model_group_id}/aliases/{alias}"
    group, model = "/v1/modelGroups/{model_group_id}", "/v1/models/{model_id}"
    changes = {(path, method) for path in (group, model) for method in ("delete", "patch")}
    assert conditional == changes | {(f"{alias}:set", "post"), (f"{alias}:rollback", "post"), (alias, "delete")}


@pytest.mark.parametrize(("method", "path"), [operation for operation in operations() if operation not in _WATCHES])
def test_every_answer_is_described_and_no_server_error(api: schemathesis.BaseSchema, method: str, path: str) -> None:
    @given(case=api[path][method].as_strategy())
    @settings(max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def send(case: schemathesis.Case[Any]) -> None:
        checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
        if path.startswith("/projects"):
            # Without Geti, the documented answer is a 500 with the cause.
            checks.remove(not_a_server_error)
        case.call_and_validate(checks=checks, timeout=30)

    send()


@pytest.mark.parametrize(("method", "path"), _WATCHES)
def test_the_answer_of_every_watch_begins_and_is_no_server_error(
    api: schemathesis.BaseSchema, product: Product, method: str, path: str
) -> None:
    @given(case=api[path][method].as_strategy())
    @settings(max_examples=_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def send(case: schemathesis.Case[Any]) -> None:
        with httpx.stream(method, f"{product.rest_url}{path}", params=case.query, timeout=30) as answer:
            assert answer.status_code < 500
            assert answer.headers["content-type"] == "application/json"
            assert next(answer.iter_bytes())

    send()


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_loads_everything_from_the_gateway(product: Product, page: str) -> None:
    answer = httpx.get(f"{product.rest_url}{page}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    addresses = re.findall(r'(?:src|href|spec-url)="([^"]+)"|url: "([^"]+)"', answer.text)
    for address in (a or b for a, b in addresses):
        assert address.startswith(("/docs/", "/openapi.json", "data:")), address
        if not address.startswith("data:"):
            assert httpx.get(f"{product.rest_url}{address}").status_code == 200


@pytest.mark.parametrize(("page", "shown"), [("/docs", "Register a model with its ZIP file"), ("/redoc", "Models")])
def test_a_browser_shows_the_api(product: Product, page: str, shown: str, tmp_path: Path) -> None:
    assert shown in shown_by_browser(f"{product.rest_url}{page}", tmp_path)


def test_a_browser_runs_no_stored_content(product: Product, tmp_path: Path) -> None:
    script = b"document.title = 'a stored script ran'"
    model = product.client.register(script, name=f"script-{uuid.uuid4()}", artifact={"media_type": "text/javascript"})
    page = tmp_path / "page.html"
    sources = [f"{product.rest_url}{path}" for path in (f"/v1/models/{model.id}/artifact", f"/models/{model.id}/files")]
    scripts = "".join(f"<script src='{source}'></script>" for source in sources)
    page.write_text(f"<html>{scripts}<script>document.title += ', scripts run here'</script></html>")
    dump = shown_by_browser(page.as_uri(), tmp_path / "profile")
    assert "<title>, scripts run here</title>" in dump


def shown_by_browser(address: str, profile: Path) -> str:
    """Return the document that a browser renders from a page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium on PATH")
    return subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            # The page gets nothing from other hosts.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            *(f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom"),
            address,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout


def test_the_pages_answer_head_and_refuse_other_methods(product: Product) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert httpx.head(f"{product.rest_url}{path}").status_code == 200
        refused = httpx.post(f"{product.rest_url}{path}")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
