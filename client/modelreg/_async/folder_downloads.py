"""One pull of an artifact that is a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelreg._async import runtime
from modelreg._async.artifact_files import list_files
from modelreg._async.downloads import Download
from modelreg._checksums import Crc32, Sha256, parse_checksum
from modelreg._folders.unpacking import UnpackedFile
from modelreg._folders.unpacking_task import UnpackingTask
from modelreg._pulls.cache_entries import Slot
from modelreg._pulls.disk import copy_file, flush
from modelreg._pulls.local_names import folder_name
from modelreg._pulls.removal import remove_path, removed_unless
from modelreg._pulls.target_folders import TargetFolder
from modelreg.errors import IntegrityError


class FolderDownload(Download):
    """The pull of a folder. The registry has it as a ZIP, which is not kept."""

    def slot(self) -> Slot:
        """Return the place of the folder in the cache."""
        return self.cache.slot("folders", self.sha256)

    async def into_cache(self) -> Path:
        """Return the folder in the cache, after downloading it if it is not there."""
        slot, name = self.slot(), folder_name(self.file_name)
        if path := await self.cached(slot, name):
            return path
        async with self.making(slot) as is_shared:
            if path := await self.cached(slot, name):
                return path
            part = slot.download_path("part", is_shared=is_shared)
            ready = slot.download_path("folder", is_shared=is_shared)
            with removed_unless(is_shared, part, ready):
                files = await self._unpacked(part, ready)
                checksums = {file.path: Crc32(file.crc32).expected for file in files}
                path = await runtime.run_blocking(slot.add, ready, name, self.sha256, checksums)
                await runtime.run_blocking(remove_path, part)
        await runtime.run_blocking(self.cache.shrink)
        return path

    async def into(self, to: Path, *, overwrite: bool) -> Path:
        """Make a folder of the caller the folder of the model."""
        target = TargetFolder(to, overwrite=overwrite)
        workspace: Path = await runtime.run_blocking(target.workspace)
        part = target.path_in_workspace(workspace, self.sha256, "part")
        async with self.holding(self.cache.target_lock(to), part) as is_shared:
            if await self._is_there(target):
                self.progress.update(self.size)
                return to
            await runtime.run_blocking(target.require_room)
            if not is_shared:
                part = part.with_name(f"{part.name}.{self.own_suffix}")
            ready = part.with_suffix(".folder") if is_shared else part.with_name(f"{part.name}.folder")
            # What was unpacked is made anew by a later pull, which continues the download.
            with removed_unless(is_shared, part), removed_unless(False, ready):
                await self._make_ready(part, ready)
                await runtime.run_blocking(flush, ready)
                try:
                    await runtime.run_blocking(target.land, ready)
                except OSError:
                    # Where locks do not work, another process may have been first.
                    if not await self._is_there(target):
                        raise
                await runtime.run_blocking(remove_path, part)
        return to

    async def _is_there(self, target: TargetFolder) -> bool:
        """Tell whether the caller's folder is the folder of the model already."""
        if not await runtime.run_blocking(target.has_files):
            return False
        record = await runtime.run_blocking(self.slot().record)
        if record is not None:
            files = {path.partition("/")[2]: (file.size, file.checksum) for path, file in record.files.items()}
        elif self.offline:
            return False
        else:
            listed = await list_files(self.connection, self.resolution.model_id)
            files = {file.path: (file.size_bytes, Crc32(file.crc32).expected) for file in listed}
        return await runtime.run_blocking(target.holds, files)

    async def _make_ready(self, part: Path, ready: Path) -> None:
        """Make a folder with all files, from the cache or the registry."""
        slot, name = self.slot(), folder_name(self.file_name)
        cached = await self.cached(slot, name)
        if cached is None and self.offline:
            raise self.not_cached()
        if cached is not None:
            if await runtime.run_blocking(_copy, slot, cached, ready):
                return
            if self.offline:
                raise self.damaged()
        await self._unpacked(part, ready)

    async def _unpacked(self, part: Path, ready: Path) -> Sequence[UnpackedFile]:
        """Download the ZIP, and unpack it into a new folder."""
        await self.receive(self.artifact(), part, Sha256(self.sha256))
        await runtime.run_blocking(remove_path, ready)
        unpacking = UnpackingTask(part, ready)
        try:
            return await runtime.run_blocking(unpacking.run)
        except IntegrityError:
            remove_path(part)
            raise
        finally:
            unpacking.stop()


def _copy(slot: Slot, cached: Path, ready: Path) -> bool:
    """Copy a folder of the cache. Return False if it is damaged, or was deleted meanwhile."""
    record = slot.record()
    if record is None:
        return False
    remove_path(ready)
    ready.mkdir()
    prefix = f"{cached.name}/"
    for path, file in record.files.items():
        if path.startswith(prefix):
            target = ready / path.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                if not copy_file(slot.directory / path, target, parse_checksum(file.checksum)):
                    return False
            except FileNotFoundError:
                return False
    return True
