"""Ends calls whose client keeps us waiting: each holds a thread."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import grpc

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
# How long the one message of a call may take to come after its headers.
_MESSAGE_SECONDS = 10.0
MAX_MESSAGES_EXPECTED = 128
"""Calls whose message has not come yet, beside those that run or wait: each holds a thread."""


class ClientWatch:
    """Cancels calls that wait for their client for longer than they may."""

    def __init__(self, *, idle_seconds: float) -> None:
        self.idle_seconds = idle_seconds
        """How long a call that is no stream may wait for its answer to be taken."""
        self._waiting: dict[int, tuple[float, str, grpc.ServicerContext]] = {}
        # In the order of their arrival. Its steps are atomic, so the calls need no lock.
        self._messages: OrderedDict[int, tuple[float, str, grpc.ServicerContext]] = OrderedDict()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._cancel_late, name="client-watch", daemon=True)
        self._thread.start()

    def begin(self, method: str, context: grpc.ServicerContext, seconds: float) -> None:
        """Is told that a call begins to wait for its client."""
        self._waiting[id(context)] = time.monotonic() + seconds, method, context

    def end(self, context: grpc.ServicerContext) -> None:
        """Is told that it waits no more."""
        del self._waiting[id(context)]

    def expect_message(self, method: str, context: grpc.ServicerContext) -> None:
        """Is told that a call begins to wait for its one message.

        Of too many, the oldest is cancelled: a client sends its message with its
        headers, so those that wait for long never meant to send one.
        """
        self._messages[id(context)] = time.monotonic() + _MESSAGE_SECONDS, method, context
        if len(self._messages) > MAX_MESSAGES_EXPECTED:
            with suppress(KeyError):
                _, (_, _, oldest) = self._messages.popitem(last=False)
                oldest.cancel()

    def end_message(self, context: grpc.ServicerContext) -> None:
        """Is told that the message has come."""
        self._messages.pop(id(context), None)

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
            for deadline, method, context in (*self._waiting.copy().values(), *self._messages.copy().values()):
                if deadline < now:
                    logger.warning("cancelled: its client kept it waiting", extra={"method": method})
                    context.cancel()
