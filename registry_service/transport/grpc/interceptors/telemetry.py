"""Report every call to metrics and traces."""

import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol

import grpc

from registry_service.methods import Method
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.interceptors.behaviour import Behaviour


class MethodObserver(Protocol):
    """Observes the calls of one method, from many threads. Never raises."""

    received: Callable[[int], None]
    """Called with the size of each request message, in bytes."""
    sent: Callable[[int], None]
    """Called with the size of each response message, in bytes."""

    def begin(self, metadata: Callable[[], Iterable[tuple[str, str | bytes]]]) -> Callable[[str, float], None]:
        """Called when a call begins. Returns a callback that receives the name of its status and its seconds."""


class CallObserver(Protocol):
    """Observes all calls."""

    def method(self, method: Method) -> MethodObserver | None:
        """Return the observer of a method that is served, None for no observer."""


class Telemetry:
    """Reports the beginning and the end of each call."""

    def __init__(self, observer: CallObserver | None) -> None:
        self._observer = observer
        self._by_path: dict[str, MethodObserver | None] = {}

    def observer_of(self, method: Method) -> MethodObserver | None:
        """Return the observer of a method, the same one each time."""
        if method.path not in self._by_path:
            self._by_path[method.path] = None if self._observer is None else self._observer.method(method)
        return self._by_path[method.path]

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        observer = self.observer_of(method)
        if observer is None:
            return behaviour

        def run(requests: Any, call: Call) -> Generator[Any]:
            end = observer.begin(call.context.invocation_metadata)
            try:
                yield from behaviour(requests, call)
            except GeneratorExit:
                call.code = grpc.StatusCode.CANCELLED
                raise
            finally:
                end(call.code.name, time.monotonic() - call.started)

        return run
