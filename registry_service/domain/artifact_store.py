"""The port to the store of artifact bytes. `domain.object_keys` builds the keys."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from registry_service.domain.object_keys import ARTIFACT_PREFIX

CHUNK_SIZE = 1024 * 1024
"""Size in bytes of each piece that `ArtifactStore.read` yields; the last may be smaller."""

Pieces = list[bytes | bytearray | memoryview]
"""The bytes of one part, in order, in pieces of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A durably stored part of an unfinished object."""

    number: int
    """Position among the parts, from 1."""
    offset: int
    """Offset of the part in the object, in bytes."""
    size: int
    """In bytes."""
    receipt: str
    """Proof of the write, which only the store that issued it can interpret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedObject:
    """An object that was begun or is being written, and may never be finished."""

    key: str
    handle: str
    begin_time: datetime
    """Aware; by the store's clock."""


class ArtifactStore(Protocol):
    """Stores artifact bytes under keys.

    Callers pass only keys of `domain.object_keys`, and count and hash the bytes themselves.

    Every method raises `ArtifactStoreUnavailableError` when the store does not
    answer in time, after bounded retries of its own. Methods that write raise
    `StorageFullError` when the store has no space. All methods are thread-safe.
    Concurrent writes to one key are undefined, except for different parts of one object.
    """

    part_size: int
    """Size in bytes of every part of an object but its last."""

    def put(self, key: str, data: bytes) -> None:
        """Store a whole object, replacing any other: durable and visible on return, absent after an exception."""

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """Store a whole object from a stream in constant memory: durable and visible on return, else absent.

        Pieces may have any size. Exceptions of `pieces` propagate. After an exception
        the key may have an unfinished object, which `delete` removes.

        Raises:
            ArtifactLostError: `delete` was called meanwhile. The store may fail to notice that.
        """

    def begin(self, key: str) -> str:
        """Begin an object in parts and return its handle, a text that the caller keeps. Nothing is visible yet."""

    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        """Store one part: durable on return. A part with the same number is replaced.

        The pieces must add up to `part_size` bytes, except for the object's last part.
        The store may clear the list at any time, to free their memory early.

        Raises:
            ArtifactLostError: The handle names no unfinished object. The store may fail to notice that.
        """

    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        """Make the object from at least one part, in order: durable and visible on return.

        Idempotent, for retries after a crash: an object with the total size of the parts counts as finished.

        Raises:
            ArtifactLostError: A part is missing or was replaced.
        """

    def abort(self, key: str, handle: str | None = None) -> None:
        """Remove one unfinished object of a key, or all without a handle. A finished object stays."""

    def unfinished(self) -> Iterator[UnfinishedObject]:
        """Yield the unfinished objects under keys that `domain.object_keys` builds, as far as the store knows them."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield a range of an object in pieces of CHUNK_SIZE; without a length, to its end.

        A range past the end yields the bytes that exist. Closing the iterator early frees its connection or file.

        Raises (at the first `next`, or at a later one if the store fails meanwhile):
            ArtifactLostError: The object does not exist.
        """

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if it does not exist."""

    def delete(self, key: str) -> None:
        """Remove an object and all unfinished objects of its key. An absent object counts as removed."""

    def check(self) -> None:
        """Raise `ArtifactStoreUnavailableError` unless the store can be read and written. Ignores its free space."""


class ListableArtifactStore(ArtifactStore, Protocol):
    """A store that also lists its objects, for commands that check or copy all of them. Serving needs no listing."""

    location: str
    """URL of the folder or bucket. Two stores with equal locations hold the same objects."""

    def keys(self, prefix: str = ARTIFACT_PREFIX) -> Iterator[str]:
        """Yield the keys of all finished objects under a prefix, in any order.

        The prefix is empty or ends with a slash. Objects that come or go meanwhile may be missing or not.
        """
