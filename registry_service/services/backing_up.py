"""Backs the registry up to a folder, and restores it from there.

    <folder>/manifest.json          what the backup is; replaced as a whole, last
    <folder>/database-<time>/       the database as of one moment, and the list of its objects
    <folder>/objects/<key>          every object of that list, kept by a local artifact store

A run that breaks off leaves the backup before it as it was.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry_service.domain.artifact_store import ArtifactStore, ListableArtifactStore
from registry_service.domain.backup import OBJECTS, DatabaseCopier, DatabaseCopy, TableCopy
from registry_service.domain.errors import ArtifactLostError
from registry_service.domain.events import LogHead
from registry_service.domain.legacy import SourceError
from registry_service.domain.models import utc_now
from registry_service.services.crowd import for_each

_FORMAT = 1
_MANIFEST = "manifest.json"
_DATABASE = re.compile(r"database-[0-9TZ]+")
_TABLE = re.compile(r"[a-z_]{1,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object that a model refers to."""

    key: str
    size: int
    """In bytes."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyReport:
    """What a backup or a restoration did."""

    objects: int
    """All that models refer to."""
    copied: int
    """Those that were not there already."""
    copied_bytes: int
    problems: tuple[str, ...]
    """Objects that are missing or damaged where they were copied from, in words."""
    log_head: LogHead
    """Where the log ends: what shows later that nothing was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackUp:
    """Backs up: whoever reads or writes the registry notices nothing.

    Objects are deleted later, meanwhile; so all that the database refers to as
    it was copied is there to be copied after it.
    """

    copier: DatabaseCopier
    store: ArtifactStore
    folder: Path
    objects: ListableArtifactStore
    """In `folder`."""
    workers: int = 4

    def __call__(self) -> CopyReport:
        """Makes the folder a backup as of now; objects that an earlier one has copied are not copied again.

        Raises:
            SourceError: Another backup is under way, or the folder holds something else.
        """
        self._check_folder()
        name = f"database-{utc_now():%Y%m%dT%H%M%S%fZ}"
        database = self.folder / name
        database.mkdir(mode=0o700)
        try:
            with self.copier.hold() as confirm:
                copied = self.copier.copy(database)
                results = list(
                    for_each(
                        _listed(database), lambda found: _copy(found, self.store, self.objects), workers=self.workers
                    )
                )
                confirm()
            report = _report(results, copied.log_head)
            digests = {path.name: _digest(path) for path in sorted(database.iterdir())}
            manifest = {"format": _FORMAT, "time": utc_now().isoformat(), "database": name, "files": digests}
            self._publish(database, manifest | asdict(copied))
        except BaseException:
            shutil.rmtree(database, ignore_errors=True)
            raise
        self._prune(database)
        return report

    def _check_folder(self) -> None:
        strange = {path.name for path in self.folder.iterdir() if not _DATABASE.fullmatch(path.name)}
        strange -= {_MANIFEST, f"{_MANIFEST}.new", "objects"}
        if strange:
            raise SourceError(f"{self.folder} holds something else: {min(strange)}")

    def _publish(self, database: Path, manifest: dict[str, object]) -> None:
        for path in database.iterdir():
            _sync(path)
        _sync(database)
        new = self.folder / f"{_MANIFEST}.new"
        new.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        _sync(new)
        new.replace(self.folder / _MANIFEST)
        _sync(self.folder)

    def _prune(self, database: Path) -> None:
        """Removes what only earlier backups, or runs that broke off, have needed."""
        for path in self.folder.iterdir():
            if _DATABASE.fullmatch(path.name) and path != database:
                shutil.rmtree(path)
        needed = {found.key for found in _listed(database)}
        for key in list(self.objects.keys("")):
            if key not in needed:
                self.objects.delete(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Makes an empty registry what it was when it was backed up."""

    copier: DatabaseCopier
    store: ArtifactStore
    folder: Path
    objects: ArtifactStore
    """In `folder`."""
    workers: int = 4

    def __call__(self) -> CopyReport:
        """Copies the objects that the store does not have, then the database, at once.

        Can be repeated when it broke off.

        Raises:
            SourceError: The folder holds no whole backup, or the database is not empty.
        """
        database, copied = self._read()
        self.copier.check_empty(copied.revision)
        results = list(
            for_each(_listed(database), lambda found: _copy(found, self.objects, self.store), workers=self.workers)
        )
        self.copier.restore(database, copied)
        return _report(results, copied.log_head)

    def _read(self) -> tuple[Path, DatabaseCopy]:
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))
            copied = _database_copy(manifest)
            database = self.folder / manifest["database"]
            damaged = [
                name
                for name in (OBJECTS, *(f"{table.name}.copy" for table in copied.tables))
                if _digest(database / name) != manifest["files"][name]
            ]
        except FileNotFoundError as error:
            raise SourceError(f"{self.folder} holds no whole backup: there is no {error.filename}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise SourceError(f"{self.folder / _MANIFEST} is not as a backup of this program writes it.") from error
        if damaged:
            raise SourceError(f"{database / damaged[0]} is not as it was written.")
        return database, copied


def _database_copy(manifest: dict[str, Any]) -> DatabaseCopy:
    tables = tuple(
        TableCopy(name=str(table["name"]), columns=tuple(map(str, table["columns"]))) for table in manifest["tables"]
    )
    names = all(_TABLE.fullmatch(table.name) for table in tables) and _DATABASE.fullmatch(manifest["database"])
    if manifest["format"] != _FORMAT or not names:
        raise ValueError("unknown format")
    return DatabaseCopy(revision=str(manifest["revision"]), tables=tables, log_head=LogHead(**manifest["log_head"]))


def _listed(database: Path) -> Iterator[StoredObject]:
    with (database / OBJECTS).open(encoding="utf-8") as file:
        for line in file:
            key, size, sha256 = line.rstrip("\n").split("\t")
            yield StoredObject(key=key, size=int(size), sha256=sha256)


def _copy(found: StoredObject, source: ArtifactStore, target: ArtifactStore) -> tuple[int | None, str]:
    """Copies an object unless it is there; returns the bytes copied, None for none, and what was wrong."""
    # A key is written once, and an object is there whole or not at all.
    if target.size(found.key) == found.size:
        return None, ""
    measured = _Measured(source.read(found.key))
    try:
        target.write(found.key, measured)
    except ArtifactLostError:
        target.delete(found.key)
        return None, f"{found.key} is missing."
    if (measured.size, measured.digest.hexdigest()) != (found.size, found.sha256):
        target.delete(found.key)
        return None, f"{found.key} is damaged: {measured.size} bytes, {measured.digest.hexdigest()}."
    return measured.size, ""


class _Measured:
    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = pieces
        self.size = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.size += len(piece)
            self.digest.update(piece)
            yield piece


def _report(results: list[tuple[int | None, str]], log_head: LogHead) -> CopyReport:
    sizes = [size for size, _ in results if size is not None]
    return CopyReport(
        objects=len(results),
        copied=len(sizes),
        copied_bytes=sum(sizes),
        problems=tuple(problem for _, problem in results if problem),
        log_head=log_head,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
