"""Removes what deletions, refusals and crashes leave behind."""

import logging
import threading
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from registry_service.domain.artifact_store import ArtifactStore, UnfinishedObject
from registry_service.domain.errors import RegistryError, UploadNotFoundError
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.uploads import Upload, UploadState

logger = logging.getLogger(__name__)

_BATCH = 100
_KEYS = 1_000
_PLACES = 4
_PLACE_SECONDS = 0.5
_DELETION_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What a sweep removed, or with `dry_run` would remove."""

    uploads: tuple[str, ...]
    objects: tuple[str, ...]
    failed: tuple[str, ...]
    """Objects that the store would not delete now; they stay due."""
    unfinished: tuple[str, ...] = ()
    """Keys on which something was left under construction, once for each."""


@dataclass(frozen=True, slots=True)
class DiscardObject:
    """Deletes an object that no model refers to."""

    database: Database
    store: ArtifactStore
    places: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_PLACES))
    """Of deletions that somebody waits for."""

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
        """Delete it, or leave it to the sweeper when that does not work now. Raise nothing.

        A store that does not answer is waited for by a few calls, for a few seconds: their
        threads are needed for calls that need no store.
        """
        if not self.places.acquire(timeout=_PLACE_SECONDS):
            logger.warning("object %s is left to the sweeper, as others are deleted already", key)
            return
        ended = threading.Event()

        def delete() -> None:
            try:
                self(key)
            except RegistryError:
                logger.warning("object %s is left to the sweeper", key, exc_info=True)
            except Exception:
                logger.exception("object %s could not be deleted", key)
            finally:
                self.places.release()
                ended.set()

        # A daemon, as the end of the process need not wait for it.
        threading.Thread(target=copy_context().run, args=(delete,), name="discard", daemon=True).start()
        if not ended.wait(_DELETION_SECONDS):
            logger.warning("object %s is not waited for any more: the store has not deleted it yet", key)


def doom_upload(transaction: Transaction, upload: Upload) -> tuple[str, ...]:
    """Writes down that an upload's objects are due, and returns their keys; a model keeps its own."""
    keys = [] if upload.state is UploadState.COMPLETED else [upload.object_key]
    if upload.tail_key is not None:
        keys.append(upload.tail_key)
    for key in keys:
        transaction.objects.doom(key)
    return tuple(keys)


@dataclass(frozen=True, slots=True)
class FindLeftConstructions:
    """Finds what was left under construction in the store, where nobody writes any more.

    A request to begin an object that is answered too late is repeated, for example, and
    then carried out twice.
    """

    database: Database
    store: ArtifactStore
    lease: timedelta
    """So long nothing is touched: its writer may be about to tell the database."""

    def __call__(self) -> Iterator[UnfinishedObject]:
        """Yield them."""
        rest = self.store.unfinished()
        while batch := list(islice(rest, _BATCH)):
            with self.database.transaction() as transaction:
                begun_before = transaction.now - self.lease
                old = [found for found in batch if found.begin_time < begun_before]
                idle = set(transaction.objects.idle([found.key for found in old]))
            yield from (found for found in old if found.key in idle)


@dataclass(frozen=True, slots=True)
class Sweep:
    """Removes expired uploads, every object whose time has come, and what was left under construction.

    Several replicas may sweep at the same time.
    """

    database: Database
    discard: DiscardObject
    find_left: FindLeftConstructions

    def __call__(self, *, dry_run: bool = False) -> SweepReport:
        """Sweeps once.

        Raises:
            DatabaseUnavailableError: Nothing could be looked up.
        """
        if dry_run:
            with self.database.transaction() as transaction:
                expired = transaction.uploads.expired(10_000)
                due = transaction.objects.due(10_000)
            return SweepReport(
                uploads=tuple(expired), objects=tuple(due), failed=(), unfinished=self._sweep_left(dry_run=True)
            )
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
        unfinished = self._sweep_left(dry_run=False)
        self._sweep_keys()
        if uploads or objects or failed or unfinished:
            logger.info(
                "swept %d uploads, %d objects and %d unfinished ones, %d failed",
                *(len(uploads), len(objects), len(unfinished), len(failed)),
            )
        return SweepReport(uploads=tuple(uploads), objects=tuple(objects), failed=tuple(failed), unfinished=unfinished)

    def _sweep_left(self, *, dry_run: bool) -> tuple[str, ...]:
        found = []
        try:
            for left in self.find_left():
                if not dry_run:
                    self.discard.store.abort(left.key, left.handle)
                found.append(left.key)
        except RegistryError:
            logger.warning("what is left under construction cannot be looked for now", exc_info=True)
        return tuple(found)

    def _sweep_keys(self) -> None:
        """Remove answers to calls with idempotency keys that are not repeated any more."""
        removed = _KEYS
        while removed == _KEYS:
            with self.database.transaction() as transaction:
                removed = transaction.idempotency.remove_expired(_KEYS)

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
