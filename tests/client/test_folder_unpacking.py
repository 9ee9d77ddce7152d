"""Unpacking a folder from ZIPs of other programs, and from hostile ones."""

import io
import os
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelreg.errors import IntegrityError
from modelreg.folders import UnpackedFile, plan_folder, unpack_folder

from tests.client.folder_trees import packed, read_tree, write_tree

TREE = {"model.xml": b"<net/>", "weights/1.bin": bytes(range(256)) * 5000, "weights/empty": b""}


def zip_with(*entries: tuple[str, bytes], **attributes: object) -> bytes:
    """Return a ZIP with entries, whose ZipInfo gets the attributes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings(action="ignore", category=UserWarning):
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            archive.writestr(info, content)
    return file.getvalue()


def replaced(archive: bytes, old: bytes, new: bytes, *, last_only: bool = False) -> bytes:
    """Return a ZIP in which bytes are replaced, and therefore contradict others."""
    assert old in archive
    assert len(old) == len(new)
    if last_only:
        head, _, tail = archive.rpartition(old)
        return head + new + tail
    return archive.replace(old, new)


class TestFolders:
    def test_are_unpacked_from_the_packed_form(self, tmp_path: Path) -> None:
        plan = plan_folder(write_tree(tmp_path / "m", TREE))
        (tmp_path / "m.zip").write_bytes(packed(plan))
        done: list[int] = []
        files = unpack_folder(tmp_path / "m.zip", tmp_path / "out", progress=done.append)
        assert read_tree(tmp_path / "out") == TREE
        assert [(file.path, file.size_bytes) for file in files] == [(file.path, file.size_bytes) for file in plan.files]
        assert files[0] == UnpackedFile("model.xml", 6, zlib.crc32(b"<net/>"))
        assert sum(done) == sum(len(content) for content in TREE.values())

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_are_unpacked_from_zips_of_zipfile(self, tmp_path: Path, compression: int) -> None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", compression) as file:
            file.mkdir("weights")
            file.mkdir("notes/empty")
            for path, content in TREE.items():
                file.writestr(path, content)
        unpack_folder(archive, tmp_path / "out")
        assert read_tree(tmp_path / "out") == TREE
        assert (tmp_path / "out" / "notes" / "empty").is_dir()

    def test_are_unpacked_from_zips_that_were_written_as_a_stream(self, tmp_path: Path) -> None:
        class Pipe(io.RawIOBase):
            content = b""

            def writable(self) -> bool:
                return True

            def write(self, data: bytes) -> int:  # type: ignore[override]
                self.content += bytes(data)
                return len(data)

        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as file:
            for path, content in TREE.items():
                file.writestr(path, content)
        unpack_folder(io.BytesIO(pipe.content), tmp_path / "out")
        assert read_tree(tmp_path / "out") == TREE

    def test_are_unpacked_into_empty_folders_only(self, tmp_path: Path) -> None:
        archive = zip_with(("a", b"1"))
        (tmp_path / "empty").mkdir()
        unpack_folder(io.BytesIO(archive), tmp_path / "empty")
        assert read_tree(tmp_path / "empty") == {"a": b"1"}
        with pytest.raises(FileExistsError, match="must be new or empty"):
            unpack_folder(io.BytesIO(archive), tmp_path / "empty")
        with pytest.raises(FileExistsError):
            unpack_folder(io.BytesIO(archive), tmp_path / "empty" / "a")
        assert read_tree(tmp_path / "empty") == {"a": b"1"}

    def test_do_not_get_the_modes_of_the_zip(self, tmp_path: Path) -> None:
        unpack_folder(io.BytesIO(zip_with(("a", b"1"), external_attr=0o104777 << 16)), tmp_path / "out")
        assert stat.S_IMODE((tmp_path / "out" / "a").stat().st_mode) & 0o7111 == 0

    def test_are_refused_if_the_disk_has_too_little_space(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 3}))
        with pytest.raises(OSError, match="takes 4 bytes, and 3 bytes are free"):
            unpack_folder(io.BytesIO(zip_with(("a", b"1234"))), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_are_removed_again_if_the_caller_cancels(self, tmp_path: Path) -> None:
        def cancel(_count: int) -> None:
            raise ValueError("enough")

        (tmp_path / "empty").mkdir()
        for target in ("empty", "new"):
            with pytest.raises(ValueError, match="enough"):
                unpack_folder(io.BytesIO(zip_with(("sub/a", b"1"))), tmp_path / target, progress=cancel)
        assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]


UNSAFE: dict[str, tuple[bytes, str]] = {
    "parent": (zip_with(("../a", b"")), "leaves the folder"),
    "inner parent": (zip_with(("a/../../b", b"")), "leaves the folder"),
    "absolute": (zip_with(("/etc/passwd", b"")), "is an absolute path"),
    "drive": (zip_with(("C:/a", b"")), "which Windows forbids"),
    "stream of NTFS": (zip_with(("a:b", b"")), "which Windows forbids"),
    "backslash": (replaced(zip_with(("a-b", b"")), b"a-b", b"a\\b"), "has a NUL or a backslash"),
    "NUL": (replaced(zip_with(("a-b", b"")), b"a-b", b"a\0b"), "has a NUL or a backslash"),
    "dot": (zip_with(("./a", b"")), "is not the name of a file"),
    "empty part": (zip_with(("a//b", b"")), "is empty"),
    "empty": (replaced(zip_with(("a/", b"")), b"a/", b"//"), "is an absolute path"),
    "device": (zip_with(("sub/NUL.txt", b"")), "is the name of a device"),
    "trailing dot": (zip_with(("sub./a", b"")), "ends in a dot"),
    "control character": (zip_with(("a\x1b[2J", b"")), "has control characters"),
    "long name": (zip_with(("a" * 256, b"")), "has more than 255 bytes"),
    "long path": (zip_with(("a/" * 30_000 + "a", b"")), "has more than 1024 bytes"),
    "twice": (zip_with(("a", b"1"), ("a", b"2")), "the same file"),
    "case": (zip_with(("Model", b"1"), ("model", b"2")), "the same file"),
    "accents": (zip_with(("é", b"1"), ("e\u0301", b"2")), "the same file"),
    "file as folder": (zip_with(("a", b"1"), ("a/b", b"2")), "the same file"),
    "folder as file": (zip_with(("a/", b""), ("a", b"2")), "the same file"),
    "link": (zip_with(("a", b"/etc/passwd"), external_attr=(stat.S_IFLNK | 0o777) << 16), "is a link"),
    "pipe": (zip_with(("a", b""), external_attr=(stat.S_IFIFO | 0o666) << 16), "neither a file nor a folder"),
    "folder that is a file": (zip_with(("a/", b""), external_attr=(stat.S_IFREG | 0o666) << 16), "neither a file"),
    "encrypted": (
        zip_with(("a", b"1")).replace(b"PK\x01\x02\x14\x03\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\1\0"),
        "encr",
    ),
    "method": (zip_with(("a", b"1"), compress_type=zipfile.ZIP_LZMA), "is compressed with method 14"),
}


def _overlapping() -> bytes:
    """Return a ZIP with two entries of the same bytes."""
    archive = zip_with(("a", b"1"), ("b", b"2"))
    start = archive.index(b"PK\x01\x02", archive.index(b"PK\x01\x02") + 1)
    return archive[: start + 42] + struct.pack("<L", 0) + archive[start + 46 :]


def _with_size(size: int) -> bytes:
    """Return a ZIP whose directory and header state a size of the 1000 bytes of its deflated member."""
    archive = zip_with(("a", bytes(1000)), compress_type=zipfile.ZIP_DEFLATED)
    return replaced(archive, struct.pack("<L", 1000), struct.pack("<L", size))


DAMAGED: dict[str, bytes] = {
    "no ZIP": b"GIF89a" + bytes(100),
    "nothing": b"",
    "content": replaced(zip_with(("a", b"content")), b"content", b"kontent"),
    "CRC-32": replaced(zip_with(("a", b"1")), struct.pack("<L", 0x83DCEFB7), bytes(4)),
    "fewer bytes than stated": _with_size(1001),
    "more bytes than stated": _with_size(10),
    "other name in the header": replaced(zip_with(("evil", b"1")), b"evil", b"good", last_only=True),
    "directory outside": zip_with(("a", b"1"))[:-6] + b"\xff\xff\xff\x7f\0\0",
    "directory of 4 GB": zip_with(("a", b"1"))[:-10] + b"\xf0\xff\xff\xff\0\0\0\0\0\0",
    "deflated bytes": replaced(
        zip_with(("a", bytes(1000)), compress_type=zipfile.ZIP_DEFLATED), b"\x63\x60", b"\xff\xff"
    ),
}


class TestRefused:
    @pytest.mark.parametrize("case", UNSAFE)
    def test_are_unsafe_zips_before_anything_is_written(self, tmp_path: Path, case: str) -> None:
        archive, problem = UNSAFE[case]
        with pytest.raises(IntegrityError, match=problem) as raised:
            unpack_folder(io.BytesIO(archive), tmp_path / "out")
        assert raised.value.reason == "ARCHIVE_UNSAFE"
        assert list(tmp_path.iterdir()) == []

    def test_are_members_that_share_bytes(self, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError, match="overlaps another one"):
            unpack_folder(io.BytesIO(_overlapping()), tmp_path / "out")

    @pytest.mark.parametrize("case", DAMAGED)
    def test_are_damaged_zips_and_nothing_remains(self, tmp_path: Path, case: str) -> None:
        (tmp_path / "empty").mkdir()
        for target in ("empty", "new"):
            with pytest.raises(IntegrityError):
                unpack_folder(io.BytesIO(DAMAGED[case]), tmp_path / target)
        assert list(tmp_path.rglob("*")) == [tmp_path / "empty"]

    def test_are_directories_that_would_fill_the_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelreg._folders.unpacking._DIRECTORY_MAX_BYTES", 1 << 16)
        with pytest.raises(IntegrityError, match="more than 65536 bytes"):
            unpack_folder(io.BytesIO(zip_with(*((f"{number:0200}", b"") for number in range(400)))), tmp_path / "out")
        monkeypatch.setattr("modelreg._folders.unpacking.MAX_ENTRIES", 2)
        with pytest.raises(IntegrityError, match="more than 2 members"):
            unpack_folder(io.BytesIO(zip_with(("a", b""), ("b", b""), ("c", b""))), tmp_path / "out")

    @given(data=st.data())
    def test_are_changed_bytes_or_they_do_not_matter(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        archive = bytearray(packed(write_tree(tmp_path_factory.mktemp("tree"), {"a.txt": b"abc", "b/c": b"0" * 100})))
        for _ in range(data.draw(st.integers(1, 3))):
            archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
        end = data.draw(st.one_of(st.just(len(archive)), st.integers(0, len(archive))))
        target = tmp_path_factory.mktemp("target") / "out"
        try:
            unpack_folder(io.BytesIO(bytes(archive[:end])), target)
        except IntegrityError:
            assert not os.path.lexists(target)
        else:
            assert sum(len(content) for content in read_tree(target).values()) <= 103
