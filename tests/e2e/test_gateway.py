"""The gateway by itself: routes, errors and gRPC, in front of stub servicers."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.api import httpbody_pb2
from google.rpc import code_pb2
from grpc_status import rpc_status
from modelregistry.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

from registry_service.embedded.envoy import EnvoyGateway
from registry_service.embedded.process import EmbeddedError, NotInstalledError
from registry_service.settings import GatewaySettings, load
from registry_service.supervisor.gateway import gateway_config
from tests.e2e.stub_gateway import (
    GRPC_TYPES,
    MIB,
    Gateway,
    free_port,
    megabytes,
    request,
    start_gateway,
    start_gateway_with_stubs,
    status_of,
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with start_gateway_with_stubs(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def without_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose server is unreachable."""
    with start_gateway(tmp_path_factory.mktemp("without_server"), free_port()) as gateway:
        yield gateway


def own_error(answer: bytes) -> tuple[int | None, str, str | None]:
    """Return code, text and reason of an error from the gateway itself; outside `/v1` it has only a text."""
    error = json.loads(answer[answer.index(b"{") :])
    if error.keys() == {"detail"}:
        return None, error["detail"], None
    assert error.keys() == {"code", "message", "details"}
    info, call = [
        detail
        for detail in error["details"]
        if detail["@type"] in {"type.googleapis.com/google.rpc.ErrorInfo", "type.googleapis.com/google.rpc.RequestInfo"}
    ]
    assert len(call.get("request_id", "")) in {0, 36}
    assert (info["@type"], info["domain"]) == ("type.googleapis.com/google.rpc.ErrorInfo", "modelregistry")
    return error["code"], error["message"], info["reason"]


# ---- routes ----


def test_an_answer_is_json_with_the_field_names_of_the_protos(gateway: Gateway) -> None:
    answer = gateway.get("/v1/models/abc")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["server"] == "model-registry"
    model = answer.json()
    assert model["id"] == "abc"
    assert model["score"] == 0.0
    assert model["creator"] == ""
    assert model["precisions"] == []
    assert "project_id" not in model  # optional, and absent
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-envoy-", "x-http-"))]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        *((path, (None, "Not Found", None)) for path in ("/nope", "//v1/models", "/v1/models/../../etc/passwd")),
        *(
            (path, (5, "Not Found", "GATEWAY_PATH_NOT_FOUND"))
            for path in ("/v1", "/v1?a=b", "/v1/models/a/b/c", "/x/../v1/y")
        ),
    ],
)
def test_an_unknown_path_is_404(gateway: Gateway, path: str, error: tuple[object, ...]) -> None:
    answer = gateway.raw(request(path))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"content-type: application/json\r\n" in answer
    assert own_error(answer) == error


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/models", "GET"),
        ("PUT", "/v1/models/abc", "DELETE, GET, PATCH"),
        ("DELETE", "/v1/models/abc/artifact", "GET, HEAD"),
        ("DELETE", "/v1/uploads/abc:complete", "POST"),
        ("OPTIONS", "/v1/uploads/abc/content", "PUT"),
        ("HEAD", "/health", "GET"),
    ],
)
def test_another_method_is_405_with_the_allowed_ones(gateway: Gateway, method: str, path: str, allow: str) -> None:
    with gateway.client() as client:
        answer = client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    assert answer.headers["content-type"] == "application/json"
    is_v1 = path.startswith("/v1/")
    error = (12, "Method Not Allowed", "GATEWAY_METHOD_NOT_ALLOWED") if is_v1 else (None, "Method Not Allowed", None)
    assert method == "HEAD" or own_error(answer.content) == error


def test_the_root_redirects_to_the_page_of_the_api(gateway: Gateway) -> None:
    answer = gateway.get("/")
    assert (answer.status_code, answer.headers["location"], answer.content) == (307, "/docs", b"")
    assert gateway.get("/docs").headers["content-type"] == "text/html; charset=utf-8"
    with gateway.client() as client:
        assert client.post("/").status_code == 404


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/abc", "/v1/uploads/abc:complete"])
def test_a_trailing_slash_redirects_to_the_path_without_it(gateway: Gateway, path: str) -> None:
    answer = gateway.get(f"{path}/?page_size=3&filter=a%20b")
    assert answer.status_code == 307
    # Without a host: the client could have put any host into the request.
    assert answer.headers["location"] == f"{path}?page_size=3&filter=a%20b"
    assert answer.content == b""
    assert "content-type" not in answer.headers


def test_a_space_in_the_query_is_a_plus_or_percent_20(gateway: Gateway) -> None:
    answer = gateway.get("/v1/models?page_size=1&filter=a+b%20c%2Bd")
    assert answer.json()["models"][0]["name"] == "a b c+d"


def test_an_unknown_query_key_is_refused_by_name(gateway: Gateway) -> None:
    answer = gateway.get("/v1/models?bogus=1")
    assert answer.status_code == 400
    assert "bogus" in answer.json()["message"]


def test_an_id_in_the_body_must_be_the_one_in_the_path(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.patch("/v1/models/abc", json={"id": "abc"}).json()["id"] == "abc"
        assert client.patch("/v1/models/abc", json={"id": "other"}).status_code == 400


def test_metadata_and_pages_of_many_megabytes_pass(gateway: Gateway) -> None:
    with gateway.client() as client:
        name = "x" * (8 * MIB)
        assert client.patch("/v1/models/abc", json={"name": name}).json()["name"] == name
        assert len(client.get("/v1/models?page_size=1000").content) > 20_000_000


def test_a_request_id_is_kept_or_generated(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.get("/v1/models/abc", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
        assert gateway.models.metadata["x-request-id"] == "mine"
        made = client.get("/v1/models/abc").headers["x-request-id"]
        assert made == gateway.models.metadata["x-request-id"]
        assert len(made) == 36


@pytest.mark.parametrize(
    ("method", "target", "size", "status", "error"),
    [
        ("GET", "/v1/models?bogus=1", 0, 400, (3, "bogus", "GATEWAY_INVALID_REQUEST")),
        ("GET", "/v1/models?page_size=x", 0, 400, (3, "page_size", "GATEWAY_INVALID_REQUEST")),
        ("GET", "/v1/models/a?model_id=b", 0, 400, (3, "model_id: unknown query parameter", "GATEWAY_INVALID_REQUEST")),
        ("GET", "/v1/models/%ff", 0, 400, (3, "not UTF-8", "GATEWAY_INVALID_REQUEST")),
        ("PATCH", "/v1/models/a", 2, 400, (3, "not valid JSON", "GATEWAY_INVALID_REQUEST")),
        ("PATCH", "/v1/models/a", 17 * MIB, 413, (8, "Content Too Large", "GATEWAY_BODY_TOO_LARGE")),
        ("POST", "/health", 17 * MIB, 405, (None, "Method Not Allowed", None)),
    ],
)
def test_validation_errors_of_the_gateway_have_the_shape_of_the_api(
    gateway: Gateway, method: str, target: str, size: int, status: int, error: tuple[int, str, str]
) -> None:
    with gateway.client() as client:
        answer = client.request(method, target, content=b"x" * size)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    code, text, reason = own_error(answer.content)
    assert ((code, reason), error[1] in text) == ((error[0], error[2]), True)


@pytest.mark.parametrize(
    ("headers", "status", "error"),
    [
        (("sec-fetch-site: cross-site",), 403, (7, "GATEWAY_FORBIDDEN")),
        (("origin: http://x", "content-type: text/plain"), 415, (3, "GATEWAY_UNSUPPORTED_MEDIA_TYPE")),
        (("a: " + "x" * 70_000,), 431, (3, "GATEWAY_HEADERS_TOO_LARGE")),
        (tuple(f"a{n}: x" for n in range(200)), 431, (3, "GATEWAY_HEADERS_TOO_LARGE")),
    ],
    ids=["origin", "media type", "large headers", "many headers"],
)
def test_other_refusals_of_the_gateway_have_the_shape_of_the_api(
    gateway: Gateway, headers: tuple[str, ...], status: int, error: tuple[int, str]
) -> None:
    answer = gateway.raw(request("/v1/models/abc", *headers, method="PATCH", body=b"{}"))
    assert status_of(answer) == status
    code, _, reason = own_error(answer)
    assert (code, reason) == error


def test_a_foreign_host_is_refused_in_the_shape_of_the_api(gateway: Gateway) -> None:
    answer = gateway.raw(request("/v1/models/abc").replace(b"Host: x", b"Host: evil.example"))
    assert (status_of(answer), own_error(answer)[2]) == (421, "GATEWAY_MISDIRECTED_REQUEST")


def test_the_gateways_own_headers_are_not_accepted_from_clients(gateway: Gateway) -> None:
    with gateway.client() as client:
        client.get("/v1/models/abc", headers={"x-envoy-original-path": "/evil", "x-envoy-internal": "true"})
    assert gateway.models.metadata["x-envoy-original-path"] == "/v1/models/abc"
    assert "x-envoy-internal" not in gateway.models.metadata


# ---- errors ----


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_an_error_becomes_a_status_with_its_details(gateway: Gateway, http2: bool) -> None:
    with gateway.client(http2=http2) as client:
        answer = client.get("/v1/models/missing")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "code": code_pb2.NOT_FOUND,
        "message": "There is no such model.",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "MODEL_NOT_FOUND",
                "domain": "modelregistry",
                "metadata": {"key": "value"},
            }
        ],
    }


@pytest.mark.parametrize(
    ("method", "path", "size"),
    [
        ("GET", "/health", 0),
        ("GET", "/v1/models/200-5/artifact", 0),
        ("PATCH", "/v1/models/abc", MIB),
        ("PUT", "/v1/uploads/u/content", 20 * MIB),
    ],
)
def test_without_a_server_it_is_503_and_names_no_host(
    without_server: Gateway, method: str, path: str, size: int
) -> None:
    body = b'{"name": "%s"}' % (b"x" * size) if size else b""
    answer = without_server.raw(request(path, method=method, body=body))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"content-type: application/json\r\n" in answer
    is_v1 = path.startswith("/v1/")
    error = (14, "Service Unavailable", "GATEWAY_SERVER_UNAVAILABLE") if is_v1 else (None, "Service Unavailable", None)
    assert own_error(answer) == error
    retry = b'{"@type":"type.googleapis.com/google.rpc.RetryInfo","retry_delay":"2s"}'
    assert (retry in answer, b"\r\nretry-after: 2\r\n" in answer) == (is_v1, is_v1)


def test_without_a_server_grpc_clients_get_unavailable(without_server: Gateway) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{without_server.port}") as channel, pytest.raises(grpc.RpcError) as raised:
        model_service_pb2_grpc.ModelServiceStub(channel).GetModel(model_service_pb2.GetModelRequest(model_id="abc"))
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == "The gateway could not pass the call on."


def test_without_a_server_grpc_clients_that_sent_many_bytes_get_unavailable(without_server: Gateway) -> None:
    def messages() -> Iterator[upload_service_pb2.WriteUploadRequest]:
        yield upload_service_pb2.WriteUploadRequest(upload_id="u")
        for data in megabytes(8):
            yield upload_service_pb2.WriteUploadRequest(data=data)

    with grpc.insecure_channel(f"127.0.0.1:{without_server.port}") as channel, pytest.raises(grpc.RpcError) as raised:
        upload_service_pb2_grpc.UploadServiceStub(channel).WriteUpload(messages(), timeout=30)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details() == "The gateway could not pass the call on."


def test_without_a_server_unknown_paths_are_still_404(without_server: Gateway) -> None:
    assert without_server.get("/nope").status_code == 404


HOSTILE = {
    "nul in the path": request("/v1/models/a%00b"),
    "path not utf-8": request("/v1/models/%ff%fe"),
    "path with a surrogate": request("/v1/models/%ED%A0%80"),
    "path overlong": request("/v1/models/%C0%AF"),
    "query not utf-8": request("/v1/models?filter=%ff"),
    "percent without digits": request("/v1/models/%zz%"),
    "raw bytes in the path": request("/v1/models/\xff\xfe"),
    "encoded slashes": request("/v1/models/..%2f..%2fetc%2fpasswd"),
    "encoded dots": request("/v1/models/%2e%2e%2f%2e%2e"),
    "backslashes": request("/v1\\models\\..\\..\\nope"),
    "fragment": request("/v1/models#x"),
    "absolute address": request("http://evil.invalid/nope"),
    "asterisk": request("*", method="OPTIONS"),
    "connect": request("evil.invalid:443", method="CONNECT"),
    "unknown method": request("/v1/models", method="BREW"),
    "path of 64 kB": request("/v1/models/" + "x" * 65_000),
    "header of 70 kB": request("/health", "a: " + "x" * 70_000),
    "150 headers": request("/health", *[f"a{number}: x" for number in range(150)]),
    "not http": b"\x16\x03\x01 hello\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two lengths": request("/v1/uploads", "Transfer-Encoding: chunked", method="POST"),
    "negative length": b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    "websocket": request("/v1/models", "Connection: upgrade", "Upgrade: websocket"),
    "body no utf-8": request("/v1/uploads", method="POST", body=b"\xff\xfe{"),
    "body no json": request("/v1/models/abc", method="PATCH", body=b'{"name": '),
    "body too deep": request("/v1/models/abc", method="PATCH", body=b'{"overview":' + b"[" * 20_000),
    "not a number": request("/v1/models?page_size=abc"),
    "number too large": request("/v1/models?page_size=99999999999"),
    "field of a scalar": request("/v1/models?page_size.x=1"),
    "json to a grpc path": request("/modelregistry.v1.ModelService/GetModel", method="POST", body=b"{}"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_never_a_server_error(gateway: Gateway, name: str) -> None:
    answer = gateway.raw(HOSTILE[name])
    if name in {"percent without digits", "encoded slashes", "encoded dots"}:
        assert answer.startswith(b"HTTP/1.1 200 ")  # an id that the server validates
        return
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"content-type: application/json\r\n" in answer
    assert own_error(answer)[1]


@pytest.mark.parametrize(
    "header",
    [
        "x-thing-bin: not base64!",
        "grpc-timeout: banana",
        "grpc-timeout: 1n",
        "grpc-encoding: banana",
        "te: banana",
        "x-http-status: 500",
        "x-thing: \xff\x80",
    ],
)
def test_grpc_headers_of_an_http_client_do_no_harm(gateway: Gateway, header: str) -> None:
    assert gateway.raw(request("/v1/models/abc", header)).startswith(b"HTTP/1.1 200 ")


def test_non_ascii_text_passes(gateway: Gateway) -> None:
    assert gateway.get("/v1/models/%C3%A9%E2%82%AC%F0%9F%98%80").json()["id"] == "é€😀"


@pytest.mark.parametrize("query", ["id=b", "ID=b", "i%64=b", "page_size=1&id=b"])
def test_a_query_parameter_cannot_replace_a_variable_of_the_path(gateway: Gateway, query: str) -> None:
    assert gateway.get(f"/v1/models/abc?{query}").status_code == 400


@pytest.mark.parametrize("content_type", GRPC_TYPES)
def test_a_grpc_content_type_skips_no_check_of_a_json_route(gateway: Gateway, content_type: str) -> None:
    for target in ("/v1/models/abc?model_id=other", "/v1/models/%ff", "/v1/models/abc"):
        gateway.models.metadata = {}
        with gateway.client() as client:
            client.get(target, headers={"content-type": content_type})
        assert gateway.models.metadata == {}, target  # the server was not called


@pytest.mark.parametrize("content_type", GRPC_TYPES)
def test_a_stored_artifact_may_have_any_content_type(gateway: Gateway, content_type: str) -> None:
    answer = gateway.get(f"/v1/models/206-10-{GRPC_TYPES.index(content_type)}/artifact")
    assert (answer.status_code, answer.headers["content-length"], len(answer.content)) == (206, "10", 10)
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-http-", "x-content-length"))]


@pytest.mark.parametrize("sent", ["<&", "a" * 129, "two words"])
def test_an_invalid_request_id_is_replaced_everywhere(gateway: Gateway, sent: str) -> None:
    with gateway.client() as client:
        made = client.get("/v1/models/abc", headers={"x-request-id": sent}).headers["x-request-id"]
    assert made == gateway.models.metadata["x-request-id"] != sent
    assert len(made) == 36


# ---- gRPC ----


def test_grpc_works_on_the_same_port(gateway: Gateway) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.GetModel(model_service_pb2.GetModelRequest(model_id="abc")).id == "abc"
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetModel(model_service_pb2.GetModelRequest(model_id="missing"))
        status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
        assert status is not None
        assert status.code == code_pb2.NOT_FOUND
        assert len(status.details) == 1


def test_grpc_uploads_stream_on_the_same_port(gateway: Gateway) -> None:
    def messages() -> Iterator[upload_service_pb2.WriteUploadContentRequest]:
        for _ in range(20):
            body = httpbody_pb2.HttpBody(data=bytes(MIB))
            yield upload_service_pb2.WriteUploadContentRequest(upload_id="u4", content=body)

    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        answer = upload_service_pb2_grpc.UploadServiceStub(channel).WriteUploadContent(messages())
    assert answer.upload.committed_size == 20 * MIB


def test_unknown_grpc_services_are_unimplemented(gateway: Gateway) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{gateway.port}") as channel, pytest.raises(grpc.RpcError) as raised:
        channel.unary_unary("/other.Service/Method", bytes, bytes)(b"")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ---- the process ----


def test_a_port_in_use_is_reported(gateway: Gateway, tmp_path: Path) -> None:
    settings = load(GatewaySettings, server_ip_address="127.0.0.1", server_port=gateway.port)
    with pytest.raises(EmbeddedError, match=f"cannot listen on 127.0.0.1:{gateway.port}: Address already in use"):
        EnvoyGateway("", settings, tmp_path).start()


def test_an_invalid_configuration_is_reported_with_the_log(tmp_path: Path) -> None:
    settings = load(GatewaySettings, server_ip_address="127.0.0.1", server_port=free_port())
    with pytest.raises(EmbeddedError, match="no_such_field"):
        EnvoyGateway("no_such_field: 1\n", settings, tmp_path, log=tmp_path / "envoy.log").start()


def test_a_host_name_as_listen_address_is_refused() -> None:
    settings = load(GatewaySettings, server_ip_address="localhost")
    with pytest.raises(EmbeddedError, match="SERVER_IP_ADDRESS: 'localhost' is not an IP address"):
        gateway_config(settings)


def test_without_envoys_wheel_the_error_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(GatewaySettings, server_ip_address="127.0.0.1", server_port=free_port())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotInstalledError, match=r"pip install -e '\.\[embedded\]'"):
        EnvoyGateway("", settings, tmp_path).start()


def test_a_configuration_with_several_server_names_is_valid(tmp_path: Path) -> None:
    settings = load(
        GatewaySettings,
        server_ip_address="127.0.0.1",
        server_port=free_port(),
        grpc_upstreams=("localhost:50051", "[::1]:50052"),
    )
    log = tmp_path / "envoy.log"
    with EnvoyGateway(gateway_config(settings), settings, tmp_path, log=log):
        assert log.read_text() == ""  # no deprecation and no other warning
