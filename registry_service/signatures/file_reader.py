"""Reads a file forwards or by pages, within a budget."""

import time
from typing import Protocol

from registry_service.signatures import limits

_SMALLEST_READ = 16 * 1024
_LARGEST_READ = 256 * 1024
_PAGE = 16 * 1024
_STEPS_BETWEEN_LOOKS = 1024


class FormatError(Exception):
    """The file violates its format or exceeds a limit. The message becomes a problem of the signature."""


class UnknownFormatError(FormatError):
    """The file has another format."""


class LimitError(FormatError):
    """The file exceeds a limit of size or time."""


class Budget:
    """The bytes, steps and time that reading one artifact may cost."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + limits.SECONDS
        self._bytes = limits.STORED_BYTES
        self._steps = limits.STEPS

    def spend(self, size: int) -> None:
        """Deduct bytes that are about to be read. Raises LimitError if the budget is exceeded."""
        self.check_time()
        self._bytes -= size
        if self._bytes < 0:
            raise LimitError(f"Only {limits.STORED_BYTES >> 20} MiB of the file were read.")

    def step(self) -> None:
        """Count one element or field. Raises LimitError if there are too many or the time is over."""
        self._steps -= 1
        if self._steps % _STEPS_BETWEEN_LOOKS == 0:
            self.check_time()
            if self._steps <= 0:
                raise LimitError(f"Only the first {limits.STEPS:,} elements were read.")

    def check_time(self) -> None:
        """Raise LimitError if the time is over."""
        if time.monotonic() > self._deadline:
            raise LimitError(f"Reading stopped after {limits.SECONDS:.0f} seconds.")


class Source(Protocol):
    """The bytes of a file."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def is_seekable(self) -> bool:
        """Whether ranges can be read in any order."""

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly the bytes of a range within the file.

        A source that is not seekable must be read forwards: no range begins before the end of an earlier one.
        """


class Reader:
    """A position in a file that moves forwards. Reads ahead, and less so after a long skip."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = b""
        self._buffer_start = 0
        self._ahead = _SMALLEST_READ
        self._pages: dict[int, bytes] = {}
        self.size = source.size
        self.position = 0

    @property
    def is_seekable(self) -> bool:
        """Whether `read_at` can be combined with reading forwards."""
        return self._source.is_seekable

    def peek(self, length: int) -> bytes:
        """Return the next bytes without moving; fewer at the end of the file."""
        length = min(length, self.size - self.position)
        if length == 0:
            return b""
        start = self.position - self._buffer_start
        if start + length > len(self._buffer):
            self._fill(length)
            start = 0
        return self._buffer[start : start + length]

    def take(self, length: int) -> bytes:
        """Return the next bytes and move past them. Raises FormatError at the end. Callers bound the length."""
        self._require(length)
        data = self.peek(length)
        self.position += length
        return data

    def skip(self, length: int) -> None:
        """Move past the next bytes. Raises FormatError at the end."""
        self._require(length)
        self.position += length

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes of any range, whatever the position. Raises FormatError if it is not within the file.

        Of a source that is not seekable, the first KEPT_BYTES are kept in memory. A range beyond them raises
        LimitError, and such a reader must not move forwards as well.
        """
        if not 0 <= offset <= offset + length <= self.size:
            raise FormatError("The file is damaged or truncated: it refers to bytes beyond its end.")
        first, last = offset // _PAGE, (offset + length - 1) // _PAGE
        data = b"".join(self._page(number) for number in range(first, last + 1))
        return data[offset - first * _PAGE : offset - first * _PAGE + length]

    def _page(self, number: int) -> bytes:
        page = self._pages.get(number)
        if page is not None:
            return page
        start = number * _PAGE
        if self._source.is_seekable:
            if len(self._pages) >= limits.KEPT_BYTES // _PAGE:
                self._pages.clear()
            page = self._source.read(start, min(_PAGE, self.size - start))
            return self._pages.setdefault(number, page)
        if start >= limits.KEPT_BYTES:
            raise LimitError(f"Only the first {limits.KEPT_BYTES >> 20} MiB were read, because the file is compressed.")
        for missing in range(len(self._pages), number + 1):
            self._pages[missing] = self._source.read(missing * _PAGE, min(_PAGE, self.size - missing * _PAGE))
        return self._pages[number]

    def varint(self) -> int:
        """Read a varint of protobuf. Raises FormatError if it is truncated or too long."""
        result = 0
        for i, byte in enumerate(self.peek(10)):
            result |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                self.position += i + 1
                return result & 0xFFFF_FFFF_FFFF_FFFF
        if self.size - self.position < 10:
            raise FormatError("The file is truncated.")
        raise FormatError("A number has more than 64 bits.")

    def _require(self, length: int) -> None:
        if length > self.size - self.position:
            raise FormatError("The file is truncated.")

    def _fill(self, length: int) -> None:
        end = self._buffer_start + len(self._buffer)
        if self.position > end:
            self._ahead = _SMALLEST_READ
            kept, end = b"", self.position
        else:
            kept = self._buffer[self.position - self._buffer_start :]
        wanted = min(max(length - len(kept), self._ahead), self.size - end)
        self._buffer = kept + self._source.read(end, wanted)
        self._buffer_start = self.position
        self._ahead = min(self._ahead * 2, _LARGEST_READ)
