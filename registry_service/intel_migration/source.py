"""The ports to an Intel deployment. They only read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelModel:
    """A model as the Intel deployment's database has it, unchecked."""

    id: str
    create_time: datetime
    """Aware, in UTC, with millisecond precision."""
    update_time: datetime
    """Of the row, which updates of the model do not change. Aware, in UTC."""
    tags: Mapping[str, str]
    """The fields of the Intel-compatible API, as texts."""
    is_repeated: bool = False
    """Whether the database has the model or one of its tags more than once, because it lost its primary keys."""


class IntelDatabase(Protocol):
    """The database of an Intel deployment."""

    def models(self) -> Iterator[IntelModel]:
        """Yield all models in the order of their ids.

        Raises:
            SourceError: The database cannot be read, or is not that of an Intel deployment.
        """


class IntelBucket(Protocol):
    """The bucket of an Intel deployment. Keys are arbitrary texts.

    Every method raises ArtifactStoreUnavailableError if the store does not respond.
    """

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if it does not exist."""

    def read(self, key: str) -> Iterator[bytes]:
        """Yield the bytes of an object in pieces, or raise ArtifactLostError if it does not exist."""

    def check(self) -> None:
        """Raise SourceError if the bucket does not exist or cannot be read."""
