"""The places of the cache, and the records of what is complete in them."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from modelreg._checksums import has_checksum, parse_checksum
from modelreg._files import replace as replace_file
from modelreg._logging import logger
from modelreg._pulls.path_locks import PathLock
from modelreg._pulls.removal import move_away, remove_path

Area = Literal["artifacts", "folders", "selections"]

_DOWNLOAD = re.compile(r"(artifacts|folders|selections)-([0-9a-f]{64})\.(?:part|folder)")
_RECORD_VERSION = 1


@dataclass(frozen=True)
class RecordedFile:
    """A file that is complete."""

    size: int
    mtime_ns: int
    checksum: str


@dataclass(frozen=True)
class Record:
    """What is complete in a place."""

    sha256: str
    """Of the artifact."""
    names: tuple[str, ...]
    """Names of the files or folders in the directory of the place."""
    files: Mapping[str, RecordedFile]
    """By the path inside the directory of the place, with `/`."""

    def to_json(self) -> bytes:
        """Return the record as the content of a file."""
        files = {path: [file.size, file.mtime_ns, file.checksum] for path, file in self.files.items()}
        content = {"version": _RECORD_VERSION, "sha256": self.sha256, "names": self.names, "files": files}
        return json.dumps(content, separators=(",", ":")).encode()

    @staticmethod
    def parse(content: bytes) -> Record:
        """Return the record of the content of a file.

        Raises:
            ValueError: The content is damaged, or of another version.
        """
        data: Any = json.loads(content)
        try:
            if data["version"] != _RECORD_VERSION:
                raise ValueError("another version")
            return Record(
                sha256=str(data["sha256"]),
                names=tuple(str(name) for name in data["names"]),
                files={
                    str(path): RecordedFile(int(size), int(mtime_ns), str(checksum))
                    for path, (size, mtime_ns, checksum) in data["files"].items()
                },
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("no record") from error


class Slot:
    """The place of one artifact, or of a selection of its files.

    Args:
        root: The directory of the cache.
        area: The kind of the place.
        key: 64 hexadecimal digits.
    """

    def __init__(self, root: Path, area: Area, key: str) -> None:
        self.area = area
        self.key = key
        self.directory = root / area / key
        self.record_path = root / area / f"{key}.json"
        self.downloads = root / "downloads"
        self._lock_path = root / "locks" / f"{area}-{key}.lock"

    @staticmethod
    def of_download(root: Path, name: str) -> Slot | None:
        """Return the place whose lock guards a name in `downloads`. None: the name belongs to one process."""
        match = _DOWNLOAD.fullmatch(name)
        return None if match is None else Slot(root, match[1], match[2])  # type: ignore[arg-type]

    def download_path(self, suffix: Literal["part", "folder"], *, is_shared: bool) -> Path:
        """Return where the download is written until it is complete.

        Args:
            suffix: `part` for a file, `folder` for a folder.
            is_shared: Whether the caller has the lock, so that a later process can continue.
        """
        name = f"{self.area}-{self.key}" if is_shared else f"private-{uuid.uuid4().hex}"
        return self.downloads / f"{name}.{suffix}"

    def lock(self) -> PathLock:
        """Return the lock of the place, for one holder."""
        return PathLock(self._lock_path)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock in a block, if no other one does. The value is False if another one has it."""
        lock = self.lock()
        is_held = lock.acquire()
        try:
            yield is_held is not False
        finally:
            if is_held:
                lock.release()

    def record(self) -> Record | None:
        """Return the record, or None if there is none."""
        try:
            return Record.parse(self.record_path.read_bytes())
        except (OSError, ValueError):
            return None

    def find(self, name: str, deep: bool = False) -> Path | None:
        """Return the path of what is complete, and note that it was used. Return None if it is not there.

        Args:
            name: Name of the file or folder.
            deep: Whether to compare the checksums, not just sizes and times. What is in a folder besides is
                always deleted.
        """
        record = self.record()
        if record is None or name not in record.names:
            return None
        # First of all: what was just used is not deleted.
        with suppress(OSError):
            os.utime(self.record_path)
        root, found = os.fspath(self.directory), dict[str, RecordedFile]()
        for path, file in record.files.items():
            if path != name and not path.startswith(f"{name}/"):
                continue
            state = _checked(os.path.join(root, path), file, deep=deep)  # noqa: PTH118 - thousands of files
            if state is None:
                return None
            if state != file:
                found[path] = state
        # A folder without files has no file that could be missing.
        if not (self.directory / name).exists() or not self._is_free_of_others(name, record):
            return None
        if found:
            with suppress(OSError):
                self._write(replace(record, files={**record.files, **found}))
        return self.directory / name

    def _is_free_of_others(self, name: str, record: Record) -> bool:
        """Delete what is in a folder besides the recorded files, and tell whether nothing of it remains.

        Programs write into folders that they import from, and a file that is not of the model must not look like one.
        """
        try:
            others = [path for path in _paths_in(self.directory, name) if path not in record.files]
        except OSError:
            return False
        if not others:
            return True
        left = [path for path in others if not remove_path(self.directory / path)]
        # Python writes these wherever it imports from.
        level = logging.DEBUG if all("__pycache__/" in path for path in others) else logging.WARNING
        logger.log(
            level,
            "%s has %d files that are not in the model, for example %s. %s. Pull with `to` to get a folder to write to",
            self.directory / name,
            len(others),
            others[0],
            "Some cannot be deleted" if left else "They were deleted",
        )
        return not left

    def find_under_other_name(self, name: str, deep: bool = False) -> Path | None:
        """Return the path of a file that is complete under another name, under this one. None: there is none.

        Two models can have the same bytes with different file names.
        """
        record = self.record()
        if record is None or self.area != "artifacts":
            return None
        for other in record.names:
            if other != name and (path := self.find(other, deep)):
                temporary = self.download_path("part", is_shared=False)
                try:
                    self.downloads.mkdir(parents=True, exist_ok=True)
                    link_or_copy(path, temporary)
                    return self.add(temporary, name, record.sha256, {"": record.files[other].checksum})
                except OSError:
                    remove_path(temporary)
                    return None
        return None

    def add(self, path: Path, name: str, sha256: str, checksums: Mapping[str, str]) -> Path:
        """Move a complete, verified file or folder to its place, and return the path there.

        Args:
            path: The file or folder, on the disk of the cache.
            name: Its name in the place.
            sha256: SHA-256 of the artifact.
            checksums: The checksum of each file, by its path inside the folder; of a file, by the empty text.

        Raises:
            OSError: The file system refuses it.
        """
        # Where locks do not work, another process may have been first. What it returned must not change.
        if existing := self.find(name, True):
            remove_path(path)
            return existing
        # Whole, even seconds: every file system can store them, and image layers and archives keep them.
        when = int(time.time()) // 2 * 2
        files: dict[str, RecordedFile] = {}
        for inside, checksum in checksums.items():
            file = path / inside if inside else path
            # Another name of a file that has its time already.
            if os.stat(file).st_nlink == 1:  # noqa: PTH116
                os.utime(file, (when, when))
            os.chmod(file, stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)  # noqa: PTH101
            found = os.stat(file)  # noqa: PTH116
            recorded_path = f"{name}/{inside}" if inside else name
            files[recorded_path] = RecordedFile(found.st_size, found.st_mtime_ns, checksum)
        target = self.directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self._put(path, target)
        record = self.record()
        if record is None or record.sha256 != sha256:
            record = Record(sha256=sha256, names=(), files={})
        others = {
            inside: file
            for inside, file in record.files.items()
            if inside != name and not inside.startswith(f"{name}/")
        }
        names = (*(other for other in record.names if other != name), name)
        self._write(Record(sha256=sha256, names=names, files={**others, **files}))
        return target

    def _put(self, path: Path, target: Path) -> None:
        if path.is_dir():
            # What is there already is damaged, or incomplete.
            old = move_away(target, self.downloads) if os.path.lexists(target) else None
            path.rename(target)
            if old is not None:
                remove_path(old)
        else:
            # Windows replaces no read-only file, and nobody replaces a folder by a file.
            if target.is_dir() or os.name == "nt":
                remove_path(target)
            replace_file(path, target)

    def _write(self, record: Record) -> None:
        temporary = self.downloads / f"private-{uuid.uuid4().hex}.json"
        try:
            self.downloads.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(record.to_json())
            replace_file(temporary, self.record_path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file another name, or copy it where that is not possible.

    Raises:
        OSError: The target exists, or cannot be written.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _paths_in(directory: Path, name: str) -> Iterator[str]:
    """Return the paths of everything but folders in a folder, with `/`. Links are not followed."""
    root, folders = os.fspath(directory), [name]
    while folders:
        folder = folders.pop()
        try:
            # Not os.walk, which takes twice as long for many files.
            with os.scandir(os.path.join(root, folder)) as entries:  # noqa: PTH118 - thousands of files
                for entry in entries:
                    path = f"{folder}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    else:
                        yield path
        except NotADirectoryError:
            return


def _checked(path: str, file: RecordedFile, *, deep: bool) -> RecordedFile | None:
    """Return a file as it is to be recorded, or None if it is not the recorded one."""
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size:
            return None
        if not deep and found.st_mtime_ns == file.mtime_ns:
            return file
        # A copy of the cache can have other times.
        if not has_checksum(Path(path), parse_checksum(file.checksum)):
            return None
    except (OSError, ValueError):
        return None
    return replace(file, mtime_ns=found.st_mtime_ns)
