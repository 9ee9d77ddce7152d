"""The metrics, all in one place: their names, labels and buckets are an interface of dashboards and alarms.

No label takes its values from a client: methods are those that are served.
With several workers each process writes its values to files of a folder that
they share, and whoever started them adds them up (prometheus_client's
multi-process mode). There gauges cannot be computed when they are read, so a
thread writes those that are states rather than events, every second.
"""

import logging
import os
import platform
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    multiprocess,
    values,
)

from registry_service import __version__
from registry_service.domain.vocabulary import Action

logger = logging.getLogger(__name__)

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that tells a worker where the metrics of all are added up."""

_SAMPLE_SECONDS = 1.0
_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
_STORE_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
_WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one server, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = self._counter("calls", "Calls that have ended, by gRPC status.", "service", "method", "code")
        self.call_seconds = self._histogram(
            "call_duration_seconds", "Time from a call's first to its last moment.", _CALL_SECONDS, "service", "method"
        )
        self.calls_in_flight = self._gauge("calls_in_flight", "Calls under way.", "livesum", "service", "method")
        self.received_bytes = self._counter(
            "received_bytes", "Bytes of the messages that clients sent.", "service", "method"
        )
        self.sent_bytes = self._counter("sent_bytes", "Bytes of the messages sent to clients.", "service", "method")
        self.calls_waiting = self._gauge("calls_waiting", "Short calls that wait for their turn.", "livesum")
        self.calls_waiting_limit = self._gauge("calls_waiting_limit", "MAX_WAITING_CALLS.", "livesum")
        self.streams = self._gauge("streams", "Places of long calls in use, by kind.", "livesum", "kind")
        self.streams_limit = self._gauge("streams_limit", "MAX_STREAMS and MAX_WATCHES.", "livesum", "kind")
        self.connections = self._gauge(
            "database_connections", "Connections of the pool to Postgres, by state.", "livesum", "state"
        )
        self.connections_limit = self._gauge("database_connections_limit", "PSQL_POOL_SIZE.", "livesum")
        self.connection_wait_seconds = self._histogram(
            "database_connection_wait_seconds", "Time until a connection of the pool was there.", _WAIT_SECONDS
        )
        self.connection_failures = self._counter(
            "database_connection_failures", "Times that no connection to Postgres could be had."
        )
        self.store_seconds = self._histogram(
            "store_operation_duration_seconds",
            "Time of an operation of the artifact store; a read's or write's with its client's.",
            _STORE_SECONDS,
            "operation",
        )
        self.store_failures = self._counter(
            "store_operation_failures", "Operations that the artifact store failed.", "operation"
        )
        self.store_bytes = self._counter(
            "store_bytes", "Bytes read from and written to the artifact store.", "direction"
        )
        self.geti_seconds = self._histogram(
            "geti_operation_duration_seconds", "Time of an operation of Geti.", _STORE_SECONDS, "operation"
        )
        self.geti_failures = self._counter("geti_operation_failures", "Operations that Geti failed.", "operation")
        self.dependency_up = self._gauge(
            "dependency_up", "Whether a dependency answered when it was last asked.", "livemin", "dependency"
        )
        self.changes = self._counter("changes", "Committed changes, as in the audit log.", "action")
        self.sweeps = self._counter("sweeps", "Sweeps of what is left over, by outcome.", "outcome")
        self.swept = self._counter("swept", "Uploads and objects that sweeps removed.", "kind")
        self.sweep_failures = self._counter("sweep_object_failures", "Objects that the store would not delete.")
        self.last_sweep = self._gauge("last_sweep_timestamp_seconds", "When a sweep last succeeded.", "max")
        build = self._gauge("build_info", "Always 1; the labels tell the build.", "livemax", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        if not is_shared():
            # Of one of several processes it would mislead.
            ProcessCollector(registry=self.registry)
        for action in set(Action) - {Action.UNKNOWN}:
            self.changes.labels(action.value)
        for outcome in ("success", "failure"):
            self.sweeps.labels(outcome)
        for direction in ("read", "written"):
            self.store_bytes.labels(direction)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, namespace="model_registry", registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(
            name, documentation, labels, namespace="model_registry", registry=self.registry, buckets=buckets
        )

    def _gauge(
        self, name: str, documentation: str, together: Literal["livesum", "livemin", "livemax", "max"], *labels: str
    ) -> Gauge:
        """Makes a gauge; `together` says what several workers' values make."""
        return Gauge(
            name,
            documentation,
            labels,
            namespace="model_registry",
            registry=self.registry,
            multiprocess_mode=together,
        )


class Sampler:
    """Writes the gauges that are states, again and again, from start to stop. A context manager."""

    def __init__(self) -> None:
        self._reads: list[tuple[Gauge, Callable[[], float]]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def add(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Has a gauge written from now on; `read` is called in another thread."""
        gauge.set(read())
        self._reads.append((gauge, read))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            for gauge, read in tuple(self._reads):
                try:
                    gauge.set(read())
                except Exception:
                    # The others are worth having all the same.
                    logger.exception("a metric cannot be read")


def is_shared() -> bool:
    """Whether this process is one of several whose metrics are added up."""
    return SHARED_FOLDER in os.environ


def share(worker: int) -> None:
    """Has the metrics of this process, worker number so-and-so, written where those of all are added up.

    A worker that takes the place of one that died goes on from its counts.
    To be called before the first `Metrics`.
    """
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: worker)  # type: ignore[no-untyped-call]


def remove_gauges(folder: Path, worker: int) -> None:
    """Removes what a worker that has died wrote of its state; its counts stay."""
    multiprocess.mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def sum_of_workers(folder: Path) -> CollectorRegistry:
    """Returns the metrics of all workers of a folder."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry
