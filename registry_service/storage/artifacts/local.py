"""Artifacts in a local folder.

    <root>/<key>                              an object; only whole ones are here
    <root>/.partial/<key>~<token>.put         a whole object on its way to its place
    <root>/.partial/<key>~<handle>.data       the bytes of an object in parts
    <root>/.partial/<key>~<handle>.receipts   the receipts of its parts, 32 bytes each

In the names under `.partial` the slashes of the key are plus signs, so that all
that is under construction on a key is found by its beginning. An object comes
into being by one rename within the file system, which is what makes it atomic.
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

from registry_service.domain.artifact_store import CHUNK_SIZE, OBJECT_PREFIX, Construction, Part, Pieces
from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactStoreUnavailableError,
    StorageFullError,
    TooManyOpenFilesError,
)
from registry_service.storage.artifacts import PART_SIZE, check_key, check_range, size_of_part, total_size
from registry_service.storage.disk import DiskReserve, is_full

logger = logging.getLogger(__name__)

_PLACE = "the artifact folder"
_HANDLE = re.compile(r"[0-9a-f]{32}")
_RECEIPT_SIZE = 32
_UNWRITTEN = (b"", bytes(_RECEIPT_SIZE))  # where the file ends, and in a hole
_OVERWRITTEN = b"\xff" * _RECEIPT_SIZE

# A file that is still growing is synced each time that so much has come: the disk has begun when the rest comes.
_SYNC_BYTES = 8 * 1024 * 1024

# Pieces in one call to the system (IOV_MAX).
_MOST_AT_ONCE = 1024

# How often a folder may be pruned between making it and renaming into it.
_PRUNINGS = 100

# macOS has no fdatasync.
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class LocalArtifactStore:
    """Keeps artifacts in a folder of one machine. For one process or several on that machine."""

    part_size = PART_SIZE

    def __init__(self, root: Path, *, reserve_bytes: int = 0) -> None:
        """Makes the folder when it is missing, for this user alone.

        Args:
            root: The folder.
            reserve_bytes: How much is left free on its disk.

        Raises:
            OSError: It cannot be made.
        """
        self._root = root.absolute()
        self._partial = self._root / ".partial"
        self._disk = DiskReserve(self._root, _PLACE, reserve_bytes)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._partial.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(self._root)

    def put(self, key: str, data: bytes) -> None:
        """See the port."""
        self.write(key, (data,))

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """See the port."""
        target = self._path(key)
        source = self._under_construction(key, secrets.token_hex(16), "put")
        try:
            with _translated("write", key):
                file = os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with closing(_GrowingFile(file)) as growing:
                for piece in pieces:
                    self._disk.check(len(piece))
                    with _translated("write", key):
                        growing.append(piece)
                with _translated("write", key):
                    growing.sync()
            with _translated("write", key):
                try:
                    self._publish(source, target)
                except FileNotFoundError as error:
                    # Somebody has deleted what was under construction.
                    self._require_root()
                    raise ArtifactLostError from error
        except BaseException:
            with suppress(OSError):
                source.unlink(missing_ok=True)
            raise

    def begin(self, key: str) -> str:
        """See the port."""
        check_key(key)
        self._disk.check()
        handle = secrets.token_hex(16)
        with _translated("begin", key):
            for kind in ("data", "receipts"):
                with _opened(self._under_construction(key, handle, kind), os.O_WRONLY | os.O_CREAT | os.O_EXCL):
                    pass
            _sync_folder(self._partial)
        return handle

    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        """See the port.

        Raises:
            ArtifactLostError: Nothing is under construction by this handle.
        """
        size = size_of_part(number, offset, pieces)
        self._disk.check(size)
        data_path, receipts_path = self._paths_of_parts(key, handle)
        receipt = _receipt(pieces)
        place = (number - 1) * _RECEIPT_SIZE
        with _translated("write a part of", key):
            try:
                with _opened(data_path, os.O_WRONLY) as file, _opened(receipts_path, os.O_RDWR) as receipts:
                    # The old receipt goes before the old bytes do and the new one comes after the new
                    # bytes: at no point of a crash does a receipt vouch for bytes that are not there.
                    if os.pread(receipts, _RECEIPT_SIZE, place) not in {*_UNWRITTEN, receipt}:
                        _write(receipts, [_OVERWRITTEN], place)
                        _sync_data(receipts)
                    _write(file, pieces, offset)
                    _sync_data(file)
                    # Not synced: `finish` does without one that was lost in a crash of the machine.
                    _write(receipts, [receipt], place)
            except FileNotFoundError as error:
                self._require_root()
                raise ArtifactLostError from error
        return Part(number=number, offset=offset, size=size, receipt=receipt.hex())

    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        """See the port."""
        total = total_size(parts)
        target = self._path(key)
        data_path, receipts_path = self._paths_of_parts(key, handle)
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
                # The rename was done before a crash, but perhaps not yet for good.
                self._sync_folders_above(target)
            receipts_path.unlink(missing_ok=True)

    def abort(self, key: str, handle: str | None = None) -> None:
        """See the port."""
        with _translated("abort", key):
            if handle is not None:
                for path in (*self._paths_of_parts(key, handle), self._under_construction(key, handle, "put")):
                    path.unlink(missing_ok=True)
                return
            beginning = self._under_construction(key, "", "").name.removesuffix(".")
            with os.scandir(self._partial) as entries:
                leftovers = [Path(entry) for entry in entries if entry.name.startswith(beginning)]
            for leftover in leftovers:
                leftover.unlink(missing_ok=True)

    def unfinished(self) -> Iterator[Construction]:
        """See the port."""
        with _translated("list what is unfinished in", self._partial.name):
            with os.scandir(self._partial) as entries:
                files = [Path(entry) for entry in entries if entry.name.endswith((".put", ".data"))]
            for file in files:
                key, _, handle = file.stem.replace("+", "/").partition("~")
                with suppress(FileNotFoundError):
                    begin_time = datetime.fromtimestamp(file.stat().st_mtime, UTC)
                    yield Construction(key=key, handle=handle, begin_time=begin_time)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See the port."""
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
                    # In a list, from which it is taken with the yield: a slow reader keeps no second reference to it.
                    chunk = [os.pread(file, min(CHUNK_SIZE, end - offset), offset)]
                if not chunk[0]:
                    logger.error("The object %s has become shorter while it was read", key)
                    raise ArtifactLostError
                offset += len(chunk[0])
                yield chunk.pop()
        finally:
            os.close(file)

    def size(self, key: str) -> int | None:
        """See the port."""
        path = self._path(key)
        with _translated("look at", key):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                self._require_root()
                return None

    def delete(self, key: str) -> None:
        """See the port."""
        target = self._path(key)
        self.abort(key)
        with _translated("delete", key):
            _sync_folder(self._partial)
            target.unlink(missing_ok=True)
            # Also when there was nothing to unlink: the process may have died between the two last time.
            with suppress(FileNotFoundError):
                _sync_folder(target.parent)
            self._prune(key)

    def keys(self, prefix: str = OBJECT_PREFIX) -> Iterator[str]:
        """See the port."""
        with _translated("list", prefix):
            self._require_root()
            for folder, folders, names in os.walk(self._root / prefix):
                folders[:] = [name for name in folders if not name.startswith(".")]
                for name in names:
                    yield (Path(folder) / name).relative_to(self._root).as_posix()

    def check(self) -> None:
        """See the port. Logs for debugging only, since it is asked every second; the caller logs changes."""
        # One name for all: what a killed process leaves, the next check removes.
        probe = self._partial / ".probe"
        try:
            # Not synced: that would keep the disk busy to learn what the next write learns anyway.
            with _opened(probe, os.O_WRONLY | os.O_CREAT) as file:
                _write(file, [b"probe"], 0)
            probe.unlink(missing_ok=True)
        except OSError as error:
            if not is_full(error):
                logger.debug("The artifact store is not well", exc_info=True)
                raise ArtifactStoreUnavailableError from error
        # It is well as far as reading goes. This logs when the space gets short.
        with suppress(StorageFullError):
            self._disk.check()

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _under_construction(self, key: str, token: str, kind: str) -> Path:
        check_key(key)
        return self._partial / f"{key.replace('/', '+')}~{token}.{kind}"

    def _paths_of_parts(self, key: str, handle: str) -> tuple[Path, Path]:
        # Handles come back from the database; one of another adapter names nothing here.
        if not _HANDLE.fullmatch(handle):
            raise ArtifactLostError
        return self._under_construction(key, handle, "data"), self._under_construction(key, handle, "receipts")

    def _require_root(self) -> None:
        """Tells a store that is away (a volume that is not mounted) from an object that is."""
        if not self._partial.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._partial))

    def _publish(self, source: Path, target: Path) -> None:
        for _ in range(_PRUNINGS):
            try:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                source.replace(target)
            except (FileNotFoundError, FileExistsError):
                # A delete() of a neighbour pruned the folder in between, unless the source itself is gone.
                # (mkdir says that there is one when it was there a moment ago.)
                source.stat()
            else:
                self._sync_folders_above(target)
                return
        raise OSError(errno.EAGAIN, "the folder is pruned again and again", str(target.parent))

    def _sync_folders_above(self, target: Path) -> None:
        """Makes the path down to an object durable: another thread may just have made a folder of it."""
        for folder in target.parents:
            _sync_folder(folder)
            if folder == self._root:
                break

    def _prune(self, key: str) -> None:
        """Removes the empty folders above a key, except the outermost, which every key shares."""
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
    """Turns what the file system raises into the port's errors."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            logger.error("The artifact store has no space to %s %s", action, key)  # noqa: TRY400 (nor has a traceback)
            raise StorageFullError(_PLACE) from error
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
    """A file that is written from its beginning, and brought to the disk by another thread meanwhile."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._size = 0
        self._synced = 0
        self._syncer: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None

    def append(self, data: bytes) -> None:
        _write(self._file, [data], self._size)
        self._size += len(data)
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
    """Whether the file has the bytes of a part: by their receipt, or where that is lost, by looking at them."""
    receipt = receipts[(part.number - 1) * _RECEIPT_SIZE : part.number * _RECEIPT_SIZE]
    if receipt in _UNWRITTEN:
        receipt = _receipt([os.pread(file, part.size, part.offset)])
    return receipt.hex() == part.receipt


def _receipt(pieces: Pieces) -> bytes:
    """Hashes a part; by BLAKE3, as a second SHA-256 of each byte takes a fifth of an upload's CPU."""
    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def _write(file: int, pieces: Pieces, offset: int) -> None:
    rest = deque(memoryview(piece) for piece in pieces)
    while rest:
        written = os.pwritev(file, list(islice(rest, _MOST_AT_ONCE)), offset)
        offset += written
        while rest and written >= len(rest[0]):
            written -= len(rest.popleft())
        if written:
            rest[0] = rest[0][written:]


def _sync_folder(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY | os.O_DIRECTORY) as file:
        os.fsync(file)
