"""The ports to what is kept in Postgres.

Every method may raise `DatabaseUnavailableError`, and one that writes more than
it removes `StorageFullError`. A transaction that ends with an exception has
changed nothing, unless its connection broke while it was committed: then nobody
knows, and callers must be right either way.
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
    """The registered models. Whatever changes one records an event."""

    def add(self, model: Model) -> Model:
        """Add a model, and return it with its group, which is made where there is none.

        Raises:
            AlreadyExistsError: Its identity is taken, or its id: by a model, or by a deleted one of another project.
            ProvenanceCycleError: It would be its own ancestor.
            AncestryTooLargeError: There are too many ancestors to be sure.
        """

    def check_absent(self, spec: ModelSpec) -> None:
        """Raises the errors that `add` would now. A courtesy: only `add` decides."""

    def get(self, model_id: str) -> Model:
        """Returns a model (`ModelNotFoundError`)."""

    def lock_for_share(self, model_id: str) -> Model:
        """Returns a model that nobody can change or remove until the transaction ends (`ModelNotFoundError`)."""

    def list(self, query: ListQuery) -> Page:
        """Returns the models of a page, in order and without their schemas, and whether there are more.

        At most `query.limit`, and no more than fit in `query.max_bytes`, but one
        at least where there is one.
        """

    def find(self, ids: Sequence[str]) -> Mapping[str, Model]:
        """Returns those of these models that there are, by id, without their schemas."""

    def projects(self, ids: Sequence[str]) -> Mapping[str, str | None]:
        """Returns the projects' ids of those of these models that there are."""

    def metadata_sizes(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Returns the bytes that the metadata of these models takes, of those that there are."""

    def parents(self, ids: Sequence[str]) -> Sequence[LineageEdge]:
        """Returns the links from these models up to their parents, whether these are there or not."""

    def children(self, ids: Sequence[str], limit: int, within: Projects = None) -> Sequence[LineageEdge]:
        """Returns the links up from models that have one of these as a parent, at most `limit` models, by id.

        Only models of the projects `within` count.
        """

    def keep_verification(self, model: Model, *, time: datetime, is_intact: bool) -> None:
        """Store whether a model's artifact was found intact; no change of the model, and no event.

        A finding of damage counts from now on, whatever the others; an intact one only if its time is later than that
        of the finding that is stored. Nothing is stored where the model is gone, or has another artifact by now.

        Args:
            model: The model as it was read before its bytes were.
            time: When they began to be read.
            is_intact: What was found.
        """

    def update(self, model_id: str, change: Callable[[Model], Model]) -> Model:
        """Replaces a model by what `change` makes of it, nobody else changing it meanwhile.

        Raises:
            ModelNotFoundError: There is none.
            AlreadyExistsError: The new identity is another model's.
            ProvenanceCycleError: It would be its own ancestor.
            AncestryTooLargeError: There are too many ancestors to be sure.
        """

    def remove(self, model_id: str, check: Callable[[Model], None]) -> Model:
        """Removes a model that `check` lets go, and returns it as it was (`ModelNotFoundError`)."""


class ObjectLedger(Protocol):
    """The objects that no model refers to: written down before they are written, so that none is forgotten.

    A row says «whatever is stored under this key may be deleted after that
    time». The writer of an object moves the time on (its lease); making a model
    of the object removes the row in the same transaction.

    Who deletes an object claims its key first, in a transaction of its own, so that
    no transaction is open while the store is at it. A key that is claimed is nobody
    else's any more: its lease is lost. What a crash leaves claimed is due.
    """

    def lease(self, key: str, duration: timedelta) -> None:
        """Writes down a key that its writer holds for so long."""

    def renew(self, key: str, duration: timedelta) -> bool:
        """Moves the end of a lease on; False where the object was swept, or is being deleted."""

    def release(self, key: str) -> bool:
        """Takes a key out of the ledger, as a model refers to it now; False where it was swept, or is being deleted."""

    def mark_for_deletion(self, key: str) -> None:
        """Writes down, or changes, a key so that it is due now."""

    def claim(self, key: str) -> datetime | None:
        """Claim a key in order to delete its object. Return what `forget` takes, None where the key is not here."""

    def forget(self, key: str, claim: datetime) -> bool:
        """Take a key whose object is deleted out of the ledger; False where the claim does not hold any more."""

    def has(self, key: str) -> bool:
        """Tell whether a key is in the ledger, claimed or not."""

    def due(self, limit: int) -> Sequence[str]:
        """Returns keys whose time has come, oldest first."""

    def may_delete(self) -> bool:
        """Tells whether objects may be deleted until the transaction ends; not while a backup copies them."""

    def idle(self, keys: Sequence[str]) -> Sequence[str]:
        """Return those of these keys under which nobody writes: not here, nor of an upload that goes on."""

    def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        """Returns those of these keys that stand nowhere: not as a model's, an upload's, nor here."""


class UploadRepository(Protocol):
    """The resumable uploads."""

    def add(self, upload: Upload) -> None:
        """Adds an upload."""

    def get(self, upload_id: str) -> Upload:
        """Returns an upload with its parts (`UploadNotFoundError`; expired ones are gone)."""

    def list(self, query: UploadQuery) -> UploadPage:
        """Return the uploads of a page, without their parts, and whether there are more."""

    def take_over(self, upload_id: str, *, offset: int, ttl: timedelta) -> Upload:
        """Makes the caller the upload's only writer and returns it as it then is.

        Raises:
            UploadNotFoundError: There is none.
            UploadNotActiveError: It takes no more bytes.
            OutOfRangeError: `offset` is not its committed size.
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
        """Writes down what a writer has stored, and returns when the upload expires then.

        Raises:
            WriterDisplacedError: The writer is not the newest.
        """

    def lock_for_update(self, upload: Upload) -> None:
        """Makes whoever takes over or removes the upload wait until the transaction ends.

        Raises:
            WriterDisplacedError: The caller, who was the newest as `upload` was read, is not the newest any more.
        """

    def begin_completion(self, upload_id: str, *, ttl: timedelta) -> Upload:
        """Displaces any writer and moves an active upload to COMPLETING; returns it as it then is.

        A completed upload is returned unchanged (`UploadNotFoundError`).
        """

    def complete(self, upload: Upload) -> None:
        """Moves it to COMPLETED and forgets its parts and tail (`WriterDisplacedError`)."""

    def remove(self, upload_id: str, *, expired: bool = False) -> Upload:
        """Removes an upload, or one that has (still) expired, and returns it as it was (`UploadNotFoundError`)."""

    def expired(self, limit: int) -> Sequence[str]:
        """Returns ids of uploads whose time is over, oldest first."""


class Transaction(Protocol):
    """What can be done in one transaction."""

    @property
    def now(self) -> datetime:
        """The time, aware, in UTC, when it is first asked for: by the database's clock, the one of all replicas."""

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
        """What references name."""

    @property
    def objects(self) -> ObjectLedger:
        """The unreferenced objects."""

    @property
    def uploads(self) -> UploadRepository:
        """The uploads."""

    @property
    def events(self) -> EventLog:
        """The log of all changes."""

    @property
    def tokens(self) -> TokenRepository:
        """The tokens."""

    @property
    def idempotency(self) -> IdempotencyKeys:
        """The calls with idempotency keys."""


class Database(Protocol):
    """Gives transactions."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begins one; it is committed at the end of the block, or rolled back by an exception."""

    def reading(self) -> AbstractContextManager[Transaction]:
        """Gives something cheaper, to read one thing: nothing can be changed, nor two reads relied on to agree."""

    def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
        """Sets the event whenever the log of changes may have grown, until the end of the block.

        Only a hint, that saves looking all the time: one may get lost, and one may
        come for nothing. Never raises.
        """

    def check(self) -> float:
        """Returns when the database answers (`DatabaseUnavailableError` otherwise).

        Returns:
            By how many seconds this machine's clock is ahead of the database's; negative: behind.
        """
