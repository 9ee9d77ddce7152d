"""The real Envoy with the registry's configuration, in front of stub servicers."""

# ruff: noqa: N802, ARG002 (the stubs name the methods and their arguments)

import contextlib
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import NoReturn

import grpc
import httpx
import psutil
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
from registry_service.settings import GatewaySettings, load
from registry_service.supervisor.gateway import gateway_config

MIB = 1024 * 1024
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


@contextlib.contextmanager
def start_gateway_with_stubs(run_dir: Path) -> Iterator[Gateway]:
    """Run a gateway in front of the stub servicers."""
    executor = futures.ThreadPoolExecutor(64)
    server = grpc.server(executor, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 32 * MIB)])
    upstream = server.add_insecure_port("127.0.0.1:0")
    with start_gateway(run_dir, upstream) as gateway:
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


def request(target: str, *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def megabytes(count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield bytes(MIB)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
