"""UploadService: uploads survive interruptions, and become exactly one model."""

# Failing methods ignore their arguments.
# ruff: noqa: ARG002

import random
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from modelregistry.v1 import model_pb2, upload_pb2, upload_service_pb2
from sqlalchemy import text

from registry_service.domain.artifact_store import Part, Pieces
from registry_service.domain.errors import ArtifactLostError, ArtifactStoreUnavailableError, DatabaseUnavailableError
from registry_service.domain.ports import Transaction
from registry_service.services.services import Services
from tests.client import Client, pieces, refused, sha256, spec, writes, zip_of
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed, WrappedStore, expect, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
ABORTED = grpc.StatusCode.ABORTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

ACTIVE = upload_pb2.Upload.STATE_ACTIVE
COMPLETING = upload_pb2.Upload.STATE_COMPLETING
COMPLETED = upload_pb2.Upload.STATE_COMPLETED

PART = 8 * 1024 * 1024
UNKNOWN = "f0c1b5a2-6d3e-4f7a-9b8c-2d1e0f3a4b5c"


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(autouse=True)
def nothing_is_left_over(registry: RunningRegistry) -> Iterator[None]:
    """Return whether the store has only the models' artifacts after garbage collection and the end of all uploads."""
    yield
    registry.execute("UPDATE uploads SET expire_time = now() - interval '1 second'")
    registry.execute("UPDATE unreferenced_objects SET due_time = now()")
    report = registry.parts.services.garbage_collector.collect()
    assert not report.failed
    assert registry.count("unreferenced_objects") == 0
    assert registry.count("uploads") == 0
    assert registry.count("upload_parts") == 0
    with registry.engine.connect() as connection:
        keys = set(connection.execute(text("SELECT object_key FROM models")).scalars())
    assert {str(path.relative_to(registry.artifact_dir)) for path in registry.objects()} == keys
    for model in registry.client.all():
        assert registry.client.verify(model.id).intact


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


class TestWholeLife:
    def test_an_upload_of_the_previous_version_continues(self, registry: RunningRegistry) -> None:
        client = registry.client
        upload = client.create_upload(name="yolo", precisions=["fp16"], description="is not known there")
        registry.execute("UPDATE uploads SET spec = spec #- '{fields,description}'")
        client.write_upload(upload.id, 0, b"weights")
        model = client.complete_upload(upload.id)
        assert (model.name, list(model.precisions), model.description) == ("yolo", ["fp16"], "")

    def test_description_and_precisions_are_kept_by_an_upload(self, client: Client) -> None:
        upload = client.create_upload(name="yolo", precisions=["NF4"], description="# YOLO")
        assert (upload.spec.model.description, list(upload.spec.model.precisions)) == ("# YOLO", ["nf4"])
        client.write_upload(upload.id, 0, b"weights")
        model = client.complete_upload(upload.id)
        assert (model.description, list(model.precisions)) == ("# YOLO", ["nf4"])

    def test_an_upload_is_created_written_and_completed(self, registry: RunningRegistry) -> None:
        client = registry.client
        before = datetime.now(UTC)
        upload = client.create_upload(name="yolo", tags={"a": "b"}, artifact={"file_name": "a.bin", "size_bytes": 7})
        assert upload.id == str(uuid.UUID(upload.id))
        assert upload.state == ACTIVE
        assert upload.committed_size == 0
        assert before <= upload.create_time.ToDatetime(UTC) <= datetime.now(UTC)
        assert 86_000 < upload.expire_time.seconds - upload.create_time.seconds <= 86_400
        assert upload.spec.model.name == "yolo"
        assert upload.spec.artifact.size_bytes == 7
        assert upload.spec.artifact.media_type == "application/octet-stream"
        assert upload.spec.model.id == upload.model_id
        assert client.get_upload(upload.id) == upload
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            client.get(upload.model_id)
        written = client.write_upload(upload.id, 0, b"weights")
        assert written.committed_size == 7
        assert written.expire_time.ToDatetime() >= upload.expire_time.ToDatetime()
        assert client.get_upload(upload.id).committed_size == 7
        model = client.complete_upload(upload.id, sha256=sha256(b"weights").upper())
        assert model.id == upload.model_id
        assert (model.artifact.size_bytes, model.artifact.sha256) == (7, sha256(b"weights"))
        assert dict(model.tags) == {"a": "b"}
        assert client.get(model.id) == model
        assert client.download(model.id) == b"weights"
        done = client.get_upload(upload.id)
        assert (done.state, done.committed_size, done.model_id) == (COMPLETED, 7, model.id)

    def test_a_given_id_becomes_the_models(self, client: Client) -> None:
        upload = client.create_upload(id="0123456789abcdef")
        assert upload.model_id == "0123456789abcdef"
        client.write_upload(upload.id, 0, b"x")
        assert client.complete_upload(upload.id).id == "0123456789abcdef"

    @pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1])
    def test_sizes_around_a_part_are_stored(self, client: Client, size: int) -> None:
        data = some_bytes(size)
        upload = client.create_upload()
        assert client.write_upload(upload.id, 0, data).committed_size == size
        assert client.complete_upload(upload.id).artifact.sha256 == sha256(data)
        assert client.download(upload.model_id) == data

    def test_writes_that_cross_parts_are_stored(self, client: Client) -> None:
        data = some_bytes(20_000_003)
        upload = client.create_upload()
        dice = random.Random(3)
        sizes = [1, 2, PART - 3, 1, 1, 65_537, PART - 1, *(dice.randrange(1, 700_000) for _ in range(100))]
        offset = 0
        for size in sizes:
            written = data[offset : offset + size]
            if written:
                offset += len(written)
                answer = client.write_upload(
                    upload.id, offset - len(written), written, chunk=dice.randrange(1000, 10**6)
                )
                assert answer.committed_size == offset
                assert client.get_upload(upload.id).committed_size == offset
        assert offset == len(data)
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == data

    def test_thousands_of_tiny_messages_are_stored(self, client: Client) -> None:
        data = some_bytes(5_000)
        upload = client.create_upload()
        assert client.write_upload(upload.id, 0, data, chunk=1).committed_size == 5_000
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == data

    def test_a_write_without_bytes_changes_nothing(self, client: Client) -> None:
        upload = client.create_upload()
        assert client.write_upload(upload.id, 0, b"").committed_size == 0
        client.write_upload(upload.id, 0, b"abc")
        assert client.write_upload(upload.id, 3, b"").committed_size == 3
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == b"abc"

    def test_a_zip_is_checked_and_stored(self, client: Client) -> None:
        data = zip_of({"a": b"a"})
        upload = client.create_upload(artifact={"file_name": "a.zip"})
        client.write_upload(upload.id, 0, data)
        client.complete_upload(upload.id)
        assert [file.path for file in client.files(upload.model_id).artifact_files] == ["a"]


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
                eventually(lambda: newer.done() or _is_waiting_for_a_lock(registry))
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


def _is_waiting_for_a_lock(registry: RunningRegistry) -> bool:
    with registry.engine.connect() as connection:
        return bool(
            connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            ).scalar_one()
        )


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


class TestCompleting:
    def test_a_repeated_completion_returns_the_same_model(self, client: Client) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        model = client.complete_upload(upload.id)
        assert client.complete_upload(upload.id) == model
        assert client.complete_upload(upload.id, sha256=sha256(b"abc")) == model
        changed = client.update(model.id, ["format"], format="onnx")
        assert client.complete_upload(upload.id) == changed

    def test_a_repeated_completion_does_not_return_a_later_model_with_the_same_id(self, client: Client) -> None:
        upload = client.create_upload(id="0123456789abcdef")
        client.write_upload(upload.id, 0, b"abc")
        model = client.complete_upload(upload.id)
        client.delete(model.id)
        client.register(b"another", id=model.id)
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            client.complete_upload(upload.id)

    def test_missing_bytes_can_still_be_written(self, client: Client) -> None:
        upload = client.create_upload(artifact={"size_bytes": 6})
        for offset, data in ((0, b""), (0, b"abc")):
            client.write_upload(upload.id, offset, data)
            with refused(PRECONDITION) as refusal:
                client.complete_upload(upload.id)
            assert refusal.metadata["committed_size"] == str(offset + len(data))
            assert client.get_upload(upload.id).state == ACTIVE
        client.write_upload(upload.id, 3, b"def")
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == b"abcdef"

    def test_an_upload_without_bytes_cannot_be_completed(self, client: Client) -> None:
        upload = client.create_upload()
        with refused(PRECONDITION):
            client.complete_upload(upload.id)
        client.write_upload(upload.id, 0, b"x")
        client.complete_upload(upload.id)

    @pytest.mark.parametrize("size", [3, PART + 3])
    @pytest.mark.parametrize(
        ("artifact", "request_fields", "reason", "message"),
        [
            ({"sha256": "0" * 64}, {}, "ARTIFACT_MISMATCH", "upload_id: artifact.sha256 does not match"),
            ({}, {"sha256": "0" * 64}, "ARTIFACT_MISMATCH", "sha256: does not match"),
            ({"file_name": "a.zip"}, {}, "INVALID_ARTIFACT", "upload_id: artifact is declared as application/zip"),
        ],
        ids=["declared", "in the request", "no ZIP"],
    )
    def test_bytes_with_another_digest_than_declared_end_the_upload(
        self,
        registry: RunningRegistry,
        size: int,
        artifact: dict[str, Any],
        request_fields: dict[str, str],
        reason: str,
        message: str,
    ) -> None:
        client = registry.client
        upload = client.create_upload(artifact=artifact)
        client.write_upload(upload.id, 0, b"x" * size)
        with refused(INVALID, reason) as refusal:
            client.complete_upload(upload.id, **request_fields)
        assert refusal.message.startswith(message)
        assert refusal.fields == [message.partition(":")[0]]
        with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
            client.get_upload(upload.id)
        assert client.all() == []
        assert registry.objects() == []
        assert registry.count("unreferenced_objects") == 0
        assert registry.count("upload_parts") == 0

    def test_a_malformed_sha256_keeps_the_upload(self, client: Client) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        with refused(INVALID, "INVALID_ARGUMENT") as refusal:
            client.complete_upload(upload.id, sha256="no digest")
        assert refusal.fields == ["sha256"]
        client.complete_upload(upload.id)

    @pytest.mark.parametrize("size", [3, PART + 3])
    def test_a_conflict_with_a_model_keeps_the_upload(self, client: Client, size: int) -> None:
        data = some_bytes(size)
        upload = client.create_upload()
        client.write_upload(upload.id, 0, data)
        other = client.register(b"other")
        for _ in range(2):
            with refused(EXISTS, "MODEL_ALREADY_EXISTS") as refusal:
                client.complete_upload(upload.id)
            assert refusal.metadata == {"model_id": other.id, "conflict": "identity"}
        assert client.get_upload(upload.id).state == COMPLETING
        with refused(PRECONDITION, "UPLOAD_NOT_ACTIVE"):
            client.write_upload(upload.id, size, b"more")
        client.delete(other.id)
        client.complete_upload(upload.id)
        assert client.download(upload.model_id) == data

    def test_a_taken_identity_is_refused_at_once(self, client: Client) -> None:
        other = client.register()
        with refused(EXISTS) as refusal:
            client.create_upload()
        assert refusal.metadata["model_id"] == other.id

    def test_a_completed_upload_accepts_no_bytes(self, client: Client) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        client.complete_upload(upload.id)
        with refused(PRECONDITION, "UPLOAD_NOT_ACTIVE") as refusal:
            client.write_upload(upload.id, 3, b"x")
        assert refusal.metadata == {"upload_id": upload.id, "state": "completed"}
        assert client.download(upload.model_id) == b"abc"

    def test_a_repeated_completion_after_the_models_deletion_is_refused(self, client: Client) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        client.complete_upload(upload.id)
        client.delete(upload.model_id)
        with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
            client.complete_upload(upload.id)
        assert client.all() == []

    @pytest.mark.parametrize("size", [10, PART + 10])
    def test_concurrent_completions_create_one_model(self, registry: RunningRegistry, size: int) -> None:
        client = registry.client
        for attempt in range(4):
            upload = client.create_upload(name=f"n{attempt}")
            client.write_upload(upload.id, 0, some_bytes(size))
            calls = [
                client.uploads.CompleteUpload.future(upload_service_pb2.CompleteUploadRequest(upload_id=upload.id))
                for _ in range(6)
            ]
            models: list[model_pb2.Model] = []
            for call in calls:
                if call.code() is grpc.StatusCode.OK:
                    models.append(call.result().model)
                else:
                    assert call.code() is ABORTED, call.details()
            model = client.complete_upload(upload.id)
            assert all(answer == model for answer in models)
            assert client.verify(model.id).intact
        assert len(client.all()) == 4
        assert len(registry.objects()) == 4

    @pytest.mark.parametrize("size", [3, PART + 3])
    def test_a_cancellation_during_the_completion_leaves_nothing(self, registry: RunningRegistry, size: int) -> None:
        joining, go_on = threading.Event(), threading.Event()

        class SlowStore(WrappedStore):
            def put(self, key: str, data: bytes) -> None:
                self._wait()
                super().put(key, data)

            def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
                self._wait()
                super().finish(key, handle, parts)

            def _wait(self) -> None:
                joining.set()
                assert go_on.wait(30)

        client = registry.client
        upload = client.create_upload()
        client.write_upload(upload.id, 0, bytes(size))
        with serving(registry, SlowStore(registry.parts.store)) as (_, slow_client):
            call = slow_client.uploads.CompleteUpload.future(
                upload_service_pb2.CompleteUploadRequest(upload_id=upload.id)
            )
            assert joining.wait(30)
            with ThreadPoolExecutor(1) as thread:
                cancellation = thread.submit(client.cancel_upload, upload.id)
                # It may wait for bytes that still arrive; they must not stay in either case.
                eventually(lambda: cancellation.done() or _is_waiting_for_a_lock(registry))
                go_on.set()
                cancellation.result()
            with refused(ABORTED, "WRITER_DISPLACED"):
                call.result()
        assert client.all() == []
        assert registry.count("unreferenced_objects") == 0
        assert registry.objects() == []

    def test_parts_are_not_lost_while_the_store_still_joins_them(self, registry: RunningRegistry) -> None:
        class LateStore(WrappedStore):
            """Joins the parts even after the death of the requesting process, as MinIO does."""

            joining: threading.Timer | None = None

            def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
                self.joining = threading.Timer(0.7, super().finish, (key, handle, parts))
                self.joining.start()
                raise ArtifactStoreUnavailableError

            def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
                if self.joining is not None:
                    raise ArtifactLostError
                return super().write_part(key, handle, number=number, offset=offset, pieces=pieces)

        upload = registry.client.create_upload()
        registry.client.write_upload(upload.id, 0, bytes(PART + 1))
        with serving(registry, LateStore(registry.parts.store)) as (_, client):
            with refused(grpc.StatusCode.UNAVAILABLE, "ARTIFACT_STORE_UNAVAILABLE"):
                client.complete_upload(upload.id)
            assert client.complete_upload(upload.id).artifact.size_bytes == PART + 1
        assert registry.client.verify(upload.model_id).intact

    def test_other_unfinished_objects_of_the_key_are_removed(self, registry: RunningRegistry) -> None:
        class RepeatingStore(WrappedStore):
            """Executes a request twice, like after a retry of a late answer."""

            def begin(self, key: str) -> str:
                super().begin(key)
                return super().begin(key)

        upload = registry.client.create_upload()
        with serving(registry, RepeatingStore(registry.parts.store)) as (_, client):
            client.write_upload(upload.id, 0, bytes(PART + 1))
            client.complete_upload(upload.id)
        assert len(registry.objects()) == 1

    def test_a_completion_can_be_repeated_after_a_store_failure(self, registry: RunningRegistry) -> None:
        class FailingStore(WrappedStore):
            def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
                raise ArtifactStoreUnavailableError

        upload = registry.client.create_upload()
        registry.client.write_upload(upload.id, 0, bytes(PART + 1))
        with (
            serving(registry, FailingStore(registry.parts.store)) as (_, client),
            refused(grpc.StatusCode.UNAVAILABLE, "ARTIFACT_STORE_UNAVAILABLE"),
        ):
            client.complete_upload(upload.id)
        assert registry.client.complete_upload(upload.id).artifact.size_bytes == PART + 1


class TestCancelling:
    @pytest.mark.parametrize("size", [0, 3, PART + 3])
    def test_a_cancelled_upload_is_removed_completely(self, registry: RunningRegistry, size: int) -> None:
        upload = registry.client.create_upload()
        registry.client.write_upload(upload.id, 0, bytes(size))
        registry.client.cancel_upload(upload.id)
        assert registry.objects() == []
        for table in ("uploads", "upload_parts", "unreferenced_objects"):
            assert registry.count(table) == 0
        with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
            registry.client.get_upload(upload.id)
        with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
            registry.client.cancel_upload(upload.id)

    def test_a_completed_upload_cannot_be_cancelled(self, client: Client) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"abc")
        model = client.complete_upload(upload.id)
        with refused(PRECONDITION, "FAILED_PRECONDITION"):
            client.cancel_upload(upload.id)
        assert client.get(model.id) == model
        assert client.download(model.id) == b"abc"
        assert client.get_upload(upload.id).state == COMPLETED


class TestNames:
    @pytest.mark.parametrize(
        "upload_id",
        ["", "x", UNKNOWN.upper() + "A", UNKNOWN[:-1] + "\0", "' OR 1=1; --" + "x" * 24, "☃" * 36, "x" * 1_000_000],
        ids=lambda value: repr(value)[:20],
    )
    def test_an_invalid_id_is_refused_in_a_short_message(self, client: Client, upload_id: str) -> None:
        for call in (client.get_upload, client.complete_upload, client.cancel_upload):
            with refused(INVALID) as refusal:
                call(upload_id)
            assert refusal.fields == ["upload_id"]
            assert len(refusal.message) < 300
        with refused(INVALID) as refusal:
            client.write_upload(upload_id, 0, b"x")
        assert refusal.fields == ["upload_id"]

    def test_an_unknown_upload_is_not_found(self, client: Client) -> None:
        for call in (client.get_upload, client.complete_upload, client.cancel_upload):
            with refused(NOT_FOUND, "UPLOAD_NOT_FOUND") as refusal:
                call(UNKNOWN)
            assert refusal.metadata == {"upload_id": UNKNOWN}
        with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
            client.write_upload(UNKNOWN, 0, b"x")


class TestListing:
    def test_open_uploads_are_listed_newest_first(self, client: Client) -> None:
        uploads = [client.create_upload(name=f"upload {number}", tags={"a": "b"}) for number in range(5)]
        assert list(client.list_uploads().uploads) == uploads[::-1]
        assert client.list_uploads().next_page_token == ""
        written = client.write_upload(uploads[2].id, 0, b"x")
        assert client.list_uploads().uploads[2] == written

    def test_pages_have_every_upload_once(self, client: Client) -> None:
        uploads = [client.create_upload(name=f"upload {number}") for number in range(7)]
        for size, count in ((1, 7), (3, 3), (7, 1), (1000, 1)):
            found, token, pages = [], "", 0
            while True:
                page = client.list_uploads(page_size=size, page_token=token)
                found += list(page.uploads)
                pages += 1
                if not (token := page.next_page_token):
                    break
                client.create_upload(name=f"began meanwhile {size} {pages}")
            assert (found, pages) == (uploads[::-1], count)
            for upload in client.list_uploads().uploads:
                if upload not in uploads:
                    client.cancel_upload(upload.id)

    def test_ended_uploads_are_not_listed(self, registry: RunningRegistry) -> None:
        client = registry.client
        completed, cancelled, expired, open_one = (client.create_upload(name=name) for name in "abcd")
        client.write_upload(completed.id, 0, b"x")
        client.complete_upload(completed.id)
        client.cancel_upload(cancelled.id)
        registry.execute(f"UPDATE uploads SET expire_time = now() WHERE id = '{expired.id}'")
        assert list(client.list_uploads().uploads) == [open_one]

    def test_an_upload_during_its_completion_is_listed(self, registry: RunningRegistry) -> None:
        upload = registry.client.create_upload()
        registry.client.write_upload(upload.id, 0, b"x")
        registry.execute("UPDATE uploads SET state = 'completing'")
        assert [found.state for found in registry.client.list_uploads().uploads] == [COMPLETING]

    def test_a_page_of_large_specs_has_fewer_uploads(self, client: Client) -> None:
        tags = {f"{number:03}": "x" * 5000 for number in range(180)}
        uploads = [client.create_upload(name=f"upload {number}", tags=tags) for number in range(5)]
        first = client.list_uploads()
        assert 1 <= len(first.uploads) < 5
        rest = client.list_uploads(page_token=first.next_page_token)
        while rest.next_page_token:
            first.uploads.extend(rest.uploads)
            rest = client.list_uploads(page_token=rest.next_page_token)
        assert [*first.uploads, *rest.uploads] == uploads[::-1]

    def test_the_creator_is_the_claimed_actor(self, client: Client) -> None:
        request = upload_service_pb2.CreateUploadRequest(upload=upload_pb2.Upload(spec=spec()))
        upload = client.uploads.CreateUpload(request, metadata=(("x-actor", "ada"),))
        assert upload.creator == "ada"
        # Without authentication, all uploads are listed.
        assert [found.creator for found in client.list_uploads().uploads] == ["ada"]

    @pytest.mark.parametrize("fields", [{"page_size": -1}, {"page_token": "x"}, {"page_token": "W10"}])
    def test_an_invalid_request_is_refused(self, client: Client, fields: dict[str, Any]) -> None:
        with refused(INVALID) as refusal:
            client.list_uploads(**fields)
        assert refusal.fields == list(fields)


class TestValidating:
    def test_validate_only_shows_the_model_and_keeps_the_upload(self, registry: RunningRegistry) -> None:
        client = registry.client
        upload = client.create_upload(tags={"a": "b"}, artifact={"sha256": sha256(b"weights")})
        client.write_upload(upload.id, 0, b"weights")
        before = client.get_upload(upload.id)
        shown = client.complete_upload(upload.id, sha256=sha256(b"weights"), validate_only=True)
        assert client.get_upload(upload.id) == before
        assert registry.count("models") == 0
        model = client.complete_upload(upload.id)
        model.ClearField("model_group_id")
        for name in ("create_time", "update_time", "etag", "revision", "creator", "signature", "warnings"):
            model.ClearField(name)
        assert shown == model

    def test_a_completed_upload_shows_its_model(self, client: Client) -> None:
        upload = client.create_upload()
        client.write_upload(upload.id, 0, b"weights")
        model = client.complete_upload(upload.id)
        assert client.complete_upload(upload.id, validate_only=True) == model

    def test_validate_only_reports_why_a_completion_would_fail(self, client: Client) -> None:
        with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
            client.complete_upload(UNKNOWN, validate_only=True)
        upload = client.create_upload(artifact={"size_bytes": 7, "sha256": sha256(b"weights")})
        client.write_upload(upload.id, 0, b"wei")
        with refused(PRECONDITION):
            client.complete_upload(upload.id, validate_only=True)
        client.write_upload(upload.id, 3, b"ghts")
        with refused(INVALID, "ARTIFACT_MISMATCH") as refusal:
            client.complete_upload(upload.id, sha256="0" * 64, validate_only=True)
        assert refusal.fields == ["sha256"]
        other = client.register()
        with refused(EXISTS) as refusal:
            client.complete_upload(upload.id, validate_only=True)
        assert refusal.metadata == {"model_id": other.id, "conflict": "identity"}
        client.delete(other.id)
        assert client.get_upload(upload.id).state == ACTIVE
        assert client.complete_upload(upload.id).id == upload.model_id


class TestExpiring:
    @pytest.mark.parametrize("size", [0, 3, PART + 3])
    def test_an_expired_upload_is_not_found_and_collected(self, registry: RunningRegistry, size: int) -> None:
        client = registry.client
        upload = client.create_upload()
        client.write_upload(upload.id, 0, bytes(size))
        registry.execute("UPDATE uploads SET expire_time = now() - interval '1 second'")
        for call in (client.get_upload, client.complete_upload, client.cancel_upload):
            with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
                call(upload.id)
        with refused(NOT_FOUND, "UPLOAD_NOT_FOUND"):
            client.write_upload(upload.id, size, b"x")
        report = registry.parts.services.garbage_collector.collect()
        assert report.uploads == (upload.id,)
        assert registry.count("uploads") == 0
        assert registry.count("upload_parts") == 0
        assert registry.count("unreferenced_objects") == 0
        assert registry.objects() == []

    def test_a_completed_upload_expires_without_its_model(self, registry: RunningRegistry) -> None:
        upload = registry.client.create_upload()
        registry.client.write_upload(upload.id, 0, bytes(PART + 3))
        registry.client.complete_upload(upload.id)
        registry.execute("UPDATE uploads SET expire_time = now() - interval '1 second'")
        registry.parts.services.garbage_collector.collect()
        assert registry.count("uploads") == 0
        assert registry.client.verify(upload.model_id).intact

    def test_a_write_extends_the_expiry(self, registry: RunningRegistry) -> None:
        upload = registry.client.create_upload()
        registry.execute("UPDATE uploads SET expire_time = now() + interval '1 minute'")
        registry.client.write_upload(upload.id, 0, b"x")
        assert registry.client.get_upload(upload.id).expire_time.ToDatetime() > upload.create_time.ToDatetime()
        assert registry.client.get_upload(upload.id).expire_time.seconds > upload.create_time.seconds + 86_000
