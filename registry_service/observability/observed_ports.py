"""Wrappers of the domain's ports that measure and trace operations."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram
from typing_extensions import override

from registry_service.domain.artifact_store import ArtifactStore, Part, Pieces, UnfinishedObject
from registry_service.domain.errors import (
    ArtifactStoreUnavailableError,
    DatabaseUnavailableError,
    GetiDeniedError,
    GetiDeploymentError,
    GetiUnavailableError,
)
from registry_service.domain.ports import Database, Transaction
from registry_service.geti.port import Geti, ModelDetails, ModelKey, Project, ProjectSummary
from registry_service.observability.metrics import Metrics

if TYPE_CHECKING:  # an optional dependency
    from registry_service.observability.tracing import Tracing


class ObservedDatabase(Database):
    """`domain.ports.Database` with metrics of the wait for a connection."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._seconds = metrics.connection_wait_seconds
        self._failures = metrics.connection_failures

    @override
    def transaction(self) -> AbstractContextManager[Transaction]:
        """See the port."""
        return _Timed(self._database.transaction(), self._seconds, self._failures)

    @override
    def reading(self) -> AbstractContextManager[Transaction]:
        """See the port."""
        return _Timed(self._database.reading(), self._seconds, self._failures)

    @override
    def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
        """See the port."""
        return self._database.wakes(event)

    @override
    def check(self) -> float:
        """See the port."""
        return self._database.check()


class _Timed(AbstractContextManager[Transaction]):
    """Measures the entry into a block. Not a `contextmanager`, which is slower, because every call uses this."""

    def __init__(self, block: AbstractContextManager[Transaction], seconds: Histogram, failures: Counter) -> None:
        self._block = block
        self._seconds = seconds
        self._failures = failures

    def __enter__(self) -> Transaction:
        started = time.perf_counter()
        try:
            transaction = self._block.__enter__()
        except DatabaseUnavailableError:
            self._failures.inc()
            raise
        self._seconds.observe(time.perf_counter() - started)
        return transaction

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._block.__exit__(kind, error, traceback)


class _Operations:
    """Measures and traces the operations of one dependency."""

    def __init__(
        self,
        name: str,
        seconds: Histogram | None,
        failures: Counter | None,
        faults: tuple[type[Exception], ...],
        tracing: "Tracing | None",
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._failures = failures
        self._faults = faults
        self._tracing = tracing

    @contextmanager
    def __call__(self, operation: str, **attributes: str | int) -> Iterator[None]:
        started = time.perf_counter()
        try:
            if self._tracing is None:
                yield
            else:
                with self._tracing.span(f"{self._name}.{operation}", attributes):
                    yield
        except self._faults:
            if self._failures is not None:
                self._failures.labels(operation).inc()
            raise
        finally:
            if self._seconds is not None:
                self._seconds.labels(operation).observe(time.perf_counter() - started)


class ObservedStore(ArtifactStore):
    """`domain.artifact_store.ArtifactStore` with metrics and traces."""

    def __init__(self, store: ArtifactStore, metrics: Metrics | None, tracing: "Tracing | None") -> None:
        self._store = store
        self.part_size = store.part_size
        self._observed = _Operations(
            "artifact_store",
            None if metrics is None else metrics.store_seconds,
            None if metrics is None else metrics.store_failures,
            (ArtifactStoreUnavailableError,),
            tracing,
        )
        self._count_read: Callable[[int], None] = _ignore if metrics is None else metrics.store_bytes.labels("read").inc
        self._count_written: Callable[[int], None] = (
            _ignore if metrics is None else metrics.store_bytes.labels("written").inc
        )

    @override
    def put(self, key: str, data: bytes) -> None:
        with self._observed("put", key=key, bytes=len(data)):
            self._store.put(key, data)
        self._count_written(len(data))

    @override
    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        with self._observed("write", key=key):
            self._store.write(key, _counted(pieces, self._count_written))

    @override
    def begin(self, key: str) -> str:
        with self._observed("begin", key=key):
            return self._store.begin(key)

    @override
    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        with self._observed("write_part", key=key, number=number, bytes=sum(map(len, pieces))):
            part = self._store.write_part(key, handle, number=number, offset=offset, pieces=pieces)
        self._count_written(part.size)
        return part

    @override
    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        with self._observed("finish", key=key, parts=len(parts)):
            self._store.finish(key, handle, parts)

    @override
    def abort(self, key: str, handle: str | None = None) -> None:
        with self._observed("abort", key=key):
            self._store.abort(key, handle)

    @override
    def unfinished(self) -> Iterator[UnfinishedObject]:
        with self._observed("unfinished"):
            yield from self._store.unfinished()

    @override
    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._observed("read", key=key, offset=offset), _closing(self._store.read(key, offset, length)) as pieces:
            yield from _counted(pieces, self._count_read)

    @override
    def size(self, key: str) -> int | None:
        with self._observed("size", key=key):
            return self._store.size(key)

    @override
    def delete(self, key: str) -> None:
        with self._observed("delete", key=key):
            self._store.delete(key)

    @override
    def check(self) -> None:
        # Not measured: the metric `dependency_up` has the result.
        self._store.check()


class ObservedGeti(Geti):
    """`geti.port.Geti` with metrics and traces."""

    def __init__(self, geti: Geti, metrics: Metrics | None, tracing: "Tracing | None") -> None:
        self._geti = geti
        self._observed = _Operations(
            "geti",
            None if metrics is None else metrics.geti_seconds,
            None if metrics is None else metrics.geti_failures,
            (GetiUnavailableError, GetiDeniedError, GetiDeploymentError),
            tracing,
        )

    @override
    def list_projects(self) -> Sequence[ProjectSummary]:
        """See the port."""
        with self._observed("list_projects"):
            return self._geti.list_projects()

    @override
    def with_models(self, projects: Sequence[ProjectSummary]) -> Sequence[Project]:
        """See the port."""
        with self._observed("with_models", projects=len(projects)):
            return self._geti.with_models(projects)

    @override
    def get_project(self, project_id: str) -> ProjectSummary:
        """See the port."""
        with self._observed("get_project"):
            return self._geti.get_project(project_id)

    @override
    def get_model(self, project_id: str, key: ModelKey) -> ModelDetails:
        """See the port."""
        with self._observed("get_model"):
            return self._geti.get_model(project_id, key)

    @override
    def prepare_deployment(self, project_id: str, key: ModelKey, check_cancelled: Callable[[], None]) -> str:
        """See the port."""
        with self._observed("prepare_deployment"):
            return self._geti.prepare_deployment(project_id, key, check_cancelled)

    @override
    def download_deployment(self, project_id: str, deployment_id: str) -> Iterator[bytes]:
        """See the port."""
        with (
            self._observed("download_deployment"),
            _closing(self._geti.download_deployment(project_id, deployment_id)) as pieces,
        ):
            yield from pieces


@contextmanager
def _closing(pieces: Iterator[bytes]) -> Iterator[Iterator[bytes]]:
    """Close an iterator at the end of the block, if it can be closed, to free what it reads from."""
    try:
        yield pieces
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _counted(pieces: Iterable[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    for piece in pieces:
        count(len(piece))
        yield piece


def _ignore(_size: int) -> None:
    pass
