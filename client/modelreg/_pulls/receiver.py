"""Files that arrive in pieces: written and hashed on a thread of their own, while the next pieces arrive."""

from __future__ import annotations

import io
import os
import queue
import threading
from contextlib import suppress
from pathlib import Path

from modelreg._checksums import Checksum

_PIECE_BYTES = 1 << 20
_PIECES_PER_STEP = 64
_WAITING_PIECES = 8
"""Pieces of at most 1 MiB that wait to be written. Bounds the memory."""


class Receiver:
    """A part file that grows from the front, with the checksum of what it has.

    Call `prepare` until it returns False, then pass the bytes from `offset` on to `offer` or `put`, then call `finish`.
    Call `close` in any case.

    Args:
        path: The part file. If it exists, it is continued: its bytes are hashed again.
        size: The size of the complete file in bytes.
        checksum: The checksum of the complete file.
    """

    def __init__(self, path: Path, size: int, checksum: Checksum) -> None:
        self.path = path
        self.size = size
        self.offset = 0
        """The number of bytes that were accepted so far, those of the file that is continued included."""
        self.is_continued = False
        """Whether the file had bytes before."""
        self._checksum = checksum.fresh()
        self._file: io.FileIO | None = None
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING_PIECES)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._is_closed = False
        # A thread can still be in a method when its caller, a task of asyncio, was cancelled and closes the receiver.
        self._busy = threading.Lock()

    def prepare(self) -> bool:
        """Hash some of the bytes that the file has. Return whether there are more of them.

        Raises:
            OSError: The file cannot be opened or read.
        """
        with self._busy:
            if self._is_closed:
                return False
            if self._file is None:
                self._file = _open(self.path)
                # More than the complete file would have: not its beginning.
                if os.fstat(self._file.fileno()).st_size > self.size:
                    self._file.truncate(0)
            for _ in range(_PIECES_PER_STEP):
                data = self._file.read(_PIECE_BYTES)
                if not data:
                    return False
                self._checksum.update(data)
                self.offset += len(data)
                self.is_continued = True
            return True

    def restart(self) -> None:
        """Drop all bytes, because they are not the beginning of the complete file.

        Raises:
            OSError: The file cannot be truncated.
        """
        with self._busy:
            if self._is_closed or self._file is None:
                return
            self._join()
            self._file.seek(0)
            self._file.truncate(0)
            self._checksum = self._checksum.fresh()
            self.offset = 0
            self.is_continued = False

    def offer(self, data: bytes) -> bool:
        """Accept the next bytes, or return False if `put` would have to wait. Does not block.

        Raises:
            OSError: Earlier bytes could not be written.
        """
        self._raise_error()
        self._start()
        try:
            self._pieces.put_nowait(data)
        except queue.Full:
            return False
        self.offset += len(data)
        return True

    def put(self, data: bytes) -> None:
        """Accept the next bytes, after waiting for earlier ones.

        Raises:
            OSError: Earlier bytes could not be written.
        """
        while not self._is_closed:
            self._raise_error()
            try:
                self._pieces.put(data, timeout=0.5)
            except queue.Full:
                continue
            self.offset += len(data)
            return

    def finish(self) -> bool:
        """Write all bytes, and tell whether they have the checksum.

        Raises:
            OSError: The bytes could not be written.
        """
        with self._busy:
            self._join()
            # After a power failure, NTFS can have a file of the right size that is empty.
            if os.name == "nt" and self._file is not None and not self._is_closed:
                os.fsync(self._file.fileno())
        self._raise_error()
        return self.offset == self.size and self._checksum.found() == self._checksum.expected

    def close(self) -> None:
        """Close the file, which stays. Bytes that were not written yet are dropped."""
        self._is_closed = True
        with self._busy:
            self._join()
            if self._file is not None:
                self._file.close()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._write, args=(self._file,), name="modelreg-receiver", daemon=True
            )
            self._thread.start()

    def _join(self) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _write(self, file: io.FileIO) -> None:
        while (data := self._pieces.get()) is not None:
            # After an error, the queue is emptied, so that nothing waits for it.
            if self._error is None and not self._is_closed:
                try:
                    self._checksum.update(data)
                    _write_all(file, data)
                except BaseException as error:  # noqa: BLE001 - the thread that receives gets it
                    self._error = error


def _write_all(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _open(path: Path) -> io.FileIO:
    """Open a file to read and write it, and make it if there is none. Never follows a link at the path."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags, 0o666)
    try:
        return io.FileIO(descriptor, "r+")
    except BaseException:
        with suppress(OSError):
            os.close(descriptor)
        raise
