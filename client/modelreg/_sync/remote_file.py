# Generated from modelreg/_async by `make generate`. Do not edit.
"""Artifacts, and files inside them, that are read where they are."""

from __future__ import annotations

import io
from collections.abc import Generator
from types import TracebackType

from modelregistry.v1 import artifact_service_pb2

from modelreg import _arguments
from modelreg._checksums import Checksum, Crc32, Sha256
from modelreg._sync import runtime
from modelreg._sync.connection import Connection, failure_of_stream
from modelreg._sync.transfers import Remote, pieces_of, remote_artifact, remote_file
from modelreg._wire import methods
from modelreg._wire.retries import Retries
from modelreg.errors import IntegrityError
from modelreg.models import Model

_FIRST_WINDOW = 256 * 1024
_MAX_WINDOW = 64 * 1024 * 1024
_MAX_SKIP = 1024 * 1024


class RemoteFile:
    """A binary file of the registry, to read and to seek. Not for several readers at the same time.

    A request after a seek asks for little, and further ones for more and more, as long as the reads are sequential:
    so a read at random transfers little, and a large file takes few requests.

    Args:
        connection: The connection.
        remote: The bytes.
        checksum: Their checksum.
    """

    def __init__(self, connection: Connection, remote: Remote, checksum: Checksum) -> None:
        self._connection = connection
        self._remote = remote
        self._checksum = checksum.fresh()
        self._checked_to = 0
        self._position = 0
        self._pieces: Generator[bytes, None, None] | None = None
        self._piece = memoryview(b"")
        self._piece_end = 0
        """The offset after the piece that arrived last."""
        self._window = _FIRST_WINDOW
        self._window_end = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self._remote.size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes: so many, or fewer at the end. A negative size means to the end.

        Raises:
            RegistryError: The registry refused, or did not respond until the retries ended.
            IntegrityError: The bytes are not the registered ones.
            ValueError: The file is closed.
        """
        rest = max(self.size - self._position, 0)
        rest = rest if size < 0 else min(size, rest)
        found = []
        while rest and (piece := self.read_some(rest)):
            found.append(piece)
            rest -= len(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def read_some(self, size: int) -> bytes:
        """Return at least one and at most so many of the next bytes. Empty at the end. Raises as `read`."""
        if self._is_closed:
            raise ValueError("The file is closed.")
        if size <= 0 or self._position >= self.size:
            return b""
        self._seek_stream(size)
        start = len(self._piece) - (self._piece_end - self._position)
        found = bytes(self._piece[start : start + size])
        if self._position == self._checked_to:
            self._check(found)
        self._position += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position of the next read, as of io.IOBase, and return it."""
        if self._is_closed:
            raise ValueError("The file is closed.")
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        if whence not in bases:
            raise ValueError(f"whence: {whence} is none of 0, 1 and 2.")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"The position {position} is before the beginning.")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._position

    def close(self) -> None:
        """End the transfer."""
        self._is_closed = True
        self._end_stream()

    def __enter__(self) -> RemoteFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _seek_stream(self, size: int) -> None:
        """Read pieces until one has the byte at the position."""
        if self._position < self._piece_end - len(self._piece) or self._position > self._piece_end + _MAX_SKIP:
            self._end_stream()
        while self._position >= self._piece_end:
            pieces = self._pieces or self._begin_stream(size)
            try:
                piece = pieces.__next__()
            except StopIteration:
                self._pieces = None
                continue
            except BaseException:
                self._end_stream()
                raise
            self._piece = memoryview(piece)
            self._piece_end += len(piece)

    def _begin_stream(self, size: int) -> Generator[bytes, None, None]:
        is_sequential = self._window_end > 0 and self._window_end == self._piece_end
        start = self._piece_end if is_sequential else self._position
        self._window = self._window * 4 if is_sequential else _FIRST_WINDOW
        window = max(self._window, size)
        self._window_end = self.size if window > _MAX_WINDOW else min(start + window, self.size)
        self._piece, self._piece_end = memoryview(b""), start
        # It was opened with the registry, which may be away only for a while.
        self._pieces = pieces_of(self._connection, self._remote, start, self._window_end, is_begun=True)
        return self._pieces

    def _end_stream(self) -> None:
        pieces, self._pieces = self._pieces, None
        self._piece, self._piece_end, self._window_end = memoryview(b""), 0, 0
        if pieces is not None:
            pieces.close()

    def _check(self, data: bytes) -> None:
        self._checksum.update(data)
        self._checked_to += len(data)
        if self._checked_to == self.size and self._checksum.found() != self._checksum.expected:
            raise IntegrityError(
                f"The bytes of {self._remote.label} are not the registered ones: the checksum is wrong."
            )


def open_artifact(connection: Connection, model: Model) -> RemoteFile:
    """Open the artifact of a model."""
    artifact = model.artifact
    remote = remote_artifact(model.reference, model.id, artifact.size_bytes, artifact.sha256)
    return RemoteFile(connection, remote, Sha256(artifact.sha256))


def open_file(connection: Connection, model: Model, path: str) -> RemoteFile:
    """Open a file inside the artifact of a model.

    Raises:
        NotFound: There is no such file.
        PreconditionFailed: The artifact has no files that the registry can read.
    """
    request = artifact_service_pb2.DownloadArtifactFileRequest(
        model_id=model.id, path=_arguments.text(path, "file"), read_limit=1
    )
    retries, refused = Retries(connection.options.timeout), None
    while True:
        token = connection.token()
        try:
            with connection.responses(methods.DOWNLOAD_ARTIFACT_FILE, request) as stream:
                for message in stream:
                    if message.HasField("file"):
                        file = message.file
                        label = f"{path} of {model.reference}"
                        remote = remote_file(label, model.id, path, file.size_bytes, file.crc32)
                        return RemoteFile(connection, remote, Crc32(file.crc32))
            raise IntegrityError(f"The registry did not describe {path} of {model.reference}.")
        except (runtime.RpcError, runtime.StalledError) as error:
            failure = failure_of_stream(error)
            if connection.may_sign_in_again(failure, token, refused):
                refused = token
                continue
            connection.pause_or_raise(failure, retries, methods.DOWNLOAD_ARTIFACT_FILE)
