"""One pull of some files inside an artifact."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelreg._async import runtime
from modelreg._async.artifact_files import list_files
from modelreg._async.downloads import Download
from modelreg._async.transfers import remote_file
from modelreg._checksums import Checksum, Crc32, Sha256, parse_checksum
from modelreg._files import replace
from modelreg._folders.unpacking_task import UnpackingTask
from modelreg._pulls.cache_entries import Record, Slot, link_or_copy
from modelreg._pulls.disk import existing_file_has, flush, make_folder, replace_by_copy
from modelreg._pulls.local_names import checked_paths, checked_sha256, folder_name
from modelreg._pulls.patterns import Patterns
from modelreg._pulls.removal import remove_path, removed_unless
from modelreg.errors import IntegrityError, PreconditionFailed
from modelreg.server import ArtifactFile

_MANY_FILES = 16
_REQUEST_BYTES = 256 * 1024
"""Bytes that arrive in about the time that the registry takes to find one file in a large ZIP."""


@dataclass(kw_only=True, eq=False)
class SelectionDownload(Download):
    """The pull of some files inside an artifact. Only these are downloaded."""

    patterns: Patterns
    """Which files."""

    def slot(self) -> Slot:
        """Return the place of the selection in the cache."""
        # The patterns rather than the paths, so that nothing needs to be listed.
        key = json.dumps([self.sha256, self.patterns.texts])
        return self.cache.slot("selections", hashlib.sha256(key.encode()).hexdigest())

    async def into_cache(self) -> Path:
        """Return a folder in the cache that has the files, after downloading them if it is not there."""
        slot, name = self.slot(), folder_name(self.file_name)
        if path := await self.cached(slot, name):
            return path
        whole = await self._whole()
        async with self.making(slot, is_local=whole is not None) as is_shared:
            if path := await self.cached(slot, name):
                return path
            part = slot.download_path("part", is_shared=is_shared)
            ready = slot.download_path("folder", is_shared=is_shared)
            with removed_unless(is_shared, part, ready):
                checksums: Mapping[str, Checksum] | None = None
                if whole is not None:
                    checksums = await self._select_from(whole, ready)
                if checksums is None:
                    checksums = await self._download(part, ready)
                expected = {path: checksum.expected for path, checksum in checksums.items()}
                path = await runtime.run_blocking(slot.add, ready, name, self.sha256, expected)
        await runtime.run_blocking(self.cache.shrink)
        return path

    async def into(self, to: Path) -> Path:
        """Put the files into a folder of the caller, from the cache or the registry."""
        slot, name = self.slot(), folder_name(self.file_name)
        cached, whole = await self.cached(slot, name), None
        if cached is None:
            whole = await self._whole()
            if whole is None and self.offline:
                raise self.not_cached()
        await runtime.run_blocking(make_folder, to)
        if cached is not None and await runtime.run_blocking(_copy, slot, cached, to):
            return to
        if whole is not None and await self._put_from(whole, to):
            return to
        if self.offline:
            raise self.damaged()
        files = await self._listed()
        part = to / f".modelreg-{slot.key[:16]}.part"
        async with self.holding(self.cache.target_lock(part), part) as is_shared:
            if not is_shared:
                part = part.with_name(f"{part.name}.{self.own_suffix}")
            ready = part.with_name(f"{part.name}.folder")
            with removed_unless(is_shared, part, ready):
                missing = await runtime.run_blocking(_missing, files, to)
                await self._receive_all(missing, part, ready)
                await runtime.run_blocking(flush, ready)
                # All of them are complete, and each gets its name at once.
                await runtime.run_blocking(_move, ready, to)
        return to

    async def _put_from(self, whole: Path, to: Path) -> bool:
        """Put the files into a folder of the caller, out of the whole artifact in the cache.

        Nothing is written to the cache, which may be read-only. Returns False if the registry has to be asked.
        """
        if self.resolution.artifact.kind == "folder":
            slot = self.cache.slot("folders", self.sha256)
            is_put = await runtime.run_blocking(_copy, slot, whole, to, self._chosen)
        else:
            ready = to / f".modelreg-{self.own_suffix}.folder"
            with removed_unless(False, ready):
                is_put = await self._select_from(whole, ready) is not None
                if is_put:
                    await runtime.run_blocking(flush, ready)
                    await runtime.run_blocking(_move, ready, to)
        if is_put:
            self.progress.update(self.size)
        return is_put

    def _chosen(self, paths: Sequence[str]) -> Sequence[str]:
        return self.patterns.select(paths, self.resolution.label)

    async def _whole(self) -> Path | None:
        """Return the whole artifact in the cache, or None."""
        if self.resolution.artifact.kind == "folder":
            slot, name = self.cache.slot("folders", self.sha256), folder_name(self.file_name)
        else:
            slot, name = self.cache.slot("artifacts", self.sha256), self.file_name
        return await runtime.run_blocking(slot.find, name, self.deep)

    async def _select_from(self, whole: Path, ready: Path) -> Mapping[str, Checksum] | None:
        """Make a folder with the files out of the whole artifact. None: the registry has to be asked."""
        if self.resolution.artifact.kind == "folder":
            record = await runtime.run_blocking(self.cache.slot("folders", self.sha256).record)
            return None if record is None else await runtime.run_blocking(self._linked, record, whole, ready)
        await runtime.run_blocking(remove_path, ready)
        seen: list[str] = []

        def select(path: str) -> bool:
            seen.append(path)
            return self.patterns.match(path)

        unpacking = UnpackingTask(whole, ready, select)
        try:
            files = await runtime.run_blocking(unpacking.run)
        except IntegrityError as error:
            # The bytes are the registered ones. So they are no ZIP, or one with other files that are not safe.
            if self.offline:
                raise PreconditionFailed(f"{self.resolution.label} has no files to choose from: {error}") from error
            return None
        finally:
            unpacking.stop()
        try:
            self.patterns.select(seen, self.resolution.label)
        except BaseException:
            remove_path(ready)
            raise
        return {file.path: Crc32(file.crc32) for file in files}

    def _linked(self, record: Record, whole: Path, ready: Path) -> Mapping[str, Checksum] | None:
        prefix = f"{whole.name}/"
        checksums = {
            path.removeprefix(prefix): parse_checksum(file.checksum)
            for path, file in record.files.items()
            if path.startswith(prefix)
        }
        chosen = self.patterns.select(checksums, self.resolution.label)
        remove_path(ready)
        for path in chosen:
            target = ready / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                link_or_copy(whole / path, target)
            except FileNotFoundError:
                return None
        return {path: checksums[path] for path in chosen}

    async def _listed(self) -> Sequence[ArtifactFile]:
        """Return the files to download."""
        listed = await list_files(self.connection, self.resolution.model_id)
        chosen = set(self.patterns.select([file.path for file in listed], self.resolution.label))
        files = [file for file in listed if file.path in chosen]
        checked_paths([file.path for file in files])
        self.size = sum(file.size_bytes for file in files)
        self.progress.update(0, self.size)
        return files

    async def _download(self, part: Path, ready: Path) -> Mapping[str, Checksum]:
        files = await self._listed()
        await self._receive_all(files, part, ready)
        return {file.path: _checksum(file) for file in files}

    async def _receive_all(self, files: Sequence[ArtifactFile], part: Path, ready: Path) -> None:
        """Make a folder with the files. Those that an interrupted pull left in it are kept."""
        if self._is_whole_cheaper(files) and await self._receive_whole(files, part, ready):
            return
        done = self.size - sum(file.size_bytes for file in files)
        await runtime.run_blocking(make_folder, ready)
        for file in files:
            target = ready / file.path
            if not await runtime.run_blocking(_has, target, file):
                label = f"{file.path} of {self.resolution.label}"
                remote = remote_file(label, self.resolution.model_id, file.path, file.size_bytes, file.crc32)
                await self.receive(remote, part, _checksum(file), done=done)
                await runtime.run_blocking(make_folder, target.parent)
                await runtime.run_blocking(replace, part, target)
            done += file.size_bytes
            self.progress.update(done)

    def _is_whole_cheaper(self, files: Sequence[ArtifactFile]) -> bool:
        """Tell whether one download of everything takes less time than one for each file."""
        limit = sum(file.size_bytes for file in files) + len(files) * _REQUEST_BYTES
        return len(files) >= _MANY_FILES and self.resolution.artifact.size_bytes <= limit

    async def _receive_whole(self, files: Sequence[ArtifactFile], part: Path, ready: Path) -> bool:
        """Make a folder with the files out of the whole artifact. Return False if that is not possible."""
        artifact_size = self.resolution.artifact.size_bytes
        self.progress.update(0, artifact_size)
        await self.receive(self.artifact(), part, Sha256(self.sha256))
        await runtime.run_blocking(remove_path, ready)
        wanted = {file.path: file.crc32 for file in files}
        unpacking = UnpackingTask(part, ready, wanted.__contains__)
        try:
            found = await runtime.run_blocking(unpacking.run)
        except IntegrityError:
            # Files that are not wanted may be unsafe, or the artifact is no ZIP.
            found = ()
        finally:
            unpacking.stop()
        await runtime.run_blocking(remove_path, part)
        if {file.path: file.crc32 for file in found} == wanted:
            return True
        await runtime.run_blocking(remove_path, ready)
        self.progress.update(0, self.size)
        return False


def _checksum(file: ArtifactFile) -> Checksum:
    return Crc32(file.crc32) if file.sha256 is None else Sha256(checked_sha256(file.sha256))


def _has(path: Path, file: ArtifactFile) -> bool:
    return existing_file_has(path, file.size_bytes, _checksum(file))


def _missing(files: Sequence[ArtifactFile], folder: Path) -> Sequence[ArtifactFile]:
    """Return the files that a folder does not have."""
    return [file for file in files if not _has(folder / file.path, file)]


def _copy(slot: Slot, cached: Path, to: Path, choose: Callable[[Sequence[str]], Sequence[str]] = tuple) -> bool:
    """Copy files of a folder in the cache. Return False if one is damaged, or was deleted meanwhile."""
    record = slot.record()
    if record is None:
        return False
    prefix = f"{cached.name}/"
    paths = [path.removeprefix(prefix) for path in record.files if path.startswith(prefix)]
    for inside in choose(paths):
        path = prefix + inside
        file, target = record.files[path], to / inside
        checksum = parse_checksum(file.checksum)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not existing_file_has(target, file.size, checksum) and not replace_by_copy(
                slot.directory / path, target, checksum
            ):
                return False
        except FileNotFoundError:
            return False
    return True


def _move(ready: Path, to: Path) -> None:
    for found in sorted(path for path in ready.rglob("*") if path.is_file()):
        target = to / found.relative_to(ready)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(found, target)
    remove_path(ready)
