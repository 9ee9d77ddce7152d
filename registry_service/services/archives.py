"""Reads ZIP artifacts in the store: the central directory and single members, by ranged reads.

A ZIP may be hostile. The directory is read up to a limit. Members are looked up
by name, never written to a file, and decompressed in small pieces, no further
than the size in the directory.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import IO

from registry_service.domain.artifact_store import CHUNK_SIZE, ArtifactStore
from registry_service.domain.errors import ArtifactLostError, DataLossError, NotAnArchiveError

_READ_AHEAD = 256 * 1024
_UNSAFE_NAME = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f\x7f]")
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_LOCAL_MAGIC = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Header before a member: its magic number, and the lengths of the name and of the extra field that follow."""
_MAX_SIZE = 2**63 - 1
# What zipfile raises for a damaged ZIP.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveMember:
    """A member of a ZIP, as the directory describes it. Sizes are in bytes."""

    name: str
    size: int
    compressed_size: int
    crc32: int
    modify_time: datetime | None
    """Aware, UTC; None if the archive has an impossible time."""


class _StoredFile(io.RawIOBase):
    """A seekable file over a stored object."""

    def __init__(self, store: ArtifactStore, key: str, size: int) -> None:
        self._store = store
        self._key = key
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(self._size - self._position, 0))
        if wanted == 0:
            return 0
        done = 0
        for piece in self._store.read(self._key, self._position, wanted):
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        if done < wanted:
            raise ArtifactLostError("The artifact store holds fewer bytes than were registered.")
        self._position += done
        return done


class _DirectoryReader(io.BufferedReader):
    """Limits the size of one read, as zipfile reads the whole directory at once."""

    def __init__(self, raw: io.RawIOBase, size: int, limit: int) -> None:
        super().__init__(raw, _READ_AHEAD)
        self._size = size
        self._limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self._size - self.tell()
        if size > self._limit:
            raise NotAnArchiveError(
                f"The ZIP's central directory is larger than {self._limit} bytes.", limit=str(self._limit)
            )
        return super().read(size)


def _never_cancelled() -> None:
    """Raise nothing."""


class Archive:
    """An open ZIP.

    Args:
        file: The ZIP, with its directory read.
        size: Size of the ZIP in bytes.
        read: Yields a range of the ZIP, by offset and length, in pieces of CHUNK_SIZE.
    """

    def __init__(self, file: zipfile.ZipFile, size: int, read: Callable[[int, int], Iterator[bytes]]) -> None:
        self._file = file
        self._size = size
        self._read = read

    @property
    def entries(self) -> list[zipfile.ZipInfo]:
        """The entries of the directory, unchecked."""
        return self._file.infolist()

    @property
    def directory_offset(self) -> int:
        """Offset of the directory in the ZIP."""
        return self._file.start_dir

    def members(self) -> Sequence[ArchiveMember]:
        """Return the members in the order of the directory."""
        return [_member(info) for info in self._file.infolist()]

    def unsafe_name(self) -> str | None:
        """Return the first name that leaves the target folder or has control characters, or None."""
        return next(
            (info.orig_filename for info in self._file.infolist() if _UNSAFE_NAME.search(info.orig_filename)), None
        )

    def is_readable(self, name: str) -> bool:
        """Return whether `open` can read a member: it exists, is not encrypted, and is stored or deflated."""
        try:
            info = self._file.getinfo(name)
        except KeyError:
            return False
        return info.compress_type in _METHODS and not info.flag_bits & _ENCRYPTED

    def stored_offset(self, name: str) -> int | None:
        """Return the offset in the ZIP of a stored member's bytes; None if it is compressed, encrypted or absent.

        Bytes that are read there are not checked against the CRC-32.
        """
        try:
            info = self._file.getinfo(name)
        except KeyError:
            return None
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED or self._file.fp is None:
            return None
        if info.header_offset < 0:  # a damaged directory
            return None
        self._file.fp.seek(info.header_offset)
        header = self._file.fp.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            return None
        magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        is_whole = info.file_size == info.compress_size and offset + info.file_size <= self._size
        return offset if magic == _LOCAL_MAGIC and is_whole else None

    def count(self, name: str) -> int:
        """Return the number of members with a name."""
        return sum(info.filename == name for info in self._file.infolist())

    def open(self, name: str) -> tuple[ArchiveMember, Iterator[bytes]] | None:
        """Return a member and its bytes as `pieces` yields them, or None if it does not exist.

        Raises:
            NotAnArchiveError: The member is encrypted, or neither stored nor deflated.
        """
        member = self.member(name)
        return None if member is None else (member, self.pieces(member, 0, member.size))

    def member(self, name: str) -> ArchiveMember | None:
        """Return a readable member, or None if it does not exist.

        Raises:
            NotAnArchiveError: The member is encrypted, or neither stored nor deflated.
        """
        try:
            info = self._file.getinfo(name)
        except KeyError:
            return None
        if info.flag_bits & _ENCRYPTED:
            raise NotAnArchiveError(f"The file {name!r} is encrypted.", path=name)
        if info.compress_type not in _METHODS:
            # Other methods can request gigabytes of memory to decompress a few bytes.
            raise NotAnArchiveError(
                f"The file {name!r} is compressed with method {info.compress_type}; only stored and deflate are read.",
                path=name,
            )
        return _member(info)

    def read(self, member: ArchiveMember) -> Iterator[bytes]:
        """Yield the bytes of a member. Raises what `open` and `pieces` raise, at the first `next` or later."""
        found = self.open(member.name)
        if found is None:
            raise NotAnArchiveError(f"The archive has no file {member.name!r}.", path=member.name)
        yield from found[1]

    def pieces(
        self, member: ArchiveMember, offset: int, length: int, check_cancelled: Callable[[], None] = _never_cancelled
    ) -> Iterator[bytes]:
        """Yield a range of a member's bytes, decompressed, in pieces of at most CHUNK_SIZE.

        The last piece is held back until size and CRC-32 are checked against the directory, where the range allows it.
        A compressed member is decompressed from its start, so its CRC is checked if the range reaches the end.
        Of a stored member only the range is read, so its CRC is checked if the range is the whole member.

        Args:
            member: A result of `member`.
            offset: First byte, at most the member's size.
            length: Number of bytes, no more than the member has from there.
            check_cancelled: Called for each piece before the range. Raises to cancel the decompression.

        Raises:
            DataLossError: The member is damaged.
            ArtifactLostError: The store has fewer bytes than were registered.
        """
        if length == 0 and member.size > 0:
            return
        info = self._file.getinfo(member.name)
        try:
            with self._file.open(info) as file:  # compares the header with the directory
                start = self.stored_offset(member.name)
                if start is None:
                    yield from _last_held_back(_decompressed(info, file, offset, length, check_cancelled))
                else:
                    yield from _last_held_back(self._stored(info, start, offset, length))
        except _DAMAGE as error:
            raise DataLossError(f"The file {info.filename!r} is damaged.", path=info.filename) from error

    def _stored(self, info: zipfile.ZipInfo, start: int, offset: int, length: int) -> Iterator[bytes]:
        """Yield a range of a stored member, whose bytes begin at `start` of the ZIP."""
        crc = done = 0
        for piece in self._read(start + offset, length):
            crc = zlib.crc32(piece, crc)
            done += len(piece)
            yield piece
        if done != length:
            raise ArtifactLostError("The artifact store holds fewer bytes than were registered.")
        if length == info.file_size and crc != info.CRC:
            raise zipfile.BadZipFile("wrong CRC-32")


def _decompressed(
    info: zipfile.ZipInfo, file: IO[bytes], offset: int, length: int, check_cancelled: Callable[[], None]
) -> Iterator[bytes]:
    """Yield a range of a compressed member. If the range reaches the end, read to where zipfile checks the CRC."""
    end = offset + length
    position = 0
    while (position < end or end == info.file_size) and (piece := file.read(CHUNK_SIZE)):
        start, position = position, position + len(piece)
        wanted = piece[max(offset - start, 0) : max(end - start, 0)]
        if wanted:
            yield wanted
        else:
            check_cancelled()
    if position < end:
        raise DataLossError(f"The file {info.filename!r} is truncated.", path=info.filename)


def _last_held_back(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces, and the last one only after the iterator ended without an error."""
    # A piece leaves the list when it is yielded, so that only the piece held back is referenced meanwhile.
    held = []
    for piece in pieces:
        held.append(piece)
        if len(held) > 1:
            yield held.pop(0)
    yield from held


@contextmanager
def open_archive(
    store: ArtifactStore, key: str, size: int, *, directory_max_bytes: int, subject: str = "The artifact"
) -> Iterator[Archive]:
    """Open a stored ZIP and read its directory.

    Args:
        store: Where it is.
        key: The key of its object.
        size: Its size in bytes.
        directory_max_bytes: The maximum size of its directory.
        subject: What it is, for the error.

    Raises:
        NotAnArchiveError: The object is not a ZIP, or its directory is damaged or too large.
        ArtifactLostError: The object does not exist.
    """
    raw = _StoredFile(store, key, size)
    with _DirectoryReader(raw, size, max(directory_max_bytes, CHUNK_SIZE)) as reader:
        try:
            file = zipfile.ZipFile(reader)
        except _DAMAGE as error:
            raise NotAnArchiveError(f"{subject} has no readable ZIP directory.") from error
        with file:
            if any(info.file_size > _MAX_SIZE or info.compress_size > _MAX_SIZE for info in file.infolist()):
                raise NotAnArchiveError("The directory of the ZIP has an impossible size.")
            yield Archive(file, size, partial(store.read, key))


def _member(info: zipfile.ZipInfo) -> ArchiveMember:
    try:
        modify_time = datetime(*info.date_time, tzinfo=UTC)
    except ValueError:
        modify_time = None
    return ArchiveMember(
        name=info.filename,
        size=info.file_size,
        compressed_size=info.compress_size,
        crc32=info.CRC,
        modify_time=modify_time,
    )
