"""ArtifactService: whole artifacts, ranges and members are read unchanged, or the read fails."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelregistry.v1 import artifact_service_pb2, model_pb2

from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import ArtifactStoreUnavailableError
from registry_service.services.artifacts import Verification
from registry_service.transport.grpc import artifact_servicer
from tests.client import Client, refused, sha256, zip_of
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import WrappedStore, expect, serving

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
DATA_LOSS = grpc.StatusCode.DATA_LOSS
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

MIB = 1024 * 1024
MISSING_ID = "there-is-no-such-model"
ZIP = {"file_name": "model.zip"}


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def stored(registry: RunningRegistry) -> Path:
    """Return the file of the only artifact."""
    [path] = registry.objects()
    return path


def member_of(
    client: Client, model: model_pb2.Model, path: str, **fields: int
) -> list[artifact_service_pb2.DownloadArtifactFileResponse]:
    request = artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path=path, **fields)
    return list(client.artifacts.DownloadArtifactFile(request))


class CountingStore(WrappedStore):
    """Counts the bytes read."""

    bytes_read = 0

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            self.bytes_read += len(piece)
            yield piece


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


MEMBERS = {
    "deflated.txt": b"abc" * 1000,
    "empty": b"",
    "folder/": b"",
    "folder/räder ☃.bin": some_bytes(3 * MIB + 7),
    "a\\b": b"backslash",
    " ": b"space",
    "%2e%2e": b"percent",
    "x" * 1000: b"long",
}


class TestArchives:
    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    @pytest.mark.parametrize("artifact", [ZIP, {"file_name": "undeclared.bin"}], ids=["declared", "undeclared"])
    def test_members_are_listed_and_downloaded(
        self, client: Client, compression: int, artifact: dict[str, str]
    ) -> None:
        model = client.register(zip_of(MEMBERS, compression), artifact=artifact)
        answer = client.files(model.id)
        assert answer.next_page_token == ""
        assert [file.path for file in answer.artifact_files] == list(MEMBERS)
        for file in answer.artifact_files:
            data = MEMBERS[file.path]
            assert (file.size_bytes, file.crc32) == (len(data), zlib.crc32(data))
            if compression == zipfile.ZIP_STORED:
                assert file.compressed_size_bytes == len(data)
            messages = member_of(client, model, file.path)
            assert messages[0].file == file
            assert all(0 < len(message.chunk) <= MIB for message in messages[1:])
            assert b"".join(message.chunk for message in messages) == data

    def test_times_are_utc_and_impossible_ones_are_omitted(self, client: Client) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(zipfile.ZipInfo("good", (2024, 2, 29, 12, 30, 58)), b"")
            archive.writestr(zipfile.ZipInfo("bad", (2024, 13, 31, 0, 0, 0)), b"")
        files = client.files(client.register(buffer.getvalue(), artifact=ZIP).id).artifact_files
        assert files[0].modify_time.ToJsonString() == "2024-02-29T12:30:58Z"
        assert not files[1].HasField("modify_time")

    def test_pages_have_every_member_once(self, client: Client) -> None:
        model = client.register(zip_of({f"m{number:04}": b"" for number in range(2500)}), artifact=ZIP)
        for size, pages in ((0, 3), (1000, 3), (2**31 - 1, 3), (99, 26), (2500, 3)):
            names, token, count = [], "", 0
            while True:
                answer = client.files(model.id, page_size=size, page_token=token)
                names += [file.path for file in answer.artifact_files]
                count += 1
                if not (token := answer.next_page_token):
                    break
            assert names == [f"m{number:04}" for number in range(2500)]
            assert count == pages

    def test_an_invalid_page_is_refused(self, client: Client) -> None:
        one = client.register(zip_of({"a": b"", "b": b""}), name="one", artifact=ZIP)
        two = client.register(zip_of({"a": b"", "b": b""}), name="two", artifact=ZIP)
        token = client.files(one.id, page_size=1).next_page_token
        assert token
        with refused(INVALID) as refusal:
            client.files(two.id, page_token=token)
        assert refusal.fields == ["page_token"]
        with refused(INVALID) as refusal:
            client.files(one.id, page_size=-1)
        assert refusal.fields == ["page_size"]

    def test_an_empty_archive_has_no_members(self, client: Client) -> None:
        model = client.register(zip_of({}), artifact=ZIP)
        assert not client.files(model.id).artifact_files

    @pytest.mark.parametrize("data", [b"x", b"PK\5\6", b"PK\3\4" + bytes(100), bytes(2 * MIB)])
    def test_an_artifact_other_than_a_zip_has_no_members(self, client: Client, data: bytes) -> None:
        model = client.register(data)
        with refused(PRECONDITION, "NOT_AN_ARCHIVE"):
            client.files(model.id)
        with refused(PRECONDITION, "NOT_AN_ARCHIVE"):
            client.download_file(model.id, "a")

    @pytest.mark.parametrize("name", ["", "missing", "A", "a/", "../a", "☃" * 10_000])
    def test_a_missing_member_is_not_found(self, client: Client, name: str) -> None:
        model = client.register(zip_of({"a": b"a"}), artifact=ZIP)
        with refused(NOT_FOUND, "ARTIFACT_FILE_NOT_FOUND") as refusal:
            client.download_file(model.id, name)
        assert refusal.metadata["model_id"] == model.id

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_a_range_of_a_member_is_downloaded(self, client: Client, compression: int) -> None:
        data = some_bytes(3 * MIB + 5)
        model = client.register(zip_of({"a": b"before", "b": data, "c": b"after"}, compression), artifact=ZIP)
        size = len(data)
        for offset, limit in (
            *((0, 0), (0, 1), (0, MIB), (0, size), (0, 2**62), (1, 0), (1, size), (7, 10)),
            *((MIB - 1, 2), (MIB, MIB), (2 * MIB + 3, 0), (size - 1, 1), (size, 0), (size, 5)),
        ):
            messages = member_of(client, model, "b", read_offset=offset, read_limit=limit)
            assert messages[0].file.size_bytes == size
            chunks = [message.chunk for message in messages[1:]]
            assert b"".join(chunks) == data[offset : offset + limit if limit else size], (offset, limit)
            assert all(0 < len(chunk) <= MIB for chunk in chunks)

    def test_an_unsatisfiable_range_of_a_member_is_refused(self, client: Client) -> None:
        model = client.register(zip_of({"a": b"abc"}), artifact=ZIP)
        for name in ("read_offset", "read_limit"):
            with refused(INVALID) as refusal:
                member_of(client, model, "a", **{name: -1})
            assert refusal.fields == [name]
        with refused(OUT_OF_RANGE, "OUT_OF_RANGE") as refusal:
            member_of(client, model, "a", read_offset=4)
        assert refusal.metadata == {"size": "3", "model_id": model.id}

    def test_only_the_range_of_a_stored_member_is_read(self, registry: RunningRegistry) -> None:
        data = some_bytes(40 * MIB)
        model = registry.client.register(zip_of({"a": data}, zipfile.ZIP_STORED), artifact=ZIP)
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            messages = member_of(client, model, "a", read_offset=30 * MIB, read_limit=100)
        assert messages[1].chunk == data[30 * MIB : 30 * MIB + 100]
        assert store.bytes_read < 2 * MIB

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_the_last_byte_of_a_damaged_member_is_never_sent(self, client: Client, compression: int) -> None:
        data = some_bytes(3 * MIB)
        model = client.register(patched(zip_of({"a": data}, compression), crc=1), artifact=ZIP)
        for offset in (0, 1, 2 * MIB):
            if offset and compression == zipfile.ZIP_STORED:
                continue  # the CRC cannot verify a part
            received = bytearray()
            with refused(DATA_LOSS):
                for message in client.artifacts.DownloadArtifactFile(
                    artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path="a", read_offset=offset)
                ):
                    received += message.chunk
            assert len(received) < len(data) - offset
            assert data.startswith(bytes(received), offset)
        # A range before the end cannot be verified.
        assert member_of(client, model, "a", read_offset=5, read_limit=9)[1].chunk == data[5:14]

    def test_a_path_that_several_members_share_is_refused(self, client: Client) -> None:
        doubled = zip_of({"a": b"first", "b": b"second"}, zipfile.ZIP_STORED).replace(b"b", b"a")
        model = client.register(doubled)
        assert [file.path for file in client.files(model.id).artifact_files] == ["a", "a"]
        with refused(PRECONDITION, "NOT_AN_ARCHIVE") as refusal:
            client.download_file(model.id, "a")
        assert refusal.metadata == {"path": "a"}
        assert "several files" in refusal.message

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
    def test_unsupported_compressions_are_refused(self, client: Client, method: int) -> None:
        data = zip_of({"a": b"a" * 1000}, method if method != 99 else zipfile.ZIP_STORED)
        if method == 99:
            data = patched(data, method=99)
        model = client.register(data, artifact=ZIP)
        assert [file.path for file in client.files(model.id).artifact_files] == ["a"]
        with refused(PRECONDITION, "NOT_AN_ARCHIVE") as refusal:
            client.download_file(model.id, "a")
        assert str(method) in refusal.message

    def test_encrypted_members_are_refused(self, client: Client) -> None:
        model = client.register(patched(zip_of({"a": b"a"}), flags=1), artifact=ZIP)
        with refused(PRECONDITION, "NOT_AN_ARCHIVE") as refusal:
            client.download_file(model.id, "a")
        assert "encrypted" in refusal.message

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    @pytest.mark.parametrize("size", [100, 3 * MIB])
    def test_a_wrong_crc_is_data_loss_at_the_end(self, client: Client, compression: int, size: int) -> None:
        data = some_bytes(size)
        model = client.register(patched(zip_of({"a": data}, compression), crc=1), artifact=ZIP)
        received = b""
        with refused(DATA_LOSS, "DATA_LOSS"):
            for message in client.artifacts.DownloadArtifactFile(
                artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path="a")
            ):
                received += message.chunk
        assert data.startswith(received)

    @pytest.mark.parametrize(
        ("field", "value"),
        [("size", 2000), ("size", 500), ("compressed_size", 5), ("offset", 7), ("offset", 2**32 - 2)],
    )
    def test_a_directory_that_contradicts_the_data_is_data_loss(self, client: Client, field: str, value: int) -> None:
        model = client.register(patched(zip_of({"a": b"abc" * 400}), **{field: value}), artifact=ZIP)
        received = b""
        with refused(DATA_LOSS):
            for message in client.artifacts.DownloadArtifactFile(
                artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path="a")
            ):
                received += message.chunk
        assert len(received) <= client.files(model.id).artifact_files[0].size_bytes

    def test_a_size_beyond_64_bits_does_not_break_the_list(self, client: Client) -> None:
        model = client.register(with_zip64_size(2**64 - 1), artifact={"file_name": "undeclared"})
        try:
            assert len(client.files(model.id).artifact_files) == 1
        except grpc.RpcError as error:
            expect(error, PRECONDITION)
        with refused(INVALID, "INVALID_ARTIFACT"):
            client.register(with_zip64_size(2**64 - 1), name="declared", artifact=ZIP)

    def test_a_local_header_with_an_undecodable_name_is_data_loss(self, client: Client) -> None:
        data = bytearray(zip_of({"ä": b"text"}))
        data[30:32] = b"\xff\xff"  # the name in the local header; the one in the directory stays
        model = client.register(bytes(data), artifact=ZIP)
        with refused(DATA_LOSS):
            client.download_file(model.id, "ä")

    def test_a_decompression_bomb_streams_in_small_chunks_until_the_client_stops(
        self, registry: RunningRegistry
    ) -> None:
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("zeros", "w", force_zip64=True) as member,
        ):
            for _ in range(200):
                member.write(bytes(MIB))
        assert len(buffer.getvalue()) < MIB
        model = registry.client.register(buffer.getvalue(), artifact=ZIP)
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            call = client.artifacts.DownloadArtifactFile(
                artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path="zeros")
            )
            sizes = [len(message.chunk) for message, _ in zip(call, range(21), strict=False)]
            call.cancel()
        assert max(sizes) <= MIB
        assert sum(sizes) >= 19 * MIB
        assert store.bytes_read < 3 * 256 * 1024
        total = sum(len(message.chunk) for message in member_of(registry.client, model, "zeros"))
        assert total == 200 * MIB

    def test_a_member_is_read_without_the_others(self, registry: RunningRegistry) -> None:
        members = {f"big{number}": some_bytes(4 * MIB, number) for number in range(4)} | {"small": b"small"}
        model = registry.client.register(zip_of(members, zipfile.ZIP_STORED), artifact=ZIP)
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client):
            assert len(client.files(model.id).artifact_files) == 5
            assert store.bytes_read < 2 * MIB
            store.bytes_read = 0
            assert client.download_file(model.id, "small") == b"small"
            assert store.bytes_read < 2 * MIB
            store.bytes_read = 0
            assert client.download_file(model.id, "big2") == members["big2"]
            assert store.bytes_read < 6 * MIB

    def test_a_lost_artifact_is_noticed_when_its_directory_is_read_again(self, registry: RunningRegistry) -> None:
        model = registry.client.register(zip_of({"a": b"a"}), artifact=ZIP)
        stored(registry).unlink()
        with refused(DATA_LOSS, "ARTIFACT_LOST"):
            registry.client.files(model.id)
        with refused(DATA_LOSS, "ARTIFACT_LOST"):
            registry.client.download_file(model.id, "a")


def patched(data: bytes, **changes: int) -> bytes:
    """Change the only entry of the directory, and the same fields of the local header."""
    entry = data.index(b"PK\1\2")
    result = bytearray(data)
    for name, value in changes.items():
        if name == "crc":
            value ^= struct.unpack_from("<L", data, entry + 16)[0]  # noqa: PLW2901
        place, form = {
            "flags": (8, "<H"),
            "method": (10, "<H"),
            "crc": (16, "<L"),
            "compressed_size": (20, "<L"),
            "size": (24, "<L"),
            "offset": (42, "<L"),
        }[name]
        struct.pack_into(form, result, entry + place, value)
        if name in {"flags", "method"}:
            struct.pack_into(form, result, place - 2, value)
    return bytes(result)


def with_zip64_size(size: int) -> bytes:
    """Return a ZIP whose directory has the size of its only member in 64 bits."""
    data = zip_of({"a": b"a"}, zipfile.ZIP_STORED)
    start, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entry = bytearray(data[start:end])
    extra = struct.pack("<HHQ", 1, 8, size)
    struct.pack_into("<L", entry, 24, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, len(extra))
    ending = bytearray(data[end:])
    struct.pack_into("<L", ending, 12, len(entry) + len(extra))
    return data[:start] + bytes(entry) + extra + bytes(ending)


def renamed(name: bytes) -> bytes:
    """Return a ZIP whose only member has a name that zipfile would not write."""
    return zip_of({"n" * len(name): b"x"}).replace(b"n" * len(name), name)


class TestHostileArchives:
    """A declared ZIP must be readable and harmless, or the registration is refused."""

    @pytest.mark.parametrize(
        "data",
        [
            b"not a zip",
            b"PK\3\4" + bytes(1000),
            zip_of({"a": b"a" * 1000})[:-30],
            zip_of({"a": b"a" * 1000})[30:-1],
            zip_of({"a": b"a"}).replace(b"PK\1\2", b"PK\1\3"),
            *(
                renamed(name)
                for name in (
                    *(b"../x", b"a/../../x", b"/abs", b"\\abs", b"..\\x", b"a\\..\\x", b"C:\\x", b"c:x", b".."),
                    *(b"a\0b", b"\0a", b"a\nb", b"\x1b[2J", b"\x7fdel", b"a\r", b"a/.."),
                )
            ),
        ],
        ids=lambda data: str(data[30:40]),
    )
    @pytest.mark.parametrize("media_type", ["application/zip", "application/x-zip-compressed; a=b"])
    def test_nothing_is_registered(self, registry: RunningRegistry, data: bytes, media_type: str) -> None:
        with refused(INVALID, "INVALID_ARTIFACT") as refusal:
            registry.client.register(data, artifact={"media_type": media_type})
        assert refusal.fields == ["spec.artifact"]
        assert registry.objects() == []
        assert registry.count("models") == registry.count("unreferenced_objects") == 0

    @pytest.mark.parametrize("name", [b"..x", b"x..", b"a/..b", b"...", b"ab:c", b"ok ", b"~", b"a//b", b"./a"])
    def test_unusual_but_harmless_names_are_registered(self, client: Client, name: bytes) -> None:
        model = client.register(renamed(name), artifact=ZIP)
        assert [file.path for file in client.files(model.id).artifact_files] == [name.decode()]
        assert client.download_file(model.id, name.decode()) == b"x"

    def test_a_directory_over_the_limit_is_refused(self, start_registry: StartRegistry) -> None:
        registry = start_registry(zip_directory_max_bytes=2 * MIB)
        big = zip_of({f"{'n' * 1000}{number}": b"" for number in range(3000)})
        with refused(INVALID, "INVALID_ARTIFACT") as refusal:
            registry.client.register(big, artifact=ZIP)
        assert str(2 * MIB) in refusal.message
        model = registry.client.register(big)
        with refused(PRECONDITION, "NOT_AN_ARCHIVE") as refusal:
            registry.client.files(model.id)
        assert refusal.metadata == {"limit": str(2 * MIB)}
        small = registry.client.register(zip_of({"n" * 1000: b""}), name="small", artifact=ZIP)
        assert len(registry.client.files(small.id).artifact_files) == 1

    def test_a_directory_with_a_huge_declared_size_is_not_read(self, registry: RunningRegistry) -> None:
        data = bytearray(zip_of({"a": b"a"}))
        end = data.index(b"PK\5\6")
        padded = bytes(30 * MIB) + bytes(data)
        result = bytearray(padded)
        struct.pack_into("<LL", result, 30 * MIB + end + 12, 30 * MIB, 0)
        store = CountingStore(registry.parts.store)
        with serving(registry, store) as (_, client), refused(INVALID, "INVALID_ARTIFACT"):
            client.register(bytes(result), artifact=ZIP)
        assert store.bytes_read < 2 * MIB

    @given(st.data())
    @settings(max_examples=400)
    def test_a_damaged_directory_is_never_a_server_error(self, registry: RunningRegistry, data: st.DataObject) -> None:
        archive = bytearray(FUZZED)
        start = FUZZED_DIRECTORY if data.draw(st.booleans()) else 0
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(start, len(archive) - 1), st.integers(0, 255)), min_size=1, max_size=6)
        ):
            archive[place] = value
        client = registry.client
        for artifact in (ZIP, {"file_name": "undeclared"}):
            try:
                model = client.register(bytes(archive), artifact=artifact)
            except grpc.RpcError as error:
                expect(error, INVALID)
                continue
            try:
                _read_everything(client, model)
            finally:
                client.delete(model.id)


FUZZED = zip_of({"ä": b"abc" * 100, "b/": b"", "stored": b"xyz"}) + b""
FUZZED_DIRECTORY = FUZZED.index(b"PK\1\2")


def _read_everything(client: Client, model: model_pb2.Model) -> None:
    """List and download everything; each refusal must be about the archive."""
    try:
        files = client.files(model.id).artifact_files
    except grpc.RpcError as error:
        expect(error, PRECONDITION)
        return
    for file in files:
        received = 0
        try:
            for message in client.artifacts.DownloadArtifactFile(
                artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path=file.path)
            ):
                if message.HasField("file"):
                    declared = message.file.size_bytes
                received += len(message.chunk)
                assert received <= declared
        except grpc.RpcError as error:
            expect(error, PRECONDITION, DATA_LOSS, NOT_FOUND)
        else:
            assert received == declared
