"""Import the models of an Intel deployment."""

import logging
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from registry_service.domain import filter as filters
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import (
    ArtifactLostError,
    ModelNotFoundError,
    RegistryError,
    UnavailableError,
)
from registry_service.domain.events import Event
from registry_service.domain.models import MUTABLE_FIELDS, Artifact, ArtifactSpec, Model, ModelSpec, is_same
from registry_service.domain.ports import Transaction
from registry_service.domain.signature import Signature
from registry_service.domain.validation import check_compat_fields, checked_fields
from registry_service.domain.vocabulary import Action
from registry_service.intel_migration.documents import IntelDocument, read_document
from registry_service.intel_migration.source import IntelBucket, IntelDatabase, IntelModel
from registry_service.services.checksums import RunningChecksum
from registry_service.services.models import ModelService, check_group
from registry_service.services.signature_reading import read_signature
from registry_service.services.thread_pool import map_in_order

logger = logging.getLogger(__name__)

ACTOR = "adopt"
"""Actor of the import in the audit log, and creator of the imported models."""
_MEDIA_TYPE = "application/zip"
_MAX_FAILURES = 10
"""Failures of Postgres or a store in a row that end the import."""


class Outcome(StrEnum):
    """The outcome of the import of one model."""

    IMPORTED = "adopted"
    """Scripts may depend on the value, which is older than the name."""
    UPDATED = "updated"
    """The model was imported before, and was changed in the Intel deployment since."""
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """The model was imported before. It stays as it is, because it was changed or deleted here, or deleted there."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelImportResult:
    """The result of the import of one model."""

    model_id: str
    outcome: Outcome
    reason: str = ""
    """Why the model was not imported, in English."""
    copied: bool = False
    """Whether its artifact is copied instead of used in place."""
    size: int = 0
    """Size of its artifact in bytes."""


class _NotImportableError(Exception):
    """Why a model cannot be imported, in English."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelImport:
    """Imports all models of an Intel deployment.

    Artifacts in the registry's own bucket are used in place. The import can be repeated: it completes what a crash left
    undone, and applies changes that were made in the Intel deployment since, unless the model was changed here.
    """

    models: ModelService
    source: IntelDatabase
    bucket: IntelBucket
    is_usable_in_place: Callable[[str], bool]
    """Returns whether the registry can use the object with this key in place."""
    workers: int = 4

    def run(self, *, dry_run: bool = False) -> Generator[ModelImportResult]:
        """Import all models, and yield the result of each. With `dry_run`, change nothing.

        Raises:
            SourceError: The Intel deployment cannot be read.
            UnavailableError: Postgres or a store failed repeatedly.
        """
        self.bucket.check()
        ids: set[str] = set()
        duplicates: list[IntelModel] = []
        failures = 0

        def import_one(model: IntelModel) -> tuple[ModelImportResult, UnavailableError | None]:
            try:
                with acting_as_registry(ACTOR):
                    return self._import(model, dry_run=dry_run), None
            except _NotImportableError as error:
                return ModelImportResult(model_id=model.id, outcome=Outcome.FAILED, reason=str(error)), None
            except UnavailableError as error:
                return ModelImportResult(model_id=model.id, outcome=Outcome.FAILED, reason=error.message), error
            except RegistryError as error:
                return ModelImportResult(model_id=model.id, outcome=Outcome.FAILED, reason=error.message), None
            except Exception:
                logger.exception("the model %s cannot be imported", model.id)
                reason = "failed unexpectedly. The log has the error."
                return ModelImportResult(model_id=model.id, outcome=Outcome.FAILED, reason=reason), None

        # Of models with the same identity, the one with the first id is imported, not the one that is hashed first.
        for models, workers in ((self._without_duplicates(ids, duplicates), self.workers), (duplicates, 1)):
            for result, error in map_in_order(models, import_one, workers=workers):
                failures = failures + 1 if error is not None else 0
                if error is not None and failures == _MAX_FAILURES:
                    raise error
                if dry_run and models is duplicates and result.outcome is Outcome.IMPORTED:
                    reason = (
                        "has the same project, name, version and precision as another model of the Intel deployment."
                    )
                    yield replace(result, outcome=Outcome.FAILED, reason=reason)
                else:
                    yield result
        yield from self._gone(ids)

    def _gone(self, ids: set[str]) -> Iterator[ModelImportResult]:
        """Yield the imported models that the Intel deployment does not have any more."""
        with acting_as_registry(ACTOR):
            imported = self.models.find(filters.parse(f'creator = "{ACTOR}"'))
            gone = [model.id for page in imported for model in page if model.id not in ids]
        for model_id in gone:
            yield ModelImportResult(
                model_id=model_id, outcome=Outcome.KEPT, reason="is no longer in the Intel deployment."
            )

    def _without_duplicates(self, ids: set[str], duplicates: list[IntelModel]) -> Iterator[IntelModel]:
        """Yield the first model of each identity. Collect all ids, and the other models."""
        seen: set[int] = set()
        for model in self.source.models():
            ids.add(model.id)
            tags = model.tags
            names = ("name", "version", "project_id", "project_name", "precisions")
            identity = hash(tuple((tags.get(name) or "").lower() for name in names))
            if identity in seen:
                duplicates.append(model)
            else:
                seen.add(identity)
                yield model

    def _import(self, source: IntelModel, *, dry_run: bool) -> ModelImportResult:
        document = read_document(source)
        size = self.bucket.size(document.key)
        known = self._known(source.id)
        last = self._last_change(source.id)
        if known is None and last is not None and source.create_time <= last.time:
            return ModelImportResult(model_id=source.id, outcome=Outcome.KEPT, reason="was deleted in this registry.")
        if known is not None and known.creator != ACTOR:
            raise _NotImportableError("has the id of another model in this registry.")
        if known is not None and (last is None or last.actor != ACTOR):
            return ModelImportResult(model_id=source.id, outcome=Outcome.KEPT, reason="was changed in this registry.")
        if size is None:
            raise _NotImportableError(f"has no artifact: the bucket has no {document.key}.")
        result = ModelImportResult(
            model_id=source.id,
            outcome=Outcome.IMPORTED if known is None else Outcome.UPDATED,
            copied=not self.is_usable_in_place(document.key),
            size=size,
        )
        if known is not None and _has_same_artifact(known, document, size):
            model = self._model(source.id, document, known.artifact, known.signature)
            if _is_unchanged(known, model):
                return replace(result, outcome=Outcome.UNCHANGED, copied=False)
            result = replace(result, copied=False)
            if not dry_run:
                self._update(model)
            return result
        if dry_run:
            self._check(source.id, document, is_new=known is None)
        elif result.copied:
            self._copy(source.id, document, known, size)
        else:
            self._use_in_place(source.id, document, known)
        return result

    def _known(self, model_id: str) -> Model | None:
        try:
            with self.models.database.reading() as transaction:
                return transaction.models.get(model_id)
        except ModelNotFoundError:
            return None

    def _last_change(self, model_id: str) -> Event | None:
        """Return the last event that changed the model itself, not its aliases."""
        actions = " OR ".join(
            f'action = "{action.value}"'
            for action in (Action.MODEL_REGISTERED, Action.MODEL_UPDATED, Action.MODEL_DELETED)
        )
        node = filters.parse(f'model_id = "{model_id}" AND ({actions})', filters.Subject.EVENT)
        with self.models.database.reading() as transaction:
            found = transaction.events.before(None, limit=1, filter=node)
        return found[0] if found else None

    def _model(self, model_id: str, document: IntelDocument, artifact: Artifact, signature: Signature | None) -> Model:
        """Return the model, or raise InvalidArgumentError."""
        model = Model(
            **{name: getattr(document.fields, name) for name in MUTABLE_FIELDS},
            id=model_id,
            created_date=document.created_date,
            last_updated_date=document.last_updated_date,
            create_time=document.create_time,
            update_time=document.update_time,
            creator=ACTOR,
            compat_size=None if document.size == artifact.size else document.size,
            compat_precision=document.compat_precision,
            artifact=artifact,
            signature=signature,
        )
        values = checked_fields(model, metadata_max_bytes=self.models.policy.metadata_max_bytes)
        model = replace(model, **values)  # type: ignore[arg-type]
        check_compat_fields(model)
        return model

    def _check(self, model_id: str, document: IntelDocument, *, is_new: bool) -> None:
        """Raise the errors of importing the model that are known without reading its artifact."""
        artifact = _artifact(document, document.key, 0, "")
        model = self._model(model_id, document, artifact, None)
        if is_new:
            spec = ModelSpec(fields=model, id=model_id)
            with self.models.database.transaction() as transaction:
                transaction.models.check_absent(spec)

    def _use_in_place(self, model_id: str, document: IntelDocument, known: Model | None) -> None:
        """Hash the object, and make the model refer to it."""
        self._check(model_id, document, is_new=known is None)
        store, key = self.models.staging.store, document.key
        with self.models.database.reading() as transaction:
            was_due = transaction.objects.has(key)
        checksum = RunningChecksum()
        for piece in store.read(key):
            checksum.add(piece)
        artifact = _artifact(document, key, checksum.size, checksum.sha256())
        signature = read_signature(store, _spec(document), key, checksum.size, checksum.head)
        model = self._model(model_id, document, artifact, signature)
        if store.size(key) != checksum.size:
            raise ArtifactLostError("The object was deleted or replaced concurrently.")
        with self.models.database.transaction() as transaction:
            # The object may be due for deletion, because its model was deleted here. If its state is as before, garbage
            # collection has not begun to delete it.
            if transaction.objects.release(key) != was_due:
                raise ArtifactLostError("The object was deleted concurrently.")
            self._write(transaction, model, is_new=known is None)

    def _copy(self, model_id: str, document: IntelDocument, known: Model | None, size: int) -> None:
        """Copy the object to a new key."""
        self._check(model_id, document, is_new=known is None)
        with self.models.staging.stage() as staged:
            staged.write(self.bucket.read(document.key), ArtifactSpec(size=size))
            artifact = _artifact(document, staged.key, staged.size, staged.sha256)
            model = self._model(model_id, document, artifact, staged.read_signature(_spec(document)))

            def write(transaction: Transaction) -> None:
                self._write(transaction, model, is_new=known is None)
                if known is not None:
                    transaction.objects.mark_for_deletion(known.artifact.object_key)

            staged.commit(write)
        if known is not None:
            self.models.deletion.delete_or_defer(known.artifact.object_key)

    def _update(self, model: Model) -> None:
        with self.models.database.transaction() as transaction:
            self._write(transaction, model, is_new=False)

    def _write(self, transaction: Transaction, model: Model, *, is_new: bool) -> None:
        if is_new:
            transaction.models.add(model)
            return
        transaction.models.update(
            model.id, lambda old: check_group(transaction, old, replace(model, revision=old.revision + 1))
        )


def _spec(document: IntelDocument) -> ArtifactSpec:
    return ArtifactSpec(file_name=document.file_name, media_type=_MEDIA_TYPE)


def _artifact(document: IntelDocument, key: str, size: int, sha256: str) -> Artifact:
    return Artifact(
        file_name=document.file_name,
        media_type=_MEDIA_TYPE,
        size=size,
        sha256=sha256,
        file_url=document.file_url,
        object_key=key,
    )


def _has_same_artifact(known: Model, document: IntelDocument, size: int) -> bool:
    """Return whether the artifact need not be read again. Intel's Model Registry writes an object only once."""
    return (known.create_time, known.artifact.file_url, known.artifact.size) == (
        document.create_time,
        document.file_url,
        size,
    )


def _is_unchanged(known: Model, model: Model) -> bool:
    # Fields that only this registry has.
    others = {"revision", "model_group_id", "aliases"}
    return all(is_same(getattr(known, f.name), getattr(model, f.name)) for f in fields(Model) if f.name not in others)
