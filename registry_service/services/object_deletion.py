"""Delete objects that no model refers to."""

import logging
import threading
from contextvars import copy_context
from dataclasses import dataclass, field

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import RegistryError
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.uploads import Upload, UploadState

logger = logging.getLogger(__name__)

_MAX_AWAITED_DELETIONS = 4
_SLOT_SECONDS = 0.5
_DELETION_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ObjectDeletion:
    """Deletes objects from the artifact store."""

    database: Database
    store: ArtifactStore
    slots: threading.BoundedSemaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(_MAX_AWAITED_DELETIONS)
    )
    """Limits the deletions that calls wait for."""

    def delete(self, key: str) -> bool:
        """Delete an object, and return whether it was deleted.

        The object stays if a model refers to it, or while a backup is under way.

        The key is claimed before the object is deleted. A registration that still needs the object then finds it gone,
        never half deleted. A backup that begins later does not refer to the object either.
        """
        with self.database.transaction() as transaction:
            claim = transaction.objects.claim(key) if transaction.objects.may_delete() else None
        if claim is None:
            return False
        self.store.delete(key)
        with self.database.transaction() as transaction:
            return transaction.objects.forget(key, claim)

    def delete_or_defer(self, key: str) -> None:
        """Delete an object, or leave it to garbage collection if that fails or takes long. Raise nothing.

        Only a few calls wait for a store that does not respond, and only for seconds: calls that need no store need
        their threads.
        """
        if not self.slots.acquire(timeout=_SLOT_SECONDS):
            logger.warning("object %s is left to garbage collection: too many deletions are running", key)
            return
        ended = threading.Event()

        def delete() -> None:
            try:
                self.delete(key)
            except RegistryError:
                logger.warning("object %s is left to garbage collection", key, exc_info=True)
            except Exception:
                logger.exception("object %s could not be deleted", key)
            finally:
                self.slots.release()
                ended.set()

        # A daemon thread, so that the process can exit during a deletion.
        threading.Thread(target=copy_context().run, args=(delete,), name="object-deletion", daemon=True).start()
        if not ended.wait(_DELETION_SECONDS):
            logger.warning("the deletion of object %s continues in the background: the store is slow", key)


def mark_upload_for_deletion(transaction: Transaction, upload: Upload) -> tuple[str, ...]:
    """Mark the objects of a removed upload for deletion, and return their keys.

    The artifact of a completed upload belongs to its model and is not marked.
    """
    keys = [] if upload.state is UploadState.COMPLETED else [upload.object_key]
    if upload.tail_key is not None:
        keys.append(upload.tail_key)
    for key in keys:
        transaction.objects.mark_for_deletion(key)
    return tuple(keys)
