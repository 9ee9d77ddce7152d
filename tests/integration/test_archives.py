"""ArtifactService: the files of ZIP archives, including damaged and hostile ones."""

import io
import struct
import zipfile
import zlib

import grpc
import pytest
from hypothesis import given, settings
from modelregistry.v1 import artifact_service_pb2, model_pb2

from tests.damaged_archives import DAMAGED_ARCHIVES
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
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import expect, serving
from tests.stub_client import Client, refused, zip_of

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


def member_of(
    client: Client, model: model_pb2.Model, path: str, **fields: int
) -> list[artifact_service_pb2.DownloadArtifactFileResponse]:
    request = artifact_service_pb2.DownloadArtifactFileRequest(model_id=model.id, path=path, **fields)
    return list(client.artifacts.DownloadArtifactFile(request))


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
        assert refusal.message.startswith(f"The artifact of the model {model.name}:{model.version} has no file ")

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

    @given(DAMAGED_ARCHIVES)
    @settings(max_examples=60)  # tests/unit/test_archives.py has more
    def test_a_damaged_directory_is_never_a_server_error(self, registry: RunningRegistry, data: bytes) -> None:
        client = registry.client
        for artifact in (ZIP, {"file_name": "undeclared"}):
            try:
                model = client.register(data, artifact=artifact)
            except grpc.RpcError as error:
                expect(error, INVALID)
                continue
            try:
                _read_everything(client, model)
            finally:
                client.delete(model.id)


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
