"""Takes over the models of a deployment of the original."""

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
from registry_service.domain.legacy import LegacyBucket, LegacyModel, LegacyRegistry
from registry_service.domain.models import MUTABLE_FIELDS, Artifact, ArtifactSpec, Model, ModelSpec, is_same
from registry_service.domain.ports import Transaction
from registry_service.domain.signature import Signature
from registry_service.domain.validation import check_compat_fields, checked_fields
from registry_service.domain.vocabulary import Action
from registry_service.services.checksums import RunningChecksum
from registry_service.services.legacy_values import LegacyDocument, read_document
from registry_service.services.models import ModelService, check_group
from registry_service.services.signature_reading import read_signature
from registry_service.services.thread_pool import map_in_order

logger = logging.getLogger(__name__)

ACTOR = "adopt"
"""Who adopted models are from, in the log and as their creator."""
_MEDIA_TYPE = "application/zip"
_MAX_FAILURES = 10  # of Postgres or a store in a row: then nothing will work


class Outcome(StrEnum):
    """What became of a model of the source."""

    ADOPTED = "adopted"
    UPDATED = "updated"
    """It was adopted before, and was changed in the source since."""
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """It was adopted before, and was changed or deleted here since, or deleted in the source: left as it is here."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What became of one model."""

    model_id: str
    outcome: Outcome
    reason: str = ""
    """Why it was not taken, or left as it is; for a person."""
    copied: bool = False
    """Whether its artifact was copied, or would be, rather than left in its place."""
    size: int = 0
    """Of its artifact, in bytes."""


class _UnfitError(Exception):
    """Why a model cannot be taken, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptModels:
    """Takes over every model of the original, its artifact in place where that is the registry's own bucket.

    Can be repeated: what a crash left undone is done, and what was changed in
    the source since is changed here, unless it was changed here.
    """

    models: ModelService
    registry: LegacyRegistry
    bucket: LegacyBucket
    is_place: Callable[[str], bool]
    """Tells whether an object of the source, by its key, can stay where it is and be the registry's."""
    workers: int = 4

    def __call__(self, *, dry_run: bool = False) -> Generator[Adoption]:
        """Yields what became of each model, or with `dry_run` would, as it is known.

        Raises:
            SourceError: The source cannot be read.
            UnavailableError: Postgres or a store does not answer time and again.
        """
        self.bucket.check()
        ids: set[str] = set()
        twins: list[LegacyModel] = []
        failures = 0

        def adopt(model: LegacyModel) -> tuple[Adoption, UnavailableError | None]:
            try:
                with acting_as_registry(ACTOR):
                    return self._adopt(model, dry_run=dry_run), None
            except _UnfitError as error:
                return Adoption(model_id=model.id, outcome=Outcome.FAILED, reason=str(error)), None
            except UnavailableError as error:
                return Adoption(model_id=model.id, outcome=Outcome.FAILED, reason=error.message), error
            except RegistryError as error:
                return Adoption(model_id=model.id, outcome=Outcome.FAILED, reason=error.message), None
            except Exception:
                logger.exception("the model %s cannot be taken over", model.id)
                reason = "is refused for a reason that the log has."
                return Adoption(model_id=model.id, outcome=Outcome.FAILED, reason=reason), None

        # Of two with the same identity the first by id is taken, not the one that is hashed first.
        for models, workers in ((self._firsts(ids, twins), self.workers), (twins, 1)):
            for adoption, error in map_in_order(models, adopt, workers=workers):
                failures = failures + 1 if error is not None else 0
                if error is not None and failures == _MAX_FAILURES:
                    raise error
                if dry_run and models is twins and adoption.outcome is Outcome.ADOPTED:
                    reason = "has the same project, name, version and precision as another model of the source."
                    yield replace(adoption, outcome=Outcome.FAILED, reason=reason)
                else:
                    yield adoption
        yield from self._gone(ids)

    def _gone(self, ids: set[str]) -> Iterator[Adoption]:
        """Yields what was adopted before and is not in the source any more."""
        with acting_as_registry(ACTOR):
            adopted = self.models.find(filters.parse(f'creator = "{ACTOR}"'))
            gone = [model.id for page in adopted for model in page if model.id not in ids]
        for model_id in gone:
            yield Adoption(model_id=model_id, outcome=Outcome.KEPT, reason="is not in the source any more.")

    def _firsts(self, ids: set[str], twins: list[LegacyModel]) -> Iterator[LegacyModel]:
        seen: set[int] = set()
        for model in self.registry.models():
            ids.add(model.id)
            tags = model.tags
            names = ("name", "version", "project_id", "project_name", "precisions")
            identity = hash(tuple((tags.get(name) or "").lower() for name in names))
            if identity in seen:
                twins.append(model)
            else:
                seen.add(identity)
                yield model

    def _adopt(self, legacy: LegacyModel, *, dry_run: bool) -> Adoption:
        document = read_document(legacy)
        size = self.bucket.size(document.key)
        known = self._known(legacy.id)
        last = self._last_change(legacy.id)
        if known is None and last is not None and legacy.create_time <= last.time:
            return Adoption(model_id=legacy.id, outcome=Outcome.KEPT, reason="was deleted here.")
        if known is not None and known.creator != ACTOR:
            raise _UnfitError("is the id of another model that is registered here.")
        if known is not None and (last is None or last.actor != ACTOR):
            return Adoption(model_id=legacy.id, outcome=Outcome.KEPT, reason="was changed here.")
        if size is None:
            raise _UnfitError(f"has no object: the bucket has no {document.key}.")
        adoption = Adoption(
            model_id=legacy.id,
            outcome=Outcome.ADOPTED if known is None else Outcome.UPDATED,
            copied=not self.is_place(document.key),
            size=size,
        )
        if known is not None and _has_same_artifact(known, document, size):
            model = self._model(legacy.id, document, known.artifact, known.signature)
            if _is_unchanged(known, model):
                return replace(adoption, outcome=Outcome.UNCHANGED, copied=False)
            adoption = replace(adoption, copied=False)
            if not dry_run:
                self._update(model)
            return adoption
        if dry_run:
            self._check(legacy.id, document, is_new=known is None)
        elif adoption.copied:
            self._copy(legacy.id, document, known, size)
        else:
            self._take(legacy.id, document, known)
        return adoption

    def _known(self, model_id: str) -> Model | None:
        try:
            with self.models.database.reading() as transaction:
                return transaction.models.get(model_id)
        except ModelNotFoundError:
            return None

    def _last_change(self, model_id: str) -> Event | None:
        """Returns the last event that changed the model itself; aliases may move."""
        actions = " OR ".join(
            f'action = "{action.value}"'
            for action in (Action.MODEL_REGISTERED, Action.MODEL_UPDATED, Action.MODEL_DELETED)
        )
        node = filters.parse(f'model_id = "{model_id}" AND ({actions})', filters.Subject.EVENT)
        with self.models.database.reading() as transaction:
            found = transaction.events.before(None, limit=1, filter=node)
        return found[0] if found else None

    def _model(self, model_id: str, document: LegacyDocument, artifact: Artifact, signature: Signature | None) -> Model:
        """Makes the model (`InvalidArgumentError`)."""
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

    def _check(self, model_id: str, document: LegacyDocument, *, is_new: bool) -> None:
        """Raises what taking it would, as far as that can be known without reading the artifact."""
        artifact = _artifact(document, document.key, 0, "")
        model = self._model(model_id, document, artifact, None)
        if is_new:
            spec = ModelSpec(fields=model, id=model_id)
            with self.models.database.transaction() as transaction:
                transaction.models.check_absent(spec)

    def _take(self, model_id: str, document: LegacyDocument, known: Model | None) -> None:
        """Hashes the object where it is and makes the model refer to it."""
        self._check(model_id, document, is_new=known is None)
        store, key = self.models.staging.store, document.key
        with self.models.database.reading() as transaction:
            was_due = transaction.objects.has(key)
        seen = RunningChecksum()
        for piece in store.read(key):
            seen.add(piece)
        artifact = _artifact(document, key, seen.size, seen.sha256())
        signature = read_signature(store, _spec(document), key, seen.size, seen.head)
        model = self._model(model_id, document, artifact, signature)
        if store.size(key) != seen.size:
            raise ArtifactLostError("The object was deleted or replaced concurrently.")
        with self.models.database.transaction() as transaction:
            # It may be due since a deletion here: not any more, unless it was, or is being, deleted meanwhile.
            if transaction.objects.release(key) != was_due:
                raise ArtifactLostError("The object was deleted concurrently.")
            self._write(transaction, model, is_new=known is None)

    def _copy(self, model_id: str, document: LegacyDocument, known: Model | None, size: int) -> None:
        """Copies the object to a key of the registry's own."""
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


def _spec(document: LegacyDocument) -> ArtifactSpec:
    return ArtifactSpec(file_name=document.file_name, media_type=_MEDIA_TYPE)


def _artifact(document: LegacyDocument, key: str, size: int, sha256: str) -> Artifact:
    return Artifact(
        file_name=document.file_name,
        media_type=_MEDIA_TYPE,
        size=size,
        sha256=sha256,
        file_url=document.file_url,
        object_key=key,
    )


def _has_same_artifact(known: Model, document: LegacyDocument, size: int) -> bool:
    """Tells whether it need not be read again: the original writes an object once, when it makes the model."""
    return (known.create_time, known.artifact.file_url, known.artifact.size) == (
        document.create_time,
        document.file_url,
        size,
    )


def _is_unchanged(known: Model, model: Model) -> bool:
    # What the repository alone knows is not in the source.
    others = {"revision", "model_group_id", "aliases"}
    return all(is_same(getattr(known, f.name), getattr(model, f.name)) for f in fields(Model) if f.name not in others)
