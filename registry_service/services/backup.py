"""Back up the registry to a folder, and restore it.

    <folder>/manifest.json          describes the backup; replaced atomically, last
    <folder>/database-<time>/       the database at one point in time, and the list of its objects
    <folder>/objects/<key>          every object in that list, in a local artifact store
    <folder>/objects/.partial/      objects that a run is writing; empty after the run, but part of the store

A run that fails does not change the previous backup. The next run removes what the failed one left, and copies damaged
objects again.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry_service.domain.artifact_store import ArtifactStore, ListableArtifactStore
from registry_service.domain.backup import OBJECTS, DatabaseCopier, DatabaseCopy, TableCopy
from registry_service.domain.errors import ArtifactLostError
from registry_service.domain.events import LogHead
from registry_service.domain.models import utc_now
from registry_service.domain.source_error import SourceError
from registry_service.services.thread_pool import map_in_order

_FORMAT = 2
_FORMATS = {1, _FORMAT}
"""Format 1 has no SHA-256 of the manifest, and no list of missing objects."""
_SHOWN_DAMAGES = 20
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
    """The result of a backup or a restore."""

    objects: int
    """Number of objects that models refer to."""
    copied: int
    """Number of objects that were not in the target before."""
    copied_bytes: int
    problems: tuple[str, ...]
    """Objects that are missing or damaged in the source, in English."""
    mended: tuple[str, ...] = ()
    """Damage in the target that was repaired, in English."""
    log_head: LogHead
    """The end of the audit log. A later verification with it as the anchor shows that nothing is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copied:
    """The result of copying one object."""

    key: str
    size: int | None = None
    """Bytes that were copied; None if the object was not copied."""
    problem: str = ""
    mended: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackUp:
    """Backs up a registry while it is in use.

    Meanwhile, no object is deleted. So the objects of the copied database still exist when they are copied after it.
    """

    copier: DatabaseCopier
    store: ArtifactStore
    folder: Path
    objects: ListableArtifactStore
    """The store in `folder`."""
    is_thorough: bool = True
    """Whether to hash the objects that the folder has already. Otherwise only their sizes are compared."""
    workers: int = 4

    def __call__(self) -> CopyReport:
        """Make the folder a backup of the registry. Intact objects of an earlier backup are not copied again.

        Raises:
            SourceError: Another backup is running, or the folder contains other files.
        """
        self._check_folder()
        name = f"database-{utc_now():%Y%m%dT%H%M%S%fZ}"
        database = self.folder / name
        # This run holds the lock, so unfinished objects in the folder are left from a run that was killed.
        with self.copier.lock() as check_locked:
            for construction in list(self.objects.unfinished()):
                self.objects.abort(construction.key)
            damage = _damage_of(self.folder)
            database.mkdir(mode=0o700)
            try:
                copied = self.copier.copy(database)
                results = list(
                    map_in_order(
                        _listed(database),
                        lambda found: _copy(found, self.store, self.objects, is_thorough=self.is_thorough),
                        workers=self.workers,
                    )
                )
                check_locked()
                digests = {path.name: _digest(path) for path in sorted(database.iterdir())}
                lacking = [result.key for result in results if result.problem]
                manifest = {"format": _FORMAT, "time": utc_now().isoformat(), "database": name, "files": digests}
                self._publish(database, manifest | {"lacking": lacking} | asdict(copied))
            except BaseException:
                shutil.rmtree(database, ignore_errors=True)
                raise
            self._prune(database)
        return _report(results, copied.log_head, mended=damage)

    def _check_folder(self) -> None:
        strange = {path.name for path in self.folder.iterdir() if not _DATABASE.fullmatch(path.name)}
        strange -= {_MANIFEST, f"{_MANIFEST}.new", "objects"}
        if strange:
            raise SourceError(f"{self.folder} must be empty or a backup, but contains {min(strange)}")

    def _publish(self, database: Path, manifest: dict[str, object]) -> None:
        for path in database.iterdir():
            _sync(path)
        _sync(database)
        new = self.folder / f"{_MANIFEST}.new"
        new.write_text(json.dumps(manifest | {"sha256": _digest_of(manifest)}, indent=1), encoding="utf-8")
        _sync(new)
        new.replace(self.folder / _MANIFEST)
        _sync(self.folder)

    def _prune(self, database: Path) -> None:
        """Remove what only earlier backups or failed runs needed."""
        for path in self.folder.iterdir():
            if _DATABASE.fullmatch(path.name) and path != database:
                shutil.rmtree(path)
        needed = {found.key for found in _listed(database)}
        for key in list(self.objects.keys("")):
            if key not in needed:
                self.objects.delete(key)
        # A run that is killed after it made a folder, or after it emptied one, leaves the folder.
        for root, folders, _ in os.walk(self.folder / "objects", topdown=False):
            for folder in set(folders) - {".partial"}:
                with suppress(OSError):  # the folder is not empty
                    Path(root, folder).rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Restores a backup into an empty registry."""

    copier: DatabaseCopier
    store: ArtifactStore
    folder: Path
    objects: ArtifactStore
    """The store in `folder`."""
    accepts_damage: bool = False
    """Whether to restore the rest of a backup that lost objects."""
    workers: int = 4

    def __call__(self) -> CopyReport:
        """Check the whole backup, copy the objects that the store lacks, and then load the database in one transaction.

        A restore that failed or found problems can be repeated.

        Raises:
            SourceError: The folder has no complete backup, or the database is not empty. Nothing was written.
        """
        read = _read(self.folder)
        is_loaded = self.copier.check_target(read.copied.revision, read.digest)
        lost = set(read.lacking) | set(self._lost(read))
        results = list(
            map_in_order(_listed(read.database), lambda found: self._restored(found, lost), workers=self.workers)
        )
        if not is_loaded:
            self.copier.restore(read.database, read.copied, read.digest)
        report = _report(results, read.copied.log_head)
        self.copier.finish(is_complete=not report.problems)
        return report

    def _lost(self, read: "_Read") -> Sequence[str]:
        """Return the keys of the objects that the backup lost since it was made, or raise SourceError."""

        def look(found: StoredObject) -> str:
            if found.key in read.lacking or _is_intact(self.objects, found) or _is_intact(self.store, found):
                return ""
            return found.key

        lost = [key for key in map_in_order(_listed(read.database), look, workers=self.workers) if key]
        if lost and not self.accepts_damage:
            shown = ", ".join(lost[:_SHOWN_DAMAGES]) + (", …" if len(lost) > _SHOWN_DAMAGES else "")
            raise SourceError(
                f"{len(lost)} objects of the backup are missing or damaged: {shown}. Nothing was restored. Back up to"
                " the folder again where the registry still has them, put them back from elsewhere, or accept the loss."
            )
        return lost

    def _restored(self, found: StoredObject, lost: Collection[str]) -> _Copied:
        if found.key in lost and not _is_intact(self.store, found):
            return _Copied(key=found.key, problem=f"{found.key} is missing in the backup, or damaged.")
        return _copy(found, self.objects, self.store, is_thorough=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A backup whose manifest and database files are intact."""

    database: Path
    copied: DatabaseCopy
    lacking: frozenset[str]
    """Keys of objects that were already missing or damaged when the backup was made."""
    digest: str
    """Identifies the backup."""


def _read(folder: Path) -> _Read:
    """Read the manifest of a backup and check its database files, or raise SourceError."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        digest = _digest_of({name: value for name, value in manifest.items() if name != "sha256"})
        copied = _database_copy(manifest, digest)
        database = folder / manifest["database"]
        damaged = [
            name
            for name in (OBJECTS, *(f"{table.name}.copy" for table in copied.tables))
            if _digest(database / name) != manifest["files"][name]
        ]
        lacking = frozenset(map(str, manifest.get("lacking", ())))
    except FileNotFoundError as error:
        raise SourceError(f"{folder} has no complete backup: {error.filename} does not exist") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SourceError(f"{folder / _MANIFEST} is damaged, or was not written by this program.") from error
    if damaged:
        raise SourceError(f"{database / damaged[0]} is damaged.")
    return _Read(database=database, copied=copied, lacking=lacking, digest=digest)


def _damage_of(folder: Path) -> tuple[str, ...]:
    """Return the damage of the backup that a new one is about to replace, in English."""
    if not (folder / _MANIFEST).exists():
        return ()
    try:
        _read(folder)
    except SourceError as error:
        return (f"Previous backup: {error}",)
    return ()


def _database_copy(manifest: dict[str, Any], digest: str) -> DatabaseCopy:
    if (
        manifest["format"] not in _FORMATS
        or manifest.get("sha256", digest if manifest["format"] == 1 else "") != digest
    ):
        raise ValueError("an unknown format, or a damaged manifest")
    tables = tuple(
        TableCopy(name=str(table["name"]), columns=tuple(map(str, table["columns"]))) for table in manifest["tables"]
    )
    names = all(_TABLE.fullmatch(table.name) for table in tables) and _DATABASE.fullmatch(manifest["database"])
    if not names:
        raise ValueError("an invalid name of a table or a folder")
    return DatabaseCopy(revision=str(manifest["revision"]), tables=tables, log_head=LogHead(**manifest["log_head"]))


def _listed(database: Path) -> Iterator[StoredObject]:
    with (database / OBJECTS).open(encoding="utf-8") as file:
        for line in file:
            key, size, sha256 = line.rstrip("\n").split("\t")
            yield StoredObject(key=key, size=int(size), sha256=sha256)


def _copy(found: StoredObject, source: ArtifactStore, target: ArtifactStore, *, is_thorough: bool) -> _Copied:
    """Copy an object, unless the target has it intact."""
    size = target.size(found.key)
    if size == found.size and (not is_thorough or _is_intact(target, found)):
        return _Copied(key=found.key)
    # Remove what a run that was killed left.
    target.abort(found.key)
    try:
        target.write(found.key, _checked(found, source.read(found.key)))
    except ArtifactLostError:
        target.abort(found.key)
        return _Copied(key=found.key, problem=f"{found.key} is missing.")
    except _DamagedError as error:
        target.abort(found.key)
        return _Copied(key=found.key, problem=f"{found.key} is damaged: {error}")
    mended = "" if size is None else f"The copy of {found.key} was damaged."
    return _Copied(key=found.key, size=found.size, mended=mended)


class _DamagedError(Exception):
    """The source has other bytes than belong to an object. The message describes them."""


def _checked(found: StoredObject, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the bytes of an object. Raise _DamagedError at their end if they are wrong, so that nothing is stored."""
    size = 0
    digest = hashlib.sha256()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
        yield piece
    if (size, digest.hexdigest()) != (found.size, found.sha256):
        raise _DamagedError(f"{size} bytes, {digest.hexdigest()}.")


def _is_intact(store: ArtifactStore, found: StoredObject) -> bool:
    if store.size(found.key) != found.size:
        return False
    try:
        for _ in _checked(found, store.read(found.key)):
            pass
    except (ArtifactLostError, _DamagedError):
        return False
    return True


def _report(results: list[_Copied], log_head: LogHead, mended: tuple[str, ...] = ()) -> CopyReport:
    sizes = [result.size for result in results if result.size is not None]
    return CopyReport(
        objects=len(results),
        copied=len(sizes),
        copied_bytes=sum(sizes),
        problems=tuple(result.problem for result in results if result.problem),
        mended=(*mended, *(result.mended for result in results if result.mended)),
        log_head=log_head,
    )


def _digest_of(manifest: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
