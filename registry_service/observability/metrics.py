"""All metrics. Their names, labels and buckets are an interface for dashboards and alerts.

No label takes its values from a client: only methods that are served have series.

Several workers write their values to files in a shared folder, and their supervisor
serves the sums (prometheus_client's multi-process mode). In this mode a gauge cannot
be computed when it is read, so a thread writes the gauges of states every second.
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
"""Environment variable with the folder of all workers' values, as prometheus_client names it."""

_SAMPLE_SECONDS = 1.0
_CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
_STORE_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120, 600)
_WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10)

disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = self._counter("calls", "Finished calls, by gRPC status.", "service", "method", "code")
        self.call_seconds = self._histogram(
            "call_duration_seconds", "Duration of a call.", _CALL_SECONDS, "service", "method"
        )
        self.calls_in_flight = self._gauge("calls_in_flight", "Calls under way.", "livesum", "service", "method")
        self.received_bytes = self._counter("received_bytes", "Bytes of messages from clients.", "service", "method")
        self.sent_bytes = self._counter("sent_bytes", "Bytes of messages to clients.", "service", "method")
        self.calls_waiting = self._gauge("calls_waiting", "Calls that wait for a concurrency limit.", "livesum")
        self.calls_waiting_limit = self._gauge(
            "calls_waiting_limit", "Most waiting calls, by MAX_WAITING_CALLS.", "livesum"
        )
        self.streams = self._gauge("streams", "Streams and watches under way, by kind.", "livesum", "kind")
        self.streams_limit = self._gauge(
            "streams_limit", "Most streams and watches, by MAX_STREAMS and MAX_WATCHES.", "livesum", "kind"
        )
        self.connections = self._gauge(
            "database_connections", "Connections of the pool to Postgres, by state.", "livesum", "state"
        )
        self.connections_limit = self._gauge(
            "database_connections_limit", "Most connections of the pool, by PSQL_POOL_SIZE.", "livesum"
        )
        self.connection_wait_seconds = self._histogram(
            "database_connection_wait_seconds", "Wait for a connection of the pool.", _WAIT_SECONDS
        )
        self.connection_failures = self._counter(
            "database_connection_failures", "Failed attempts to get a connection to Postgres."
        )
        self.store_seconds = self._histogram(
            "store_operation_duration_seconds",
            "Duration of an operation of the artifact store, including the client's time of a read or write.",
            _STORE_SECONDS,
            "operation",
        )
        self.store_failures = self._counter(
            "store_operation_failures", "Failed operations of the artifact store.", "operation"
        )
        self.store_bytes = self._counter(
            "store_bytes", "Bytes read from and written to the artifact store.", "direction"
        )
        self.geti_seconds = self._histogram(
            "geti_operation_duration_seconds", "Duration of an operation of Geti.", _STORE_SECONDS, "operation"
        )
        self.geti_failures = self._counter("geti_operation_failures", "Failed operations of Geti.", "operation")
        self.dependency_up = self._gauge(
            "dependency_up", "Whether a dependency passed its last health check.", "livemin", "dependency"
        )
        self.changes = self._counter("changes", "Committed changes, as in the audit log.", "action")
        # These names stay, as dashboards and alerts have them.
        self.collections = self._counter("sweeps", "Runs of garbage collection, by outcome.", "outcome")
        self.collected = self._counter("swept", "Uploads and objects removed by garbage collection.", "kind")
        self.collection_failures = self._counter(
            "sweep_object_failures", "Objects that garbage collection could not delete."
        )
        self.last_collection = self._gauge(
            "last_sweep_timestamp_seconds", "Time of the last successful garbage collection.", "max"
        )
        build = self._gauge("build_info", "Always 1; the labels describe the build.", "livemax", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
        if not is_shared():
            # These metrics describe one process, and would mislead if it is one of several.
            ProcessCollector(registry=self.registry)
        for action in set(Action) - {Action.UNKNOWN}:
            self.changes.labels(action.value)
        for outcome in ("success", "failure"):
            self.collections.labels(outcome)
        for direction in ("read", "written"):
            self.store_bytes.labels(direction)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, namespace="model_registry", registry=self.registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(
            name, documentation, labels, namespace="model_registry", registry=self.registry, buckets=buckets
        )

    def _gauge(
        self, name: str, documentation: str, aggregation: Literal["livesum", "livemin", "livemax", "max"], *labels: str
    ) -> Gauge:
        """Return a new gauge; `aggregation` combines the values of several workers."""
        return Gauge(
            name,
            documentation,
            labels,
            namespace="model_registry",
            registry=self.registry,
            multiprocess_mode=aggregation,
        )


class Sampler:
    """Writes the gauges of states every second. A context manager: starts on entry, stops on exit."""

    def __init__(self) -> None:
        self._reads: list[tuple[Gauge, Callable[[], float]]] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def add(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Write a gauge from now on; `read` is called in another thread."""
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
                    # The other gauges are still useful.
                    logger.exception("could not read a metric")


def is_shared() -> bool:
    """Return whether this process is one of several workers, whose metrics are summed up."""
    return SHARED_FOLDER in os.environ


def share(worker: int) -> None:
    """Write the metrics of this process to the shared folder, as those of the worker with this number.

    A restarted worker continues its predecessor's counts. Call it before the first `Metrics`.
    """
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: worker)  # type: ignore[no-untyped-call]


def remove_gauges(folder: Path, worker: int) -> None:
    """Remove the gauges of a worker that has exited. Its counters stay."""
    multiprocess.mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def sum_of_workers(folder: Path) -> CollectorRegistry:
    """Return the metrics of all workers that share a folder, summed up."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry
