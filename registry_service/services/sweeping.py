"""Removes what deletions, refusals and crashes leave behind."""

import logging
from dataclasses import dataclass

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import RegistryError, UploadNotFoundError
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.uploads import Upload, UploadState

logger = logging.getLogger(__name__)

_BATCH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep removed, or with `dry_run` would remove."""

    uploads: tuple[str, ...]
    objects: tuple[str, ...]
    failed: tuple[str, ...]
    """Objects that the store would not delete now; they stay due."""


@dataclass(frozen=True, slots=True)
class DiscardObject:
    """Deletes an object that no model refers to."""

    database: Database
    store: ArtifactStore

    def __call__(self, key: str) -> bool:
        """Deletes it unless a model refers to it by now, or a backup is under way; tells whether it did.

        The key is claimed first, so that a registration which still wants the object
        finds it gone rather than half deleted. A backup that begins after that refers
        to the object as little as a model does.
        """
        with self.database.transaction() as transaction:
            claim = transaction.objects.claim(key) if transaction.objects.may_delete() else None
        if claim is None:
            return False
        self.store.delete(key)
        with self.database.transaction() as transaction:
            return transaction.objects.forget(key, claim)

    def now_or_later(self, key: str) -> None:
        """Deletes it, or leaves it to the sweeper when that does not work now. Raises nothing."""
        try:
            self(key)
        except RegistryError:
            logger.warning("object %s is left to the sweeper", key, exc_info=True)


def doom_upload(transaction: Transaction, upload: Upload) -> tuple[str, ...]:
    """Writes down that an upload's objects are due, and returns their keys; a model keeps its own."""
    keys = [] if upload.state is UploadState.COMPLETED else [upload.object_key]
    if upload.tail_key is not None:
        keys.append(upload.tail_key)
    for key in keys:
        transaction.objects.doom(key)
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Removes expired uploads, then every object whose time has come.

    Several replicas may sweep at the same time.
    """

    database: Database
    discard: DiscardObject

    def __call__(self, *, dry_run: bool = False) -> SweepReport:
        """Sweeps once.

        Raises:
            DatabaseUnavailableError: Nothing could be looked up.
        """
        if dry_run:
            with self.database.transaction() as transaction:
                uploads = transaction.uploads.expired(10_000)
                return SweepReport(uploads=tuple(uploads), objects=tuple(transaction.objects.due(10_000)), failed=())
        uploads = self._sweep_uploads()
        objects: list[str] = []
        failed: list[str] = []
        while True:
            with self.database.transaction() as transaction:
                if not transaction.objects.may_delete():
                    break  # a backup is under way; what is due stays so
                keys = transaction.objects.due(_BATCH + len(failed))
            keys = [key for key in keys if key not in failed]
            if not keys:
                break
            for key in keys:
                try:
                    if self.discard(key):
                        objects.append(key)
                except RegistryError:
                    logger.warning("object %s cannot be deleted now", key, exc_info=True)
                    failed.append(key)
            if len(failed) >= _BATCH:
                break  # the store is away; the next sweep goes on
        if uploads or objects or failed:
            logger.info("swept %d uploads and %d objects, %d failed", len(uploads), len(objects), len(failed))
        return SweepReport(uploads=tuple(uploads), objects=tuple(objects), failed=tuple(failed))

    def _sweep_uploads(self) -> list[str]:
        removed: list[str] = []
        while True:
            with self.database.transaction() as transaction:
                expired = transaction.uploads.expired(_BATCH)
            if not expired:
                return removed
            for upload_id in expired:
                try:
                    with self.database.transaction() as transaction:
                        doom_upload(transaction, transaction.uploads.remove(upload_id, expired=True))
                    removed.append(upload_id)
                except UploadNotFoundError:
                    continue  # another replica was faster, or its client has come back
