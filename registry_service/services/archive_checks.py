"""Finds ambiguities that make programs unpack a ZIP differently.

A ZIP describes its members twice: in a local header before each, and in the
central directory at its end. Nothing guarantees that the two agree, that there
is one directory, or that names are distinct. Programs resolve such conflicts
differently, so a ZIP that was inspected may unpack to other files or to another
place (see Snyk, "Zip Slip"). Only headers are read. Every finding is a warning.
"""

import logging
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from itertools import pairwise

from registry_service.services.archives import Archive
from registry_service.signatures.file_reader import Budget, FormatError, LimitError, Reader

logger = logging.getLogger(__name__)

# The fixed parts of the records of a ZIP and their magic numbers (APPNOTE.TXT 6.3.10, section 4.3).
_LOCAL = struct.Struct("<4s2xHH8xIIHH")
_ENTRY = struct.Struct("<4s24xHHH12x")
_ENTRY_MAGIC = b"PK\x01\x02"
_LOCAL_MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s6xH8xH")
_END_MAGIC = b"PK\x05\x06"
_ZIP64_END_MAGIC = b"PK\x06\x06"
_ZIP64_LOCATOR_MAGIC = b"PK\x06\x07"
_ZIP64_LOCATOR_SIZE = 20
_DESCRIPTOR_SIZES = frozenset({0, 12, 16, 20, 24})
"""Possible sizes of the record after a member whose sizes are not in its header."""
_HAS_DESCRIPTOR = 0x8
_MANY = 0xFFFF
"""Placeholder for a count that only the ZIP64 record contains."""
_TAIL = 66_000
"""Bytes at the end of a gap that are searched for an end record: the size of one with the longest comment."""
_NAMES = (
    (re.compile(r"^[/\\]|^[A-Za-z]:"), "has absolute paths"),
    (re.compile(r"(^|[/\\])\.\.([/\\]|$)"), "has paths that leave its folder"),
    (re.compile(r"\\"), "has names with backslashes, which separate folders on some systems"),
    (re.compile(r"[\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]"), "has names with control characters"),
)


def problems_of(archive: Archive, reader: Reader, budget: Budget) -> list[str]:
    """Return the problems of a ZIP as sentences. Each names the first member that has it and counts the others.

    `reader` is at the start of the ZIP. Raises nothing: a check that fails is one of the problems.
    """
    found: dict[str, tuple[str, int]] = {}
    checks = (_names(archive.entries, budget), _Layout(archive, reader, budget).problems())
    for check in checks:
        try:
            for problem, example in check:
                first, count = found.get(problem, (example, 0))
                found[problem] = first, count + 1
        except LimitError as error:
            found.setdefault(f"was not checked completely: {error}".removesuffix("."), ("", 1))
        except FormatError:
            found.setdefault("is damaged", ("", 1))
        except Exception:
            logger.warning("checking a ZIP failed", exc_info=True)
            found.setdefault("could not be checked completely", ("", 1))
    return [f"The ZIP {problem}{_examples(*first)}." for problem, first in found.items()]


def _examples(first: str, count: int) -> str:
    more = f", and {count - 1} more" if count > 1 else ""
    return f": {first[:200]!r}{more}" if first else ""


def _names(entries: list[zipfile.ZipInfo], budget: Budget) -> Iterator[tuple[str, str]]:
    """Yield the problems of the names and types of members, each with the name."""
    seen: dict[tuple[str, ...], tuple[str, bool]] = {}
    """Name, and whether it is a folder, by the path that it has on systems that ignore case."""
    for entry in entries:
        budget.step()
        name = entry.orig_filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind == stat.S_IFLNK:
            yield "has symbolic links, which can point anywhere", name
        elif kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            yield "has members that are neither files nor folders", name
        yield from ((problem, name) for pattern, problem in _NAMES if pattern.search(name))
        written = _folded(name)
        path, is_folder = _path(written), written.endswith("/")
        if path in seen:
            yield _collision(*seen[path], name, is_folder), name
        else:
            seen[path] = name, is_folder
    yield from _files_with_members(seen)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()


def _path(written: str) -> tuple[str, ...]:
    """Return the segments of the path that programs unpack a name to."""
    path: list[str] = []
    for segment in written.split("/"):
        if segment == ".." and path:
            path.pop()
        elif segment not in {"", ".", ".."}:
            path.append(segment)
    return tuple(path)


def _collision(first: str, is_first_folder: bool, name: str, is_folder: bool) -> str:
    if first == name:
        return "has several members with the same name"
    if is_first_folder != is_folder:
        return "has a file and a folder with the same name"
    if _folded(first) != _folded(name):
        return "has several names for the same file"
    return "has names that differ only in case or encoding"


def _files_with_members(seen: dict[tuple[str, ...], tuple[str, bool]]) -> Iterator[tuple[str, str]]:
    """Yield the files that the names of other members use as a folder."""
    # Sorted, the members of a folder directly follow it.
    paths = sorted(seen)
    for path, following in pairwise(paths):
        name, is_folder = seen[path]
        if path and not is_folder and following[: len(path)] == path:
            yield "has a file and a folder with the same name", name


class _Layout:
    """A walk over the headers in the order of the file. Every byte must belong to one member or record."""

    def __init__(self, archive: Archive, reader: Reader, budget: Budget) -> None:
        self._archive = archive
        self._reader = reader
        self._budget = budget

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the problems, each with the name of a member or an empty text."""
        has_descriptor = False
        for entry in sorted(self._archive.entries, key=lambda entry: entry.header_offset):
            self._budget.step()
            if entry.header_offset < self._reader.position:
                kind = "overlap" if entry.header_offset >= 0 else "start before it"
                yield f"has members that {kind}", entry.orig_filename
                continue
            yield from self._gap(entry.header_offset, has_descriptor)
            yield from self._member(entry)
            has_descriptor = bool(entry.flag_bits & _HAS_DESCRIPTOR)
        start = self._archive.directory_offset
        if start < self._reader.position:
            yield "has members that overlap its central directory", ""
        else:
            yield from self._gap(start, has_descriptor)
            yield from self._directory()

    def _gap(self, end: int, has_descriptor: bool) -> Iterator[tuple[str, str]]:
        """Move to `end`, and check the skipped bytes."""
        size = end - self._reader.position
        if size == 0 or (has_descriptor and size in _DESCRIPTOR_SIZES):
            self._reader.skip(size)
            return
        tail = min(size, _TAIL)
        self._reader.skip(size - tail)
        is_directory = _END_MAGIC in self._reader.take(tail)
        yield "has a second central directory" if is_directory else "has bytes that belong to no member", ""

    def _member(self, entry: zipfile.ZipInfo) -> Iterator[tuple[str, str]]:
        """Compare a local header with its entry of the directory, and skip the member."""
        name = entry.orig_filename
        fields = _LOCAL.unpack(self._reader.take(_LOCAL.size))
        magic, flags, method, compressed_size, size, name_length, extra_length = fields
        if magic != _LOCAL_MAGIC:
            yield "has members without a local header", name
            return
        local_name = self._reader.take(name_length)
        if local_name != name.encode("utf-8" if entry.flag_bits & 0x800 else "cp437", errors="replace"):
            yield "has members whose local headers have other names than its central directory", name
        has_sizes = not flags & _HAS_DESCRIPTOR and 0xFFFF_FFFF not in {size, compressed_size}
        sizes = entry.file_size, entry.compress_size
        is_other_size = has_sizes and (size, compressed_size) != sizes
        if is_other_size or method != entry.compress_type or (flags ^ entry.flag_bits) & 1:
            yield "has members whose local headers contradict its central directory", name
        self._reader.skip(extra_length + entry.compress_size)

    def _directory(self) -> Iterator[tuple[str, str]]:
        """Read the central directory and its end record."""
        count = 0
        while self._reader.peek(4) == _ENTRY_MAGIC:
            self._budget.step()
            _, *lengths = _ENTRY.unpack(self._reader.take(_ENTRY.size))
            self._reader.skip(sum(lengths))
            count += 1
        if self._reader.peek(4) == _ZIP64_END_MAGIC:
            self._reader.skip(4)
            self._reader.skip(int.from_bytes(self._reader.take(8), "little"))
        if self._reader.peek(4) == _ZIP64_LOCATOR_MAGIC:
            self._reader.skip(_ZIP64_LOCATOR_SIZE)
        if self._reader.peek(4) != _END_MAGIC:
            yield "has a second central directory, or bytes before the end record of its directory", ""
            return
        _, declared, comment_length = _END.unpack(self._reader.take(_END.size))
        if count != len(self._archive.entries) or declared not in {count, _MANY}:
            yield f"has {count} members, but its end record counts {declared}", ""
        if _END_MAGIC in self._reader.take(min(comment_length, self._reader.size - self._reader.position)):
            yield "has a second central directory", ""
        if self._reader.position < self._reader.size:
            yield "has bytes after its central directory", ""
