"""UploadService: each upload becomes exactly one model."""

# Failing methods ignore their arguments.
# ruff: noqa: ARG002

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from modelregistry.v1 import model_pb2, upload_service_pb2

from registry_service.domain.artifact_store import Part, Pieces
from registry_service.domain.errors import ArtifactLostError, ArtifactStoreUnavailableError
from tests.integration.upload_calls import (
    ABORTED,
    ACTIVE,
    COMPLETING,
    EXISTS,
    INVALID,
    NOT_FOUND,
    PART,
    PRECONDITION,
    is_waiting_for_a_lock,
    nothing_is_left_over,  # noqa: F401 - an autouse fixture
    some_bytes,
)
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import WrappedStore, serving
from tests.stub_client import Client, refused, sha256


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
                eventually(lambda: cancellation.done() or is_waiting_for_a_lock(registry))
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
