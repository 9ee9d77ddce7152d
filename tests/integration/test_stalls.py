"""What says nothing more, for example a frozen process or a cut network, stops nothing else for long."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from registry_service.embedded.postgres import PostgresAddress
from tests.client import refused
from tests.hanging_proxy import HangingProxy
from tests.registry import RunningRegistry, StartRegistry
from tests.waiting import eventually

BOUND_SECONDS = 10
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def way_to_postgres(postgres: PostgresAddress) -> Iterator[HangingProxy]:
    with HangingProxy(f"{postgres.socket_dir}/.s.PGSQL.{postgres.port}", None) as proxy:
        yield proxy


@pytest.fixture
def replica(start_registry: StartRegistry, way_to_postgres: HangingProxy) -> RunningRegistry:
    """A replica whose way to Postgres can be cut; `registry` is another one of the same deployment."""
    return start_registry(
        psql_hostname="127.0.0.1", psql_port=way_to_postgres.port, psql_sslmode="disable", health_interval_seconds=0.2
    )


@contextmanager
def in_background(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(call)


def seconds_of(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


class TestReplicaThatIsCutOff:
    def test_it_never_keeps_the_end_of_the_audit_log(
        self, registry: RunningRegistry, replica: RunningRegistry, way_to_postgres: HangingProxy
    ) -> None:
        way_to_postgres.hang_after(b"INTO audit_events")
        with in_background(lambda: replica.client.register(name="cut-off")) as answer:
            assert way_to_postgres.has_hung.wait(BOUND_SECONDS)
            # The statement has arrived, and with it the commit.
            eventually(lambda: registry.client.names() == ["cut-off"], BOUND_SECONDS, "the commit")
            assert seconds_of(lambda: registry.client.register(name="other")) < BOUND_SECONDS / 2
            way_to_postgres.resume()
            assert answer.result().name == "cut-off"

    def test_it_keeps_the_locks_of_an_open_transaction_for_seconds_only(
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

    def test_a_lock_that_is_kept_for_too_long_is_an_error_that_says_so(self, registry: RunningRegistry) -> None:
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


class TestPostgresThatSaysNothing:
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
