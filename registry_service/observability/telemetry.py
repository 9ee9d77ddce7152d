"""Attach metrics and traces to a server, as far as they are turned on."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from registry_service import logs
from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.events import Event
from registry_service.domain.ports import Database
from registry_service.domain.user_error import UserError
from registry_service.geti.port import Geti
from registry_service.methods import Method
from registry_service.observability.counted_methods import CountedMethod
from registry_service.observability.metrics import Metrics, Sampler
from registry_service.observability.observed_ports import ObservedDatabase, ObservedGeti, ObservedStore

if TYPE_CHECKING:  # an optional dependency
    from registry_service.observability.tracing import TracedMethod, Tracing

audit_logger = logging.getLogger(logs.AUDIT)


class NotInstalledError(UserError):
    """Traces are turned on, but their packages are missing. The message says how to install them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """Options of traces. The SDK reads the collector's address from the OTEL_* variables itself."""

    protocol: Literal["grpc", "http/protobuf"]
    service_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStates:
    """The current values of a server's gauges."""

    waiting_calls: Callable[[], int]
    max_waiting_calls: int
    streams: Mapping[str, Callable[[], int]]
    """Number of streams under way, by kind."""
    max_streams: Mapping[str, int]
    dependencies: Mapping[str, Callable[[], bool]]
    """Whether each dependency passed its last health check."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Metrics and traces, each None if it is turned off. The methods never raise."""

    metrics: Metrics | None = None
    tracing: "Tracing | None" = None
    sampler: Sampler = field(default_factory=Sampler)

    def trace_statements(self, engine: Engine) -> None:
        """Trace the statements of calls; call it before the engine is used."""
        if self.tracing is not None:
            from registry_service.observability.traced_statements import trace_statements  # noqa: PLC0415 - optional

            trace_statements(engine, self.tracing)

    def database(self, database: Database, engine: Engine) -> Database:
        """Return the database with metrics of its connection pool."""
        metrics, pool = self.metrics, engine.pool
        if metrics is None or not isinstance(pool, QueuePool):
            return database
        metrics.connections_limit.set(pool.size())
        self.sampler.add(metrics.connections.labels("in_use"), pool.checkedout)
        self.sampler.add(metrics.connections.labels("idle"), pool.checkedin)
        return ObservedDatabase(database, metrics)

    def store(self, store: ArtifactStore) -> ArtifactStore:
        """Return the artifact store with metrics and traces."""
        if self.metrics is None and self.tracing is None:
            return store
        return ObservedStore(store, self.metrics, self.tracing)

    def geti(self, geti: Geti | None) -> Geti | None:
        """Return Geti with metrics and traces, or None without Geti."""
        if geti is None or (self.metrics is None and self.tracing is None):
            return geti
        return ObservedGeti(geti, self.metrics, self.tracing)

    def method(self, method: Method) -> "CountedMethod | TracedMethod | None":
        """See `transport.grpc.interceptors.telemetry.CallObserver`."""
        service, name = method.service, method.name
        counted = None if self.metrics is None else CountedMethod(self.metrics, service, name)
        if self.tracing is None or not method.is_traced:
            return counted
        from registry_service.observability.tracing import TracedMethod  # noqa: PLC0415 - optional

        return TracedMethod(self.tracing, service, name, counted)

    def server(self, states: ServerStates) -> None:
        """Write the gauges of a server from now on."""
        metrics = self.metrics
        if metrics is None:
            return
        metrics.calls_waiting_limit.set(states.max_waiting_calls)
        self.sampler.add(metrics.calls_waiting, states.waiting_calls)
        for kind, count in states.streams.items():
            metrics.streams_limit.labels(kind).set(states.max_streams[kind])
            self.sampler.add(metrics.streams.labels(kind), count)
        for dependency, is_up in states.dependencies.items():
            self.sampler.add(metrics.dependency_up.labels(dependency), is_up)

    def garbage_collected(self, *, uploads: int, objects: int, failed: int) -> None:
        """Count a successful garbage collection with the numbers of removed and of undeletable objects."""
        if self.metrics is None:
            return
        self.metrics.collections.labels("success").inc()
        self.metrics.collected.labels("upload").inc(uploads)
        self.metrics.collected.labels("object").inc(objects)
        self.metrics.collection_failures.inc(failed)
        self.metrics.last_collection.set(time.time())

    def garbage_collection_failed(self) -> None:
        """Count a garbage collection that failed as a whole."""
        if self.metrics is not None:
            self.metrics.collections.labels("failure").inc()

    def committed(self, event: Event) -> None:
        """Count a committed change and write its audit line, which has no metadata of models."""
        if self.metrics is not None:
            self.metrics.changes.labels(event.action.value).inc()
        audit_logger.info(
            "change",
            extra={
                "log": "audit",
                "sequence": event.sequence,
                "event_time": event.time.isoformat(),
                "actor": event.actor,
                "action": event.action.value,
                "model_id": event.model_id,
                "model_group_id": event.model_group_id or "",
                "alias": event.alias,
                "hash": event.hash,
            },
        )


@contextmanager
def open_telemetry(*, metrics: bool, tracing: TracingOptions | None) -> Iterator[Telemetry]:
    """Give the metrics and traces that are turned on. Send the remaining spans at the end of the block.

    Raises:
        NotInstalledError: The packages for traces are missing.
    """
    with ExitStack() as stack:
        traces = None
        if tracing is not None:
            try:
                from registry_service.observability import tracing as optional  # noqa: PLC0415
            except ImportError as error:
                raise NotInstalledError(
                    f"OTEL_*: packages for traces are missing ({error.name});"
                    " install them in the folder of the repository with: pip install -e '.[otel]'"
                ) from error
            traces = optional.Tracing(tracing.protocol, tracing.service_name)
            stack.callback(traces.close)
        result = Telemetry(Metrics() if metrics else None, traces)
        if metrics:
            stack.enter_context(result.sampler)
        yield result
