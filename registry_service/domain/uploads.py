"""The resumable upload."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from registry_service.domain.artifact_store import Part
from registry_service.domain.models import ModelSpec


class UploadState(StrEnum):
    """Where an upload stands."""

    ACTIVE = "active"
    COMPLETING = "completing"
    COMPLETED = "completed"


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
    create_time: datetime
    expire_time: datetime
    parts: tuple[Part, ...] = ()

    @property
    def parts_size(self) -> int:
        """Bytes in the parts, without the tail."""
        return self.parts[-1].offset + self.parts[-1].size if self.parts else 0
