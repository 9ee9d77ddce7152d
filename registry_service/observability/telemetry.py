"""Puts lookers-on where they are wanted, and nowhere else."""

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
from registry_service.domain.geti import Geti
from registry_service.domain.ports import Database
from registry_service.observability.calls import CountedMethod
from registry_service.observability.metrics import Metrics, Sampler
from registry_service.observability.ports import ObservedDatabase, ObservedGeti, ObservedStore

if TYPE_CHECKING:  # an optional dependency
    from registry_service.observability.tracing import TracedMethod, Tracing

audit_logger = logging.getLogger(logs.AUDIT)

# Their traces would be many, and no news.
_UNTRACED = {"modelregistry.v1.SystemService", "grpc.health.v1.Health"}


class NotInstalledError(Exception):
    """Traces are wanted, and the packages that make them are missing; the message says how to install them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingOptions:
    """Whom to send traces to is read from the OTEL_* variables by the SDK itself."""

    protocol: Literal["grpc", "http/protobuf"]
    service_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStates:
    """What a server can be asked at any time."""

    waiting_calls: Callable[[], int]
    max_waiting_calls: int
    places: Mapping[str, Callable[[], int]]
    """In use by long calls, by kind."""
    max_places: Mapping[str, int]
    dependencies: Mapping[str, Callable[[], bool]]
    """Whether each answered when it was last asked."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Metrics and traces, each where it is wanted. Told of what happens; never raises."""

    metrics: Metrics | None = None
    tracing: "Tracing | None" = None
    sampler: Sampler = field(default_factory=Sampler)

    def trace_statements(self, engine: Engine) -> None:
        """Has what calls ask of Postgres traced; to be called before anything else is made of the engine."""
        if self.tracing is not None:
            from registry_service.observability.statements import trace_statements  # noqa: PLC0415 - optional

            trace_statements(engine, self.tracing)

    def database(self, database: Database, engine: Engine) -> Database:
        """Looks on at the pool of connections."""
        metrics, pool = self.metrics, engine.pool
        if metrics is None or not isinstance(pool, QueuePool):
            return database
        metrics.connections_limit.set(pool.size())
        self.sampler.add(metrics.connections.labels("in_use"), pool.checkedout)
        self.sampler.add(metrics.connections.labels("idle"), pool.checkedin)
        return ObservedDatabase(database, metrics)

    def store(self, store: ArtifactStore) -> ArtifactStore:
        """Looks on at the artifact store."""
        if self.metrics is None and self.tracing is None:
            return store
        return ObservedStore(store, self.metrics, self.tracing)

    def geti(self, geti: Geti | None) -> Geti | None:
        """Looks on at Geti, where there is one."""
        if geti is None or (self.metrics is None and self.tracing is None):
            return geti
        return ObservedGeti(geti, self.metrics, self.tracing)

    def method(self, name: str) -> "CountedMethod | TracedMethod | None":
        """See `transport.grpc.calls.CallObserver`."""
        service, _, method = name.removeprefix("/").rpartition("/")
        counted = None if self.metrics is None else CountedMethod(self.metrics, service, method)
        if self.tracing is None or service in _UNTRACED:
            return counted
        from registry_service.observability.tracing import TracedMethod  # noqa: PLC0415 - optional

        return TracedMethod(self.tracing, service, method, counted)

    def server(self, states: ServerStates) -> None:
        """Looks at a server's states from now on."""
        metrics = self.metrics
        if metrics is None:
            return
        metrics.calls_waiting_limit.set(states.max_waiting_calls)
        self.sampler.add(metrics.calls_waiting, states.waiting_calls)
        for kind, in_use in states.places.items():
            metrics.streams_limit.labels(kind).set(states.max_places[kind])
            self.sampler.add(metrics.streams.labels(kind), in_use)
        for dependency, is_up in states.dependencies.items():
            self.sampler.add(metrics.dependency_up.labels(dependency), is_up)

    def swept(self, *, uploads: int, objects: int, failed: int) -> None:
        """Is told of a sweep, and how much it removed, or could not remove."""
        if self.metrics is None:
            return
        self.metrics.sweeps.labels("success").inc()
        self.metrics.swept.labels("upload").inc(uploads)
        self.metrics.swept.labels("object").inc(objects)
        self.metrics.sweep_failures.inc(failed)
        self.metrics.last_sweep.set(time.time())

    def sweep_failed(self) -> None:
        """Is told of a sweep that failed as a whole."""
        if self.metrics is not None:
            self.metrics.sweeps.labels("failure").inc()

    def committed(self, event: Event) -> None:
        """Is told of a change that is in the audit log for good: writes a line, without what clients keep in models."""
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
def telemetry(*, metrics: bool, tracing: TracingOptions | None) -> Iterator[Telemetry]:
    """Makes what is wanted; at the end sends what is left.

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
                    f"OTEL_*: traces need packages that are missing ({error.name});"
                    " install them with: pip install 'model-registry[otel]'"
                ) from error
            traces = optional.Tracing(tracing.protocol, tracing.service_name)
            stack.callback(traces.close)
        made = Telemetry(Metrics() if metrics else None, traces)
        if metrics:
            stack.enter_context(made.sampler)
        yield made
