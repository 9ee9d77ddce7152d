"""Checks everything that the registry keeps."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from registry_service.domain.artifact_store import ListableArtifactStore
from registry_service.domain.errors import ModelNotFoundError
from registry_service.domain.ports import Database
from registry_service.services.artifacts import FindModels, Verification, VerifyArtifact
from registry_service.services.audit import VerifyLog
from registry_service.services.garbage_collection import FindLeftConstructions
from registry_service.services.thread_pool import map_in_order

_BATCH = 500


class Finding(StrEnum):
    """What was found of one thing."""

    INTACT = "intact"
    MISSING = "missing"
    """The store has no object for a model."""
    DAMAGED = "damaged"
    """The store has other bytes for a model than were registered."""
    UNKNOWN_MODEL = "unknown"
    """There is no model with an id that was asked for."""
    BROKEN_LOG = "broken"
    """The log of all changes is not as it was written."""
    UNFINISHED = "unfinished"
    """Something was left under construction in the store: nothing is lost, and the next `gc` removes it."""
    UNREFERENCED = "unreferenced"
    """An object that the registry has made, and that it knows nothing of: nothing is lost, but nobody removes it."""

    @property
    def is_wrong(self) -> bool:
        """Whether something that was registered is not there as it should be."""
        return self not in {Finding.INTACT, Finding.UNFINISHED, Finding.UNREFERENCED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One finding."""

    finding: Finding
    subject: str
    """The id of a model, the key of an object, or `audit log`."""
    detail: str = ""
    """For a person."""
    size: int = 0
    """Bytes that were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRegistry:
    """Re-hashes artifacts, several at once, checks the log, and looks for objects that nobody knows."""

    database: Database
    store: ListableArtifactStore
    find_models: FindModels
    verify_artifact: VerifyArtifact
    verify_log: VerifyLog
    find_left: FindLeftConstructions
    workers: int = 4

    def __call__(self, model_ids: Sequence[str] = ()) -> Generator[Found]:
        """Yields what was found of each model; then, unless only some models are asked for, of all the rest.

        What is registered or deleted meanwhile is no finding.
        """
        yield from map_in_order(model_ids or self._ids(), self._verify, workers=self.workers)
        if not model_ids:
            yield self._verify_log()
            yield from self._unreferenced()
            for left in self.find_left():
                detail = f"begun at {left.begin_time.isoformat()}"
                yield Found(finding=Finding.UNFINISHED, subject=left.key, detail=detail)

    def _ids(self) -> Iterator[str]:
        for page in self.find_models(None):
            yield from (model.id for model in page)

    def _verify(self, model_id: str) -> Found:
        try:
            found = self.verify_artifact(model_id)
            if not found.intact:
                # Deleted, or replaced, while it was read? Then what counts is what it is now.
                found = self.verify_artifact(model_id)
        except ModelNotFoundError:
            return Found(finding=Finding.UNKNOWN_MODEL, subject=model_id, detail="There is no such model.")
        return Found(finding=_judged(found), subject=model_id, detail=_told(found), size=found.actual_size)

    def _verify_log(self) -> Found:
        found = self.verify_log(None, lambda: None)
        if found.broken is None:
            detail = f"{found.head.sequence} events, the last with the hash {found.head.hash}"
            return Found(finding=Finding.INTACT, subject="audit log", detail=detail)
        detail = f"The event {found.broken.sequence} {found.broken.description}"
        return Found(finding=Finding.BROKEN_LOG, subject="audit log", detail=detail)

    def _unreferenced(self) -> Iterator[Found]:
        for keys in _batches(self.store.keys()):
            with self.database.reading() as transaction:
                unknown = transaction.objects.unknown(keys)
            for key in unknown:
                # Listed, and deleted with its model before we asked?
                size = self.store.size(key)
                if size is not None:
                    yield Found(finding=Finding.UNREFERENCED, subject=key, detail=f"{size} bytes")


def _judged(found: Verification) -> Finding:
    if found.intact:
        return Finding.INTACT
    return Finding.DAMAGED if found.actual_sha256 else Finding.MISSING


def _told(found: Verification) -> str:
    expected = found.model.artifact
    if found.intact:
        return ""
    if not found.actual_sha256:
        return f"The store has nothing under {expected.object_key}."
    if found.actual_size != expected.size:
        return f"The store has {found.actual_size} bytes under {expected.object_key}, not {expected.size}."
    return f"The store has {found.actual_sha256} under {expected.object_key}, not {expected.sha256}."


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while batch := list(islice(rest, _BATCH)):
        yield batch
