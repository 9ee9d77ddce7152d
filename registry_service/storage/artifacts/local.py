"""The artifact store in a local folder.

    <root>/<key>                              a finished object
    <root>/.partial/<key>~<handle>.put        a whole object that is being written
    <root>/.partial/<key>~<handle>.data       the bytes of an unfinished object in parts
    <root>/.partial/<key>~<handle>.receipts   the receipts of its parts, 32 bytes each

File names in `.partial` have plus signs for the slashes of the key, so that one
prefix finds all unfinished objects of a key. One rename within the file system
publishes an object, which makes it atomic.
"""

import errno
import logging
import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from blake3 import blake3
from typing_extensions import override

from registry_service.domain.artifact_store import (
    CHUNK_SIZE,
    ListableArtifactStore,
    Part,
    Pieces,
    UnfinishedObject,
)
from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactStoreUnavailableError,
    StorageFullError,
    TooManyOpenFilesError,
)
from registry_service.domain.object_keys import ARTIFACT_PREFIX, check_object_key
from registry_service.storage.artifacts.checks import PART_SIZE, check_part, check_parts, check_range
from registry_service.storage.disk import DiskReserve, is_full

logger = logging.getLogger(__name__)

_STORE_NAME = "the artifact folder"
_HANDLE = re.compile(r"[0-9a-f]{32}")
_RECEIPT_SIZE = 32
_UNWRITTEN = (b"", bytes(_RECEIPT_SIZE))  # past the end of the file, and in a hole of it
_INVALID = b"\xff" * _RECEIPT_SIZE

# A growing file is synced each time it has grown by this much, so that the final sync has little left to write.
_SYNC_BYTES = 8 * 1024 * 1024

# Buffers per system call (IOV_MAX).
_MAX_BUFFERS = 1024

# Smaller pieces are written together: each write costs a look at the free space and a system call.
_WRITE_BYTES = 64 * 1024

# How often `_publish` repeats when another thread removes the folder between mkdir and rename.
_PUBLISH_ATTEMPTS = 100

# macOS has no fdatasync.
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class LocalArtifactStore(ListableArtifactStore):
    """Stores artifacts in a folder. Any number of processes on the same machine may share the folder."""

    part_size = PART_SIZE

    def __init__(self, root: Path, *, reserve_bytes: int = 0) -> None:
        """Create the folder if it is missing, accessible to this user only.

        Args:
            root: The folder.
            reserve_bytes: Bytes that writes leave free on its disk.

        Raises:
            OSError: The folder cannot be created.
        """
        self._root = root.absolute()
        self.location = self._root.as_uri()
        self._partial = self._root / ".partial"
        self._disk = DiskReserve(self._root, _STORE_NAME, reserve_bytes)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._partial.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(self._root)

    @override
    def put(self, key: str, data: bytes) -> None:
        self.write(key, (data,))

    @override
    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        target = self._path(key)
        source = self._partial_path(key, secrets.token_hex(16), "put")
        try:
            with _translated("write", key):
                file = os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with closing(_GrowingFile(file)) as growing:
                for gathered in _gathered(pieces):
                    self._disk.check(sum(map(len, gathered)))
                    with _translated("write", key):
                        growing.append(gathered)
                with _translated("write", key):
                    growing.sync()
            with _translated("write", key):
                try:
                    self._publish(source, target)
                except FileNotFoundError as error:
                    # `delete` or `abort` has removed the unfinished object, unless the whole folder is gone.
                    self._require_root()
                    raise ArtifactLostError from error
        except BaseException:
            with suppress(OSError):
                source.unlink(missing_ok=True)
            raise

    @override
    def begin(self, key: str) -> str:
        check_object_key(key)
        self._disk.check()
        handle = secrets.token_hex(16)
        with _translated("begin", key):
            for kind in ("data", "receipts"):
                with _opened(self._partial_path(key, handle, kind), os.O_WRONLY | os.O_CREAT | os.O_EXCL):
                    pass
            _sync_folder(self._partial)
        return handle

    @override
    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        size = check_part(number, offset, pieces)
        self._disk.check(size)
        data_path, receipts_path = self._part_paths(key, handle)
        receipt = _receipt(pieces)
        receipt_offset = (number - 1) * _RECEIPT_SIZE
        with _translated("write a part of", key):
            try:
                with _opened(data_path, os.O_WRONLY) as file, _opened(receipts_path, os.O_RDWR) as receipts:
                    # The old receipt is invalidated before its bytes are overwritten, and the new receipt is
                    # written after its bytes. So no crash leaves a receipt for bytes that are not there.
                    if os.pread(receipts, _RECEIPT_SIZE, receipt_offset) not in {*_UNWRITTEN, receipt}:
                        _write(receipts, [_INVALID], receipt_offset)
                        _sync_data(receipts)
                    _write(file, pieces, offset)
                    _sync_data(file)
                    # Not synced: `finish` hashes a part whose receipt a crash of the machine lost.
                    _write(receipts, [receipt], receipt_offset)
            except FileNotFoundError as error:
                self._require_root()
                raise ArtifactLostError from error
        return Part(number=number, offset=offset, size=size, receipt=receipt.hex())

    @override
    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        total = check_parts(parts)
        target = self._path(key)
        data_path, receipts_path = self._part_paths(key, handle)
        with _translated("finish", key):
            try:
                with _opened(data_path, os.O_RDWR) as file:
                    receipts = receipts_path.read_bytes()
                    if os.fstat(file).st_size < total or not all(_is_written(file, receipts, part) for part in parts):
                        raise ArtifactLostError
                    os.ftruncate(file, total)
                    os.fsync(file)
                self._publish(data_path, target)
            except FileNotFoundError as error:
                if self.size(key) != total:
                    raise ArtifactLostError from error
                # A crash came after the rename, whose folder entries may not be on the disk yet.
                self._sync_folders_above(target)
            receipts_path.unlink(missing_ok=True)

    @override
    def abort(self, key: str, handle: str | None = None) -> None:
        with _translated("abort", key):
            if handle is not None:
                for path in (*self._part_paths(key, handle), self._partial_path(key, handle, "put")):
                    path.unlink(missing_ok=True)
                return
            prefix = self._partial_path(key, "", "").name.removesuffix(".")
            with os.scandir(self._partial) as entries:
                leftovers = [Path(entry) for entry in entries if entry.name.startswith(prefix)]
            for leftover in leftovers:
                leftover.unlink(missing_ok=True)

    @override
    def unfinished(self) -> Iterator[UnfinishedObject]:
        with _translated("list the unfinished objects of", self._partial.name):
            with os.scandir(self._partial) as entries:
                files = [Path(entry) for entry in entries if entry.name.endswith((".put", ".data"))]
            for file in files:
                key, _, handle = file.stem.replace("+", "/").partition("~")
                with suppress(FileNotFoundError):
                    begin_time = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                    yield UnfinishedObject(key=key, handle=handle, begin_time=begin_time)

    @override
    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_range(offset, length)
        path = self._path(key)
        with _translated("open", key):
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                self._require_root()
                raise ArtifactLostError from error
        try:
            with _translated("read", key):
                end = os.fstat(file).st_size
            if length is not None:
                end = min(end, offset + length)
            while offset < end:
                with _translated("read", key):
                    # The list gives up its reference in the yield, so that only a slow reader holds the chunk.
                    chunk = [os.pread(file, min(CHUNK_SIZE, end - offset), offset)]
                if not chunk[0]:
                    logger.error("The object %s was truncated while it was read", key)
                    raise ArtifactLostError
                offset += len(chunk[0])
                yield chunk.pop()
        finally:
            os.close(file)

    @override
    def size(self, key: str) -> int | None:
        path = self._path(key)
        with _translated("look at", key):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                self._require_root()
                return None

    @override
    def delete(self, key: str) -> None:
        target = self._path(key)
        self.abort(key)
        with _translated("delete", key):
            _sync_folder(self._partial)
            target.unlink(missing_ok=True)
            # Also without a file to unlink: the process may have died between the two steps in an earlier attempt.
            with suppress(FileNotFoundError):
                _sync_folder(target.parent)
            self._prune(key)

    @override
    def keys(self, prefix: str = ARTIFACT_PREFIX) -> Iterator[str]:
        with _translated("list", prefix):
            self._require_root()
            for folder, folders, names in os.walk(self._root / prefix):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in names:
                    yield (Path(folder) / name).relative_to(self._root).as_posix()

    @override
    def check(self) -> None:
        # Logs at DEBUG only: health checks call this every second, and log changes.
        # All checks share one file name, so that the next check removes the file of a killed process.
        probe = self._partial / ".probe"
        try:
            # Not synced: a sync would load the disk to detect only what the next write detects as well.
            with _opened(probe, os.O_WRONLY | os.O_CREAT) as file:
                _write(file, [b"probe"], 0)
            probe.unlink(missing_ok=True)
        except OSError as error:
            if not is_full(error):
                logger.debug("The check of the artifact folder failed", exc_info=True)
                raise ArtifactStoreUnavailableError from error
        # A full disk can still be read, so it passes. The reserve logs when space runs out or returns.
        with suppress(StorageFullError):
            self._disk.check()

    def _path(self, key: str) -> Path:
        check_object_key(key)
        return self._root / key

    def _partial_path(self, key: str, token: str, kind: str) -> Path:
        check_object_key(key)
        return self._partial / f"{key.replace('/', '+')}~{token}.{kind}"

    def _part_paths(self, key: str, handle: str) -> tuple[Path, Path]:
        # Handles come from the database. A handle of another adapter names no file here.
        if not _HANDLE.fullmatch(handle):
            raise ArtifactLostError
        return self._partial_path(key, handle, "data"), self._partial_path(key, handle, "receipts")

    def _require_root(self) -> None:
        """Raise FileNotFoundError if the folder itself is missing, for example because its volume is not mounted."""
        if not self._partial.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._partial))

    def _publish(self, source: Path, target: Path) -> None:
        for _ in range(_PUBLISH_ATTEMPTS):
            try:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                source.replace(target)
            except (FileNotFoundError, FileExistsError):
                # `delete` of another key pruned the folder in between, unless the source itself is gone (then stat
                # raises). mkdir raises FileExistsError if the folder disappears while mkdir looks at it.
                source.stat()
            else:
                self._sync_folders_above(target)
                return
        raise OSError(
            errno.EAGAIN, f"folder was removed {_PUBLISH_ATTEMPTS} times before a rename into it", str(target.parent)
        )

    def _sync_folders_above(self, target: Path) -> None:
        """Sync every folder on the path to an object: another thread may have created one of them just now."""
        for folder in target.parents:
            _sync_folder(folder)
            if folder == self._root:
                break

    def _prune(self, key: str) -> None:
        """Remove the empty folders above a key, except the outermost, which all keys share."""
        segments = key.split("/")
        for depth in range(len(segments) - 1, 1, -1):
            try:
                self._root.joinpath(*segments[:depth]).rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                    return
                raise


@contextmanager
def _translated(action: str, key: str) -> Iterator[None]:
    """Translate errors of the file system to those of the port. `action` and `key` are for the log."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            logger.error("The artifact store has no space to %s %s", action, key)  # noqa: TRY400 - the cause is known
            raise StorageFullError(_STORE_NAME) from error
        logger.exception("The artifact store failed to %s %s", action, key)
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise TooManyOpenFilesError from error
        raise ArtifactStoreUnavailableError from error


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    file = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)


class _GrowingFile:
    """A file that is written from its start while another thread syncs it."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = 0
        self._synced = 0
        self._syncer: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None

    def append(self, pieces: Pieces) -> None:
        _write(self._file, pieces, self._size)
        self._size += sum(map(len, pieces))
        if self._size - self._synced >= _SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            if self._syncing is not None:
                self._syncing.result()
            self._syncer = self._syncer or ThreadPoolExecutor(1, thread_name_prefix="syncer")
            self._syncing = self._syncer.submit(_sync_data, self._file)
            self._synced = self._size

    def sync(self) -> None:
        if self._syncing is not None:
            self._syncing.result()
        os.fsync(self._file)

    def close(self) -> None:
        if self._syncer is not None:
            self._syncer.shutdown()
        os.close(self._file)


def _is_written(file: int, receipts: bytes, part: Part) -> bool:
    """Return whether the file has the bytes of a part: by its receipt or, if that was lost, by hashing the bytes."""
    receipt = receipts[(part.number - 1) * _RECEIPT_SIZE : part.number * _RECEIPT_SIZE]
    if receipt in _UNWRITTEN:
        receipt = _receipt([os.pread(file, part.size, part.offset)])
    return receipt.hex() == part.receipt


def _receipt(pieces: Pieces) -> bytes:
    """Return the BLAKE3 hash of a part. A second SHA-256 of every byte would take a fifth of an upload's CPU time."""
    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _gathered(pieces: Iterable[bytes]) -> Iterator[Pieces]:
    """Gather small pieces to writes of at least _WRITE_BYTES, and of at most _MAX_BUFFERS pieces."""
    held: Pieces = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _WRITE_BYTES or len(held) == _MAX_BUFFERS:
            yield held
            held, size = [], 0
    if held:
        yield held


def _write(file: int, pieces: Pieces, offset: int) -> None:
    rest = deque(memoryview(piece) for piece in pieces)
    while rest:
        written = os.pwritev(file, list(islice(rest, _MAX_BUFFERS)), offset)
        offset += written
        while rest and written >= len(rest[0]):
            written -= len(rest.popleft())
        if written:
            rest[0] = rest[0][written:]


def _sync_folder(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as file:
        os.fsync(file)
