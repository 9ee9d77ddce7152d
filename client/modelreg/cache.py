"""The cache of pulled artifacts.

    artifacts/<SHA-256>/<file name>    an artifact that is a file
    folders/<SHA-256>/<name>/…         an artifact that is a folder, unpacked; the SHA-256 is that of its ZIP
    selections/<key>/<name>/…          some files of an artifact; the key is a digest of its SHA-256 and their paths
    <area>/<SHA-256 or key>.json       what is complete: sizes, times and checksums; its own time is the last use
    downloads/…                        what is not complete
    locks/…                            empty files
    resolutions/<registry>/<key>.json  what a reference meant when it was last pulled

The cache is content-addressed: it has every artifact once, whatever registry and model it came from. A file is never
changed after it got its name. The cache may be deleted at any time, and one that cannot be written serves what it has.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from modelreg._pulls.cache_entries import Area, Slot
from modelreg._pulls.path_locks import PathLock
from modelreg._pulls.removal import move_away, remove_path
from modelreg._results import Result, html_table
from modelreg._sizes import format_size, parse_size
from modelreg.directories import cache_directory
from modelreg.errors import InvalidArgument

__all__ = ["Cache", "CacheEntry", "CacheUsage"]

DEFAULT_MAX_BYTES = 50 * 10**9
GRACE = timedelta(minutes=10)
"""For how long a pull leaves alone what was used: its caller may be about to open it."""
_ABANDONED = timedelta(days=1)
"""After what time a download counts as abandoned."""
_AREAS: tuple[Area, ...] = ("artifacts", "folders", "selections")
_KINDS: Mapping[Area, Literal["file", "folder", "selection"]] = {
    "artifacts": "file",
    "folders": "folder",
    "selections": "selection",
}
_KEY = re.compile(r"[0-9a-f]{64}")
_TAG = """Signature: 8a477f597d28d172789f06886806bc55
# This directory is a cache of modelreg (https://bford.info/cachedir/). It may be deleted at any time.
"""


@dataclass(frozen=True, kw_only=True)
class CacheEntry(Result):
    """Something in the cache."""

    kind: Literal["file", "folder", "selection", "partial"]
    """`selection`: some files of an artifact (`pull(..., files=...)`). `partial`: a download that was not completed."""
    path: Path
    size_bytes: int
    use_time: datetime
    """When it was last pulled."""
    sha256: str | None = None
    """SHA-256 of the artifact. None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class CacheUsage(Result):
    """What the cache has."""

    directory: Path
    size_bytes: int
    max_bytes: int | None
    """The limit. None: no limit."""
    entries: tuple[CacheEntry, ...]
    """The least recently used first."""

    def _repr_html_(self) -> str:
        limit = "without a limit" if self.max_bytes is None else f"of {format_size(self.max_bytes)}"
        return html_table(self.entries, f"{self.directory}, {format_size(self.size_bytes)} {limit}")


class Cache:
    """The pulled artifacts on this machine, which all registries and processes share.

    After a pull that downloads, the least recently used artifacts are deleted until the cache is within its limit. What
    another process is pulling, and what was pulled in the last 10 minutes, is never deleted then, so the cache can be
    larger for a while.

    Args:
        directory: The directory. Default: `MODELREG_CACHE`, else the platform's own place.
        max_bytes: The limit: a number of bytes, or a text such as `50GB`; `none` means no limit. Default:
            `MODELREG_CACHE_MAX_BYTES`, else 50 GB or half of the disk, whichever is less.

    Raises:
        InvalidArgument: The limit is no size, or there is no home directory.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, *, max_bytes: int | str | None = None) -> None:
        self.directory = cache_directory() if directory is None else Path(directory).absolute()
        limit, name = max_bytes, "max_bytes"
        if limit is None:
            limit, name = os.environ.get("MODELREG_CACHE_MAX_BYTES") or None, "MODELREG_CACHE_MAX_BYTES"
        self._has_default_limit = limit is None
        self._max_bytes = None if limit is None else _limit(limit, name)

    def __repr__(self) -> str:
        return f"Cache({str(self.directory)!r})"

    @property
    def max_bytes(self) -> int | None:
        """The limit in bytes. None: no limit."""
        if self._has_default_limit:
            return min(DEFAULT_MAX_BYTES, _disk_bytes(self.directory) // 2)
        return self._max_bytes

    def usage(self) -> CacheUsage:
        """Return what the cache has."""
        entries = tuple(sorted(self._entries(), key=lambda entry: entry.use_time))
        return CacheUsage(
            directory=self.directory,
            size_bytes=sum(entry.size_bytes for entry in entries),
            max_bytes=self.max_bytes,
            entries=entries,
        )

    def prune(self, *, max_bytes: int | str | None = None) -> list[CacheEntry]:
        """Delete the least recently used artifacts until the cache is within a limit, and return them.

        Downloads that were abandoned a day ago or longer are deleted first. What another process is pulling is kept.

        Args:
            max_bytes: The limit: a number of bytes, or a text such as `50GB`. 0 deletes everything. Default: that of
                the cache.

        Raises:
            InvalidArgument: The limit is no size.
        """
        limit = self.max_bytes if max_bytes is None else parse_size(max_bytes, "max_bytes")
        return self._shrink(limit, timedelta(0))

    def shrink(self) -> list[CacheEntry]:
        """Delete what is too much, after a pull, and return it."""
        return self._shrink(self.max_bytes, GRACE)

    def slot(self, area: Area, key: str) -> Slot:
        """Return the place of an artifact, whether the cache has it or not."""
        return Slot(self.directory, area, key)

    def make(self) -> None:
        """Make the directory.

        Raises:
            OSError: It cannot be made.
        """
        tag = self.directory / "CACHEDIR.TAG"
        (self.directory / "downloads").mkdir(parents=True, exist_ok=True)
        if not tag.exists():
            tag.write_text(_TAG, encoding="utf-8")

    def target_lock(self, path: Path) -> PathLock:
        """Return the lock of a file or folder outside the cache that a pull writes."""
        key = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()
        return PathLock(self.directory / "locks" / f"to-{key}.lock")

    # ---- eviction ----------------------------------------------------------------

    def _slots(self) -> Iterator[Slot]:
        for area in _AREAS:
            names = _names(self.directory / area)
            for key in dict.fromkeys(name.removesuffix(".json") for name in names):
                if _KEY.fullmatch(key):
                    yield self.slot(area, key)

    def _entries(self) -> Iterator[CacheEntry]:
        for slot in self._slots():
            if entry := _entry(slot):
                yield entry
        yield from self._partial()

    def _partial(self) -> Iterator[CacheEntry]:
        downloads = self.directory / "downloads"
        for name in _names(downloads):
            path = downloads / name
            size, changed = _size_and_time(path)
            if changed is not None:
                yield CacheEntry(kind="partial", path=path, size_bytes=size, use_time=changed)

    def _shrink(self, limit: int | None, grace: timedelta) -> list[CacheEntry]:
        now = datetime.now(timezone.utc)
        removed: list[CacheEntry] = []
        candidates: list[tuple[CacheEntry, Slot | None]] = [(entry, None) for entry in self._partial()]
        candidates += [(entry, slot) for slot in self._slots() if (entry := _entry(slot))]
        total = sum(entry.size_bytes for entry, _ in candidates)
        for entry, slot in sorted(candidates, key=lambda candidate: candidate[0].use_time):
            age = now - entry.use_time
            is_abandoned = slot is None and age > _ABANDONED
            is_excess = limit is not None and total > limit and (age > grace or grace == timedelta(0))
            if (is_abandoned or is_excess) and self._remove(entry, slot):
                removed.append(entry)
                total -= entry.size_bytes
        return removed

    def _remove(self, entry: CacheEntry, slot: Slot | None) -> bool:
        """Delete an entry, unless another one holds its lock or has used it since."""
        if slot is None:
            slot = Slot.of_download(self.directory, entry.path.name)
            if slot is None:
                # No lock tells whether its process still runs.
                is_old = datetime.now(timezone.utc) - entry.use_time > GRACE
                return is_old and remove_path(entry.path)
            with slot.locked() as is_free:
                return is_free and remove_path(entry.path)
        with slot.locked() as is_free:
            if not is_free:
                return False
            current = _entry(slot)
            if current is None or current.use_time != entry.use_time:
                return False
            # The rename fails on Windows if a file of it is open. So nothing is half deleted.
            trash = move_away(slot.directory, self.directory / "downloads")
            if trash is None and slot.directory.exists():
                return False
            slot.record_path.unlink(missing_ok=True)
        if trash is not None:
            remove_path(trash)
        return True


def _entry(slot: Slot) -> CacheEntry | None:
    """Return what is in a slot, or None if it is empty."""
    record = slot.record()
    if record is None:
        size, changed = _size_and_time(slot.directory)
        # Left behind by a process that was killed.
        if changed is None:
            return None
        return CacheEntry(kind="partial", path=slot.directory, size_bytes=size, use_time=changed)
    try:
        used = os.stat(slot.record_path).st_mtime  # noqa: PTH116
    except OSError:
        return None
    return CacheEntry(
        kind=_KINDS[slot.area],
        path=slot.directory / record.names[0] if len(record.names) == 1 else slot.directory,
        size_bytes=sum(file.size for file in record.files.values()),
        use_time=datetime.fromtimestamp(used, timezone.utc),
        sha256=record.sha256,
    )


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _size_and_time(path: Path) -> tuple[int, datetime | None]:
    """Return the size of a file, or of those in a folder, and the time of the last change. None: there is nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, None
    size, changed = found.st_size, found.st_mtime
    if path.is_dir():
        size = 0
        for folder, _, names in os.walk(path):
            for name in names:
                try:
                    inside = os.lstat(os.path.join(folder, name))  # noqa: PTH118
                except OSError:
                    continue
                size, changed = size + inside.st_size, max(changed, inside.st_mtime)
    return size, datetime.fromtimestamp(changed, timezone.utc)


def _limit(value: int | str, name: str) -> int | None:
    if isinstance(value, str) and value.strip().lower() == "none":
        return None
    try:
        return parse_size(value, name)
    except InvalidArgument as error:
        raise InvalidArgument(f"{error.message} Write none for no limit.") from None


def _disk_bytes(path: Path) -> int:
    """Return the size of the disk that a path is or will be on."""
    import shutil  # noqa: PLC0415 - slow, and needed after downloads only

    for candidate in (path, *path.parents):
        try:
            return shutil.disk_usage(candidate).total
        except OSError:
            continue
    return 2 * DEFAULT_MAX_BYTES
