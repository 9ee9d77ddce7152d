"""The gateway in front of stub servicers: uploads, downloads and connections."""

import contextlib
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import httpx
import pytest
import yaml

from registry_service.settings import GatewaySettings, load
from registry_service.supervisor.gateway import gateway_config
from tests.e2e.stub_gateway import MIB, Gateway, megabytes, request, start_gateway, start_gateway_with_stubs
from tests.polling import eventually

# Headers from the server to the gateway, which clients must not see.
OURS = {"x-http-status", "x-content-length", "x-content-type"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with start_gateway_with_stubs(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


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
