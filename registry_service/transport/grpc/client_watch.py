"""Ends calls whose client keeps us waiting: each holds a thread."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


class ClientWatch:
    """Cancels calls that wait for their client for longer than they may."""

    def __init__(self, *, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        """How long a call that is no stream may wait for its answer to be taken."""
        self._waiting: dict[int, tuple[float, str, grpc.ServicerContext]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._cancel_late, name="client-watch", daemon=True)
        self._thread.start()

    def begin(self, method: str, context: grpc.ServicerContext, seconds: float) -> None:
        """Is told that a call begins to wait for its client."""
        self._waiting[id(context)] = time.monotonic() + seconds, method, context

    def end(self, context: grpc.ServicerContext) -> None:
        """Is told that it waits no more."""
        del self._waiting[id(context)]

    @contextmanager
    def waiting(self, method: str, context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
        """Surrounds what waits for the client of a call."""
        self.begin(method, context, seconds)
        try:
            yield
        finally:
            self.end(context)

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()
        self._thread.join()

    def _cancel_late(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            now = time.monotonic()
            # A copy in one step, as calls come and go meanwhile.
            for deadline, method, context in list(self._waiting.values()):
                if deadline < now:
                    logger.warning("cancelled: its client kept it waiting", extra={"method": method})
                    context.cancel()
