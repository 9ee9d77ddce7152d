"""One pull: from the cache, or from the registry into the cache or a folder of the caller."""

from __future__ import annotations

import errno
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from modelreg._async import runtime
from modelreg._async.connection import Connection
from modelreg._async.transfers import Remote, receive, remote_artifact
from modelreg._checksums import Checksum, Sha256
from modelreg._files import replace
from modelreg._logging import logger
from modelreg._pulls.cache_entries import Slot
from modelreg._pulls.disk import (
    existing_file_has,
    flush,
    make_folder,
    progress_mark,
    replace_by_copy,
    require_space,
    touch,
)
from modelreg._pulls.local_names import checked_sha256, local_file_name
from modelreg._pulls.path_locks import PathLock
from modelreg._pulls.receiver import Receiver
from modelreg._pulls.removal import remove_path, removed_unless
from modelreg._pulls.resolutions import Resolution
from modelreg.cache import Cache
from modelreg.errors import IntegrityError, NotCached
from modelreg.progress import Progress

_WAIT_SECONDS = 0.1
_HEARTBEAT_SECONDS = 1.0


@dataclass(eq=False)
class Download:
    """What the pulls of files, folders and selections have in common."""

    connection: Connection
    cache: Cache
    resolution: Resolution
    """The model."""
    progress: Progress
    """Where to report how much is done."""
    _: KW_ONLY
    offline: bool
    """Whether nothing may be asked of the registry."""
    deep: bool
    """Whether to compare the checksums of what the cache has."""

    def __post_init__(self) -> None:
        artifact = self.resolution.artifact
        self.sha256 = checked_sha256(artifact.sha256)
        self.file_name = local_file_name(artifact.file_name)
        self.size = artifact.size_bytes
        """The bytes to get: those of the artifact, or of the chosen files."""
        self.own_suffix = uuid.uuid4().hex
        """For the names of what no other process may touch."""
        self._is_begun = False

    def artifact(self) -> Remote:
        """Return the bytes of the whole artifact."""
        resolution = self.resolution
        return remote_artifact(resolution.label, resolution.model_id, resolution.artifact.size_bytes, self.sha256)

    async def cached(self, slot: Slot, name: str) -> Path | None:
        """Return what the cache has, or None."""
        path = await runtime.run_blocking(slot.find, name, self.deep)
        if path is None:
            path = await runtime.run_blocking(slot.find_under_other_name, name, self.deep)
        if path is not None:
            self.progress.update(self.size)
        return path

    def not_cached(self) -> NotCached:
        """Return the error of a pull without the network of what the cache does not have."""
        return NotCached(
            f"{self.resolution.label} is not in the cache {self.cache.directory}, and offline=True allows no download. "
            "Pull it once with the registry."
        )

    def damaged(self) -> IntegrityError:
        """Return the error of a pull without the network of what is damaged in the cache."""
        return IntegrityError(
            f"{self.resolution.label} is damaged in the cache {self.cache.directory}, and offline=True allows no "
            "download. Pull it again with the registry."
        )

    @asynccontextmanager
    async def making(self, slot: Slot, *, is_local: bool = False) -> AsyncIterator[bool]:
        """Hold the lock of a place of the cache while it is filled. The value tells whether the lock is held.

        Args:
            slot: The place.
            is_local: Whether nothing needs to be downloaded.

        Raises:
            NotCached: Nothing may be downloaded.
            OSError: The cache cannot be written.
        """
        if self.offline and not is_local:
            raise self.not_cached()
        await runtime.run_blocking(self.cache.make)
        async with self.holding(slot.lock(), slot.download_path("part", is_shared=True)) as is_shared:
            yield is_shared

    @asynccontextmanager
    async def holding(self, lock: PathLock, part: Path) -> AsyncIterator[bool]:
        """Hold a lock in a block. Wait while its holder downloads, and show how far that is.

        The value is False where locks do not work, and if the holder makes no progress: then the block works on its
        own, with other names.
        """
        is_held = await self._acquire(lock, part)
        try:
            yield is_held
        finally:
            if is_held:
                lock.release()

    async def _acquire(self, lock: PathLock, part: Path) -> bool:
        mark = None
        since = time.monotonic()
        while True:
            is_held = await runtime.run_blocking(lock.acquire)
            if is_held is not False:
                return is_held is True
            found = await runtime.run_blocking(progress_mark, part)
            if found != mark:
                mark, since = found, time.monotonic()
                self.progress.update(min(found[0], self.size))
            elif time.monotonic() - since > self.connection.options.stall_timeout:
                logger.warning("Another process holds the lock of %s, but makes no progress", self.resolution.label)
                return False
            await runtime.sleep(_WAIT_SECONDS)

    async def receive(self, remote: Remote, part: Path, checksum: Checksum, *, done: int = 0) -> None:
        """Complete a part file, and verify it.

        Args:
            remote: The bytes.
            part: The file. It stays if the download is interrupted, and a later one continues it.
            checksum: Their checksum.
            done: The number of bytes of the pull that are done already.

        Raises:
            RegistryError: The registry refused, or did not respond until the retries ended.
            IntegrityError: The bytes do not have the checksum. Nothing remains.
            OSError: The file cannot be written.
        """
        await runtime.run_blocking(require_space, part, remote.size)
        receiver = Receiver(part, remote.size, checksum)
        report = self.reporter(part, done)
        try:
            try:
                await receive(self.connection, remote, receiver, report, is_begun=self._is_begun)
                self._is_begun = True
            finally:
                receiver.close()
        except IntegrityError:
            remove_path(part)
            raise
        except OSError as error:
            # What does not fit must not keep the disk full.
            if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
                remove_path(part)
            raise

    def reporter(self, part: Path, done: int = 0) -> Callable[[int], None]:
        """Return a function that reports progress, to the caller and to processes that wait for the lock."""
        last = time.monotonic()

        def report(size: int) -> None:
            nonlocal last
            self.progress.update(done + size)
            if time.monotonic() - last > _HEARTBEAT_SECONDS:
                last = time.monotonic()
                touch(part)

        return report


class FileDownload(Download):
    """The pull of an artifact that is a file."""

    async def into_cache(self) -> Path:
        """Return the file in the cache, after downloading it if it is not there."""
        slot = self.cache.slot("artifacts", self.sha256)
        if path := await self.cached(slot, self.file_name):
            return path
        async with self.making(slot) as is_shared:
            # Another process may have completed it meanwhile.
            if path := await self.cached(slot, self.file_name):
                return path
            part = slot.download_path("part", is_shared=is_shared)
            await self.receive(self.artifact(), part, Sha256(self.sha256))
            path = await runtime.run_blocking(
                slot.add, part, self.file_name, self.sha256, {"": f"sha256:{self.sha256}"}
            )
        await runtime.run_blocking(self.cache.shrink)
        return path

    async def into(self, folder: Path) -> Path:
        """Return the file in a folder of the caller, after copying it from the cache, or downloading it, to there."""
        checksum = Sha256(self.sha256)
        target = folder / self.file_name
        if await runtime.run_blocking(existing_file_has, target, self.size, checksum):
            self.progress.update(self.size)
            return target
        cached = await self.cached(self.cache.slot("artifacts", self.sha256), self.file_name)
        if cached is None and self.offline:
            raise self.not_cached()
        await runtime.run_blocking(make_folder, folder)
        if cached is not None and await runtime.run_blocking(replace_by_copy, cached, target, checksum):
            self.progress.update(self.size)
            return target
        if self.offline:
            raise self.damaged()
        # Not with the name of the file, which may be as long as the file system allows.
        digest = hashlib.sha256(f"{self.sha256}/{self.file_name}".encode()).hexdigest()
        part = folder / f".modelreg-{digest[:32]}.part"
        lock = self.cache.target_lock(target)
        async with self.holding(lock, part) as is_shared:
            own_part = part if is_shared else part.with_name(f"{part.name}.{self.own_suffix}")
            with removed_unless(is_shared, own_part):
                await self.receive(self.artifact(), own_part, checksum)
                await runtime.run_blocking(flush, own_part)
                await runtime.run_blocking(replace, own_part, target)
        return target
