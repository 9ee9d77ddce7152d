"""Reads a file forwards, in bounds."""

import time
from typing import Protocol

from registry_service.signatures import limits

_SMALLEST_READ = 16 * 1024
_LARGEST_READ = 256 * 1024
_PAGE = 16 * 1024
_STEPS_BETWEEN_LOOKS = 1024


class FormatError(Exception):
    """The file is not as its format has it, or larger than we read; the message says what, for a person."""


class UnknownFormatError(FormatError):
    """The file is not of the format at all."""


class LimitError(FormatError):
    """The file is larger, or takes longer, than we read."""


class Budget:
    """What reading one artifact may cost."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + limits.SECONDS
        self._bytes = limits.STORED_BYTES
        self._steps = limits.STEPS

    def spend(self, size: int) -> None:
        """Takes bytes that are about to be read (`LimitError` where there are not so many left)."""
        self.check_time()
        self._bytes -= size
        if self._bytes < 0:
            raise LimitError(f"Only {limits.STORED_BYTES >> 20} MiB of it were read.")

    def step(self) -> None:
        """Counts one thing looked at (`LimitError` where there are too many, or the time is over)."""
        self._steps -= 1
        if self._steps % _STEPS_BETWEEN_LOOKS == 0:
            self.check_time()
            if self._steps <= 0:
                raise LimitError(f"Only its first {limits.STEPS:,} elements were read.")

    def check_time(self) -> None:
        """Raises LimitError where the time is over."""
        if time.monotonic() > self._deadline:
            raise LimitError(f"Only what could be read in {limits.SECONDS:.0f} seconds was.")


class Source(Protocol):
    """The bytes of a file."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def is_seekable(self) -> bool:
        """Whether it can be read in any order."""

    def read(self, offset: int, length: int) -> bytes:
        """Returns exactly these bytes.

        Callers: ask for no more than there is; where it isn't seekable never for what lies before the end of an
        earlier read.
        """


class Reader:
    """A place in a file that moves forwards, with a read-ahead that shrinks where much is skipped."""

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
        """Whether `read_at` reads any place beside what is read forwards."""
        return self._source.is_seekable

    def peek(self, length: int) -> bytes:
        """Returns the next bytes and stays before them; fewer at the end of the file."""
        length = min(length, self.size - self.position)
        if length == 0:
            return b""
        start = self.position - self._buffer_start
        if start + length > len(self._buffer):
            self._fill(length)
            start = 0
        return self._buffer[start : start + length]

    def take(self, length: int) -> bytes:
        """Returns the next bytes (`FormatError` where there are not so many). Callers bound the length."""
        self._expect(length)
        data = self.peek(length)
        self.position += length
        return data

    def skip(self, length: int) -> None:
        """Moves on (`FormatError` where there are not so many bytes)."""
        self._expect(length)
        self.position += length

    def read_at(self, offset: int, length: int) -> bytes:
        """Returns bytes of any place, wherever the reader stands (`FormatError` where they are not in the file).

        Of a source that isn't seekable the beginning is kept, and what is behind
        that is a LimitError. Not for a reader that moves forwards as well.
        """
        if not 0 <= offset <= offset + length <= self.size:
            raise FormatError("It is damaged or cut short: it refers to what is not in it.")
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
            raise LimitError(f"Only its first {limits.KEPT_BYTES >> 20} MiB were read, as it is compressed.")
        for missing in range(len(self._pages), number + 1):
            self._pages[missing] = self._source.read(missing * _PAGE, min(_PAGE, self.size - missing * _PAGE))
        return self._pages[number]

    def varint(self) -> int:
        """Takes an unsigned number of protobuf's wire format (`FormatError`)."""
        result = 0
        for i, byte in enumerate(self.peek(10)):
            result |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                self.position += i + 1
                return result & 0xFFFF_FFFF_FFFF_FFFF
        if self.size - self.position < 10:
            raise FormatError("It is cut short.")
        raise FormatError("It has a number of more than 64 bits.")

    def _expect(self, length: int) -> None:
        if length > self.size - self.position:
            raise FormatError("It is cut short.")

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
