"""What a push reads: a file, a folder, or a file object. Everything here blocks.

A source is read from one position on, mostly to its end. After a dropped connection it is read again from where the
registry has the bytes, so it can seek. A pipe cannot: it keeps the bytes until the registry has them.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from modelreg._logging import logger
from modelreg.errors import InvalidArgument, SourceChanged

Pushable = str | os.PathLike[str] | BinaryIO
"""The path of a file or a folder, or a file object in binary mode."""

PIPE_SEGMENT_BYTES = 32 * 1024 * 1024
"""Bytes of a pipe after which the registry is to confirm that it has them: what is kept in memory at most."""


class Source(ABC):
    """The bytes of an artifact."""

    size_bytes: int | None
    """None: unknown until the end."""
    file_name: str
    """Empty: none."""
    is_folder = False
    segment_bytes: int | None = None
    """After how many bytes the registry must confirm that it has them. None: any number."""
    identity: Mapping[str, Any] | None = None
    """What tells, without reading it, that a source is the same as in an earlier process. None: it cannot be."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """Return 1 to `size` bytes from the position on, or none at the end."""

    def read_into(self, buffer: memoryview) -> int:
        """Read as `read` does, into a buffer, and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    @abstractmethod
    def seek(self, offset: int) -> None:
        """Move the position."""

    def forget(self, offset: int) -> None:  # noqa: B027 - most sources have nothing to forget
        """Note that the bytes before an offset are not needed again."""

    def prepare(self) -> None:  # noqa: B027 - most sources need not be
        """Do what would keep a stream waiting for the next bytes for long. Called before each stream."""

    @abstractmethod
    def check(self) -> None:
        """Check that the source did not change while it was read.

        Raises:
            SourceChanged: It did.
        """

    @abstractmethod
    def close(self) -> None:
        """Close what was opened here."""


def open_source(pushable: Any) -> Source:
    """Open what the caller gave to `push`, which should be `Pushable`.

    Raises:
        InvalidArgument: It is none of the things that can be pushed.
        OSError: It cannot be read.
    """
    if isinstance(pushable, (str, os.PathLike)):
        return _open_path(Path(os.path.abspath(pushable)), os.fspath(pushable))  # noqa: PTH100 - keeps links
    if isinstance(pushable, (bytes, bytearray, memoryview)):
        raise InvalidArgument("source: to push bytes, wrap them: io.BytesIO(data).")
    if not callable(getattr(pushable, "read", None)):
        raise InvalidArgument(
            f"source: {type(pushable).__name__} is neither a path nor a file object that is open for reading."
        )
    if isinstance(pushable, io.TextIOBase):
        raise InvalidArgument('source: the file object is in text mode. Open it with mode "rb".')
    file_name = _name_of(pushable)
    start = _start_of(pushable)
    if start is None:
        return PipeSource(pushable, file_name)
    return FileObjectSource(pushable, file_name, *start)


class Opening:
    """Opens a source in a thread, and closes it in any case.

    A task that is cancelled while the thread opens it never gets the source.

    Args:
        pushable: What to open.
    """

    def __init__(self, pushable: Any) -> None:
        self._pushable = pushable
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._is_closed = False

    def open(self) -> Source:
        """Open the source. Raises as `open_source`."""
        source = open_source(self._pushable)
        with self._lock:
            self._source = source
            is_closed = self._is_closed
        if is_closed:
            source.close()
        return source

    def close(self) -> None:
        """Close the source, if need be as soon as it is open."""
        with self._lock:
            self._is_closed = True
            source = self._source
        if source is not None:
            source.close()


def _open_path(path: Path, shown: str) -> Source:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        return FolderSource(path)
    if stat.S_ISREG(status.st_mode):
        return FileSource(path, shown)
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        # For example the `<(command)` of a shell.
        file = path.open("rb", buffering=0)
        return PipeSource(file, "", owned=True)
    raise InvalidArgument(f"source: {shown} is neither a file, a folder nor a pipe.")


def _name_of(file: BinaryIO) -> str:
    """Return the file name of a file object, or "" if it has none."""
    name = getattr(file, "name", None)
    if not isinstance(name, str) or (name.startswith("<") and name.endswith(">")):
        return ""
    return Path(name).name


def _start_of(file: BinaryIO) -> tuple[int, int] | None:
    """Return the position and the end of a file object, or None if it cannot seek."""
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        return None
    position = file.tell()
    try:
        end = file.seek(0, os.SEEK_END)
    except (OSError, ValueError):
        # Some compressed files can seek, but not to their end.
        end = None
    file.seek(position)
    return None if end is None else (position, end)


class FileSource(Source):
    """A file. It is opened once, so a file that is renamed over it changes nothing."""

    def __init__(self, path: Path, shown: str) -> None:
        self._shown = shown
        self._file = path.open("rb", buffering=0)
        self._status = os.fstat(self._file.fileno())
        self._position = 0
        self.size_bytes: int = self._status.st_size
        self.file_name = path.name
        self.identity = {
            "path": str(path),
            "size_bytes": self._status.st_size,
            "mtime_ns": self._status.st_mtime_ns,
            "inode": self._status.st_ino,
        }

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self.size_bytes - self._position))
        self._advance(len(data))
        return data

    def read_into(self, buffer: memoryview) -> int:
        count = self._file.readinto(buffer[: self.size_bytes - self._position])
        self._advance(count)
        return count

    def _advance(self, count: int) -> None:
        if not count and self._position < self.size_bytes:
            raise SourceChanged(f"{self._shown} became shorter while it was pushed. Push it again.")
        self._position += count

    def seek(self, offset: int) -> None:
        # Before bytes are read a second time, which must be the same as the first time.
        self.check()
        self._position = self._file.seek(offset)

    def check(self) -> None:
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (self._status.st_size, self._status.st_mtime_ns):
            raise SourceChanged(f"{self._shown} was changed while it was pushed. Push it again.")

    def close(self) -> None:
        self._file.close()


class FolderSource(Source):
    """A folder, packed while it is read."""

    is_folder = True

    def __init__(self, path: Path) -> None:
        # Folders are pushed seldom, and the module needs more to import.
        from modelreg.folders import plan_folder  # noqa: PLC0415

        self.plan = plan_folder(path)
        for warning in self.plan.warnings:
            logger.warning("%s", warning)
        self._reader = self.plan.open()
        self.size_bytes: int = self.plan.size_bytes
        self.file_name = f"{self.plan.root.name or 'model'}.zip"
        self.identity = {"path": str(path), "size_bytes": self.size_bytes, "fingerprint": self.plan.fingerprint}

    def read(self, size: int) -> bytes:
        data: bytes = self._reader.read(size)
        return data

    def read_into(self, buffer: memoryview) -> int:
        return self._reader.readinto(buffer)

    def seek(self, offset: int) -> None:
        self._reader.seek(offset)

    def prepare(self) -> None:
        """Compute the checksums of very large files."""
        self.plan.prepare()

    def check(self) -> None:
        """Do nothing: the reader checks each file when it has read it."""

    def close(self) -> None:
        self._reader.close()


class FileObjectSource(Source):
    """A file object of the caller that can seek, from its position on. It is left at its end, and open.

    Args:
        file: The file object.
        file_name: Its file name, or "".
        start: Its position.
        end: The position of its end.
    """

    def __init__(self, file: BinaryIO, file_name: str, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._position = 0
        self.size_bytes: int = max(end - start, 0)
        self.file_name = file_name

    def read(self, size: int) -> bytes:
        if self._position == self.size_bytes:
            return b""
        data = _read(self._file, min(size, self.size_bytes - self._position))
        if not data:
            raise SourceChanged("The file object became shorter while it was pushed. Push it again.")
        self._position += len(data)
        return data

    def seek(self, offset: int) -> None:
        self._file.seek(self._start + offset)
        self._position = offset

    def check(self) -> None:
        if self._position == self.size_bytes and _read(self._file, 1):
            raise SourceChanged("The file object became longer while it was pushed. Push it again.")

    def close(self) -> None:
        """Do nothing: the file object is the caller's."""


class PipeSource(Source):
    """A file object or a pipe that cannot seek.

    Args:
        pipe: The file object.
        file_name: Its file name, or "".
        owned: Whether to close it.
    """

    segment_bytes = PIPE_SEGMENT_BYTES

    def __init__(self, pipe: BinaryIO | io.RawIOBase, file_name: str, *, owned: bool = False) -> None:
        self._pipe = pipe
        self._owned = owned
        self._kept: deque[bytes] = deque()
        self._kept_start = 0
        self._position = 0
        self._end = 0
        self.size_bytes = None
        self.file_name = file_name

    def read(self, size: int) -> bytes:
        if self._position < self._end:
            data = self._kept_at(self._position)[:size]
        else:
            data = _read(self._pipe, size)
            if data:
                self._kept.append(data)
                self._end += len(data)
        self._position += len(data)
        return data

    def seek(self, offset: int) -> None:
        if not self._kept_start <= offset <= self._end:
            # The registry lost bytes that it had confirmed, or another client wrote to the upload.
            raise SourceChanged(
                f"The upload continues at byte {offset}, which the pipe cannot provide again. Push it again."
            )
        self._position = offset

    def forget(self, offset: int) -> None:
        while self._kept and self._kept_start + len(self._kept[0]) <= offset:
            self._kept_start += len(self._kept.popleft())

    def check(self) -> None:
        """Do nothing: each byte is read once."""

    def close(self) -> None:
        self._kept.clear()
        if self._owned:
            self._pipe.close()

    def _kept_at(self, position: int) -> bytes:
        """Return the rest of the kept piece that a position is in."""
        start = self._kept_start
        for piece in self._kept:
            if position < start + len(piece):
                return piece[position - start :]
            start += len(piece)
        raise AssertionError("the position is in what is kept")


def _read(file: Any, size: int) -> bytes:
    """Read from a file object of the caller. Its errors are the caller's.

    Raises:
        InvalidArgument: It does not return bytes.
    """
    data = file.read(size)
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    if data is None:
        raise InvalidArgument("source: the file object does not block. Set it to blocking mode.")
    raise InvalidArgument(f'source: the file object returned {type(data).__name__}, not bytes. Open it with mode "rb".')
