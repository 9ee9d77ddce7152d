"""Client streams that a test feeds message by message, and servers with a store or options of the test's own."""

import queue
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc

from registry_service.compat.servicer import compat_service
from registry_service.domain.artifact_store import ArtifactStore, Part, Pieces, UnfinishedObject
from registry_service.geti.projects import ProjectService
from registry_service.geti.servicer import geti_service
from registry_service.observability.telemetry import Telemetry
from registry_service.services.garbage_collection_job import GarbageCollectionJob
from registry_service.services.services import Services
from registry_service.transport.grpc.server import RegistryServer, ServerOptions
from registry_service.transport.grpc.system_servicer import ServerInfo
from tests.registry import RunningRegistry
from tests.stub_client import Client

MessageT = TypeVar("MessageT")


def expect(error: grpc.RpcError, *codes: grpc.StatusCode) -> None:
    """Fail unless the call ended with one of these codes."""
    assert error.code() in codes, error


class Feed(Generic[MessageT]):
    """The messages of a client stream, which the test sends one by one."""

    def __init__(self, *messages: MessageT) -> None:
        self._queue: queue.Queue[MessageT | None] = queue.Queue()
        self.send(*messages)

    def send(self, *messages: MessageT) -> None:
        for message in messages:
            self._queue.put(message)

    def end(self) -> None:
        """Half-close the stream."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[MessageT]:
        return self

    def __next__(self) -> MessageT:
        message = self._queue.get()
        if message is None:
            raise StopIteration
        return message


class WrappedStore(ArtifactStore):
    """An artifact store that delegates to another one; tests override single methods."""

    def __init__(self, store: ArtifactStore) -> None:
        self.inner = store
        self.part_size = store.part_size

    def put(self, key: str, data: bytes) -> None:
        self.inner.put(key, data)

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        self.inner.write(key, pieces)

    def begin(self, key: str) -> str:
        return self.inner.begin(key)

    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        return self.inner.write_part(key, handle, number=number, offset=offset, pieces=pieces)

    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        self.inner.finish(key, handle, parts)

    def abort(self, key: str, handle: str | None = None) -> None:
        self.inner.abort(key, handle)

    def unfinished(self) -> Iterator[UnfinishedObject]:
        return self.inner.unfinished()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return self.inner.read(key, offset, length)

    def size(self, key: str) -> int | None:
        return self.inner.size(key)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def check(self) -> None:
        self.inner.check()


def services_on(registry: RunningRegistry, store: ArtifactStore) -> Services:
    """Return the registry's services with another store."""
    parts = registry.parts
    return Services.on(parts.database, store, parts.services.policy)


@contextmanager
def serving(
    registry: RunningRegistry, store: ArtifactStore | None = None, **options: Any
) -> Iterator[tuple[RegistryServer, Client]]:
    """Run another server on a registry's database, with its own store or options."""
    store = store or registry.parts.store
    values: dict[str, Any] = {
        "address": "127.0.0.1:0",
        "reuse_port": False,
        "max_unary_calls": 8,
        "max_waiting_calls": 64,
        "max_streams": 8,
        "max_watches": 8,
        "max_lists": 8,
        "caller_share": 1,
        "max_waiting_seconds": 20,
        "max_connections": 1_000,
        "stream_idle_seconds": 60,
        "shutdown_grace_seconds": 5,
        "shutdown_delay_seconds": 0,
        "health_interval_seconds": 1,
    } | options
    gc_interval_seconds = values.pop("gc_interval_seconds", 3600)
    info = ServerInfo(
        version="0.0.0",
        max_artifact_bytes=1,
        max_metadata_bytes=1,
        upload_ttl_seconds=1,
        stream_idle_seconds=1,
        watch_heartbeat_seconds=1,
    )
    services = services_on(registry, store)
    projects = ProjectService(None, services.models)
    collection = GarbageCollectionJob(
        services.garbage_collector, interval_seconds=gc_interval_seconds, observer=Telemetry()
    )
    server = RegistryServer(
        services,
        registry.parts.database,
        store,
        ServerOptions(**values),
        info=info,
        optional_services=[compat_service(services, projects), geti_service(projects)],
        jobs=[collection],
    )
    server.start()
    client = Client(f"127.0.0.1:{server.port}")
    try:
        yield server, client
    finally:
        client.close()
        server.stop()
