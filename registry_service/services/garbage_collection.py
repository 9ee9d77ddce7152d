"""Remove what deletions, refused calls and crashes leave behind."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from registry_service.domain.artifact_store import ArtifactStore, UnfinishedObject
from registry_service.domain.errors import RegistryError, UploadNotFoundError
from registry_service.domain.ports import Database
from registry_service.services.object_deletion import ObjectDeletion, mark_upload_for_deletion

logger = logging.getLogger(__name__)

_BATCH = 100
_IDEMPOTENCY_KEYS_BATCH = 1_000
_DRY_RUN_LIMIT = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GarbageCollectionReport:
    """What a run removed, or with `dry_run` would remove."""

    uploads: tuple[str, ...]
    objects: tuple[str, ...]
    failed: tuple[str, ...]
    """Objects that the store failed to delete. A later run retries them."""
    unfinished: tuple[str, ...] = ()
    """Keys of unfinished objects, each key once."""


@dataclass(frozen=True, slots=True)
class UnfinishedObjects:
    """Finds objects in the store that were begun, and that no writer will finish.

    For example, a request to begin an object whose response is late is retried, and the store carries out both.
    """

    database: Database
    store: ArtifactStore
    lease: timedelta
    """How long an unfinished object is kept, because its writer may be about to record it in the database."""

    def find(self) -> Iterator[UnfinishedObject]:
        """Yield the unfinished objects."""
        rest = self.store.unfinished()
        while batch := list(islice(rest, _BATCH)):
            with self.database.transaction() as transaction:
                begun_before = transaction.now - self.lease
                old = [found for found in batch if found.begin_time < begun_before]
                idle = set(transaction.objects.idle([found.key for found in old]))
            yield from (found for found in old if found.key in idle)


@dataclass(frozen=True, slots=True)
class GarbageCollector:
    """Removes expired uploads, objects that are due for deletion, and unfinished objects.

    Several replicas may collect garbage at the same time.
    """

    database: Database
    deletion: ObjectDeletion
    unfinished: UnfinishedObjects

    def collect(self, *, dry_run: bool = False) -> GarbageCollectionReport:
        """Collect garbage once.

        Raises:
            DatabaseUnavailableError: The database is unavailable.
        """
        if dry_run:
            with self.database.transaction() as transaction:
                expired = transaction.uploads.expired(_DRY_RUN_LIMIT)
                due = transaction.objects.due(_DRY_RUN_LIMIT)
            return GarbageCollectionReport(
                uploads=tuple(expired),
                objects=tuple(due),
                failed=(),
                unfinished=self._collect_unfinished(dry_run=True),
            )
        uploads = self._collect_uploads()
        objects: list[str] = []
        failed: list[str] = []
        while True:
            with self.database.transaction() as transaction:
                if not transaction.objects.may_delete():
                    break  # A backup is under way. The objects stay due.
                keys = transaction.objects.due(_BATCH + len(failed))
            keys = [key for key in keys if key not in failed]
            if not keys:
                break
            for key in keys:
                try:
                    if self.deletion.delete(key):
                        objects.append(key)
                except RegistryError:
                    logger.warning("object %s cannot be deleted now", key, exc_info=True)
                    failed.append(key)
            if len(failed) >= _BATCH:
                break  # The store is unavailable. The next run continues.
        unfinished = self._collect_unfinished(dry_run=False)
        self._collect_idempotency_keys()
        if uploads or objects or failed or unfinished:
            logger.info(
                "garbage collection removed %d uploads, %d objects and %d unfinished objects; %d objects failed",
                *(len(uploads), len(objects), len(unfinished), len(failed)),
            )
        return GarbageCollectionReport(
            uploads=tuple(uploads), objects=tuple(objects), failed=tuple(failed), unfinished=unfinished
        )

    def _collect_unfinished(self, *, dry_run: bool) -> tuple[str, ...]:
        found = []
        try:
            for unfinished in self.unfinished.find():
                if not dry_run:
                    self.deletion.store.abort(unfinished.key, unfinished.handle)
                found.append(unfinished.key)
        except RegistryError:
            logger.warning("unfinished objects cannot be listed or aborted now", exc_info=True)
        return tuple(found)

    def _collect_idempotency_keys(self) -> None:
        removed = _IDEMPOTENCY_KEYS_BATCH
        while removed == _IDEMPOTENCY_KEYS_BATCH:
            with self.database.transaction() as transaction:
                removed = transaction.idempotency.remove_expired(_IDEMPOTENCY_KEYS_BATCH)

    def _collect_uploads(self) -> list[str]:
        removed: list[str] = []
        while True:
            with self.database.transaction() as transaction:
                expired = transaction.uploads.expired(_BATCH)
            if not expired:
                return removed
            for upload_id in expired:
                try:
                    with self.database.transaction() as transaction:
                        mark_upload_for_deletion(transaction, transaction.uploads.remove(upload_id, expired=True))
                    removed.append(upload_id)
                except UploadNotFoundError:
                    continue  # Another replica removed the upload, or its client resumed it.
