"""The port to where artifacts' bytes are kept, and the tree of its keys.

    artifacts/<uuid>    the artifact of one model, or bytes on the way to one
    <id>/<file name>    the artifact of a model that was taken over in its place (`services.adopting`)

A key of ours holds no text of a client; each is written once. Each key stands in the
database before a byte is written under it: in `models`, in `uploads`, or in
the ledger of unreferenced objects (`domain.ports.ObjectLedger`). So what a
crash leaves behind is found there, never by listing the store.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

OBJECT_PREFIX = "artifacts/"
"""Of the keys that this program makes."""
CHUNK_SIZE = 1024 * 1024
"""Size in bytes of the pieces that `read` answers; only the last is smaller."""


Pieces = list[bytes | bytearray | memoryview]
"""Bytes of a part, in order, in pieces of any size."""


def new_object_key() -> str:
    """Makes a key that no reader knows yet."""
    return f"{OBJECT_PREFIX}{uuid.uuid4()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of an object under construction, stored for good."""

    number: int
    """Counts from 1."""
    offset: int
    """Where it begins in the object, in bytes."""
    size: int
    """In bytes."""
    receipt: str
    """What the store gave for it; means something to the store alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Construction:
    """Something under construction on a key: an object in parts that is not finished, or perhaps never will be."""

    key: str
    handle: str
    begin_time: datetime
    """By the store's clock."""


class ArtifactStore(Protocol):
    """Keeps artifacts' bytes under keys.

    Callers: pass only keys that this module makes; count and hash the bytes.
    Every method raises `ArtifactStoreUnavailableError` when the store does not
    answer in time, after its own bounded retries; those that write raise
    `StorageFullError` when there is no space. All are safe to call from
    several threads; writing one key from two at a time is undefined, but for
    different parts of one object.
    """

    part_size: int
    """Size in bytes of every part of an object but its last."""

    def put(self, key: str, data: bytes) -> None:
        """Stores a whole object: durable and visible on return, else absent. Replaces."""

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """Stores a whole object as its bytes come, in flat memory: durable and visible on return, else absent.

        Pieces may have any size. What `pieces` raises passes. After an exception
        bytes may be left under construction on the key: `delete` removes them.

        Raises:
            ArtifactLostError: `delete` was called meanwhile. (Or it comes too late to notice.)
        """

    def begin(self, key: str) -> str:
        """Begins an object in parts and returns its handle, a text to keep. Nothing is visible yet."""

    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        """Stores one part: durable on return. Writing a number again replaces the part.

        `pieces` have `part_size` bytes in all unless it is the object's last. The
        store may empty the list when it is done, as its caller may hold it longer.
        """

    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        """Makes the object of the parts, in order, at least one: durable and visible on return.

        Can be repeated after a crash: an object that is there already with the
        parts' total size counts as finished.

        Raises:
            ArtifactLostError: A part is gone, or was replaced since.
        """

    def abort(self, key: str, handle: str | None = None) -> None:
        """Remove what is under construction on a key, by one handle or all of it, but no whole object."""

    def unfinished(self) -> Iterator[Construction]:
        """Yield what is under construction on keys that this module makes, as far as the store tells."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Reads a range in pieces of CHUNK_SIZE; `length` None reads to the end.

        Reading past the end yields what there is. Closing the iterator early
        frees its connection or file.

        Raises (on the first `next`, or when the store breaks off, on a later one):
            ArtifactLostError: There is no such object.
        """

    def size(self, key: str) -> int | None:
        """Returns an object's size in bytes, None where there is none."""

    def delete(self, key: str) -> None:
        """Removes the object and whatever is under construction on its key. What is absent counts as removed."""

    def check(self) -> None:
        """Returns when the store can be read and written, space apart (`ArtifactStoreUnavailableError` otherwise)."""


class ListableArtifactStore(ArtifactStore, Protocol):
    """A store that can tell what it holds: for whoever checks all of it. What serves clients needs no such thing."""

    def keys(self, prefix: str = OBJECT_PREFIX) -> Iterator[str]:
        """Yields the key of each whole object under a prefix (whole segments, or empty: all), in any order.

        What comes or goes meanwhile is there or not.
        """
