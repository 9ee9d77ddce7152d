"""Ends the calls that would not end by themselves when the server stops."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from registry_service.domain.errors import ServerStoppingError


class Drain:
    """Tells watches that the server stops."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._waiting: set[threading.Event] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Make `check` raise from now on, and set every event so that its waiter calls `check`."""
        self._begun.set()
        with self._lock:
            for event in self._waiting:
                event.set()

    @contextmanager
    def wakes(self, event: threading.Event) -> Iterator[None]:
        """Have `begin` set the event until the end of the block."""
        with self._lock:
            self._waiting.add(event)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(event)

    def check(self) -> None:
        """Raise ServerStoppingError once the server stops."""
        if self._begun.is_set():
            raise ServerStoppingError
