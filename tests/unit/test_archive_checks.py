"""Warnings about ZIPs that programs unpack differently."""

import io
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping

import pytest

from registry_service.domain.errors import ArtifactStoreUnavailableError
from registry_service.signatures import limits
from tests.model_files import IR, WEIGHTS, geti_deployment
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import OneObject, bounded, read

END = b"PK\x05\x06"


def problems(data: bytes) -> tuple[str, ...]:
    signature = read(data, "model.zip", "application/zip")
    return () if signature is None else signature.problems


def zip_with(*members: tuple[str | zipfile.ZipInfo, bytes], comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, data in members:
            archive.writestr(name, data)
        archive.comment = comment
    return file.getvalue()


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def renamed(old: bytes, new: bytes, *, at: int) -> bytes:
    """A ZIP with one of the two names of its member changed."""
    data = zip_with((old.decode(), b"x"))
    found = [i for i in range(len(data)) if data.startswith(old, i)][at]
    return data[:found] + new + data[found + len(old) :]


class Unseekable(io.RawIOBase):
    """A stream. A ZIP that is written to it has the sizes after the members."""

    def __init__(self) -> None:
        self.written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.written += data
        return len(data)


def streamed(*, force_zip64: bool = False) -> bytes:
    stream = Unseekable()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=force_zip64) as file:
                file.write(b"x" * 1000)
    return bytes(stream.written)


def appended() -> bytes:
    file = io.BytesIO(zip_with(("a", b"x")))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("b", b"y")
    return file.getvalue()


def sized_in_zip64() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, archive.open("a", "w", force_zip64=True) as opened:
        opened.write(b"x")
    return file.getvalue()


WELL: Mapping[str, Callable[[], bytes]] = {
    "of a deployment": lambda: zip_of(geti_deployment()),
    "empty": zip_with,
    "with a comment": lambda: zip_with(("a", b"x"), comment=b"made by a tool"),
    "of a stream": streamed,
    "of a stream in ZIP64": lambda: streamed(force_zip64=True),
    "with a member in ZIP64": sized_in_zip64,
    "appended to": appended,
    "with folders": lambda: zip_with(("a/", b""), ("a/b", b"x"), ("B/", b"")),
    "with the present folder": lambda: zip_with(("./", b""), ("./a/", b""), ("./a/b", b"x")),
    "with names that begin alike": lambda: zip_with(("a", b"x"), ("a.b", b"x"), ("ab/c", b"x"), ("a!/b", b"x")),
    "with names of other scripts": lambda: zip_with(("モデル/é.bin", b"x"), ("E.bin", b"x")),
    "with a ZIP inside": lambda: zip_with(("inner.zip", zip_with(("a", b"x")))),
    "with modes": lambda: zip_with(
        (member("a", stat.S_IFREG | 0o755), b"x"), (member("b/", stat.S_IFDIR | 0o755), b"")
    ),
}


@pytest.mark.parametrize("what", WELL)
def test_an_ordinary_zip_gets_no_warning(what: str) -> None:
    assert problems(WELL[what]()) == ()


def changed_end(offset: int, value: bytes) -> bytes:
    data = zip_with(("a", b"x"), ("b", b"y"))
    at = data.index(END) + offset
    return data[:at] + value + data[at + len(value) :]


def overlapping() -> bytes:
    """Two entries of the directory that share a member, as in a ZIP bomb."""
    data = zip_with(("a", b"x"), ("b", b"y"))
    entry = data.rindex(b"PK\x01\x02")
    return data[: entry + 42] + struct.pack("<I", 0) + data[entry + 46 :]


def other_size() -> bytes:
    data = zip_with(("a", b"x"))
    return data[:22] + struct.pack("<I", 9) + data[26:]


INNER = zip_with(("a", b"inner"))
OUTER = zip_with(("a", b"outer"))
CUT_NAME = renamed(b"a.txt0b", b"a.txt\0b", at=1)

ODD: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "a link": (
        lambda: zip_with((member("model.xml", stat.S_IFLNK | 0o777), b"/etc/passwd")),
        "has symbolic links, which can point anywhere: 'model.xml'.",
    ),
    "links": (
        lambda: zip_with(*((member(name, stat.S_IFLNK), b"x") for name in "abc")),
        "has symbolic links, which can point anywhere: 'a', and 2 more.",
    ),
    "a device": (
        lambda: zip_with((member("a", stat.S_IFCHR), b"")),
        "has members that are neither files nor folders: 'a'.",
    ),
    "another name in the directory": (
        lambda: renamed(b"safe", b"evil", at=1),
        "has members whose local headers have other names than its central directory: 'evil'.",
    ),
    "another name in the header": (
        lambda: renamed(b"safe", b"evil", at=0),
        "has members whose local headers have other names than its central directory: 'safe'.",
    ),
    "another size in the header": (
        other_size,
        "has members whose local headers contradict its central directory: 'a'.",
    ),
    "a name twice": (lambda: zip_with(("a", b"x"), ("a", b"y")), "has several members with the same name: 'a'."),
    "a case of a name": (
        lambda: zip_with(("Model.xml", b"x"), ("model.XML", b"y")),
        "has names that differ only in case or encoding: 'model.XML'.",
    ),
    "a form of a name": (
        lambda: zip_with(("\u00e9", b"x"), ("e\u0301", b"y")),
        f"has names that differ only in case or encoding: {'e' + chr(0x301)!r}.",
    ),
    "a doubled slash": (lambda: zip_with(("a//m", b"x"), ("a/m", b"y")), "has several names for the same file: 'a/m'."),
    "a name of the present folder": (
        lambda: zip_with(("./a", b"x"), ("a", b"y")),
        "has several names for the same file: 'a'.",
    ),
    "a name with a way back": (
        lambda: zip_with(("a/../B", b"x"), ("./b", b"y")),
        "has several names for the same file: './b'.",
    ),
    "a file with members": (
        lambda: zip_with(("a!", b"x"), ("a", b"x"), ("A/./b", b"y"), ("c", b"z")),
        "has a file and a folder with the same name: 'a'.",
    ),
    "a file in a file": (
        lambda: zip_with(("a/b/c/d", b"y"), ("a/b", b"x")),
        "has a file and a folder with the same name: 'a/b'.",
    ),
    "a file and a folder": (
        lambda: zip_with(("a", b"x"), ("A/", b"")),
        "has a file and a folder with the same name: 'A/'.",
    ),
    "an absolute name": (lambda: zip_with(("/etc/x", b"x")), "has absolute paths: '/etc/x'."),
    "a drive": (lambda: zip_with(("C:x", b"x")), "has absolute paths: 'C:x'."),
    "a name upwards": (lambda: zip_with(("a/../../x", b"x")), "has paths that leave its folder: 'a/../../x'."),
    "a backslash": (
        lambda: zip_with(("a\\b", b"x")),
        r"has names with backslashes, which separate folders on some systems: 'a\\b'.",
    ),
    "a NUL": (lambda: CUT_NAME, r"has names with control characters: 'a.txt\x00b'."),
    "a bidirectional name": (
        lambda: zip_with(("a\u202egnp.exe", b"x")),
        r"has names with control characters: 'a\u202egnp.exe'.",
    ),
    "a directory behind the first": (lambda: INNER + OUTER, "has a second central directory."),
    "a directory in the comment": (
        lambda: zip_with(("a", b"x"), comment=END + bytes(18)),
        "has a second central directory.",
    ),
    "bytes before it": (lambda: b"PK\x03\x04 of something else" + OUTER, "has bytes that belong to no member."),
    "bytes behind it": (lambda: OUTER + b"something else", "has bytes after its central directory."),
    "members that overlap": (overlapping, "has members that overlap: 'b'."),
    "members before its beginning": (
        lambda: changed_end(12, struct.pack("<II", 2 * 47, 400)),
        "has members that start before it: 'a', and 1 more.",
    ),
    "fewer members than told": (
        lambda: changed_end(8, struct.pack("<HH", 3, 3)),
        "has 2 members, but its end record counts 3.",
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_an_ambiguous_zip_gets_a_warning(what: str) -> None:
    make, problem = ODD[what]
    assert f"The ZIP {problem}" in problems(make())


def test_problems_of_the_zip_join_the_signature_of_the_model() -> None:
    data = zip_with(("m.xml", IR.encode()), ("m.bin", WEIGHTS), (member("link", stat.S_IFLNK), b"/"))
    signature = read(data, "model.zip", "application/zip")
    assert signature.format == "openvino"
    assert signature.problems == ("The ZIP has symbolic links, which can point anywhere: 'link'.",)


def test_many_members_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 60.0)  # the memory is watched, which takes time
    data = zip_with(*((f"{i:05}.bin", bytes(8_000)) for i in range(2_000)))
    store = OneObject(data)
    with bounded(mebibytes=32):
        assert read(data, "model.zip", "application/zip", store) is None
    assert store.bytes_read <= len(data) + 2 * limits.DIRECTORY_BYTES


def test_a_zip_that_takes_too_long_to_check_gets_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STEPS", 4_000)
    data = zip_with(*((f"{i:05}.bin", b"") for i in range(5_000)))
    assert problems(data) == ("The ZIP was not checked completely: Only the first 4,000 elements were read.",)


def test_a_store_that_fails_during_the_check_keeps_the_signature() -> None:
    data = zip_with(*((name, bytes(100_000)) for name in "abcdef"), ("m.xml", IR.encode()), ("m.bin", WEIGHTS))

    class Failing(OneObject):
        def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
            if offset == 0:
                raise ArtifactStoreUnavailableError
            return super().read(key, offset, length)

    signature = read(data, "model.zip", "application/zip", Failing(data))
    assert len(signature.inputs) == 1
    assert signature.problems == ("The ZIP could not be checked completely.",)


def test_a_directory_that_is_too_large_gets_a_warning() -> None:
    data = zip_with(*((f"{i:0300}", b"") for i in range(4_000)))
    assert problems(data) == ("The ZIP was not searched for a model: its central directory is larger than 1 MiB.",)
