"""Attacks on the ports of the real product are refused or time out, while other clients are served."""

import resource
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httpx
import psutil
import pytest
from modelregistry.v1 import model_service_pb2

from tests.polling import eventually
from tests.products import Product, running_up
from tests.stub_client import Client, refused, zip_of
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
CONNECTIONS = 10_000
GET_MODEL = "/modelregistry.v1.ModelService/GetModel"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with accessible_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def product(folder: Path) -> Iterator[Product]:
    """The product, started with a low limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1_024), hard))
        try:
            product = stack.enter_context(running_up(folder))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        yield product


@pytest.fixture(params=["rest", "grpc"])
def port(request: pytest.FixtureRequest, product: Product) -> int:
    """The attacked port: of gRPC or of the gateway."""
    return product.rest_port if request.param == "rest" else product.grpc_port


@pytest.fixture(autouse=True)
def _unharmed(product: Product, folder: Path) -> Iterator[None]:
    """Assert after each attack: others are served, no process ended, no call failed, and all files are closed."""
    processes, files = {process.pid for process in servers(product)}, open_files(product)
    yield
    assert_served(product)
    assert processes == {process.pid for process in servers(product)}
    log = (folder / "data" / "registry.log").read_text()
    assert "unexpected error" not in log
    assert "Traceback" not in log + product.server.output()
    # Some are the connections to Postgres and to the server, which stay open.
    eventually(lambda: open_files(product) < files + 100, what="the end of the attack's connections")


def servers(product: Product) -> list[psutil.Process]:
    """Return the processes of Envoy, the supervisor, and the gRPC server."""
    found = [process for process in product.processes() if process.name().startswith(("envoy", "python"))]
    assert len(found) == 3
    return found


def open_files(product: Product) -> int:
    return sum(process.num_fds() for process in servers(product))


def assert_served(product: Product) -> None:
    """Assert that other clients can read over REST and gRPC, on connections of their own."""
    name = f"served-{uuid.uuid4()}"
    model = product.client.register(name=name)
    answer = httpx.get(f"{product.rest_url}/v1/models/{model.id}", timeout=20, verify=False, trust_env=False)
    assert answer.json()["name"] == name
    with grpc.insecure_channel(product.grpc_address) as channel:
        call: Any = channel.unary_unary(GET_MODEL, model_service_pb2.GetModelRequest.SerializeToString)
        assert call(model_service_pb2.GetModelRequest(model_id=model.id), timeout=20)
    product.client.delete(model.id)


def resident_bytes(product: Product) -> int:
    return sum(process.memory_info().rss for process in servers(product))


# ---- Connections


def test_the_product_raises_its_limit_of_open_files_to_the_maximum(product: Product) -> None:
    for process in servers(product):
        soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == hard


@contextmanager
def many_files(needed: int) -> Iterator[None]:
    """Let this process open this many files; skip the test where that is not permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} open files, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def connections(port: int, count: int, beginning: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections that send these bytes and then nothing more."""
    with ExitStack() as stack:
        ends = []
        for _ in range(count):
            end = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with suppress(OSError):  # it may be closed at once
                end.sendall(beginning)
            ends.append(end)
        yield ends


@pytest.mark.parametrize(
    "beginning", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HT"], ids=["silent", "h2", "h1"]
)
def test_ten_thousand_open_connections_delay_no_other_client(product: Product, port: int, beginning: bytes) -> None:
    before = resident_bytes(product)
    with many_files(CONNECTIONS + 1_000), connections(port, CONNECTIONS, beginning):
        # The process has accepted them, not only the kernel. gRPC closes connections that are not HTTP/2.
        if port == product.rest_port or not beginning.startswith(b"GET"):
            eventually(lambda: open_files(product) > CONNECTIONS, what="the connections to be taken")
        assert_served(product)
        assert resident_bytes(product) - before < 1_000 * MIB


# ---- Slow clients


@pytest.mark.parametrize("what", ["request line", "headers", "body"])
def test_slow_requests_delay_no_other_client(product: Product, what: str) -> None:
    beginning, drip = {
        "request line": (b"GET /v1/mo", b"d"),
        "headers": (b"GET /v1/models HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"),
        "body": (b"POST /v1/uploads HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n{", b" "),
    }[what]
    with connections(product.rest_port, 300, beginning) as ends:
        for _ in range(3):
            for end in ends:
                with suppress(OSError):
                    end.sendall(drip)
            assert_served(product)


def test_headers_without_an_end_time_out(product: Product) -> None:
    with connections(product.rest_port, 1, b"GET /v1/models HTTP/1.1\r\nHost: x\r\n") as (end,):

        def has_ended() -> bool:
            with suppress(TimeoutError):
                end.settimeout(0.2)
                return end.recv(1_000)[:12] in {b"", b"HTTP/1.1 408"}
            end.settimeout(20)
            end.sendall(b"a: b\r\n")
            return False

        eventually(has_ended, 60, "the timeout")


# ---- Size


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /health HTTP/1.1\r\nHost: x\r\n" + "a: " + "x" * 70_000 + "\r\n\r\n", b"431"),
        ("GET /health HTTP/1.1\r\nHost: x\r\n" + "".join(f"a{n}: x\r\n" for n in range(2_000)) + "\r\n", b"431"),
        ("GET /" + "x" * 70_000 + " HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
    ],
    ids=["long header", "many headers", "long address"],
)
def test_too_large_headers_are_refused(product: Product, head: str, status: bytes) -> None:
    with connections(product.rest_port, 1, head.encode()) as (end,):
        assert end.recv(1_000)[9:12] == status


def test_an_endless_json_string_is_refused_before_it_fills_the_memory(product: Product) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"spec": {"model": {"name": "'
        for _ in range(1_000):
            sent += MIB
            yield b"x" * MIB

    with suppress(httpx.TransportError):  # the gateway may close the connection
        answer = httpx.post(f"{product.rest_url}/v1/uploads", content=endless(), timeout=60, trust_env=False)
        assert answer.status_code == 413
    # The buffers on the way hold some bytes beyond the 16 MiB limit of a body.
    assert sent < 100 * MIB


def test_too_large_metadata_is_refused_by_grpc(product: Product, port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(GET_MODEL)
        with pytest.raises(grpc.RpcError):
            call(b"", metadata=(("a", "x" * 500_000),), timeout=20)


# ---- Decompression


def test_a_decompression_bomb_as_message_is_refused(product: Product, port: int) -> None:
    before = resident_bytes(product)
    with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1)]) as channel:
        call: Any = channel.unary_unary(GET_MODEL)
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            call(bytes(200 * MIB), compression=grpc.Compression.Gzip, timeout=60)
    assert resident_bytes(product) - before < 100 * MIB


def test_a_decompression_bomb_in_an_archive_takes_no_memory(product: Product) -> None:
    before = resident_bytes(product)
    bomb = zip_of({"model.xml": b" " * 400 * MIB})
    assert len(bomb) < MIB
    model = product.client.register(bomb, name=f"bomb-{uuid.uuid4()}")
    assert product.client.files(model.id).artifact_files[0].size_bytes == 400 * MIB
    assert resident_bytes(product) - before < 200 * MIB
    product.client.delete(model.id)


# ---- HTTP/2


class Http2:
    """An HTTP/2 client that follows only the rules of the frames."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
        self.state.initiate_connection()
        self.flush()

    def close(self) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.state.data_to_send())

    def request(self, stream: int) -> None:
        headers = [(":method", "POST"), (":path", GET_MODEL), (":scheme", "http"), (":authority", "x")]
        self.state.send_headers(stream, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])


def rapid_reset(client: Http2) -> None:
    for stream in range(1, 4_001, 2):
        client.request(stream)
        client.state.reset_stream(stream)
        client.flush()


def pings(client: Http2) -> None:
    for _ in range(10_000):
        client.state.ping(b"12345678")
        client.flush()


def settings(client: Http2) -> None:
    for _ in range(10_000):
        client.socket.sendall(b"\0\0\0\x04\0\0\0\0\0")


def endless_continuation(client: Http2) -> None:
    # HEADERS without END_HEADERS, then CONTINUATION frames without end.
    client.socket.sendall(b"\0\0\x01\x01\0\0\0\0\x01\x82")
    literal = b"\0\x01a\x7f\xa1\x1f" + b"x" * 4_000
    for _ in range(2_000):
        client.socket.sendall(len(literal).to_bytes(3) + b"\x09\0\0\0\0\x01" + literal)


def empty_data(client: Http2) -> None:
    client.request(1)
    client.flush()
    for _ in range(10_000):
        client.socket.sendall(b"\0\0\0\0\0\0\0\0\x01")


@pytest.mark.parametrize("flood", [rapid_reset, pings, settings, endless_continuation, empty_data])
def test_a_flood_of_frames_delays_no_other_client(product: Product, port: int, flood: Callable[[Http2], None]) -> None:
    before = resident_bytes(product)
    with closing(Http2(port)) as client:
        # Either the server closes the connection, or it handles the frames as they arrive.
        with suppress(OSError, h2.exceptions.ProtocolError):
            flood(client)
        assert_served(product)
        assert resident_bytes(product) - before < 300 * MIB


def test_calls_without_a_message_delay_no_other_client(product: Product, port: int) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(closing(Http2(port))) for _ in range(5)]
        for client in clients:
            for stream in range(1, 201, 2):
                client.request(stream)
            client.flush()
        assert_served(product)


def test_a_call_without_a_message_times_out(product: Product) -> None:
    with closing(Http2(product.grpc_port)) as client:
        client.request(1)
        client.flush()
        client.socket.settimeout(30)
        while True:
            data = client.socket.recv(65_536)
            assert data, "the stream is to end, not the connection"
            events = client.state.receive_data(data)
            if any(isinstance(event, h2.events.StreamReset | h2.events.StreamEnded) for event in events):
                break
            client.flush()


def test_a_message_over_the_gateways_limit_is_refused(product: Product) -> None:
    with closing(Client(f"127.0.0.1:{product.rest_port}")) as client:
        for mib in (17, 20):
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
                client.get("x" * (mib * MIB))


# ---- Paths

TRAVERSALS = [
    "../../../../tmp/escaped",
    "..%2f..%2fescaped",
    "%2e%2e%2fescaped",
    "/tmp/escaped",
    "..\\..\\escaped",
    "a\0/../escaped",
    "\u2025/\uff0e\uff0e/escaped",
    "C:\\escaped",
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_file_name_leads_out_of_the_artifact_store(product: Product, folder: Path, name: str) -> None:
    data = f"bytes of {name!r}".encode()
    for fields in ({"id": name}, {"name": name}, {"artifact": {"file_name": name}}):
        with suppress(grpc.RpcError):
            product.client.register(data, **{"name": f"path-{uuid.uuid4()}"} | fields)
    for kind in ("", "application/zip"):
        with suppress(grpc.RpcError):
            product.client.register(
                zip_of({name.replace("\0", ""): data}), name=f"zip-{uuid.uuid4()}", artifact={"media_type": kind}
            )
    for path in ("/v1/models/{}", "/models/{}", "/models/{}/files", "/v1/models/{}/artifact", "/docs/{}"):
        answer = httpx.get(f"{product.rest_url}{path.format(name.replace(chr(0), '%00'))}", trust_env=False)
        assert 400 <= answer.status_code < 500 or answer.status_code == 307
    assert not [path for path in (*folder.rglob("*"), *Path("/tmp").glob("escaped*")) if "escaped" in path.name]
