"""UploadService: offsets, competing writers, and resumption."""

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import pytest
from modelregistry.v1 import upload_service_pb2
from sqlalchemy import text

from registry_service.domain.artifact_store import Part, Pieces
from registry_service.domain.errors import ArtifactStoreUnavailableError, DatabaseUnavailableError
from registry_service.domain.ports import Transaction
from registry_service.services.services import Services
from tests.integration.upload_calls import (
    ABORTED,
    INVALID,
    PART,
    PRECONDITION,
    UNKNOWN,
    is_waiting_for_a_lock,
    nothing_is_left_over,  # noqa: F401 - an autouse fixture
    some_bytes,
)
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed, WrappedStore, expect, serving
from tests.stub_client import Client, pieces, refused, sha256, writes

OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE


def write_call(client: Client, feed: Feed[upload_service_pb2.WriteUploadRequest]) -> Any:
    """Start a write; the call of an open Feed does not end before the Feed does."""
    return client.uploads.WriteUpload.future(feed)


def open_write(upload_id: str, offset: int = 0, *data: bytes) -> Feed[upload_service_pb2.WriteUploadRequest]:
    return Feed(*writes(upload_id, offset, data))


def epoch(registry: RunningRegistry, upload_id: str) -> int:
    with registry.engine.connect() as connection:
        statement = text("SELECT epoch FROM uploads WHERE id = :id")
        number: int = connection.execute(statement, {"id": upload_id}).scalar_one()
        return number


class TestOffsets:
    @pytest.mark.parametrize("offset", [0, 2, 4, 2**62])
    def test_a_wrong_offset_is_refused_with_the_right_one(self, client: Client, offset: int) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        with refused(OUT_OF_RANGE, "OUT_OF_RANGE") as refusal:
            client.write_upload(upload.id, offset, b"def")
        assert refusal.metadata["committed_size"] == "3"
        assert client.get_upload(upload.id).committed_size == 3

    def test_a_negative_offset_is_invalid(self, client: Client) -> None:
        upload = client.create_upload()
        with refused(INVALID) as refusal:
            client.write_upload(upload.id, -1, b"x")
        assert refusal.fields == ["write_offset"]

    def test_a_wrong_offset_does_not_displace_the_writer(self, registry: RunningRegistry) -> None:
        client = registry.client
        upload = client.create_upload()
        feed = open_write(upload.id, 0, b"abc")
        call = write_call(client, feed)
        eventually(lambda: epoch(registry, upload.id) == 1)
        with refused(OUT_OF_RANGE):
            client.write_upload(upload.id, 5, b"x")
        feed.send(upload_service_pb2.WriteUploadRequest(data=b"def"))
        feed.end()
        assert call.result().upload.committed_size == 6

    def test_offsets_of_later_messages_are_checked(self, client: Client) -> None:
        upload = client.create_upload()
        messages = [
            upload_service_pb2.WriteUploadRequest(upload_id=upload.id, write_offset=0, data=b"abc"),
            upload_service_pb2.WriteUploadRequest(upload_id=upload.id, write_offset=3, data=b"def"),
            upload_service_pb2.WriteUploadRequest(data=b"gh"),
            upload_service_pb2.WriteUploadRequest(write_offset=8, data=b"ij"),
        ]
        assert client.uploads.WriteUpload(iter(messages)).upload.committed_size == 10
        wrong = upload_service_pb2.WriteUploadRequest(write_offset=10, data=b"x")
        with refused(OUT_OF_RANGE) as refusal:
            client.uploads.WriteUpload(
                iter([upload_service_pb2.WriteUploadRequest(upload_id=upload.id, write_offset=10, data=b"kl"), wrong])
            )
        assert refusal.metadata["write_offset"] == "12"
        # The earlier bytes are kept.
        assert client.get_upload(upload.id).committed_size == 12

    def test_another_upload_id_within_a_stream_is_refused(self, client: Client) -> None:
        upload = client.create_upload()
        messages = [*writes(upload.id, 0, [b"abc"]), upload_service_pb2.WriteUploadRequest(upload_id=UNKNOWN)]
        with refused(INVALID) as refusal:
            client.uploads.WriteUpload(iter(messages))
        assert refusal.fields == ["upload_id"]

    def test_a_stream_without_a_message_is_refused(self, client: Client) -> None:
        with refused(INVALID) as refusal:
            client.uploads.WriteUpload(iter(()))
        assert refusal.fields == ["upload_id"]

    def test_bytes_beyond_the_declared_size_are_refused_and_the_others_kept(self, client: Client) -> None:
        upload = client.create_upload(artifact={"size_bytes": 5})
        with refused(OUT_OF_RANGE) as refusal:
            client.write_upload(upload.id, 0, b"abcdef", chunk=2)
        assert refusal.metadata["declared_size"] == "5"
        assert client.get_upload(upload.id).committed_size == 4
        client.write_upload(upload.id, 4, b"e")
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == b"abcde"

    def test_bytes_beyond_the_artifact_limit_are_refused(self, start_registry: StartRegistry) -> None:
        client = start_registry(artifact_max_bytes=10).client
        upload = client.create_upload()
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "ARTIFACT_TOO_LARGE"):
            client.write_upload(upload.id, 0, b"x" * 11)
        assert client.write_upload(upload.id, 0, b"x" * 10).committed_size == 10


class TestWriters:
    @pytest.mark.parametrize("size", [3, PART + 3])
    def test_a_newer_writer_displaces_an_older_one(self, registry: RunningRegistry, size: int) -> None:
        client = registry.client
        data = some_bytes(size)
        upload = client.create_upload()
        older_feed = open_write(upload.id, 0, b"older")
        older = write_call(client, older_feed)
        eventually(lambda: epoch(registry, upload.id) == 1)
        client.write_upload(upload.id, 0, data)
        for piece in pieces(some_bytes(size, 7)):
            older_feed.send(upload_service_pb2.WriteUploadRequest(data=piece))
        older_feed.end()
        with refused(ABORTED, "WRITER_DISPLACED") as refusal:
            older.result()
        assert refusal.metadata == {"upload_id": upload.id}
        assert client.get_upload(upload.id).committed_size == size
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == data

    def test_a_completion_displaces_a_writer(self, registry: RunningRegistry) -> None:
        client = registry.client
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        feed = open_write(upload.id, 3, b"late")
        late = write_call(client, feed)
        eventually(lambda: epoch(registry, upload.id) == 2)
        client.complete_upload(upload.id)
        # Enough for a part, which a writer stores under the artifact's key.
        for piece in pieces(bytes(2 * PART)):
            feed.send(upload_service_pb2.WriteUploadRequest(data=piece))
        feed.end()
        with refused(ABORTED, "WRITER_DISPLACED"):
            late.result()
        assert client.download(upload.model_id) == b"abc"

    def test_a_premature_completion_displaces_no_writer(self, registry: RunningRegistry) -> None:
        client = registry.client
        upload = client.create_upload(artifact={"size_bytes": 6})
        call = write_call(client, feed := open_write(upload.id, 0, b"abc"))
        eventually(lambda: epoch(registry, upload.id) == 1)
        with refused(PRECONDITION):
            client.complete_upload(upload.id)
        feed.send(upload_service_pb2.WriteUploadRequest(data=b"def"))
        feed.end()
        assert call.result().upload.committed_size == 6

    def test_a_writer_of_a_cancelled_upload_is_refused_and_leaves_nothing(self, registry: RunningRegistry) -> None:
        client = registry.client
        upload = client.create_upload()
        feed = open_write(upload.id, 0, b"abc")
        late = write_call(client, feed)
        eventually(lambda: epoch(registry, upload.id) == 1)
        client.cancel_upload(upload.id)
        for piece in pieces(bytes(2 * PART)):
            feed.send(upload_service_pb2.WriteUploadRequest(data=piece))
        feed.end()
        with refused(ABORTED, "WRITER_DISPLACED"):
            late.result()
        assert registry.objects() == []
        assert registry.count("unreferenced_objects") == 0

    def test_bytes_after_an_uncommitted_part_are_stored_at_their_offset(self, start_registry: StartRegistry) -> None:
        registry = start_registry(unary_timeout_seconds=1)
        data = some_bytes(PART + 1000)

        class BlockingStore(WrappedStore):
            """Another transaction locks the part's row as soon as its bytes are stored."""

            def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
                part = super().write_part(key, handle, number=number, offset=offset, pieces=pieces)
                blocker.execute(text("LOCK TABLE upload_parts IN SHARE MODE"))
                return part

        with registry.engine.connect() as blocker:
            with serving(registry, BlockingStore(registry.parts.store)) as (_, client):
                upload = client.create_upload()
                with pytest.raises(grpc.RpcError) as caught:
                    client.write_upload(upload.id, 0, data)
                assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
            blocker.rollback()
        client = registry.client
        committed = client.get_upload(upload.id).committed_size
        client.write_upload(upload.id, committed, data[committed:])
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == data

    def test_a_commit_with_unknown_outcome_is_not_repeated(self, registry: RunningRegistry) -> None:
        data = some_bytes(PART + 1000)
        parts = registry.parts

        class ForgetfulDatabase:
            """The connection breaks after the commit of a part and before its acknowledgement."""

            def check(self) -> float:
                return parts.database.check()

            def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
                return parts.database.wakes(event)

            def reading(self) -> AbstractContextManager[Transaction]:
                return parts.database.reading()

            @contextmanager
            def transaction(self) -> Iterator[Transaction]:
                before = registry.count("upload_parts")
                with parts.database.transaction() as transaction:
                    yield transaction
                if registry.count("upload_parts") > before:
                    raise DatabaseUnavailableError

        services = Services.on(ForgetfulDatabase(), parts.store, parts.services.policy)
        upload = registry.client.create_upload()
        with pytest.raises(DatabaseUnavailableError):
            services.uploads.write(upload.id, 0, pieces(data))
        assert registry.client.get_upload(upload.id).committed_size == PART
        registry.client.write_upload(upload.id, PART, data[PART:])
        registry.client.complete_upload(upload.id)
        assert registry.client.download(upload.model_id) == data

    def test_a_displaced_writer_does_not_damage_the_parts_of_the_newer_one(self, registry: RunningRegistry) -> None:
        data = some_bytes(PART + 5)
        asleep, wake = threading.Event(), threading.Event()

        class SlowStore(WrappedStore):
            def begin(self, key: str) -> str:
                asleep.set()
                assert wake.wait(30)
                return super().begin(key)

        with serving(registry, SlowStore(registry.parts.store)) as (_, slow_client):
            upload = registry.client.create_upload()
            older = write_call(slow_client, feed := open_write(upload.id, 0, *pieces(data)))
            feed.end()
            assert asleep.wait(30)
            with ThreadPoolExecutor(1) as thread:
                newer = thread.submit(registry.client.write_upload, upload.id, 0, data)
                # It may have to wait for the older writer; it must succeed in either case.
                eventually(lambda: newer.done() or is_waiting_for_a_lock(registry))
                wake.set()
                try:
                    committed = newer.result().committed_size
                except grpc.RpcError as error:
                    expect(error, ABORTED, OUT_OF_RANGE)
                    committed = -1
            outcome = older.code()
        assert (committed == len(data)) is (outcome is ABORTED)
        assert outcome in {ABORTED, grpc.StatusCode.OK}
        registry.client.complete_upload(upload.id)
        assert registry.client.download(upload.model_id) == data


class TestResuming:
    def test_bytes_before_a_cancellation_are_kept(self, registry: RunningRegistry) -> None:
        client = registry.client
        data = some_bytes(2 * PART + 17)
        upload = client.create_upload()
        call = write_call(client, open_write(upload.id, 0, *pieces(data[: 3 * PART // 2])))
        eventually(lambda: client.get_upload(upload.id).committed_size >= PART)
        call.cancel()
        eventually(lambda: _resume(client, upload.id, data))
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == data

    @pytest.mark.parametrize("size", [1, 1000, PART, 3 * PART // 2])
    def test_bytes_before_an_idle_timeout_are_kept(self, registry: RunningRegistry, size: int) -> None:
        data = some_bytes(2 * PART + 17)
        upload = registry.client.create_upload()
        with serving(registry, stream_idle_seconds=0.4) as (_, client):
            call = write_call(client, open_write(upload.id, 0, *pieces(data[:size])))
            assert call.code() is grpc.StatusCode.CANCELLED
            eventually(lambda: client.get_upload(upload.id).committed_size == size)
        registry.client.write_upload(upload.id, size, data[size:])
        registry.client.complete_upload(upload.id)
        assert registry.client.download(upload.model_id) == data

    @pytest.mark.parametrize("sizes", [[5], [PART + 5], [PART, 7]])
    def test_another_server_continues_an_upload(
        self, start_registry: StartRegistry, registry: RunningRegistry, sizes: list[int]
    ) -> None:
        data = some_bytes(2 * PART + 17)
        with serving(registry) as (_, client):
            upload = client.create_upload()
            offset = 0
            for size in sizes:
                offset = client.write_upload(upload.id, offset, data[offset : offset + size]).committed_size
        after = start_registry()
        assert after.client.get_upload(upload.id).committed_size == offset
        after.client.write_upload(upload.id, offset, data[offset:])
        after.client.complete_upload(upload.id)
        assert registry.client.download(upload.model_id) == data

    def test_a_store_failure_at_the_first_part_loses_no_bytes(self, registry: RunningRegistry) -> None:
        class FailingStore(WrappedStore):
            def begin(self, key: str) -> str:
                if key not in failed:
                    failed.append(key)
                    raise ArtifactStoreUnavailableError
                return super().begin(key)

        failed: list[str] = []
        data = random.Random(1).randbytes(PART + 3)
        with serving(registry, FailingStore(registry.parts.store)) as (_, client):
            upload = client.create_upload()
            with refused(grpc.StatusCode.UNAVAILABLE, "ARTIFACT_STORE_UNAVAILABLE"):
                client.write_upload(upload.id, 0, data)
            committed = client.get_upload(upload.id).committed_size
            client.write_upload(upload.id, committed, data[committed:])
            assert client.download(client.complete_upload(upload.id, sha256=sha256(data)).id) == data


def _resume(client: Client, upload_id: str, data: bytes) -> bool:
    """Write at the committed size, unless the old writer has just advanced it."""
    committed = client.get_upload(upload_id).committed_size
    assert committed >= PART
    try:
        return client.write_upload(upload_id, committed, data[committed:]).committed_size == len(data)
    except grpc.RpcError as error:
        expect(error, OUT_OF_RANGE)
        return False
