"""The gateway in front of stub servicers: host names, and pages of other origins."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stub_gateway import Gateway, free_port, request, start_gateway, start_gateway_with_stubs, status_of


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with start_gateway_with_stubs(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


# ---- host names and pages of other origins ----


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("localhost", True),
        ("LOCALHOST:80", True),
        ("models.localhost.", True),
        ("127.0.0.1:32002", True),
        ("[::1]:32002", True),
        ("192.168.1.5", True),
        ("registry:32002", True),
        ("evil.example", False),
        ("evil.example.:32002", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("127.0.0.1,evil.example", False),
        ("[evil.example]", False),
    ],
)
def test_a_host_name_is_accepted_only_if_no_third_party_could_register_it(
    gateway: Gateway, host: str, is_known: bool
) -> None:
    for path in ("/v1/models/abc", "/health", "/models"):
        answer = gateway.raw(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        if is_known:
            assert status_of(answer) in {200, 501}
        else:
            assert status_of(answer) in {400, 421}
    assert is_known == (status_of(gateway.raw(request(f"http://{host}/v1/models/abc"))) == 200)


def test_a_proxy_header_does_not_allow_a_host_name(gateway: Gateway) -> None:
    head = (
        b"GET /v1/models/abc HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\nConnection: close\r\n\r\n"
    )
    assert status_of(gateway.raw(head)) == 421


def test_host_names_can_be_allowed(tmp_path: Path) -> None:
    with start_gateway(tmp_path, free_port(), allowed_hosts="models.example.org, *.intern.example") as gateway:
        for host, status in {
            "models.example.org": 503,
            "Models.Example.ORG.:443": 503,
            "a.b.intern.example": 503,
            "127.0.0.1": 503,
            "intern.example": 421,
            "notmodels.example.org": 421,
            "models.example.org.evil.example": 421,
            "registry": 421,
        }.items():
            with gateway.client() as client:
                assert client.get("/health", headers={"host": host}).status_code == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://127.0.0.1"},
        {"origin": "file://"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ],
)
def test_a_page_of_another_origin_can_change_nothing(gateway: Gateway, headers: dict[str, str]) -> None:
    gateway.uploads.__init__()  # type: ignore[misc]
    form = {"content-type": "text/plain"} | headers
    with gateway.client() as client:
        for method, path, body in (
            ("POST", "/v1/uploads/abc:complete", "{}"),
            ("PATCH", "/v1/models/abc", "{}"),
            ("PUT", "/v1/uploads/u/content", "bytes"),
            ("POST", "/models", "form"),
        ):
            answer = client.request(method, path, content=body, headers=form)
            assert answer.status_code == 403, (method, path)
            assert "access-control-allow-origin" not in answer.headers
    assert gateway.uploads.first.upload_id == ""


def test_a_page_of_another_origin_can_link_here_but_read_nothing(gateway: Gateway) -> None:
    site = {"sec-fetch-site": "cross-site"}
    with gateway.client() as client:
        for mode, dest in (("no-cors", "script"), ("no-cors", "image"), ("cors", "empty"), ("navigate", "iframe")):
            headers = site | {"sec-fetch-mode": mode, "sec-fetch-dest": dest}
            assert client.get("/v1/models/200-5/artifact", headers=headers).status_code == 403
        headers = site | {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert client.get("/docs", headers=headers).status_code == 200


def test_pages_of_the_same_origin_can_call_with_json_bodies_only(gateway: Gateway) -> None:
    own = {"origin": gateway.url, "sec-fetch-site": "same-origin"}
    with gateway.client() as client:
        for content_type, status in (("application/json", 200), ("application/json; charset=utf-8", 200)):
            answer = client.patch("/v1/models/abc", content="{}", headers=own | {"content-type": content_type})
            assert answer.status_code == status
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            answer = client.patch("/v1/models/abc", content="{}", headers=own | {"content-type": content_type})
            assert answer.status_code == 415
            assert "application/json" in answer.text
        assert client.patch("/v1/models/abc", content="{}", headers=own).status_code == 415
        # Clients other than browsers send no origin.
        assert client.patch("/v1/models/abc", content="{}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/abc"),
        ("GET", "/v1/models/missing"),
        ("GET", "/v1/models/200-5/artifact"),
        ("HEAD", "/v1/models/200-5/artifact"),
        ("GET", "/v1/models/206-5/artifact"),
        ("GET", "/v1/models/304-0/artifact"),
        ("GET", "/v1/models/abc/"),
        ("GET", "/v1/models?bogus=1"),
        ("GET", "/nope"),
        ("POST", "/v1/models"),
        ("GET", "/docs/swagger-ui-bundle.js"),
        ("GET", "/openapi.json"),
    ],
)
def test_answers_forbid_browsers_to_execute_or_frame_them(gateway: Gateway, method: str, path: str) -> None:
    with gateway.client() as client:
        headers = client.request(method, path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("cross-origin-resource-policy") == ["same-origin"]
    (policy,) = headers.get_list("content-security-policy")
    assert policy == "sandbox; default-src 'none'; frame-ancestors 'none'"
    assert "strict-transport-security" not in headers


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_runs_only_its_own_scripts(gateway: Gateway, path: str) -> None:
    headers = gateway.get(path).headers
    (policy,) = headers.get_list("content-security-policy")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert rules["script-src"].split()[0] == "'self'"
    assert "unsafe" not in rules["script-src"]
    assert headers["x-content-type-options"] == "nosniff"
