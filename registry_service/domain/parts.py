"""The parts of objects on their way to a store: made of what comes, and how many at once."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Self

from registry_service.domain.artifact_store import Pieces

EACH = 2
"""Of every object, whatever others do."""
MOST = 4
"""Of one object, as long as few others have more than EACH."""
_beyond_each = threading.BoundedSemaphore(8)
"""What all objects of this process may have beyond EACH, together: so one upload has what makes it fast, and the memory
of many stays bounded by EACH."""

_SMALL = 64 * 1024


class PartBuffer:
    """Makes parts of one size of pieces of any size, which nobody changes any more; copies none but small ones."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._pieces: Pieces = []
        self._size = 0

    def __len__(self) -> int:
        """Bytes that are held."""
        return self._size

    def add(self, piece: bytes) -> Iterator[Pieces]:
        """Takes a piece; yields each part that is full. Bytes that are not held any more are the caller's."""
        rest = memoryview(piece)
        while self._size + len(rest) >= self._part_size:
            missing = self._part_size - self._size
            self._hold(rest[:missing])
            rest = rest[missing:]
            yield self.take()
        self._hold(rest)

    def take(self) -> Pieces:
        """Returns what is held, and lets go of it."""
        pieces, self._pieces, self._size = self._pieces, [], 0
        return pieces

    def _hold(self, piece: memoryview) -> None:
        self._size += len(piece)
        if len(piece) >= _SMALL:
            self._pieces.append(piece)
        # Copied together at once: a million pieces that are kept take far more than their bytes.
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        elif piece:
            self._pieces.append(bytearray(piece))


class PartsUnderWay:
    """The parts of one object that were handed on to be stored, oldest first.

    A context manager, for one thread: leave it when the parts have settled, or
    nothing holds their bytes any more.
    """

    def __init__(self) -> None:
        self._parts: deque[Future[Any]] = deque()
        self._beyond = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.clear()
        self._give_back()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def make_room(self) -> None:
        """Waits until one more may be added; raises what went wrong with the oldest."""
        while len(self._parts) >= EACH:
            if len(self._parts) < MOST and _beyond_each.acquire(blocking=False):
                self._beyond += 1
                return
            self.settle()

    def add(self, part: Future[Any]) -> None:
        """Adds one, for which there is room."""
        self._parts.append(part)

    def settle(self) -> None:
        """Waits for the oldest, and raises what went wrong with it."""
        try:
            self._parts.popleft().result()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        while self._beyond > max(len(self._parts) - EACH, 0):
            self._beyond -= 1
            _beyond_each.release()
