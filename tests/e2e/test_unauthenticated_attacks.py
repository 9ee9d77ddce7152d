"""Attacks without a token on a product with authentication: they neither hang, fill nor starve it.

Each attack is a context manager that keeps its resources. The same assertions follow each one: during the attack and
after it, `/ready` answers a fresh connection within a second and no process has more memory than it may; afterwards
the connections are closed, and the same processes run.
"""

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import h2.events
import h2.exceptions
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from modelregistry.v1 import model_service_pb2, model_service_pb2_grpc

from registry_service.domain.tokens import new_secret
from registry_service.embedded.postgres import PostgresAddress
from tests.e2e.test_attacks import (
    Http2,
    empty_data,
    endless_continuation,
    many_files,
    pings,
    rapid_reset,
    settings,
)
from tests.polling import eventually
from tests.postgres_server import create_database, drop_database
from tests.products import Product, running_serve, running_up
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
READY_SECONDS = 1
PROCESS_BYTES = 250 * MIB
ENVOY_BYTES = 300 * MIB
# The product's own connections: to Postgres, and between gateway and server.
SPARE_FILES = 40

Attack = Callable[[Product], AbstractContextManager[None]]


@contextmanager
def embedded() -> Iterator[Product]:
    with accessible_folder() as folder, running_up(folder, auth_mode="token") as product:
        yield product
        assert_no_filter_failed(folder / "data" / "gateway.log")


def assert_no_filter_failed(log: Path) -> None:
    """Assert that no filter of the gateway failed; Envoy would have logged it."""
    assert "[error][lua]" not in log.read_text(encoding="utf-8", errors="replace")


@contextmanager
def deployed(postgres: PostgresAddress, folder: Path) -> Iterator[Product]:
    create_database(postgres, "of_attacks", "template1")
    values = {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": "of_attacks",
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": folder / "artifacts",
        "auth_mode": "token",
    }
    with running_serve(folder, values, gateway={"auth_mode": "token"}) as product:
        yield product
        assert_no_filter_failed(folder / "gateway.log")
    drop_database(postgres, "of_attacks")


@pytest.fixture(scope="module", params=["up", "serve and gateway"])
def product(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product, with authentication."""
    if request.param == "up":
        with embedded() as product:
            yield product
    else:
        with deployed(request.getfixturevalue("postgres"), tmp_path_factory.mktemp("deployed")) as product:
            yield product


def assert_served(product: Product) -> None:
    """Assert that a probe is answered in time, and that no process exceeds its memory limit."""
    eventually(lambda: is_ready(product), 10, f"an answer of /ready within {READY_SECONDS} s")
    for process in product.processes():
        most = ENVOY_BYTES if process.name() == "envoy" else PROCESS_BYTES
        resident = process.memory_info().rss
        assert resident <= most, f"{process.name()} has {resident / MIB:.0f} MiB"


def is_ready(product: Product) -> bool:
    return httpx.get(f"{product.rest_url}/ready", timeout=READY_SECONDS, trust_env=False).status_code == 200


def servers(product: Product) -> dict[int, int]:
    """Return the number of open files of the gateway and the servers, by process id."""
    return {
        process.pid: process.num_fds()
        for process in product.processes()
        if process.name().startswith(("envoy", "python", "model-registry"))
    }


@contextmanager
def unharmed(product: Product, attack: AbstractContextManager[object]) -> Iterator[None]:
    """Run the block during an attack, and then make the common assertions."""
    before = servers(product)
    with attack:
        assert_served(product)
        yield
    assert_served(product)
    assert servers(product).keys() == before.keys(), "a process has ended"
    eventually(
        lambda: all(files <= before[pid] + SPARE_FILES for pid, files in servers(product).items()),
        what="the end of the attack's connections",
    )


# ---- Bodies


@contextmanager
def half_sent(port: int, beginnings: list[bytes], stall_seconds: float = 0.5) -> Iterator[list[socket.socket]]:
    """Open a connection for each partial request, and send as much as the gateway accepts."""
    with ExitStack() as stack:
        ends = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in beginnings]
        waiting = selectors.DefaultSelector()
        for end, beginning in zip(ends, beginnings, strict=True):
            end.setblocking(False)
            waiting.register(end, selectors.EVENT_WRITE, memoryview(beginning))
        while waiting.get_map() and (ready := waiting.select(stall_seconds)):
            for key, _ in ready:
                end = ends[ends.index(key.fileobj)]  # type: ignore[arg-type]
                try:
                    left = key.data[end.send(key.data) :]
                except OSError:  # the gateway refuses it midway
                    left = b""
                if left:
                    waiting.modify(end, selectors.EVENT_WRITE, left)
                else:
                    waiting.unregister(end)
        yield ends


def http1_head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


@contextmanager
def http1_bodies(
    product: Product, path: str, *headers: str, size: int = 16 * MIB - 1_000, count: int = 64
) -> Iterator[None]:
    """JSON bodies over HTTP/1.1 that are complete but for the end, which arrives slowly."""
    head = http1_head("POST", path, f"Content-Length: {size}", "Content-Type: application/json", *headers)
    body = b'{"spec":{"model":{"name":"' + b"x" * (size - 1_000)
    with half_sent(product.rest_port, [head + body] * count) as ends:
        for end in ends:
            with suppress(OSError):
                end.send(b"x")
        yield


@contextmanager
def http2_bodies(
    product: Product, path: str, *headers: tuple[str, str], size: int = 16 * MIB - 1_000, connections: int = 1
) -> Iterator[None]:
    """Bodies on 120 streams of HTTP/2 connections that stall near their ends."""
    with ExitStack() as stack:
        for _ in range(connections):
            client = stack.enter_context(closing(Http2(product.rest_port)))
            with suppress(OSError, h2.exceptions.ProtocolError):  # the gateway may refuse it midway
                stall(client, path, headers, dict.fromkeys(range(1, 240, 2), size))
        yield


def stall(client: Http2, path: str, headers: tuple[tuple[str, str], ...], left: dict[int, int]) -> None:
    """Send this many bytes of a body on each stream, as the windows permit, and end none."""
    for stream in left:
        client.state.send_headers(
            stream,
            [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "localhost"), *headers],
        )
    client.flush()
    while left:
        sent = 0
        for stream in list(left):
            size = min(left[stream], client.state.local_flow_control_window(stream), 16_384)
            if size:
                client.state.send_data(stream, b"x" * size)
                left[stream] -= size
                sent += size
            if not left[stream]:
                del left[stream]
        client.flush()
        client.socket.settimeout(0 if sent else 2)
        with suppress(BlockingIOError):
            for event in client.state.receive_data(client.socket.recv(65_536)):
                if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                    left.pop(event.stream_id, None)
        client.socket.settimeout(2)


SHAPED = f"Bearer {new_secret()}"
"""What passes for a token until somebody looks it up."""
FITS = 2 * MIB - 2_000
"""Just less than a JSON body may have."""
GRPC = (("content-type", "application/grpc"), ("te", "trailers"))
CREATE_UPLOAD = "/modelregistry.v1.UploadService/CreateUpload"
BODIES: dict[str, Attack] = {
    "HTTP/1.1": lambda product: http1_bodies(product, "/v1/uploads"),
    "HTTP/1.1, shaped token": lambda product: http1_bodies(product, "/v1/uploads", f"Authorization: {SHAPED}"),
    "HTTP/1.1, shaped token, body that fits": lambda product: http1_bodies(
        product, "/v1/uploads", f"Authorization: {SHAPED}", size=FITS, count=400
    ),
    "HTTP/1.1, Intel-compatible API": lambda product: http1_bodies(
        product, f"/projects/{'a' * 24}/geti-models/download"
    ),
    "HTTP/1.1, method that is not there": lambda product: http1_bodies(product, "/v1/models"),
    "HTTP/2": lambda product: http2_bodies(product, "/v1/uploads"),
    "HTTP/2, shaped token": lambda product: http2_bodies(product, "/v1/uploads", ("authorization", SHAPED)),
    "HTTP/2, shaped token, bodies that fit": lambda product: http2_bodies(
        product, "/v1/uploads", ("authorization", SHAPED), size=FITS, connections=5
    ),
    "gRPC": lambda product: http2_bodies(product, CREATE_UPLOAD, *GRPC),
    "gRPC, shaped token, messages that fit": lambda product: http2_bodies(
        product, CREATE_UPLOAD, *GRPC, ("authorization", SHAPED), size=FITS, connections=5
    ),
}


@pytest.mark.parametrize("attack", BODIES.values(), ids=BODIES)
def test_bodies_without_an_end_take_little_memory(product: Product, attack: Attack) -> None:
    with unharmed(product, attack(product)):
        pass


# ---- Headers


@pytest.mark.parametrize(
    "beginning",
    [
        http1_head("GET", "/v1/models", "a: " + "x" * 30_000)[:-2],
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"a%d: x\r\n" % n for n in range(90)),
        b"GET /" + b"x" * 30_000,
    ],
    ids=["long header", "many headers", "long address"],
)
def test_headers_without_an_end_take_little_memory(product: Product, beginning: bytes) -> None:
    with unharmed(product, half_sent(product.rest_port, [beginning] * 1_000)):
        pass


# ---- Calls


@contextmanager
def health_watches(address: str) -> Iterator[None]:
    """Watches of the health service: thousands that are cancelled, then as many as the limit allows."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for _ in range(40):
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(50)]
            for watch in watches[:5]:
                with suppress(grpc.RpcError):
                    next(watch)
            for watch in watches:
                watch.cancel()
        held = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(100)]
        yield
        for watch in held:
            watch.cancel()


@contextmanager
def calls_without_messages(port: int, method: str) -> Iterator[None]:
    """Calls that send only headers."""
    with ExitStack() as stack:
        for _ in range(10):
            client = stack.enter_context(closing(Http2(port)))
            for stream in range(1, 121, 2):
                client.state.send_headers(
                    stream,
                    [(":method", "POST"), (":path", method), (":scheme", "http"), (":authority", "localhost"), *GRPC],
                )
            with suppress(OSError):
                client.flush()
        yield


@contextmanager
def guessed_tokens(address: str) -> Iterator[None]:
    """As many concurrent calls as a client can make, with well-formed tokens that do not exist."""
    with grpc.insecure_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        calls = [
            stub.GetModel.future(
                model_service_pb2.GetModelRequest(model_id="a-model-of-nobody"),
                metadata=(("authorization", f"Bearer {new_secret()}"),),
                timeout=30,
            )
            for _ in range(1_000)
        ]
        yield
        assert {call.code() for call in calls} <= {
            grpc.StatusCode.UNAUTHENTICATED,
            # Too many concurrent calls for the server, or for a connection of the gateway.
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.UNAVAILABLE,
        }


@contextmanager
def streams_with_guessed_tokens(port: int) -> Iterator[None]:
    """Streaming calls with such tokens, cancelled and restarted during the attack."""
    head = [(":method", "POST"), (":path", "/modelregistry.v1.ModelService/RegisterModel"), (":scheme", "http")]
    over = threading.Event()

    def attack() -> None:
        while not over.is_set():
            with ExitStack() as stack, suppress(OSError, h2.exceptions.ProtocolError):
                for _ in range(10):
                    client = stack.enter_context(closing(Http2(port)))
                    for stream in range(1, 201, 2):
                        token = ("authorization", f"Bearer {new_secret()}")
                        client.state.send_headers(stream, [*head, (":authority", "localhost"), *GRPC, token])
                        client.state.send_data(stream, b"\0\0\0\1\0" + b"x" * 50)
                    client.flush()

    with ThreadPoolExecutor(1) as thread:
        attacking = thread.submit(attack)
        try:
            yield
        finally:
            over.set()
            attacking.result()


@contextmanager
def idle_connections(port: int) -> Iterator[None]:
    with half_sent(port, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] * 1_000):
        yield


CALLS: dict[str, Callable[[int], AbstractContextManager[None]]] = {
    "health watches": lambda port: health_watches(f"127.0.0.1:{port}"),
    "checks without a message": lambda port: calls_without_messages(port, "/grpc.health.v1.Health/Check"),
    "readiness without a message": lambda port: calls_without_messages(
        port, "/modelregistry.v1.SystemService/GetReadiness"
    ),
    "calls without a message": lambda port: calls_without_messages(port, "/modelregistry.v1.ModelService/GetModel"),
    "reflection": lambda port: calls_without_messages(
        port, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    ),
    "guessed tokens": lambda port: guessed_tokens(f"127.0.0.1:{port}"),
    "streams with guessed tokens": streams_with_guessed_tokens,
    "idle connections": idle_connections,
}


@pytest.mark.parametrize("through", ["gateway", "gRPC port"])
@pytest.mark.parametrize("attack", CALLS.values(), ids=CALLS)
def test_unauthenticated_calls_delay_no_other_client(
    product: Product, attack: Callable[[int], AbstractContextManager[None]], through: str
) -> None:
    port = product.rest_port if through == "gateway" else product.grpc_port
    with unharmed(product, attack(port)):
        assert product.is_serving()


# ---- Connections


@pytest.mark.parametrize(
    "beginning",
    [b"", b"GET / HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"],
    ids=["silent", "HTTP/1.1", "HTTP/2"],
)
@pytest.mark.parametrize("port", ["rest_port", "grpc_port"])
def test_idle_connections_take_little_memory(product: Product, port: str, beginning: bytes) -> None:
    with many_files(3_000), unharmed(product, half_sent(getattr(product, port), [beginning] * 2_000)):
        pass


@contextmanager
def floods(product: Product, port: int, frames: Callable[[Http2], None]) -> Iterator[None]:
    """Endless HTTP/2 frames on one connection, until the server closes it."""
    with closing(Http2(port)) as client:
        with suppress(OSError, h2.exceptions.ProtocolError):
            frames(client)
        yield


@pytest.mark.parametrize("frames", [rapid_reset, pings, settings, endless_continuation, empty_data])
@pytest.mark.parametrize("port", ["rest_port", "grpc_port"])
def test_floods_of_frames_take_little_memory(product: Product, port: str, frames: Callable[[Http2], None]) -> None:
    with unharmed(product, floods(product, getattr(product, port), frames)):
        pass


@pytest.mark.parametrize(
    "head",
    [
        http1_head("GET", "/v1/models", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: AAAA"),
        http1_head("GET", "/v1/models", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAAA"),
        http1_head("CONNECT", "localhost:5432"),
        http1_head("TRACE", "/v1/models"),
        http1_head("POST", "/v1/uploads", "Content-Encoding: gzip", "Transfer-Encoding: chunked"),
        http1_head("POST", "/modelregistry.v1.UploadService/CreateUpload", "Content-Type: application/grpc-web+proto"),
    ],
    ids=["websocket", "h2c", "connect", "trace", "gzip", "gRPC-Web"],
)
def test_only_plain_http_calls_are_accepted(product: Product, head: bytes) -> None:
    with (
        unharmed(product, half_sent(product.rest_port, [head] * 50)),
        socket.create_connection(("127.0.0.1", product.rest_port), timeout=10) as end,
    ):
        end.sendall(head)
        assert end.recv(12)[9:10] == b"4"
