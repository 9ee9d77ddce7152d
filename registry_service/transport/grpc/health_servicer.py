"""grpc.health.v1.Health: readiness and liveness, for probes and load balancers."""

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
"""Service name in grpc.health.v1.Health/Check for the process alone: SERVING as long as the server responds, whatever
its dependencies and its load."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Responds to every call from one status.

    grpcio's own servicer can deadlock the whole server: it sends to its watches while it holds a lock, and takes the
    same lock on grpcio's event thread when a watch is cancelled. Here the event thread only sets an event, and each
    watch sends in its own thread.

    Args:
        services: Full names of the services that have the server's status.
        max_watches: Limit of concurrent watches, each of which holds a thread.
        max_watches_per_address: Limit of concurrent watches of one address.
    """

    def __init__(self, services: Sequence[str], *, max_watches: int, max_watches_per_address: int) -> None:
        # "" stands for the whole server.
        self._services = frozenset(("", *services))
        self._status: int = pb.HealthCheckResponse.NOT_SERVING
        self._max_watches = max_watches
        self._max_watches_per_address = max_watches_per_address
        self._wakes: dict[threading.Event, str] = {}
        self._watches_of_address: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = False

    def publish(self, *, serving: bool) -> None:
        """Set the status, and wake the watches if it changes."""
        status: int = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        if status != self._status:
            self._status = status
            self._wake_all()

    def end_watches(self) -> None:
        """End every watch now, and later ones after their first message."""
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
                # Cleared before the status is read, so that a change in between wakes the watch.
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
            if len(self._wakes) >= self._max_watches:
                raise TooManyStreamsError(self._max_watches, _RETRY_SECONDS)
            if self._watches_of_address[address] >= self._max_watches_per_address:
                raise TooManyStreamsError(self._max_watches_per_address, _RETRY_SECONDS)
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
