"""The ports to the database.

Every method may raise `DatabaseUnavailableError`. A method that adds data may raise `StorageFullError`. A transaction
that ends with an exception has changed nothing. The exception is a connection that breaks during the commit: then the
outcome is unknown, and callers must be correct in both cases.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Protocol

from registry_service.domain.access import Projects
from registry_service.domain.aliases import AliasRepository
from registry_service.domain.artifact_store import Part
from registry_service.domain.events import EventLog
from registry_service.domain.idempotency import IdempotencyKeys
from registry_service.domain.lineage import LineageEdge
from registry_service.domain.listing import ListQuery, Page
from registry_service.domain.model_groups import ModelGroupRepository
from registry_service.domain.models import Model, ModelSpec
from registry_service.domain.references import ReferenceRepository
from registry_service.domain.tokens import TokenRepository
from registry_service.domain.uploads import Upload, UploadPage, UploadQuery


class ModelRepository(Protocol):
    """The registered models. Every change records an event."""

    def add(self, model: Model) -> Model:
        """Add a model, and return it with the id of its group. Create the group if there is none.

        Raises:
            AlreadyExistsError: Another model has the identity or the id, or a deleted model of another project had
                the id.
            ProvenanceCycleError: The model would be its own ancestor.
            AncestryTooLargeError: The model has more ancestors than the check visits.
        """

    def check_absent(self, spec: ModelSpec) -> None:
        """Raise the errors that `add` would raise now. Fails early; only `add` decides."""

    def get(self, model_id: str) -> Model:
        """Return a model (`ModelNotFoundError`)."""

    def lock_for_share(self, model_id: str) -> Model:
        """Return a model that no other transaction changes or removes until this one ends (`ModelNotFoundError`)."""

    def list(self, query: ListQuery) -> Page:
        """Return the models of a page, in order and without signatures, and whether there are more.

        The page has at most `query.limit` models of `query.max_bytes` together, but at least one if any matches.
        """

    def find(self, ids: Sequence[str]) -> Mapping[str, Model]:
        """Return the existing ones of these models by id, without signatures."""

    def projects(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Return the project ids of the existing ones of these models."""

    def metadata_sizes(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Return the size of the metadata, in bytes, of the existing ones of these models."""

    def parents(self, ids: Sequence[str]) -> Sequence[LineageEdge]:
        """Return the edges from these models to their parents. The parents need not exist."""

    def children(self, ids: Sequence[str], limit: int, within: Projects = None) -> Sequence[LineageEdge]:
        """Return the edges from the children of these models, of at most `limit` children, by id.

        Only children in the projects `within` count.
        """

    def keep_verification(self, model: Model, *, time: datetime, is_intact: bool) -> None:
        """Store the result of a verification. The model does not change, and no event is recorded.

        Damage always replaces the stored result. An intact result replaces only an older one. Nothing is stored if the
        model was deleted, or has another artifact now.

        Args:
            model: The model as read before its bytes.
            time: When reading the bytes began.
            is_intact: The result.
        """

    def update(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """Replace a model with the result of `change`, under a lock.

        Raises:
            ModelNotFoundError: The model does not exist.
            AlreadyExistsError: Another model has the new identity.
            ProvenanceCycleError: The model would be its own ancestor.
            AncestryTooLargeError: The model has more ancestors than the check visits.
        """

    def remove(self, model_id: str, check: Callable[[Model], None]) -> Model:
        """Remove a model unless `check` raises, and return its last state (`ModelNotFoundError`)."""


class ObjectLedger(Protocol):
    """The objects of the artifact store that no model refers to. Each is recorded before it is written.

    A row says: the object under this key may be deleted after this time. The writer of an object extends the time (the
    lease). The transaction that registers a model removes the row of its object.

    Garbage collection claims a key before it deletes the object, in a transaction of its own, so that no transaction
    stays open during the deletion. A claim ends the lease. A claim that a crash leaves behind is due again.
    """

    def lease(self, key: str, duration: timedelta) -> None:
        """Record a key with a lease of this duration."""

    def renew(self, key: str, duration: timedelta) -> bool:
        """Extend a lease. Return False if the object is deleted or claimed."""

    def release(self, key: str) -> bool:
        """Remove a key that a model refers to now. Return False if the object is deleted or claimed."""

    def mark_for_deletion(self, key: str) -> None:
        """Record a key, or change its time, so that the object is due now."""

    def claim(self, key: str) -> datetime | None:
        """Claim a key to delete its object. Return the claim for `forget`, or None if the key is not recorded."""

    def forget(self, key: str, claim: datetime) -> bool:
        """Remove the key of a deleted object. Return False if the claim is no longer valid."""

    def has(self, key: str) -> bool:
        """Tell whether a key is recorded, claimed or not."""

    def due(self, limit: int) -> Sequence[str]:
        """Return the keys of due objects, oldest first."""

    def may_delete(self) -> bool:
        """Tell whether objects may be deleted until the transaction ends. A backup that copies objects forbids it."""

    def idle(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those of these keys that have no writer: they are not recorded, and belong to no unfinished upload."""

    def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those of these keys that are unknown: not of a model, not of an upload, and not recorded."""


class UploadRepository(Protocol):
    """The resumable uploads."""

    def add(self, upload: Upload) -> None:
        """Add an upload."""

    def get(self, upload_id: str) -> Upload:
        """Return an upload with its parts (`UploadNotFoundError`, also if it has expired)."""

    def list(self, query: UploadQuery) -> UploadPage:
        """Return the uploads of a page, without their parts, and whether there are more."""

    def take_over(self, upload_id: str, *, offset: int, ttl: timedelta) -> Upload:
        """Make the caller the only writer of an upload, and return the new state.

        Raises:
            UploadNotFoundError: The upload does not exist.
            UploadNotActiveError: The upload accepts no more bytes.
            OutOfRangeError: `offset` differs from the committed size.
        """

    def commit(
        self,
        upload: Upload,
        *,
        committed_size: int,
        handle: str | None,
        part: Part | None,
        tail_key: str | None,
        ttl: timedelta,
    ) -> datetime:
        """Record the bytes that a writer has stored, and return the new expiry of the upload.

        Raises:
            WriterDisplacedError: There is a newer writer.
        """

    def lock_for_update(self, upload: Upload) -> None:
        """Make transactions that take over or remove the upload wait until this one ends.

        Raises:
            WriterDisplacedError: There is a newer writer than when `upload` was read.
        """

    def begin_completion(self, upload_id: str, *, ttl: timedelta) -> Upload:
        """Displace any writer, move an active upload to COMPLETING, and return the new state.

        Return a completed upload unchanged (`UploadNotFoundError`).
        """

    def complete(self, upload: Upload) -> None:
        """Move an upload to COMPLETED and remove its parts and tail (`WriterDisplacedError`)."""

    def remove(self, upload_id: str, *, expired: bool = False) -> Upload:
        """Remove an upload and return its last state (`UploadNotFoundError`). With `expired`, it must have expired."""

    def expired(self, limit: int) -> Sequence[str]:
        """Return the ids of expired uploads, oldest first."""


class Transaction(Protocol):
    """The repositories of one transaction."""

    @property
    def now(self) -> datetime:
        """The time of the first access, aware, in UTC, by the clock of the database, which all replicas share."""

    @property
    def models(self) -> ModelRepository:
        """The registered models."""

    @property
    def aliases(self) -> AliasRepository:
        """The aliases."""

    @property
    def groups(self) -> ModelGroupRepository:
        """The model groups."""

    @property
    def references(self) -> ReferenceRepository:
        """The resources that references name."""

    @property
    def objects(self) -> ObjectLedger:
        """The unreferenced objects."""

    @property
    def uploads(self) -> UploadRepository:
        """The uploads."""

    @property
    def events(self) -> EventLog:
        """The audit log."""

    @property
    def tokens(self) -> TokenRepository:
        """The tokens."""

    @property
    def idempotency(self) -> IdempotencyKeys:
        """The calls with idempotency keys."""


class Database(Protocol):
    """The source of transactions."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction. The end of the block commits it, and an exception rolls it back."""

    def reading(self) -> AbstractContextManager[Transaction]:
        """Begin a cheaper transaction for one read. It cannot write, and two reads may see different states."""

    def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
        """Set the event whenever the audit log may have grown, until the end of the block.

        A hint that replaces polling: a signal may be lost, and a signal may be spurious. Never raises.
        """

    def check(self) -> float:
        """Return when the database responds (`DatabaseUnavailableError`).

        Returns:
            The seconds by which the local clock is ahead of the clock of the database. Negative: behind.
        """
