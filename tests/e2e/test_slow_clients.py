"""Clients that stop reading do not block other clients."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any

import grpc
import h2.settings
import httpx
import pytest
from modelregistry.v1 import artifact_service_pb2, artifact_service_pb2_grpc

from registry_service.settings import Settings
from tests.e2e.test_attacks import Http2
from tests.polling import eventually
from tests.products import Product, running_up
from tests.streams import expect
from tests.stub_client import zip_of
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
# The memory limit of each process.
PROCESS_BYTES, ENVOY_BYTES = 250 * MIB, 300 * MIB
# The streams of one caller.
STREAMS = int(Settings.model_fields["max_streams"].default * Settings.model_fields["caller_share"].default)


@contextmanager
def stalled_grpc_download(product: Product, model_id: str) -> Iterator[None]:
    """A download on its own connection, whose client reads only the first message."""
    # With bandwidth probes, the client might buffer the whole artifact.
    with grpc.insecure_channel(product.grpc_address, [("grpc.http2.bdp_probe", 0)]) as channel:
        request = artifact_service_pb2.DownloadArtifactRequest(model_id=model_id)
        call = artifact_service_pb2_grpc.ArtifactServiceStub(channel).DownloadArtifact(request)
        next(iter(call))
        yield
        call.cancel()


@contextmanager
def stalled_http_download(product: Product, model_id: str) -> Iterator[None]:
    """A download whose client reads only the headers."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.connect(("127.0.0.1", product.rest_port))
        connection.sendall(f"GET /models/{model_id}/files HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
        yield


def waits_over_grpc(product: Product, model_id: str) -> bool:
    """Return whether a new gRPC download has to wait."""
    request = artifact_service_pb2.DownloadArtifactRequest(model_id=model_id)
    try:
        next(iter(product.client.artifacts.DownloadArtifact(request, timeout=1)))
    except grpc.RpcError as error:
        # The server cancels the call at the client's deadline.
        expect(error, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return True
    return False


def waits_over_http(product: Product, model_id: str) -> bool:
    """Return whether a new HTTP download has to wait; the server knows HTTP callers by their addresses."""
    try:
        with httpx.stream("GET", f"{product.rest_url}/models/{model_id}/files", timeout=1, trust_env=False):
            return False
    except httpx.ReadTimeout:
        return True


@pytest.mark.parametrize(
    ("stall", "waits"),
    [(stalled_grpc_download, waits_over_grpc), (stalled_http_download, waits_over_http)],
    ids=["grpc", "http"],
)
def test_reads_answer_in_time_with_the_maximum_of_stalled_downloads(
    product: Product,
    stall: Callable[[Product, str], AbstractContextManager[None]],
    waits: Callable[[Product, str], bool],
) -> None:
    client = product.client
    model = client.register(bytes(32 * MIB), name=f"stalled-{uuid.uuid4()}")
    with ExitStack() as stack:
        for _ in range(STREAMS):
            stack.enter_context(stall(product, model.id))
        eventually(lambda: waits(product, model.id), what="the last stream to be taken")
        seconds = []
        with httpx.Client(base_url=product.rest_url, trust_env=False) as http:
            for _ in range(50):
                started = time.monotonic()
                assert client.get(model.id) == model
                assert http.get(f"/models/{model.id}").status_code == 200
                seconds.append(time.monotonic() - started)
    assert sorted(seconds)[-3] < 0.5

    def streams_are_free_again() -> bool:
        return len(client.download(model.id)) == 32 * MIB

    eventually(streams_are_free_again, what="a stream for another download")
    client.delete(model.id)


@contextmanager
def unread_grpc_downloads(product: Product, model_id: str, count: int) -> Iterator[None]:
    """Unread downloads, limited by the client's HTTP/2 windows."""
    request = artifact_service_pb2.DownloadArtifactRequest(model_id=model_id)
    with grpc.insecure_channel(product.grpc_address, [("grpc.http2.bdp_probe", 0)]) as channel:
        stub = artifact_service_pb2_grpc.ArtifactServiceStub(channel)
        calls = [stub.DownloadArtifact(request) for _ in range(count)]
        yield
        for call in calls:
            call.cancel()


@contextmanager
def unread_downloads_with_wide_windows(product: Product, model_id: str, count: int) -> Iterator[None]:
    """Unread downloads with HTTP/2 windows wide enough for the whole artifact."""
    message = artifact_service_pb2.DownloadArtifactRequest(model_id=model_id).SerializeToString()
    head = [
        (":method", "POST"),
        (":path", "/modelregistry.v1.ArtifactService/DownloadArtifact"),
        (":scheme", "http"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(closing(Http2(product.grpc_port)))
            client.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
            client.state.increment_flow_control_window(2**30)
            client.state.send_headers(1, head)
            client.state.send_data(1, b"\0" + len(message).to_bytes(4) + message, end_stream=True)
            client.flush()
        yield


@contextmanager
def unread_http_downloads(product: Product, model_id: str, count: int) -> Iterator[None]:
    """Unread downloads over HTTP."""
    with ExitStack() as stack:
        for number in range(count):
            path = f"/models/{model_id}/files" if number % 2 else f"/v1/models/{model_id}/artifact"
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", product.rest_port)))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
        yield


@pytest.mark.parametrize(
    ("unread", "waits"),
    [
        (unread_grpc_downloads, waits_over_grpc),
        (unread_downloads_with_wide_windows, waits_over_grpc),
        (unread_http_downloads, waits_over_http),
    ],
    ids=["grpc", "wide windows", "http"],
)
def test_unread_downloads_take_little_memory(
    unread: Callable[[Product, str, int], AbstractContextManager[None]], waits: Callable[[Product, str], bool]
) -> None:
    # The test is a single caller, which may use all streams.
    with accessible_folder() as folder, running_up(folder, caller_share=1) as product:
        model = product.client.register(bytes(64 * MIB), name="unread")
        with unread(product, model.id, 200):
            eventually(lambda: waits(product, model.id), what="the last stream to be taken")
            for _ in range(50):
                assert product.client.get(model.id) == model
            for process in product.processes():
                most = ENVOY_BYTES if process.name() == "envoy" else PROCESS_BYTES
                resident = process.memory_info().rss
                assert resident <= most, f"{process.name()} has {resident / MIB:.0f} MiB"


def form(name: str) -> dict[str, Any]:
    """Return a registration form of the Intel-compatible API."""
    return {
        "data": {"name": name, "version": "1"},
        "files": {"file": ("model.zip", zip_of({"a": b"b"}), "application/zip")},
    }


def test_a_burst_of_registrations_over_http_is_queued(product: Product) -> None:
    burst = uuid.uuid4()
    with httpx.Client(base_url=product.rest_url, trust_env=False, timeout=60) as http, ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda number: http.post("/models", **form(f"{burst}-{number}")), range(64)))
    assert {answer.status_code for answer in answers} == {201}
    for answer in answers:
        product.client.delete(answer.text)


def test_http_429_has_a_retry_after_header() -> None:
    with (
        accessible_folder() as folder,
        running_up(folder, max_streams=1, caller_share=1, max_waiting_seconds=0.1) as product,
        httpx.Client(base_url=product.rest_url, trust_env=False, timeout=20) as http,
    ):
        model = product.client.register(bytes(32 * MIB), name="stalled")
        with stalled_grpc_download(product, model.id):
            for answer in (http.post("/models", **form("one too many")), http.get(f"/v1/models/{model.id}/artifact")):
                assert answer.status_code == 429, answer.text
                assert int(answer.headers["retry-after"]) >= 1
