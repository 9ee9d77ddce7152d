"""Resumable uploads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from registry_service.domain.access import Projects
from registry_service.domain.artifact_store import Part
from registry_service.domain.models import ModelSpec


class UploadState(StrEnum):
    """The states of an upload."""

    ACTIVE = "active"
    COMPLETING = "completing"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadQuery:
    """A page of the listing of uploads that are not completed, newest first."""

    creator: str | None
    """Only uploads of this caller; None: of all callers."""
    within: Projects = None
    """Only uploads into these projects; None: any project or none."""
    after: tuple[datetime, str] | None
    """The creation time and the id of the last upload of the previous page."""
    limit: int
    max_bytes: int
    """Maximum size of the JSON of the specs. A page has at least one upload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPage:
    """The result of a listing."""

    uploads: Sequence["Upload"]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A resumable upload of one artifact.

    The committed bytes are the parts, then the tail. The tail is shorter than a part, and an object of its own,
    because a store accepts only the last part short.
    """

    id: str
    spec: ModelSpec
    """Checked. Its id becomes the id of the model."""
    state: UploadState
    object_key: str
    """The key of the parts, and finally of the artifact."""
    handle: str | None
    """The handle of the artifact store for the unfinished object; None before the first part."""
    tail_key: str | None
    """The key of the tail; None if there is no tail."""
    committed_size: int
    """Number of committed bytes, including the tail."""
    epoch: int
    """The number of writers so far. Only the newest may commit."""
    creator: str
    """The caller that created the upload; empty if unknown."""
    create_time: datetime
    expire_time: datetime
    parts: tuple[Part, ...] = ()
    """Empty in listings."""

    @property
    def parts_size(self) -> int:
        """Number of bytes in the parts, without the tail."""
        return self.parts[-1].offset + self.parts[-1].size if self.parts else 0
