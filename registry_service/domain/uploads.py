"""The resumable upload."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from registry_service.domain.access import Projects
from registry_service.domain.artifact_store import Part
from registry_service.domain.models import ModelSpec


class UploadState(StrEnum):
    """Where an upload stands."""

    ACTIVE = "active"
    COMPLETING = "completing"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadQuery:
    """A page of a listing of the uploads that are not completed, the newest first."""

    creator: str | None
    """Who began them; None: whoever it was."""
    within: Projects = None
    """Only uploads into these projects; None: into all, or none."""
    after: tuple[datetime, str] | None
    """Time of creation and id of the last upload of the previous page."""
    limit: int
    max_bytes: int
    """Most of the specs' JSON; one upload there always is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPage:
    """What a listing found."""

    uploads: Sequence["Upload"]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A resumable upload of one artifact.

    Its committed bytes are `parts`, then the tail: fewer bytes than a part has,
    kept as an object of their own because a store takes short parts only last.
    """

    id: str
    spec: ModelSpec
    """Checked; its id is the one that the model will have."""
    state: UploadState
    object_key: str
    """Where the parts, and in the end the artifact, are kept."""
    handle: str | None
    """The artifact store's handle of the object under construction; None before the first part."""
    tail_key: str | None
    """Where the tail is kept; None where there is none."""
    committed_size: int
    """Bytes stored for good, tail included."""
    epoch: int
    """Counts the writers; only the newest may commit."""
    creator: str
    """Who began it; empty where nobody said, and of uploads that are older than this field."""
    create_time: datetime
    expire_time: datetime
    parts: tuple[Part, ...] = ()
    """In listings, none."""

    @property
    def parts_size(self) -> int:
        """Bytes in the parts, without the tail."""
        return self.parts[-1].offset + self.parts[-1].size if self.parts else 0
