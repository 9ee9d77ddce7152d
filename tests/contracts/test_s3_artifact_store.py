import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from registry_service.domain.artifact_store import CHUNK_SIZE, ArtifactStore
from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactStoreUnavailableError,
    StorageFullError,
    TooManyOpenFilesError,
)
from registry_service.domain.object_keys import new_object_key
from registry_service.storage.artifacts.checks import PART_SIZE
from registry_service.storage.artifacts.s3 import S3ArtifactStore
from registry_service.storage.artifacts.s3_connection import S3Options
from tests.contracts.artifact_store import (
    MIB,
    ArtifactStoreContract,
    no_more_open_files,
    put_in_parts,
    read,
    some_bytes,
    write_parts,
)
from tests.ports import free_port
from tests.s3_server import (
    S3Endpoint,
    S3Server,
    TcpProxy,
    make_certificates,
    new_bucket_name,
    running_s3,
)


def connected(endpoint: S3Endpoint, bucket: str, connections: int = 64) -> S3ArtifactStore:
    options = S3Options(
        host=endpoint.host,
        port=endpoint.port,
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        secure=endpoint.secure,
        ca_cert=endpoint.ca_cert,
        bucket=bucket,
    )
    return S3ArtifactStore.connect(options, connections=connections)


def receive(pieces: Iterator[bytes], received: bytearray) -> None:
    for piece in pieces:
        received += piece


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    folder = tmp_path_factory.mktemp("tls")
    with running_s3(folder / "s3", make_certificates(folder / "certificates")) as server:
        yield server


def all_uses(store: S3ArtifactStore) -> list[Callable[[], object]]:
    key = new_object_key()
    return [
        store.check,
        store.ensure_bucket,
        lambda: store.put(key, b"data"),
        lambda: store.begin(key),
        lambda: write_parts(store, key, "handle", b"data"),
        lambda: read(store, key),
        lambda: read(store, key, 0, 0),
        lambda: store.size(key),
        lambda: store.delete(key),
    ]


@contextmanager
def answering(status: int, code: str) -> Iterator[S3Endpoint]:
    """An S3 that gives this answer to everything, as none can be brought to give it at will."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = f"<Error><Code>{code}</Code><Message>It is said.</Message></Error>".encode()
            self.send_response(status)
            self.send_header("content-type", "application/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_POST = answer  # noqa: N815 (the base class looks for them)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield S3Endpoint(
                host="127.0.0.1",
                port=server.server_port,
                access_key="key",
                secret_key="secret",
                secure=False,
                ca_cert=None,
            )
        finally:
            server.shutdown()


class TestS3ArtifactStore(ArtifactStoreContract):
    __test__ = True

    @pytest.fixture
    def bucket(self) -> str:
        return new_bucket_name()

    @pytest.fixture
    def store(self, s3_server: S3Server, bucket: str) -> ArtifactStore:
        store = connected(s3_server.endpoint, bucket)
        store.ensure_bucket()
        return store

    @pytest.fixture
    def needs(self, s3_server: S3Server) -> Callable[[str], None]:
        return s3_server.require

    @pytest.fixture
    def through(self, s3_server: S3Server, bucket: str) -> Callable[[TcpProxy], S3ArtifactStore]:
        """Makes another store on the same bucket, which goes through a proxy."""
        return lambda proxy: connected(replace(s3_server.endpoint, port=proxy.port), bucket)

    # The bucket

    def test_the_bucket_is_made_when_it_is_missing(self, s3_server: S3Server, bucket: str) -> None:
        store = connected(s3_server.endpoint, bucket)
        with pytest.raises(ArtifactStoreUnavailableError):
            store.check()
        store.ensure_bucket()
        store.check()

    def test_a_bucket_that_is_there_stays_as_it_is(self, store: S3ArtifactStore, key: str) -> None:
        store.put(key, b"data")
        store.ensure_bucket()
        assert read(store, key) == b"data"

    def test_several_processes_may_make_the_bucket_at_once(self, s3_server: S3Server, bucket: str) -> None:
        together = threading.Barrier(8)

        def make() -> None:
            store = connected(s3_server.endpoint, bucket)
            together.wait()
            store.ensure_bucket()

        with ThreadPoolExecutor(8) as pool:
            for made in [pool.submit(make) for _ in range(8)]:
                made.result()

    def test_a_bucket_that_is_gone_is_not_a_loss(self, s3_server: S3Server, bucket: str) -> None:
        store = connected(s3_server.endpoint, bucket)
        for number, use in enumerate(all_uses(store)):
            if number not in {1, 2, 3}:  # ensure_bucket, put, begin
                with pytest.raises(ArtifactStoreUnavailableError):
                    use()

    @pytest.mark.parametrize("size", [4, PART_SIZE + 1])
    def test_a_bucket_that_is_gone_is_made_again_by_the_next_write(
        self, s3_server: S3Server, bucket: str, key: str, size: int
    ) -> None:
        store = connected(s3_server.endpoint, bucket)
        store.write(key, [bytes(size)])
        assert read(store, key) == bytes(size)

    def test_delete_aborts_the_unfinished_uploads_of_its_key_alone(self, store: S3ArtifactStore, key: str) -> None:
        longer = f"{key}0"
        other = store.begin(longer)
        for _ in range(3):
            write_parts(store, key, store.begin(key), b"data")
        store.delete(key)
        assert store._uploads.unfinished(key) == []
        assert store._uploads.unfinished(longer) == [other]

    # A store that does not answer as it should

    def test_a_write_leaves_no_other_unfinished_object_of_its_key(self, store: S3ArtifactStore, key: str) -> None:
        # As a CreateMultipartUpload does that is repeated after a time-out, and carried out twice.
        store.begin(key)
        store.write(key, [bytes(PART_SIZE), b"x"])
        assert store._uploads.unfinished(key) == []
        assert store.size(key) == PART_SIZE + 1

    def test_an_absent_store_is_unavailable_at_once(self) -> None:
        nobody = S3Endpoint(
            host="127.0.0.1", port=free_port(), access_key="key", secret_key="secret", secure=False, ca_cert=None
        )
        for use in all_uses(connected(nobody, "bucket")):
            begin = time.monotonic()
            with pytest.raises(ArtifactStoreUnavailableError):
                use()
            assert time.monotonic() - begin < 5

    def test_a_store_that_hangs_fails_the_check_soon(self, store: S3ArtifactStore, s3_server: S3Server) -> None:
        store.check()
        with s3_server.frozen():
            begin = time.monotonic()
            with pytest.raises(ArtifactStoreUnavailableError):
                store.check()
            assert time.monotonic() - begin < 10
        store.check()

    def test_a_store_without_space_says_so(self, key: str) -> None:
        with answering(507, "XMinioStorageFull") as endpoint:
            store = connected(endpoint, "bucket")
            for write in (lambda: store.put(key, b"data"), lambda: store.begin(key)):
                with pytest.raises(StorageFullError, match="No space is left in the artifact store"):
                    write()

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_too_many_open_files_are_not_taken_for_a_store_that_is_away(
        self, store: S3ArtifactStore, s3_server: S3Server, bucket: str, key: str, host: str
    ) -> None:
        store.put(key, b"data")
        fresh = connected(replace(s3_server.endpoint, host=host), bucket)  # without connections
        uses = (
            lambda: fresh.put(key, b"data"),
            lambda: fresh.begin(key),
            lambda: read(fresh, key),
            lambda: fresh.size(key),
            lambda: fresh.delete(key),
        )
        with no_more_open_files():
            for use in uses:
                with pytest.raises(TooManyOpenFilesError):
                    use()
        assert read(fresh, key) == b"data"

    def test_a_store_that_comes_back_serves_again(self, tmp_path: Path, bucket: str, key: str) -> None:
        with running_s3(tmp_path) as server:
            store = connected(server.endpoint, bucket)
            store.ensure_bucket()
            store.put(key, b"data")
            with server.away(), pytest.raises(ArtifactStoreUnavailableError):
                read(store, key)
            assert read(store, key) == b"data"

    def test_parts_survive_a_crash_of_the_store(self, tmp_path: Path, bucket: str, key: str) -> None:
        with running_s3(tmp_path) as server:
            store = connected(server.endpoint, bucket)
            store.ensure_bucket()
            data = some_bytes(store.part_size + 5)
            handle = store.begin(key)
            parts = write_parts(store, key, handle, data)
            server.kill()
            server.start()
            store.finish(key, handle, parts)
            server.kill()
            server.start()
            assert read(store, key) == data

    @pytest.mark.parametrize("wrong", [{"secret_key": "wrong-secret"}, {"access_key": "wrong-key"}])
    def test_wrong_credentials_are_unavailable_and_logged_but_not_told(
        self, s3_server: S3Server, bucket: str, wrong: dict[str, str], caplog: pytest.LogCaptureFixture
    ) -> None:
        s3_server.require("credentials")
        connected(s3_server.endpoint, bucket).ensure_bucket()
        store = connected(replace(s3_server.endpoint, **wrong), bucket)  # type: ignore[arg-type]
        for use in all_uses(store):
            with pytest.raises(ArtifactStoreUnavailableError) as raised:
                use()
            assert raised.value.message == "The artifact store does not respond. Try again later."
            assert raised.value.__cause__ is not None
        assert any(record.levelno == logging.ERROR and record.exc_info for record in caplog.records)

    # Connections that break

    @pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
    def test_a_read_goes_on_after_broken_connections(
        self,
        store: S3ArtifactStore,
        through: Callable[[TcpProxy], S3ArtifactStore],
        s3_server: S3Server,
        key: str,
        reset: bool,
    ) -> None:
        data = some_bytes(20 * MIB + 123)
        put_in_parts(store, key, data)
        # At odd places: before the first byte, in mid-chunk, and twice with hardly any progress.
        limits = [0, 3 * MIB + 77, 12 * MIB, 1000]

        def limit(connection: int) -> int | None:
            return limits[connection] if connection < len(limits) else None

        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, limit, reset=reset) as proxy:
            pieces = list(through(proxy).read(key, 5, 20 * MIB))
            assert proxy.connections == len(limits) + 1
        assert b"".join(pieces) == data[5 : 5 + 20 * MIB]
        assert all(len(piece) == CHUNK_SIZE for piece in pieces)

    @pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
    @pytest.mark.parametrize("limit", [0, 1000, 700_000])
    def test_a_read_that_is_always_cut_fails_and_never_ends_early(
        self,
        store: S3ArtifactStore,
        through: Callable[[TcpProxy], S3ArtifactStore],
        s3_server: S3Server,
        key: str,
        limit: int,
        reset: bool,
    ) -> None:
        data = some_bytes(10 * MIB)
        store.put(key, data)
        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, lambda _: limit, reset=reset) as proxy:
            received = bytearray()
            with pytest.raises(ArtifactStoreUnavailableError):
                receive(through(proxy).read(key), received)
            assert proxy.connections < 20
        assert len(received) < len(data)
        assert data.startswith(received)

    def test_a_read_never_mixes_two_contents(
        self, store: S3ArtifactStore, through: Callable[[TcpProxy], S3ArtifactStore], s3_server: S3Server, key: str
    ) -> None:
        old, new = some_bytes(10 * MIB), some_bytes(10 * MIB, seed=1)
        store.put(key, old)
        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, lambda n: 9 * MIB if n == 0 else None) as proxy:
            pieces = through(proxy).read(key)
            received = bytearray(next(pieces))
            store.put(key, new)
            with pytest.raises(ArtifactStoreUnavailableError):
                receive(pieces, received)
        assert len(received) >= CHUNK_SIZE
        assert old.startswith(received)

    def test_a_read_whose_object_is_deleted_meanwhile_is_a_loss(
        self, store: S3ArtifactStore, through: Callable[[TcpProxy], S3ArtifactStore], s3_server: S3Server, key: str
    ) -> None:
        store.put(key, some_bytes(10 * MIB))
        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, lambda n: 9 * MIB if n == 0 else None) as proxy:
            pieces = through(proxy).read(key)
            next(pieces)
            store.delete(key)
            with pytest.raises(ArtifactLostError):
                list(pieces)

    def test_a_read_outlives_a_restart_of_the_store(self, tmp_path: Path, bucket: str, key: str) -> None:
        with running_s3(tmp_path) as server:
            store = connected(server.endpoint, bucket)
            store.ensure_bucket()
            data = some_bytes(48 * MIB)
            put_in_parts(store, key, data)
            pieces = store.read(key)
            first = next(pieces)
            server.kill()
            server.start()
            assert first + b"".join(pieces) == data

    def test_a_write_is_tried_again_when_its_answer_is_lost(
        self, store: S3ArtifactStore, through: Callable[[TcpProxy], S3ArtifactStore], s3_server: S3Server, key: str
    ) -> None:
        # Every proxy's first connection lets the request through and swallows the answer.
        data = some_bytes(store.part_size + 5)
        endpoint = s3_server.endpoint

        def once_each(use: Callable[[S3ArtifactStore], object]) -> object:
            with TcpProxy(endpoint.host, endpoint.port, lambda n: 0 if n == 0 else None) as proxy:
                result = use(through(proxy))
                assert proxy.connections > 1
                return result

        handle = str(once_each(lambda store: store.begin(key)))
        once_each(lambda store: write_parts(store, key, handle, data))
        store.finish(key, handle, write_parts(store, key, handle, data))
        assert read(store, key) == data
        once_each(lambda store: store.delete(key))
        assert store.size(key) is None
        once_each(lambda store: store.put(key, b"data"))
        assert read(store, key) == b"data"

    def test_a_finish_whose_answer_is_lost_can_be_repeated(
        self, store: S3ArtifactStore, through: Callable[[TcpProxy], S3ArtifactStore], s3_server: S3Server, key: str
    ) -> None:
        data = some_bytes(store.part_size + 5)
        handle = store.begin(key)
        parts = write_parts(store, key, handle, data)
        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, lambda _: 0) as proxy:
            with pytest.raises(ArtifactStoreUnavailableError):
                through(proxy).finish(key, handle, parts)
            assert proxy.connections == 1
        store.finish(key, handle, parts)
        assert read(store, key) == data

    def test_closing_early_does_not_fetch_the_rest(
        self, store: S3ArtifactStore, through: Callable[[TcpProxy], S3ArtifactStore], s3_server: S3Server, key: str
    ) -> None:
        put_in_parts(store, key, some_bytes(64 * MIB))
        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, lambda _: None) as proxy:
            pieces = through(proxy).read(key)
            next(pieces)
            pieces.close()  # type: ignore[attr-defined] # a generator
        assert proxy.answered < 32 * MIB

    @pytest.mark.usefixtures("store")
    def test_connections_are_used_again(
        self, through: Callable[[TcpProxy], S3ArtifactStore], s3_server: S3Server, key: str
    ) -> None:
        s3_server.require("keep-alive")
        endpoint = s3_server.endpoint
        with TcpProxy(endpoint.host, endpoint.port, lambda _: None) as proxy:
            other = through(proxy)
            for _ in range(5):
                other.put(key, some_bytes(2 * MIB))
                read(other, key)
                read(other, key, CHUNK_SIZE, 5)
                other.size(key)
            assert proxy.connections == 1

    # TLS

    def test_a_ca_of_ones_own_is_trusted(self, tls_server: S3Server, bucket: str, key: str) -> None:
        store = connected(tls_server.endpoint, bucket)
        store.ensure_bucket()
        store.check()
        data = some_bytes(store.part_size + 5)
        put_in_parts(store, key, data)
        assert read(store, key) == data
        store.delete(key)
        assert store.size(key) is None

    def test_another_ca_is_not_trusted(self, tls_server: S3Server, tmp_path: Path, bucket: str) -> None:
        other = make_certificates(tmp_path / "other")
        for ca in (other.ca, None):
            store = connected(replace(tls_server.endpoint, ca_cert=ca), bucket)
            for use in all_uses(store):
                with pytest.raises(ArtifactStoreUnavailableError) as raised:
                    use()
                assert "CERTIFICATE_VERIFY_FAILED" in repr(raised.value.__cause__)

    def test_a_ca_file_that_is_missing_is_told_at_once(self, s3_server: S3Server, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            connected(replace(s3_server.endpoint, secure=True, ca_cert=tmp_path / "absent"), "bucket")
