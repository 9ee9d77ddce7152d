"""ArtifactService: downloads, ranges and verifications of artifacts."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from modelregistry.v1 import artifact_service_pb2, model_pb2

from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import ArtifactStoreUnavailableError
from registry_service.services.artifacts import Verification
from registry_service.transport.grpc import artifact_servicer
from tests.integration.artifact_files import (
    DATA_LOSS,
    INVALID,
    MIB,
    NOT_FOUND,
    OUT_OF_RANGE,
    ZIP,
    CountingStore,
    some_bytes,
    stored,
)
from tests.registry import RunningRegistry
from tests.streams import WrappedStore, serving
from tests.stub_client import Client, refused, sha256, zip_of

MISSING_ID = "there-is-no-such-model"


class TestDownloading:
    def test_the_artifact_is_described_first_and_its_bytes_follow(self, client: Client) -> None:
        data = some_bytes(3 * MIB + 5)
        model = client.register(data)
        request = artifact_service_pb2.DownloadArtifactRequest(model_id=model.id)
        first, *others = client.artifacts.DownloadArtifact(request)
        assert first.WhichOneof("payload") == "artifact"
        assert first.artifact == model.artifact
        assert {message.WhichOneof("payload") for message in others} == {"chunk"}
        assert all(0 < len(message.chunk) <= MIB for message in others)
        assert b"".join(message.chunk for message in others) == data

    @pytest.mark.parametrize("offset", [0, 1, MIB - 1, MIB, MIB + 7, 2 * MIB + 4, 2 * MIB + 5])
    @pytest.mark.parametrize("limit", [0, 1, MIB, MIB + 1, 2**62])
    def test_a_range_is_read(self, registry: RunningRegistry, offset: int, limit: int) -> None:
        data = some_bytes(2 * MIB + 5)
        model = registry.client.register(data)
        expected = data[offset : offset + limit] if limit else data[offset:]
        assert registry.client.download(model.id, read_offset=offset, read_limit=limit) == expected

    def test_only_the_range_is_read_from_the_store(self, registry: RunningRegistry) -> None:
        model = registry.client.register(some_bytes(10 * MIB))
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            assert len(client.download(model.id, read_offset=5 * MIB + 1, read_limit=1000)) == 1000
        assert store.bytes_read == 1000

    @pytest.mark.parametrize("offset", [8, 2**63 - 1])
    def test_a_range_past_the_end_is_empty(self, client: Client, offset: int) -> None:
        model = client.register(b"weights")
        with refused(OUT_OF_RANGE, "OUT_OF_RANGE") as refusal:
            client.download(model.id, read_offset=offset)
        assert refusal.metadata == {"size": "7", "model_id": model.id}

    @pytest.mark.parametrize("field", ["read_offset", "read_limit"])
    def test_a_negative_range_is_invalid(self, client: Client, field: str) -> None:
        model = client.register()
        with refused(INVALID) as refusal:
            client.download(model.id, **{field: -1})
        assert refusal.fields == [field]

    def test_a_missing_model_is_not_found(self, client: Client) -> None:
        calls: list[Callable[[str], Any]] = [client.download, client.verify, client.files]
        calls.append(lambda model_id: client.download_file(model_id, "a"))
        for call in calls:
            with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
                call(MISSING_ID)
            with refused(INVALID) as refusal:
                call("' OR 1=1")
            assert refusal.fields == ["model_id"]

    @pytest.mark.parametrize("size", [1, MIB, 3 * MIB])
    def test_a_truncated_artifact_is_data_loss(self, registry: RunningRegistry, size: int) -> None:
        model = registry.client.register(some_bytes(size))
        with stored(registry).open("r+b") as file:
            file.truncate(size - 1)
        with refused(DATA_LOSS, "ARTIFACT_LOST"):
            registry.client.download(model.id)
        with refused(DATA_LOSS):
            registry.client.download(model.id, read_offset=size - 1)

    @pytest.mark.parametrize("size", [1, MIB, 3 * MIB + 1])
    def test_damaged_bytes_are_never_sent_completely(
        self, registry: RunningRegistry, size: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = some_bytes(size)
        model = registry.client.register(data)
        tampered = bytes([data[0] ^ 1]) + data[1:]
        stored(registry).write_bytes(tampered)
        for fields in ({}, {"read_limit": size}):
            received = bytearray()
            with refused(DATA_LOSS, "ARTIFACT_DAMAGED") as refusal:
                for answer in registry.client.artifacts.DownloadArtifact(
                    artifact_service_pb2.DownloadArtifactRequest(model_id=model.id, **fields)
                ):
                    received += answer.chunk
            assert refusal.metadata == {"model_id": model.id}
            assert f"The stored bytes of the model {model.name}:{model.version} differ" in refusal.message
            assert len(received) == max(size - 1, 0) // MIB * MIB
            assert tampered.startswith(received)
        assert [record.__dict__["model_id"] for record in caplog.records if record.levelname == "ERROR"] == [
            model.id,
            model.id,
        ]
        # The hash cannot verify a part of the bytes.
        if size > 1:
            assert registry.client.download(model.id, read_offset=1) == data[1:]

    @pytest.mark.parametrize("way", ["download", "download a part", "list", "download a file"])
    def test_an_artifact_deleted_during_a_read_is_not_found(self, registry: RunningRegistry, way: str) -> None:
        model = registry.client.register(zip_of({"a": b"a"}), artifact=ZIP)

        class DeletingStore(WrappedStore):
            def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
                registry.client.delete(model.id, allow_missing=True)
                return super().read(key, offset, length)

        with serving(registry, DeletingStore(registry.parts.store)) as (_, client):
            calls: dict[str, Callable[[], Any]] = {
                "download": lambda: client.download(model.id),
                "download a part": lambda: client.download(model.id, read_offset=1),
                "list": lambda: client.files(model.id),
                "download a file": lambda: client.download_file(model.id, "a"),
            }
            with refused(NOT_FOUND, "MODEL_NOT_FOUND"):
                calls[way]()

    def test_a_lost_artifact_is_data_loss(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        stored(registry).unlink()
        with refused(DATA_LOSS, "ARTIFACT_LOST"):
            registry.client.download(model.id)
        assert registry.client.get(model.id) == model


class TestVerifying:
    def test_an_intact_artifact_is_verified(self, client: Client) -> None:
        data = some_bytes(3 * MIB + 1)
        model = client.register(data)
        found = client.verify(model.id)
        assert found == artifact_service_pb2.VerificationResult(
            intact=True,
            expected=model.artifact,
            actual_size_bytes=len(data),
            actual_sha256=sha256(data),
            verify_time=found.verify_time,
        )

    @pytest.mark.parametrize("change", ["flip", "truncate", "append", "empty"])
    def test_a_damaged_artifact_is_found(self, registry: RunningRegistry, change: str) -> None:
        data = some_bytes(2 * MIB)
        model = registry.client.register(data)
        damaged = {
            "flip": data[:MIB] + bytes([data[MIB] ^ 1]) + data[MIB + 1 :],
            "truncate": data[:-1],
            "append": data + b"x",
            "empty": b"",
        }[change]
        stored(registry).write_bytes(damaged)
        found = registry.client.verify(model.id)
        assert (found.intact, found.expected) == (False, model.artifact)
        assert (found.actual_size_bytes, found.actual_sha256) == (len(damaged), sha256(damaged))

    def test_a_missing_artifact_is_found(self, registry: RunningRegistry) -> None:
        model = registry.client.register()
        stored(registry).unlink()
        found = registry.client.verify(model.id)
        assert (found.intact, found.expected) == (False, model.artifact)
        assert (found.actual_size_bytes, found.actual_sha256) == (0, "")

    def test_progress_comes_before_the_result(self, client: Client) -> None:
        model = client.register(some_bytes(MIB))
        messages = list(client.artifacts.VerifyArtifact(artifact_service_pb2.VerifyArtifactRequest(model_id=model.id)))
        assert messages[0].progress == artifact_service_pb2.VerificationProgress(verified_bytes=0, size_bytes=MIB)
        assert [message.WhichOneof("payload") for message in messages[1:]] == ["result"]

    def test_a_slow_verification_reports_its_progress(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(artifact_servicer, "_PROGRESS_SECONDS", 0)
        model = client.register(some_bytes(3 * MIB))
        messages = list(client.artifacts.VerifyArtifact(artifact_service_pb2.VerifyArtifactRequest(model_id=model.id)))
        assert [message.progress.verified_bytes for message in messages[:-1]] == [0, MIB, 2 * MIB, 3 * MIB]
        assert messages[-1].result.intact

    def test_an_error_is_both_the_last_message_and_the_status(self, registry: RunningRegistry) -> None:
        model = registry.client.register(some_bytes(3 * MIB))

        class FailingStore(WrappedStore):
            def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
                yield next(super().read(key, offset, length))
                raise ArtifactStoreUnavailableError

        messages = []
        with (
            serving(registry, FailingStore(registry.parts.store)) as (_, client),
            refused(grpc.StatusCode.UNAVAILABLE, "ARTIFACT_STORE_UNAVAILABLE") as refusal,
        ):
            for message in client.artifacts.VerifyArtifact(
                artifact_service_pb2.VerifyArtifactRequest(model_id=model.id)
            ):
                messages.append(message)  # noqa: PERF402 - it ends with an error
        assert messages[-1].WhichOneof("payload") == "error"
        assert messages[-1].error.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert messages[-1].error.message == refusal.message
        assert not registry.client.get(model.id).artifact.HasField("verify_time")

    def test_a_model_shows_the_time_of_its_verification(self, client: Client) -> None:
        model = client.register(tags={"a": "b"})
        assert not model.artifact.HasField("verify_time")
        first = client.verify(model.id).verify_time
        verified = client.get(model.id)
        assert verified.artifact.verify_time == first
        assert model.create_time.ToDatetime() <= first.ToDatetime()
        # A verification is not a change of the model.
        assert (verified.etag, verified.revision, verified.update_time) == (model.etag, 1, model.update_time)
        assert [listed.artifact.verify_time for listed in client.all()] == [first]
        updated = client.update(model.id, ["tags"], tags={"a": "c"}, etag=model.etag)
        assert updated.artifact.verify_time == first
        second = client.verify(model.id)
        assert second.expected.verify_time == first
        assert client.get(model.id).artifact.verify_time == second.verify_time
        assert second.verify_time.ToDatetime() > first.ToDatetime()

    def test_damage_clears_the_time_of_an_earlier_verification(self, registry: RunningRegistry) -> None:
        client, data = registry.client, some_bytes(100)
        model = client.register(data)
        client.verify(model.id)
        stored(registry).write_bytes(b"x")
        assert not client.verify(model.id).intact
        assert not client.get(model.id).artifact.HasField("verify_time")
        stored(registry).write_bytes(data)
        assert client.get(model.id).artifact == model.artifact
        again = client.verify(model.id)
        assert again.intact
        assert client.get(model.id).artifact.verify_time == again.verify_time

    def test_models_are_found_by_the_time_of_their_verification(self, client: Client) -> None:
        verified, other = client.register(name="verified"), client.register(name="other")
        assert client.names("artifact.verify_time > 2026-01-01") == []
        client.verify(verified.id)
        assert client.names("artifact.verify_time > 2026-01-01") == [verified.name]
        assert client.names("artifact.verify_time < 2026-01-01") == []
        assert client.names("artifact.verify_time = null") == [other.name]
        assert client.names("NOT artifact.verify_time > 2026-01-01") == [other.name]

    def test_damage_found_by_a_download_clears_the_verification(self, registry: RunningRegistry) -> None:
        client, data = registry.client, some_bytes(100)
        model = client.register(data)
        client.verify(model.id)
        stored(registry).write_bytes(data[:-1] + b"x")
        assert client.download(model.id, read_limit=50) == data[:50]
        assert client.get(model.id).artifact.HasField("verify_time")
        with refused(DATA_LOSS, "ARTIFACT_DAMAGED"):
            client.download(model.id)
        assert not client.get(model.id).artifact.HasField("verify_time")

    def test_an_earlier_intact_read_does_not_override_a_later_finding_of_damage(
        self, registry: RunningRegistry
    ) -> None:
        model = registry.client.register(some_bytes(100))
        artifacts = registry.parts.services.artifacts
        with acting_as_registry():
            slow = artifacts.verify_in_steps(model.id)
            next(slow)  # the read has begun
            content = stored(registry).read_bytes()
            stored(registry).write_bytes(b"x")
            assert not artifacts.verify(model.id).intact
            stored(registry).write_bytes(content)
            *_, found = slow
        assert isinstance(found, Verification)
        assert found.intact
        assert not registry.client.get(model.id).artifact.HasField("verify_time")

    def test_a_verification_does_not_carry_over_to_a_new_model_with_the_same_id(self, client: Client) -> None:
        model = client.register(b"one", id="registered-again-000")
        client.verify(model.id)
        client.delete(model.id)
        assert not client.register(b"two", id="registered-again-000").artifact.HasField("verify_time")
        assert not client.get(model.id).artifact.HasField("verify_time")


class TestKinds:
    def test_a_declared_folder_stays_a_folder(self, client: Client) -> None:
        folder = client.register(zip_of({"a": b"a"}), artifact={"kind": model_pb2.Artifact.KIND_FOLDER})
        assert folder.artifact.kind == model_pb2.Artifact.KIND_FOLDER
        assert (folder.artifact.file_name, folder.artifact.media_type) == ("model.zip", "application/zip")
        assert client.get(folder.id).artifact == folder.artifact
        assert [listed.artifact.kind for listed in client.all()] == [model_pb2.Artifact.KIND_FOLDER]
        upload = client.create_upload(name="uploaded", artifact={"kind": model_pb2.Artifact.KIND_FOLDER})
        assert client.get_upload(upload.id).spec.artifact.kind == model_pb2.Artifact.KIND_FOLDER
        client.write_upload(upload.id, 0, zip_of({"a": b"a"}))
        assert client.complete_upload(upload.id).artifact.kind == model_pb2.Artifact.KIND_FOLDER

    def test_models_are_found_by_their_kind(self, client: Client) -> None:
        client.register(zip_of({"a": b"a"}), name="folder", artifact={"kind": model_pb2.Artifact.KIND_FOLDER})
        client.register(name="file")
        for name in ("folder", "file"):
            for text in (
                f"artifact.kind = KIND_{name.upper()}",
                f"artifact.kind = {name}",
                f'artifact.kind : "{name}"',
            ):
                assert client.names(text) == [name], text
        assert client.names("artifact.kind != KIND_FILE") == ["folder"]
        assert client.names("artifact.kind = KIND_F*", order_by="name") == ["file", "folder"]

    def test_an_artifact_is_a_file_unless_declared_otherwise(self, client: Client) -> None:
        assert client.register(zip_of({"a": b"a"}), artifact=ZIP).artifact.kind == model_pb2.Artifact.KIND_FILE
        upload = client.create_upload(name="uploaded")
        assert upload.spec.artifact.kind == model_pb2.Artifact.KIND_FILE

    @pytest.mark.parametrize(
        ("artifact", "field"),
        [
            ({"kind": model_pb2.Artifact.KIND_FOLDER, "media_type": "text/plain"}, "spec.artifact.media_type"),
            ({"kind": 7}, "spec.artifact.kind"),
        ],
    )
    def test_an_invalid_folder_is_refused(self, client: Client, artifact: dict[str, object], field: str) -> None:
        with refused(INVALID) as refusal:
            client.register(zip_of({"a": b"a"}), artifact=artifact)
        assert refusal.fields == [field]

    def test_a_folder_must_be_a_readable_zip(self, client: Client) -> None:
        with refused(INVALID, "INVALID_ARTIFACT"):
            client.register(b"no ZIP", artifact={"kind": model_pb2.Artifact.KIND_FOLDER})
