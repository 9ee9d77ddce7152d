"""Cancel calls whose clients keep them waiting: each call holds a thread, so stalled clients could hold them all."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from registry_service.methods import Kind, Method
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.interceptors.behaviour import Behaviour
from registry_service.transport.grpc.interceptors.codec import decoded
from registry_service.transport.grpc.interceptors.errors import MissingMessageError

logger = logging.getLogger(__name__)

_MAX_INTERVAL_SECONDS = 0.5
_REFLECTION_IDLE_SECONDS = 10.0
# How long the one message of a unary call may take to arrive after its headers.
_MESSAGE_SECONDS = 10.0
MAX_MESSAGES_EXPECTED = 128
"""Calls whose one message has not arrived yet, beside those that run or wait for a slot: each holds a thread."""


class Watchdog:
    """Cancels the calls that wait for their client for too long.

    Args:
        idle_seconds: How long a call may wait for its client's next message, or for its client to take a response.
    """

    def __init__(self, *, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        # Single operations on both are atomic, so that calls need no lock. `_unsent` is in the order of arrival.
        self._waiting: dict[int, tuple[float, float, Call]] = {}
        self._unsent: OrderedDict[int, tuple[float, float, Call]] = OrderedDict()
        self._stopped = threading.Event()
        self._interval = min(_MAX_INTERVAL_SECONDS, idle_seconds / 4)
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._thread.start()

    def idle_seconds(self, method: Method) -> float:
        """Return how long calls of a method may wait for their client."""
        return _REFLECTION_IDLE_SECONDS if method.kind is Kind.REFLECTION else self._idle_seconds

    @contextmanager
    def waiting(self, call: Call, seconds: float) -> Iterator[None]:
        """Cancel the call if the block takes longer than `seconds`."""
        key = id(call)
        self._waiting[key] = time.monotonic() + seconds, seconds, call
        try:
            yield
        finally:
            del self._waiting[key]

    def begin_message(self, call: Call) -> None:
        """Cancel the call if its one message does not arrive soon; `end_message` says that it has.

        If too many calls wait for their message, the oldest is cancelled. Clients send the message with the headers, so
        that call is probably broken or hostile.
        """
        self._unsent[id(call)] = time.monotonic() + _MESSAGE_SECONDS, _MESSAGE_SECONDS, call
        if len(self._unsent) > MAX_MESSAGES_EXPECTED:
            with suppress(KeyError):
                _, (_, _, oldest) = self._unsent.popitem(last=False)
                oldest.context.cancel()

    def end_message(self, call: Call) -> None:
        """Stop waiting for the call's one message."""
        self._unsent.pop(id(call), None)

    def stop(self) -> None:
        """End the watchdog's thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            now = time.monotonic()
            # Each copied in one step, as calls come and go meanwhile.
            for deadline, seconds, call in (*self._waiting.copy().values(), *self._unsent.copy().values()):
                if deadline < now:
                    logger.warning(
                        "cancelled: the client kept the call waiting for %s s",
                        seconds,
                        extra={"method": call.method.path, "call_request_id": call.request_id},
                    )
                    call.context.cancel()


class ResponseWatchdog:
    """Watches the client take the responses of a stream."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        watchdog, seconds = self._watchdog, self._watchdog.idle_seconds(method)

        def run(requests: Any, call: Call) -> Generator[Any]:
            with closing(behaviour(requests, call)) as responses:
                for response in responses:
                    with watchdog.waiting(call, seconds):
                        yield response

        return run


class MessageReader:
    """Hands on the one message of a unary request.

    Stands after authentication, so that a refused caller holds no thread.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def wrap(self, _method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        watchdog = self._watchdog

        def run(requests: Iterator[Any], call: Call) -> Generator[Any]:
            # A context manager would slow every call.
            watchdog.begin_message(call)
            try:
                request = next(requests, None)
            finally:
                watchdog.end_message(call)
            if request is None:
                raise MissingMessageError
            yield from behaviour(decoded(request), call)

        return run


class MessageStreamReader:
    """Hands on an iterator over the messages of a request stream, which watches the client send them."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        watchdog, seconds = self._watchdog, self._watchdog.idle_seconds(method)

        def read(requests: Iterator[Any], call: Call) -> Iterator[Any]:
            while True:
                with watchdog.waiting(call, seconds):
                    try:
                        request = next(requests)
                    except StopIteration:
                        return
                yield decoded(request)

        def run(requests: Iterator[Any], call: Call) -> Generator[Any]:
            yield from behaviour(read(requests, call), call)

        return run
