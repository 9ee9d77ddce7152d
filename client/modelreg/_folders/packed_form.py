"""The packed form of a folder, version 1: its records, and a reader that makes its bytes on the fly.

The form is a ZIP that depends on nothing but the paths and contents of the files, so the same folder has the same
digest on every platform and with every version of Python. `docs/clients/folders.md` defines it for other languages.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

from modelreg.errors import SourceChanged

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_END = struct.Struct("<4sHHHHLLH")
_END_64 = struct.Struct("<4sQHHLLQQQQ")
_LOCATOR_64 = struct.Struct("<4sLQL")
_EXTRA_64 = 0x0001
_UTF8 = 0x0800
_MADE_ON_UNIX_BY_45 = 3 << 8 | 45
_NEEDED, _NEEDED_64 = 20, 45
_TIME, _DATE = 0, 1 << 5 | 1
"""1980-01-01 00:00:00, the first time that a ZIP can have."""
_ATTRIBUTES = 0o100644 << 16
_MAX_16, _MAX_32 = 0xFFFF, 0xFFFF_FFFF

_WHOLE_FILE_MAX_BYTES = 1 << 20
"""Up to this size a file is read once, and kept while it is sent."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FolderFile:
    """A file to pack, and what identifies its content of the time when the folder was planned."""

    path: str
    """Path inside the folder, with `/`."""
    size_bytes: int
    source: str
    """Path in the file system. Links are resolved."""
    mtime_ns: int
    inode: int
    """0 where the file system has none."""

    def is_unchanged(self, status: os.stat_result) -> bool:
        """Return whether a status is that of the planned file."""
        return (
            status.st_size == self.size_bytes
            and status.st_mtime_ns == self.mtime_ns
            and (status.st_ino == self.inode or 0 in {status.st_ino, self.inode})
        )

    def changed(self) -> SourceChanged:
        """Return the error of a file that is not the planned one."""
        return SourceChanged(
            f"{self.source} was changed after the push began. Push the folder again when nothing writes to it.",
            reason="SOURCE_CHANGED",
            metadata={"path": self.path},
        )


def header_size(file: FolderFile) -> int:
    """Return the size of the local header of a file in bytes."""
    return _LOCAL.size + len(file.path.encode()) + (20 if file.size_bytes >= _MAX_32 else 0)


def directory_size(files: Sequence[FolderFile], offsets: Sequence[int], end: int) -> int:
    """Return the size in bytes of the central directory and the end records, which begin at `end`."""
    size = 0
    for file, offset in zip(files, offsets, strict=True):
        fields = 2 * (file.size_bytes >= _MAX_32) + (offset >= _MAX_32)
        size += _CENTRAL.size + len(file.path.encode()) + (4 + 8 * fields if fields else 0)
    needs_64 = len(files) >= _MAX_16 or size >= _MAX_32 or end >= _MAX_32
    return size + (_END_64.size + _LOCATOR_64.size if needs_64 else 0) + _END.size


class PackedFiles:
    """The files of a folder in the order of the packed form, with where each begins and their checksums."""

    def __init__(self, files: Sequence[FolderFile]) -> None:
        self.files = files
        starts = list(accumulate((header_size(file) + file.size_bytes for file in files), initial=0))
        self.directory_offset = starts.pop()
        self.offsets = starts
        self.size_bytes = self.directory_offset + directory_size(files, starts, self.directory_offset)
        # Filled by every reader, so that one that continues an upload computes none again.
        self._checksums: dict[int, int] = {}

    def known_checksum(self, index: int) -> int | None:
        """Return the CRC-32 of a file, or None if no reader has computed it."""
        return self._checksums.get(index)

    def set_checksum(self, index: int, checksum: int) -> None:
        """Note the CRC-32 of a file.

        Raises:
            SourceChanged: The file had another one before.
        """
        if self._checksums.setdefault(index, checksum) != checksum:
            raise self.files[index].changed()

    def checksum(self, index: int) -> int:
        """Return the CRC-32 of a file, and read the file if it is unknown.

        Raises:
            SourceChanged: The file is not the planned one.
        """
        known = self.known_checksum(index)
        if known is None:
            with open_planned(self.files[index]) as opened:
                known = self.read_checksum(index, opened)
        return known

    def read_checksum(self, index: int, opened: BinaryIO) -> int:
        """Compute the CRC-32 of a file from its start.

        Raises:
            SourceChanged: The file is not the planned one.
        """
        file = self.files[index]
        remaining, checksum = file.size_bytes, 0
        buffer = memoryview(bytearray(min(_CHUNK_BYTES, max(remaining, 1))))
        while remaining:
            count = opened.readinto(buffer[: min(len(buffer), remaining)])  # type: ignore[attr-defined]
            if not count:
                raise file.changed()
            checksum = zlib.crc32(buffer[:count], checksum)
            remaining -= count
        check_unchanged(file, opened)
        self.set_checksum(index, checksum)
        return checksum

    def read_content(self, index: int, opened: BinaryIO) -> bytes:
        """Read a whole file, and note its CRC-32.

        Raises:
            SourceChanged: The file is not the planned one.
        """
        file = self.files[index]
        content = opened.read(file.size_bytes + 1)
        check_unchanged(file, opened)
        if len(content) != file.size_bytes:
            raise file.changed()
        self.set_checksum(index, zlib.crc32(content))
        return content

    def local_header(self, index: int) -> bytes:
        """Return the header before a file. Its checksum must be known."""
        file, name = self.files[index], self.files[index].path.encode()
        needed, size, extra = _NEEDED, file.size_bytes, b""
        if size >= _MAX_32:
            extra = struct.pack("<HHQQ", _EXTRA_64, 16, size, size)
            needed, size = _NEEDED_64, _MAX_32
        checksum = self._checksums[index]
        fields = (needed, _UTF8, 0, _TIME, _DATE, checksum, size, size, len(name), len(extra))
        return _LOCAL.pack(b"PK\x03\x04", *fields) + name + extra

    def directory(self) -> bytes:
        """Return the central directory and the end records, and read the files whose checksums are unknown.

        Raises:
            SourceChanged: A file is not the planned one.
        """
        directory = bytearray()
        for index in range(len(self.files)):
            directory += self._directory_entry(index)
        count, size, offset = len(self.files), len(directory), self.directory_offset
        if count >= _MAX_16 or size >= _MAX_32 or offset >= _MAX_32:
            directory += _END_64.pack(
                b"PK\x06\x06", _END_64.size - 12, _MADE_ON_UNIX_BY_45, _NEEDED_64, 0, 0, count, count, size, offset
            )
            directory += _LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1)
        count, size, offset = min(count, _MAX_16), min(size, _MAX_32), min(offset, _MAX_32)
        directory += _END.pack(b"PK\x05\x06", 0, 0, count, count, size, offset, 0)
        return bytes(directory)

    def _directory_entry(self, index: int) -> bytes:
        checksum = self.checksum(index)
        file, name, offset = self.files[index], self.files[index].path.encode(), self.offsets[index]
        size, extra = file.size_bytes, b""
        if size >= _MAX_32:
            extra, size = struct.pack("<QQ", size, size), _MAX_32
        if offset >= _MAX_32:
            extra, offset = extra + struct.pack("<Q", offset), _MAX_32
        if extra:
            extra = struct.pack("<HH", _EXTRA_64, len(extra)) + extra
        needed = _NEEDED_64 if extra else _NEEDED
        fields = (_MADE_ON_UNIX_BY_45, needed, _UTF8, 0, _TIME, _DATE, checksum, size, size, len(name), len(extra))
        return _CENTRAL.pack(b"PK\x01\x02", *fields, 0, 0, 0, _ATTRIBUTES, offset) + name + extra


class FolderReader(io.RawIOBase):
    """The bytes of a packed folder, made while they are read.

    A read returns as many bytes as were asked for, except at the end. `seek` is cheap in both directions: it reads
    nothing. Not safe to use from several threads at once.

    A file that changes is noticed by its size, its modification time and its inode, which are compared before and
    after it is read, and by its CRC-32. The header before a file has the CRC-32, so a file of more than 1 MiB is read
    twice: first for the CRC-32, then to be sent. The CRC-32 of what is sent is compared, too, unless the reader begins
    in the middle of the file.

    Raises, while it is read:
        SourceChanged: A file is not the planned one any more.
        OSError: A file cannot be read.
    """

    def __init__(self, packed: PackedFiles) -> None:
        super().__init__()
        self._packed = packed
        self._position = 0
        self._index = -1
        """Index of the file that is read."""
        self._header = b""
        self._content: bytes | None = None
        """The content, if the file is small."""
        self._opened: BinaryIO | None = None
        self._data_position = 0
        """Position in `_opened`."""
        self._running: int | None = 0
        """CRC-32 of what was read of `_opened`. None if it was not read from its start."""
        self._directory: bytes | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position, and return it."""
        self._check_open()
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._packed.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"A position must be at least 0, not {base + offset}.")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, and return the number of bytes, which is smaller at the end only."""
        self._check_open()
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._packed.size_bytes:
            count = self._read_some(view[done:])
            self._position += count
            done += count
        return done

    def close(self) -> None:
        """Close the file that is read."""
        self._leave()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("The reader is closed.")

    def _read_some(self, view: memoryview) -> int:
        """Read at least one byte of what is at the position."""
        if self._position >= self._packed.directory_offset:
            self._leave()
            if self._directory is None:
                self._directory = self._packed.directory()
            return _copy(self._directory, self._position - self._packed.directory_offset, view)
        index = bisect_right(self._packed.offsets, self._position) - 1
        if index != self._index:
            self._leave()
            self._enter(index)
        offset = self._position - self._packed.offsets[index]
        if offset < len(self._header):
            return _copy(self._header, offset, view)
        offset -= len(self._header)
        if self._content is not None:
            return _copy(self._content, offset, view)
        return self._read_data(offset, view)

    def _enter(self, index: int) -> None:
        """Begin to read a file."""
        file = self._packed.files[index]
        opened = open_planned(file)
        try:
            if file.size_bytes <= _WHOLE_FILE_MAX_BYTES:
                self._content = self._packed.read_content(index, opened)
            elif self._packed.known_checksum(index) is None:
                self._packed.read_checksum(index, opened)
                opened.seek(0)
            self._header = self._packed.local_header(index)
        except BaseException:
            opened.close()
            raise
        if self._content is None:
            self._opened, self._data_position, self._running = opened, 0, 0
        else:
            opened.close()
        self._index = index

    def _read_data(self, offset: int, view: memoryview) -> int:
        """Read data of a large file."""
        file, opened = self._packed.files[self._index], self._opened
        if opened is None:  # _enter has opened it
            raise AssertionError(file)
        if offset != self._data_position:
            opened.seek(offset)
            self._data_position, self._running = offset, 0 if offset == 0 else None
        remaining = file.size_bytes - offset
        part = view[: min(remaining, _CHUNK_BYTES)]
        count: int = opened.readinto(part)  # type: ignore[attr-defined]
        if not count:
            raise file.changed()
        self._data_position += count
        if self._running is not None:
            self._running = zlib.crc32(part[:count], self._running)
        if count == remaining:
            check_unchanged(file, opened)
            if self._running is not None:
                self._packed.set_checksum(self._index, self._running)
        return count

    def _leave(self) -> None:
        """End reading a file."""
        if self._opened is not None:
            self._opened.close()
        self._index, self._header, self._content, self._opened = -1, b"", None, None


def open_planned(file: FolderFile) -> BinaryIO:
    """Open a file, unbuffered.

    Raises:
        SourceChanged: It is not the planned one.
    """
    # O_NONBLOCK: a FIFO that took the place of the file must not block.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(file.source, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise file.changed() from None
    opened = os.fdopen(descriptor, "rb", buffering=0)
    try:
        check_unchanged(file, opened)
    except BaseException:
        opened.close()
        raise
    return opened


def check_unchanged(file: FolderFile, opened: BinaryIO) -> None:
    """Raise SourceChanged if an open file is not the planned one."""
    if not file.is_unchanged(os.fstat(opened.fileno())):
        raise file.changed()


def _copy(source: bytes, offset: int, view: memoryview) -> int:
    """Copy bytes from an offset of a source, and return their number."""
    piece = source[offset : offset + len(view)]
    view[: len(piece)] = piece
    return len(piece)
