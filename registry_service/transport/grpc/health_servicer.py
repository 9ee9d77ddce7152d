"""grpc.health.v1.Health: whether the server is ready, for probes and load balancers."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from registry_service.domain.errors import NotFoundError, TooManyStreamsError
from registry_service.transport.grpc.peers import client_address

_RETRY_SECONDS = 10.0

LIVENESS = "liveness"
"""Name in grpc.health.v1.Health/Check of the process alone: SERVING as long as the server answers at all, whatever its
dependencies and its load."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers every call from one status.

    grpcio's own servicer sends to its watches while it holds its lock, and takes
    the same lock on grpcio's event thread when a watch is cancelled: both wait for
    each other, and the server answers nothing from then on. Here the event thread
    only sets an event, and each watch sends in a thread of its own.

    Args:
        services: Full names of the services that have the server's status.
        most_watches: Most watches at once. Each holds a thread.
        most_watches_of_address: Most watches of one address.
    """

    def __init__(self, services: Sequence[str], *, most_watches: int, most_watches_of_address: int) -> None:
        # "" stands for the whole server.
        self._services = frozenset(("", *services))
        self._status: int = pb.HealthCheckResponse.NOT_SERVING
        self._most_watches = most_watches
        self._most_watches_of_address = most_watches_of_address
        self._wakes: dict[threading.Event, str] = {}
        self._watches_of_address: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = False

    def publish(self, *, serving: bool) -> None:
        """Set the status, and wake the watches where it changes."""
        status: int = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        if status != self._status:
            self._status = status
            self._wake_all()

    def end_watches(self) -> None:
        """End every watch, and each later one after its first message."""
        self._ended = True
        self._wake_all()

    def _wake_all(self) -> None:
        with self._lock:
            wakes = list(self._wakes)
        for wake in wakes:
            wake.set()

    def Check(self, request: pb.HealthCheckRequest, context: grpc.ServicerContext) -> pb.HealthCheckResponse:
        if request.service == LIVENESS:
            return pb.HealthCheckResponse(status=pb.HealthCheckResponse.SERVING)
        if request.service not in self._services:
            raise NotFoundError(f"No service has the name {request.service!r}.", service=request.service)
        return pb.HealthCheckResponse(status=self._status)

    def List(self, request: Any, context: grpc.ServicerContext) -> Any:
        # The published types of the package lack this method's messages.
        status = self._status
        return cast(Any, pb).HealthListResponse(
            statuses={name: pb.HealthCheckResponse(status=status) for name in self._services}
        )

    def Watch(self, request: pb.HealthCheckRequest, context: grpc.ServicerContext) -> Iterator[pb.HealthCheckResponse]:
        is_known = request.service in self._services
        wake = threading.Event()
        with self._counted(wake, client_address(context)):
            if not context.add_callback(wake.set):
                return
            told = None
            while context.is_active():
                # Before the status is read, so that a later change wakes the watch again.
                wake.clear()
                status: int = self._status if is_known else pb.HealthCheckResponse.SERVICE_UNKNOWN
                if status != told:
                    yield pb.HealthCheckResponse(status=status)
                    told = status
                if self._ended:
                    return
                wake.wait()

    @contextmanager
    def _counted(self, wake: threading.Event, address: str) -> Iterator[None]:
        with self._lock:
            if len(self._wakes) >= self._most_watches:
                raise TooManyStreamsError(self._most_watches, _RETRY_SECONDS)
            if self._watches_of_address[address] >= self._most_watches_of_address:
                raise TooManyStreamsError(self._most_watches_of_address, _RETRY_SECONDS)
            self._wakes[wake] = address
            self._watches_of_address[address] += 1
        try:
            yield
        finally:
            with self._lock:
                del self._wakes[wake]
                self._watches_of_address[address] -= 1
                if not self._watches_of_address[address]:
                    del self._watches_of_address[address]
