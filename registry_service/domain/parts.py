"""The parts of an object on their way to a store: cutting a stream into parts, and bounding the parts in flight."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Self

from registry_service.domain.artifact_store import Pieces

GUARANTEED_PARTS = 2
"""Parts in flight that every object may have, whatever the load."""
MAX_PARTS_IN_FLIGHT = 4
"""Parts in flight that one object may have while the shared extra parts last."""
_extra_parts = threading.BoundedSemaphore(8)
"""Parts in flight beyond GUARANTEED_PARTS, shared by all objects of this process. One upload gets the parallelism that
makes it fast, and the memory of many uploads stays bounded by GUARANTEED_PARTS each."""

_SMALL = 64 * 1024


class PartBuffer:
    """Cuts a stream of immutable pieces into parts of one size. Copies only pieces below 64 KiB."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._pieces: Pieces = []
        self._size = 0

    def __len__(self) -> int:
        """Return the number of buffered bytes."""
        return self._size

    def add(self, piece: bytes) -> Iterator[Pieces]:
        """Buffer a piece and yield each part that is complete. The caller then owns the part."""
        rest = memoryview(piece)
        while self._size + len(rest) >= self._part_size:
            missing = self._part_size - self._size
            self._hold(rest[:missing])
            rest = rest[missing:]
            yield self.take()
        self._hold(rest)

    def take(self) -> Pieces:
        """Return the buffered pieces and empty the buffer."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        return pieces

    def _hold(self, piece: memoryview) -> None:
        self._size += len(piece)
        if len(piece) >= _SMALL:
            self._pieces.append(piece)
        # Small pieces are copied together: a million Python objects take far more memory than their bytes.
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        elif piece:
            self._pieces.append(bytearray(piece))


class PartsInFlight:
    """The parts of one object that threads are storing, oldest first.

    A context manager, for use by one thread. Leave it when the parts have
    settled, or when nothing references their bytes any more.
    """

    def __init__(self) -> None:
        self._parts: deque[Future[Any]] = deque()
        self._extra = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.clear()
        self._release_extra()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def make_room(self) -> None:
        """Wait until one more part may be added. Raises the exception of a part that failed."""
        while len(self._parts) >= GUARANTEED_PARTS:
            if len(self._parts) < MAX_PARTS_IN_FLIGHT and _extra_parts.acquire(blocking=False):
                self._extra += 1
                return
            self.settle()

    def add(self, part: Future[Any]) -> None:
        """Add a part. Call `make_room` first."""
        self._parts.append(part)

    def settle(self) -> None:
        """Wait for the oldest part and raise its exception if it failed."""
        try:
            self._parts.popleft().result()
        finally:
            self._release_extra()

    def _release_extra(self) -> None:
        while self._extra > max(len(self._parts) - GUARANTEED_PARTS, 0):
            self._extra -= 1
            _extra_parts.release()
