"""Verify everything that the registry stores."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

from registry_service.domain.artifact_store import ListableArtifactStore
from registry_service.domain.errors import ModelNotFoundError
from registry_service.domain.ports import Database
from registry_service.services.artifacts import ArtifactService, Verification
from registry_service.services.audit import AuditService
from registry_service.services.garbage_collection import UnfinishedObjects
from registry_service.services.models import ModelService
from registry_service.services.thread_pool import map_in_order

_BATCH = 500


class Finding(StrEnum):
    """The result of verifying one subject."""

    INTACT = "intact"
    MISSING = "missing"
    """The store has no object for a model."""
    DAMAGED = "damaged"
    """The store has other bytes for a model than were registered."""
    UNKNOWN_MODEL = "unknown"
    """There is no model with a requested id."""
    BROKEN_LOG = "broken"
    """The audit log was changed after it was written."""
    UNFINISHED = "unfinished"
    """The store has an unfinished object. Nothing is lost, and the next `gc` removes it."""
    UNREFERENCED = "unreferenced"
    """The store has an object of the registry that the database does not know. Nothing is lost, but `gc` keeps it."""

    @property
    def is_wrong(self) -> bool:
        """Whether something that was registered is lost or damaged."""
        return self not in {Finding.INTACT, Finding.UNFINISHED, Finding.UNREFERENCED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The finding about one subject."""

    finding: Finding
    subject: str
    """The id of a model, the key of an object, or `audit log`."""
    detail: str = ""
    """An explanation in English."""
    size: int = 0
    """Bytes that were read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryVerification:
    """Hashes artifacts, several at once, verifies the audit log, and looks for unreferenced objects."""

    database: Database
    store: ListableArtifactStore
    models: ModelService
    artifacts: ArtifactService
    audit: AuditService
    unfinished: UnfinishedObjects
    workers: int = 4

    def run(self, model_ids: Sequence[str] = ()) -> Generator[Found]:
        """Yield the finding about each model, and then those about everything else.

        Models that are registered or deleted meanwhile cause no finding.

        Args:
            model_ids: The only models to verify, and nothing else; empty for everything.
        """
        yield from map_in_order(model_ids or self._ids(), self._verify, workers=self.workers)
        if not model_ids:
            yield self._verify_log()
            yield from self._unreferenced()
            for unfinished in self.unfinished.find():
                detail = f"begun at {unfinished.begin_time.isoformat()}"
                yield Found(finding=Finding.UNFINISHED, subject=unfinished.key, detail=detail)

    def _ids(self) -> Iterator[str]:
        for page in self.models.find(None):
            yield from (model.id for model in page)

    def _verify(self, model_id: str) -> Found:
        try:
            found = self.artifacts.verify(model_id)
            if not found.intact:
                # The model may have been deleted or replaced while its artifact was read.
                found = self.artifacts.verify(model_id)
        except ModelNotFoundError:
            return Found(finding=Finding.UNKNOWN_MODEL, subject=model_id, detail="There is no such model.")
        return Found(finding=_finding(found), subject=model_id, detail=_detail(found), size=found.actual_size)

    def _verify_log(self) -> Found:
        found = self.audit.verify(None, lambda: None)
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
                # The object may have been deleted with its model since it was listed.
                size = self.store.size(key)
                if size is not None:
                    yield Found(finding=Finding.UNREFERENCED, subject=key, detail=f"{size} bytes")


def _finding(found: Verification) -> Finding:
    if found.intact:
        return Finding.INTACT
    return Finding.DAMAGED if found.actual_sha256 else Finding.MISSING


def _detail(found: Verification) -> str:
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
