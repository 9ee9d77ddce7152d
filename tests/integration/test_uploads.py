"""UploadService: uploads are created, listed, cancelled, validated, and expire."""

import random
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from modelregistry.v1 import upload_pb2, upload_service_pb2

from tests.integration.upload_calls import (
    ACTIVE,
    COMPLETING,
    EXISTS,
    INVALID,
    NOT_FOUND,
    PART,
    PRECONDITION,
    UNKNOWN,
    nothing_is_left_over,  # noqa: F401 - an autouse fixture
    some_bytes,
)
from tests.registry import RunningRegistry
from tests.stub_client import Client, refused, sha256, spec, zip_of

COMPLETED = upload_pb2.Upload.STATE_COMPLETED


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
