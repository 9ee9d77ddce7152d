"""Pulls from a registry that lies: they raise, and nothing remains."""

import io
import itertools
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import pytest
from modelreg import IntegrityError, Registry

from tests.client.lying_server import LyingServer
from tests.client.test_pull_folders import tree

DATA = bytes(range(256)) * 1000


def left_in(folder: Path) -> list[Path]:
    """Return the files that have content."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    return [path for path in found if path.name != "CACHEDIR.TAG"]


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([DATA[:-1] + b"x"], "not the registered ones"),
        ([DATA, b"more"], "other bytes"),
        (itertools.repeat(DATA), "other bytes"),
        ([DATA[:100], b"", DATA[100:]], "other bytes"),
        ([], "fewer bytes"),
    ],
)
@pytest.mark.parametrize("to", [False, True])
def test_other_bytes_are_refused(tmp_path: Path, pieces: Iterable[bytes], message: str, to: bool) -> None:
    with LyingServer(DATA) as server, Registry(server.url) as registry:
        server.pieces = pieces
        with pytest.raises(IntegrityError, match=message):
            registry.pull("m", to=tmp_path / "to" if to else None)

    assert not left_in(tmp_path)


def test_another_artifact_than_the_resolved_one_is_refused(tmp_path: Path) -> None:
    with LyingServer(DATA) as server, Registry(server.url) as registry:
        server.described = type(server.described)(size_bytes=len(DATA), sha256="0" * 64)
        with pytest.raises(IntegrityError, match="described"):
            registry.pull("m")

    assert not left_in(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../m", "/etc/m", "a\\b", "a\0b", "a\nb", "x" * 300])
def test_a_file_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with LyingServer(DATA, file_name=name) as server, Registry(server.url) as registry:
        for to in (None, tmp_path / "to"):
            with pytest.raises(IntegrityError, match="file name"):
                registry.pull("m", to=to)

    assert not left_in(tmp_path)


@pytest.mark.parametrize("sha256", ["", "../../x", "A" * 64, "0" * 63])
def test_a_digest_that_is_none_is_refused(tmp_path: Path, sha256: str) -> None:
    with (
        LyingServer(DATA, sha256=sha256) as server,
        Registry(server.url) as registry,
        pytest.raises(IntegrityError, match="SHA-256"),
    ):
        registry.pull("m")

    assert not left_in(tmp_path)


@pytest.mark.parametrize(
    "path", ["../out.txt", "/out.txt", "a/../../out.txt", "con.txt", "a:b", "a\\..\\b", "GOOD.txt"]
)
def test_unsafe_paths_in_a_folder_are_refused(tmp_path: Path, path: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("good.txt", b"good")
        writer.writestr(path, b"evil")
    with LyingServer(archive.getvalue(), file_name="f.zip", kind="KIND_FOLDER") as server:
        server.files = {inside: (b"evil", zlib.crc32(b"evil")) for inside in ("good.txt", path)}
        with Registry(server.url) as registry:
            for files, to in itertools.product((None, ["**"]), (None, tmp_path / "to")):
                with pytest.raises(IntegrityError) as caught:
                    registry.pull("m", files=files, to=to)
                assert caught.value.reason == "ARCHIVE_UNSAFE"

    assert not left_in(tmp_path)


def test_a_file_inside_with_other_bytes_is_refused(tmp_path: Path) -> None:
    with LyingServer(DATA, file_name="f.zip") as server, Registry(server.url) as registry:
        server.files = {"labels.txt": (b"cat", 123), "good.txt": (b"good", zlib.crc32(b"good"))}
        for to in (None, tmp_path / "to"):
            with pytest.raises(IntegrityError, match="not the registered ones"):
                registry.pull("m", files=["labels.txt"], to=to)
        assert [path.name for path in registry.pull("m", files=["good.txt"]).iterdir()] == ["good.txt"]
        with registry.open("m", file="labels.txt") as file, pytest.raises(IntegrityError, match="checksum"):
            file.read()

    assert not [path for path in left_in(tmp_path) if path.read_bytes() == b"cat"]


@pytest.mark.parametrize("unsafe", [False, True])
def test_many_files_are_taken_out_of_the_whole_artifact_if_that_is_safe(tmp_path: Path, unsafe: bool) -> None:
    files = {f"labels/{number}.txt": f"label {number}".encode() for number in range(30)}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for path, data in {**files, "../out.txt" if unsafe else "out.txt": b"x"}.items():
            writer.writestr(path, data)
    with LyingServer(archive.getvalue(), file_name="f.zip") as server, Registry(server.url) as registry:
        server.files = {path: (data, zlib.crc32(data)) for path, data in files.items()}
        for to in (None, tmp_path / "to"):
            assert tree(registry.pull("m", files=["labels/*"], to=to)) == files
            registry.cache.prune(max_bytes=0)

    assert server.downloads == [0, 0]
    assert server.file_downloads == (60 if unsafe else 0)
    assert not [found for found in tmp_path.rglob("*") if ".part" in found.name]
