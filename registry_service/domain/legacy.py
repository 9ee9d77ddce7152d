"""The ports to a deployment of the original that is taken over; nothing here changes it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


class SourceError(Exception):
    """What is to be taken over, or restored, is not what it should be; the message says why, for its operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyModel:
    """A model as the original's database has it: nothing is checked."""

    id: str
    create_time: datetime
    """Aware, UTC; in whole milliseconds."""
    update_time: datetime
    """Aware, UTC; of the row, which the original's updates don't move."""
    tags: Mapping[str, str]
    """Its documented fields as texts."""
    is_repeated: bool = False
    """Whether the database has it, or a tag of it, more than once: it has lost its keys."""


class LegacyRegistry(Protocol):
    """The original's database, read only."""

    def models(self) -> Iterator[LegacyModel]:
        """Yields every model in the order of the ids.

        Raises:
            SourceError: The database does not let us in, or is none of the original's.
        """


class LegacyBucket(Protocol):
    """The original's bucket, read only. Keys are any texts.

    Every method raises `ArtifactStoreUnavailableError` when the store does not answer.
    """

    def size(self, key: str) -> int | None:
        """Returns an object's size in bytes, None where there is none."""

    def read(self, key: str) -> Iterator[bytes]:
        """Reads an object in pieces (`ArtifactLostError` where there is none)."""

    def check(self) -> None:
        """Returns when the bucket is there and can be read (`SourceError` otherwise)."""
