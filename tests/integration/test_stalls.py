"""A frozen process or a cut network delays the rest of the system only briefly."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from modelregistry.v1 import system_service_pb2
from sqlalchemy import Engine, text

from registry_service.domain.artifact_store import ArtifactStore, Part
from registry_service.embedded.postgres import PostgresAddress
from registry_service.storage.artifacts.local import LocalArtifactStore
from registry_service.storage.sql.database import SqlDatabase
from tests.hanging_proxy import HangingProxy
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import WrappedStore, services_on, serving
from tests.stub_client import Client, refused
from tests.transaction_checks import no_store_in_transactions

BOUND_SECONDS = 10
PART = 8 * 1024 * 1024
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def way_to_postgres(postgres: PostgresAddress) -> Iterator[HangingProxy]:
    with HangingProxy(f"{postgres.socket_dir}/.s.PGSQL.{postgres.port}", None) as proxy:
        yield proxy


@pytest.fixture
def replica(start_registry: StartRegistry, way_to_postgres: HangingProxy) -> RunningRegistry:
    """A replica whose connection to Postgres can be cut; `registry` is another replica of the deployment."""
    return start_registry(
        psql_hostname="127.0.0.1", psql_port=way_to_postgres.port, psql_sslmode="disable", health_interval_seconds=0.2
    )


def is_ready(client: Client) -> bool:
    try:
        client.system.GetReadiness(system_service_pb2.GetReadinessRequest())
    except grpc.RpcError:
        return False
    return True


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(call)


def seconds_of(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


class TestDisconnectedReplica:
    def test_it_never_blocks_the_end_of_the_audit_log(
        self, registry: RunningRegistry, replica: RunningRegistry, way_to_postgres: HangingProxy
    ) -> None:
        way_to_postgres.hang_after(b"INTO audit_events")
        with in_background(lambda: replica.client.register(name="cut-off")) as answer:
            assert way_to_postgres.has_hung.wait(BOUND_SECONDS)
            # The statement and its commit have arrived.
            eventually(lambda: registry.client.names() == ["cut-off"], BOUND_SECONDS, "the commit")
            assert seconds_of(lambda: registry.client.register(name="other")) < BOUND_SECONDS / 2
            way_to_postgres.resume()
            assert answer.result().name == "cut-off"

    def test_the_locks_of_its_open_transaction_are_released_within_seconds(
        self, registry: RunningRegistry, replica: RunningRegistry, way_to_postgres: HangingProxy
    ) -> None:
        model, other = registry.client.register(name="locked"), registry.client.register(name="free")
        way_to_postgres.hang_after(b"UPDATE models")
        with in_background(lambda: replica.client.update(model.id, score=1)) as answer:
            assert way_to_postgres.has_hung.wait(BOUND_SECONDS)
            assert seconds_of(lambda: registry.client.update(other.id, score=2)) < BOUND_SECONDS / 2
            assert seconds_of(lambda: registry.client.update(model.id, score=2)) < BOUND_SECONDS
            way_to_postgres.resume()
            with refused(UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                answer.result()
        assert registry.client.get(model.id).score == 2
        assert replica.client.update(model.id, score=3).score == 3

    def test_a_timeout_of_a_lock_is_named_in_the_error(self, registry: RunningRegistry) -> None:
        model = registry.client.register(name="locked")
        with registry.engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            connection.exec_driver_sql("SELECT FROM models FOR UPDATE")
            started = time.monotonic()
            with refused(UNAVAILABLE, "DATABASE_BUSY") as refusal:
                registry.client.update(model.id, score=1)
        assert time.monotonic() - started < BOUND_SECONDS
        assert "filter" not in refusal.message
        assert registry.client.update(model.id, score=1).score == 1


class TestUnresponsivePostgres:
    def test_calls_end_within_seconds_and_new_ones_at_once(
        self, replica: RunningRegistry, way_to_postgres: HangingProxy
    ) -> None:
        model = replica.client.register(b"bytes", name="steady")

        def ask(number: int) -> float:
            started = time.monotonic()
            with refused(UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                if number % 2:
                    replica.client.get(model.id)
                else:
                    replica.client.update(model.id, score=number)
            return time.monotonic() - started

        with way_to_postgres.hanging(), ThreadPoolExecutor(24) as threads:
            assert max(threads.map(ask, range(24))) < BOUND_SECONDS
            assert ask(1) < 1
            assert ask(2) < 1
        eventually(lambda: replica.client.get(model.id).name == "steady", BOUND_SECONDS, "an answer")
        assert replica.client.update(model.id, score=5).score == 5
        assert replica.client.download(model.id) == b"bytes"

    def test_the_server_reports_it_and_can_still_stop(
        self, replica: RunningRegistry, way_to_postgres: HangingProxy
    ) -> None:
        model = replica.client.register(name="steady")
        with (
            serving(replica, health_interval_seconds=0.2) as (server, client),
            way_to_postgres.hanging(),
            in_background(lambda: client.get(model.id)) as answer,
        ):
            eventually(lambda: not is_ready(client), BOUND_SECONDS, "the end of readiness")
            with refused(UNAVAILABLE, "DATABASE_UNAVAILABLE") as refusal:
                client.system.GetReadiness(system_service_pb2.GetReadinessRequest())
            assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.seconds > 0
            assert seconds_of(server.stop) < BOUND_SECONDS
            with pytest.raises(grpc.RpcError):
                answer.result()


class HangingStore(WrappedStore):
    """Hangs in every write."""

    def __init__(self, store: ArtifactStore) -> None:
        super().__init__(store)
        self.hung = threading.Semaphore(0)
        """Counts the calls."""
        self.go_on = threading.Event()

    def put(self, key: str, data: bytes) -> None:
        self._hang()
        super().put(key, data)

    def begin(self, key: str) -> str:
        self._hang()
        return super().begin(key)

    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        self._hang()
        super().finish(key, handle, parts)

    def delete(self, key: str) -> None:
        self._hang()
        super().delete(key)

    def _hang(self) -> None:
        self.hung.release()
        assert self.go_on.wait(60)


class TestUnresponsiveStore:
    def test_a_hanging_write_keeps_no_connection_and_no_lock(self, start_registry: StartRegistry) -> None:
        registry = start_registry(psql_pool_size=2)
        client = registry.client
        deleted = [client.register(name=f"deleted-{number}") for number in range(4)]
        completed = [client.create_upload(name=f"completed-{size}") for size in (3, PART + 3)]
        begun = client.create_upload(name="begun")
        for upload, size in zip(completed, (3, PART + 3), strict=True):
            client.write_upload(upload.id, 0, bytes(size))
        kept = client.register(name="kept")
        store = HangingStore(registry.parts.store)
        services = services_on(registry, store)
        with ThreadPoolExecutor(8) as threads:

            def submit(call: Callable[..., Any], *args: Any) -> Future[Any]:
                return threads.submit(copy_context().run, call, *args)

            calls = [submit(services.models.delete, model.id) for model in deleted]
            calls += [submit(services.uploads.complete, upload.id) for upload in completed]
            calls.append(submit(services.uploads.write, begun.id, 0, [bytes(PART)]))
            for _ in calls:
                assert store.hung.acquire(timeout=30)
            assert sessions_in_transactions(registry) == 0
            # The deletions were committed before, so no client sees the models.
            assert client.names('name = "kept"') == client.names() == ["kept"]
            for number in range(10):
                assert seconds_of(lambda: client.update(kept.id, score=number)) < BOUND_SECONDS / 2  # noqa: B023
            store.go_on.set()
            for call in calls:
                call.result()
        assert sorted(client.names()) == ["completed-3", f"completed-{PART + 3}", "kept"]
        client.cancel_upload(begun.id)
        eventually(lambda: registry.count("unreferenced_objects") == 0, what="the end of the deletions")
        assert len(registry.objects()) == 3

    def test_deletions_leave_threads_for_other_calls(self, registry: RunningRegistry) -> None:
        models = [registry.client.register(name=f"deleted-{number}") for number in range(12)]
        kept = registry.client.register(name="kept")
        store = HangingStore(registry.parts.store)
        # Fewer threads than deletions.
        with serving(registry, store, max_unary_calls=8) as (_, client), ThreadPoolExecutor(12) as threads:
            deletions = [threads.submit(client.delete, model.id) for model in models]
            assert store.hung.acquire(timeout=30)
            assert seconds_of(lambda: client.get(kept.id)) < BOUND_SECONDS
            for deletion in deletions:
                deletion.result(BOUND_SECONDS)
            assert client.names() == ["kept"]
            store.go_on.set()

        def is_collected() -> bool:
            registry.parts.services.garbage_collector.collect()
            return len(registry.objects()) == 1

        eventually(is_collected, what="garbage collection")

    def test_the_registry_fixture_detects_store_calls_within_a_transaction(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        database, store = SqlDatabase(engine), LocalArtifactStore(tmp_path)
        with (
            pytest.raises(AssertionError, match="size artifacts/held"),
            no_store_in_transactions(),
            database.transaction(),
        ):
            store.size("artifacts/held")


def sessions_in_transactions(registry: RunningRegistry) -> int:
    with registry.engine.connect() as connection:
        return int(
            connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND state LIKE 'idle in transaction%'"
                )
            ).scalar_one()
        )


class TestUnresponsiveCollector:
    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_it_delays_neither_calls_nor_the_end_of_the_server(
        self, start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch, protocol: str
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
            registry = start_registry(otel_exporter_otlp_endpoint=address, otel_exporter_otlp_protocol=protocol)
            model = registry.client.register(name="traced")
            for _ in range(50):
                assert seconds_of(lambda: registry.client.get(model.id)) < BOUND_SECONDS / 2
            tracing = registry.parts.telemetry.tracing
            assert tracing is not None
            assert seconds_of(tracing.close) < BOUND_SECONDS
