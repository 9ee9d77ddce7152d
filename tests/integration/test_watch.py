"""WatchAuditEvents: every change once and in order, across interruptions."""

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import psycopg
import pytest
from modelregistry.v1 import audit_pb2, audit_service_pb2
from psycopg import sql
from sqlalchemy import text

from registry_service.domain.events import Change
from registry_service.domain.models import GroupKey
from registry_service.domain.vocabulary import Action
from registry_service.embedded.postgres import PostgresAddress
from registry_service.services import event_watch
from registry_service.storage.sql.database import SqlDatabase
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import expect, serving
from tests.stub_client import Client, refused
from tests.watch_client import Watch, sequences

INVALID = grpc.StatusCode.INVALID_ARGUMENT
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def change(name: str, **fields: Any) -> Change:
    return Change(action=Action.MODEL_UPDATED, group_key=GroupKey(name=name), model_id="0123456789abcdef", **fields)


def write(database: SqlDatabase, *names: str) -> None:
    with database.transaction() as transaction:
        for name in names:
            transaction.events.record(change(name))


def somebody_waits_for_a_lock(registry: RunningRegistry) -> bool:
    return has_backend(registry, "wait_event_type = 'Lock'")


def somebody_listens(registry: RunningRegistry) -> bool:
    return has_backend(registry, "query LIKE 'LISTEN%'")


def has_backend(registry: RunningRegistry, condition: str) -> bool:
    with registry.engine.connect() as connection:
        return bool(
            connection.execute(
                text(
                    f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    f" AND pid <> pg_backend_pid() AND {condition}"
                )
            ).scalar_one()
        )


def break_connections(registry: RunningRegistry) -> None:
    registry.execute(
        # Wait for the end of each process: a signal may arrive in the middle of the next statement.
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


@contextmanager
def closed_database(address: PostgresAddress, name: str) -> Iterator[None]:
    """Break a database's connections, and refuse new ones during the block."""
    with psycopg.connect(
        host=str(address.socket_dir), port=address.port, user=address.user, dbname=address.database, autocommit=True
    ) as connection:
        identifier = sql.Identifier(name)
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(identifier))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(identifier))


def can_watch(client: Client) -> bool:
    with Watch(client) as watch:
        try:
            return bool(watch.message().resume_token)
        except grpc.RpcError as error:
            expect(error, EXHAUSTED)
            return False


class TestEvents:
    def test_the_first_message_arrives_at_once_without_an_event(self, client: Client) -> None:
        client.register(name="before")
        with Watch(client) as watch:
            first = watch.message()
            assert not first.HasField("event")
            assert first.resume_token

    def test_changes_arrive_as_they_are_made(self, client: Client) -> None:
        client.register(name="before")
        with Watch(client) as watch:
            watch.message()
            model = client.register(name="yolo", version="2")
            started = time.monotonic()
            registered = watch.event()
            # Sooner than the polling interval.
            assert time.monotonic() - started < event_watch._POLL_SECONDS / 2
            client.update(model.id, ["score"], score=0.5)
            client.delete(model.id)
            updated, deleted = watch.events(2)
        assert [event.action for event in (registered, updated, deleted)] == [
            audit_pb2.AuditEvent.ACTION_MODEL_REGISTERED,
            audit_pb2.AuditEvent.ACTION_MODEL_UPDATED,
            audit_pb2.AuditEvent.ACTION_MODEL_DELETED,
        ]
        assert sequences((registered, updated, deleted)) == [2, 3, 4]
        assert registered.after["version"] == "2"

    def test_from_beginning_starts_with_all_past_events(self, registry: RunningRegistry) -> None:
        for number in range(150):
            write(registry.parts.database, f"{number}")
        with Watch(registry.client, from_beginning=True) as watch:
            assert not watch.message().HasField("event")
            assert sequences(watch.events(150)) == list(range(1, 151))
            write(registry.parts.database, "and more")
            assert watch.event().sequence == 151

    def test_a_filter_selects_events(self, registry: RunningRegistry) -> None:
        with Watch(registry.client, filter="name = a AND action = ACTION_MODEL_UPDATED") as watch:
            watch.message()
            write(registry.parts.database, "a", "b")
            write(registry.parts.database, "b")
            registry.client.register(name="a")
            write(registry.parts.database, "a")
            assert sequences(watch.events(2)) == [1, 5]

    def test_an_event_arrives_without_a_notification(
        self, registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_watch, "_POLL_SECONDS", 0.2)
        with Watch(registry.client) as watch:
            watch.message()
            registry.execute("ALTER TABLE audit_events DISABLE TRIGGER chain_audit_event")
            registry.execute("UPDATE audit_head SET sequence = 1, hash = 'h'")
            registry.execute(
                "INSERT INTO audit_events (sequence, time, actor, request_id, action, name, model_id, alias, reason,"
                " previous_hash, hash) VALUES (1, now(), '', '', 'model.updated', 'n', 'm', '', '', '', 'h')"
            )
            assert watch.event().sequence == 1

    def test_a_too_large_event_arrives_without_its_details(self, registry: RunningRegistry) -> None:
        with Watch(registry.client) as watch:
            watch.message()
            with registry.parts.database.transaction() as transaction:
                transaction.events.record(change("large", after={"overview": [0] * 600_000}))
                transaction.events.record(change("small", after={"score": 1}))
            large, small = watch.events(2)
        assert (large.name, large.details_omitted, large.HasField("after")) == ("large", True, False)
        assert (small.name, small.details_omitted, small.after["score"]) == ("small", False, 1)

    def test_a_long_log_without_matches_is_read_in_steps(
        self, registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(event_watch, "_WINDOW", 10)
        write(registry.parts.database, *(["other"] * 95), "wanted", *(["other"] * 30))
        with Watch(registry.client, from_beginning=True, filter="wanted") as watch:
            assert watch.event().sequence == 96


class TestHeartbeats:
    def test_a_watch_without_events_sends_heartbeats_with_new_tokens(self, start_registry: StartRegistry) -> None:
        registry = start_registry(watch_heartbeat_seconds=0.3)
        with Watch(registry.client, filter="never") as watch:
            first = watch.message()
            write(registry.parts.database, "other", "another")
            while watch.token == first.resume_token:
                assert not watch.message().HasField("event")
        # Resuming from that token skips the events that were read already.
        write(registry.parts.database, "never")
        with Watch(registry.client, filter="never", resume_token=watch.token) as watch:
            assert watch.event().sequence == 3


class TestTokens:
    def test_nothing_is_lost_or_repeated_between_two_watches(self, registry: RunningRegistry) -> None:
        with Watch(registry.client) as watch:
            token = watch.message().resume_token
        write(registry.parts.database, "a", "b", "c")
        for expected in (1, 2, 3):
            with Watch(registry.client, resume_token=token) as watch:
                assert watch.event().sequence == expected
                token = watch.token

    @pytest.mark.parametrize("token", ["nonsense", "e30", "é", "WzEsWzFdXQ"])
    def test_an_invalid_token_is_refused(self, client: Client, token: str) -> None:
        with refused(INVALID) as refusal, Watch(client, resume_token=token) as watch:
            watch.message()
        assert refusal.fields == ["resume_token"]

    def test_a_token_works_for_its_own_filter_only(self, client: Client) -> None:
        with Watch(client, filter="a") as watch:
            token = watch.message().resume_token
        with refused(INVALID) as refusal, Watch(client, filter="b", resume_token=token) as watch:
            watch.message()
        assert refusal.fields == ["resume_token"]

    def test_a_token_excludes_from_beginning(self, client: Client) -> None:
        with Watch(client) as watch:
            token = watch.message().resume_token
        with refused(INVALID) as refusal, Watch(client, from_beginning=True, resume_token=token) as watch:
            watch.message()
        assert refusal.fields == ["resume_token"]

    def test_a_token_past_the_end_is_refused(self, registry: RunningRegistry) -> None:
        write(registry.parts.database, "a", "b")
        with Watch(registry.client, from_beginning=True) as watch:
            watch.events(2)
        # As after the restoration of an older backup.
        registry.execute("ALTER TABLE audit_events DISABLE TRIGGER ALL")
        registry.execute("DELETE FROM audit_events WHERE sequence = 2")
        registry.execute("UPDATE audit_head SET sequence = 1")
        with (
            refused(grpc.StatusCode.OUT_OF_RANGE) as refusal,
            Watch(registry.client, resume_token=watch.token) as late,
        ):
            late.message()
        assert refusal.metadata == {"sequence": "2", "head": "1"}

    @pytest.mark.parametrize("wrong", ["score > 1", "action = ALIAS_SET", "action = 'ACTION_ALAIS_*'"])
    def test_an_invalid_filter_is_refused(self, client: Client, wrong: str) -> None:
        with refused(INVALID, "INVALID_FILTER") as refusal, Watch(client, filter=wrong) as watch:
            watch.message()
        assert refusal.fields == ["filter"]


class TestOrder:
    def test_events_arrive_in_the_order_of_their_commits(self, registry: RunningRegistry) -> None:
        database = registry.parts.database
        begun, go_on = threading.Event(), threading.Event()

        def slow() -> None:
            with database.transaction() as transaction:
                transaction.events.record(change("slow"))
                begun.set()
                assert go_on.wait(30)

        with Watch(registry.client) as watch, ThreadPoolExecutor(1) as thread:
            watch.message()
            running = thread.submit(slow)
            assert begun.wait(30)
            write(database, "fast")
            assert watch.event().name == "fast"
            go_on.set()
            running.result()
            assert watch.event().name == "slow"

    def test_a_numbered_but_uncommitted_event_delays_later_ones(self, registry: RunningRegistry) -> None:
        database = registry.parts.database
        insert = text(
            "INSERT INTO audit_events (time, actor, request_id, action, name, model_id, alias, reason)"
            " VALUES (now(), '', '', 'model.updated', 'first', 'm', '', '')"
        )
        with Watch(registry.client) as watch, ThreadPoolExecutor(1) as thread:
            watch.message()
            with registry.engine.connect() as connection:
                connection.execute(insert)
                second = thread.submit(write, database, "second")
                eventually(lambda: somebody_waits_for_a_lock(registry))
                connection.commit()
            second.result()
            assert [event.name for event in watch.events(2)] == ["first", "second"]

    def test_reconnecting_clients_miss_and_repeat_no_event_of_many_writers(self, registry: RunningRegistry) -> None:
        each, writers = 40, 6
        dice = random.Random(7)

        def write_some(number: int) -> None:
            for i in range(each):
                write(registry.parts.database, f"{number}", *([f"{number}"] if i % 5 == 0 else []))

        total = writers * (each + each // 5)
        seen: list[int] = []
        with ThreadPoolExecutor(writers) as threads, serving(registry) as (_, other):
            with Watch(registry.client) as watch:
                token = watch.message().resume_token
            running = [threads.submit(write_some, number) for number in range(writers)]
            while len(seen) < total:
                client = dice.choice([registry.client, other])
                with Watch(client, resume_token=token) as watch:
                    for _ in range(min(dice.randrange(1, 40), total - len(seen))):
                        seen.append(watch.event().sequence)
                        token = watch.token
            for writer in running:
                writer.result()
        assert seen == list(range(1, total + 1))


class TestLimits:
    @pytest.fixture
    def small(self, start_registry: StartRegistry) -> RunningRegistry:
        return start_registry(max_watches=2, max_streams=1, max_unary_calls=1, max_waiting_seconds=0.2)

    def test_one_watch_too_many_is_refused_and_other_calls_are_not(self, small: RunningRegistry) -> None:
        client = small.client
        with Watch(client) as first, Watch(client) as second:
            first.message()
            second.message()
            with refused(EXHAUSTED, "TOO_MANY_STREAMS") as refusal, Watch(client) as third:
                third.message()
            assert refusal.metadata == {"limit": "2"}
            model = client.register(name="needs the only stream")
            assert client.get(model.id) == model
            assert first.event().sequence == second.event().sequence == 1
        eventually(lambda: can_watch(client))

    def test_a_watch_is_free_when_its_client_is_gone(self, small: RunningRegistry) -> None:
        other = Client(small.client.address)
        watches = [Watch(other), Watch(other)]
        for watch in watches:
            watch.message()
        started = time.monotonic()
        other.close()
        eventually(lambda: can_watch(small.client))
        assert time.monotonic() - started < event_watch._POLL_SECONDS

    def test_a_watch_without_events_does_not_time_out(self, start_registry: StartRegistry) -> None:
        registry = start_registry(stream_idle_seconds=0.4, watch_heartbeat_seconds=1.5)
        with Watch(registry.client) as watch:
            watch.message()
            assert not watch.message().HasField("event")

    def test_a_client_that_reads_nothing_is_cancelled_and_can_go_on(
        self, start_registry: StartRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        registry = start_registry(stream_idle_seconds=1)
        with registry.parts.database.transaction() as transaction:
            for number in range(100):
                transaction.events.record(change(f"{number}", after={"overview": "x" * 500_000}))
        call = registry.client.audit.WatchAuditEvents(audit_service_pb2.WatchAuditEventsRequest(from_beginning=True))
        next(call)
        token = next(call).resume_token
        eventually(lambda: "kept the call waiting" in caplog.text)
        with refused(grpc.StatusCode.CANCELLED):
            for _ in call:
                pass
        with Watch(registry.client, resume_token=token) as watch:
            assert watch.event().sequence == 2


class TestDraining:
    def test_watches_end_at_once_and_resume_on_another_server(self, registry: RunningRegistry) -> None:
        with serving(registry, shutdown_grace_seconds=60) as (server, client), Watch(client) as watch:
            watch.message()
            started = time.monotonic()
            server.stop()
            assert time.monotonic() - started < 10
            with refused(UNAVAILABLE, "SERVER_STOPPING") as refusal:
                watch.message()
            assert watch.error is not None
            assert watch.error == refusal.status
        write(registry.parts.database, "after")
        with Watch(registry.client, resume_token=watch.token) as other:
            assert other.event().name == "after"


class TestOutages:
    @pytest.fixture
    def with_short_outage_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(event_watch, "_RETRY_LIMIT_SECONDS", 1.0)
        monkeypatch.setattr(event_watch, "_POLL_SECONDS", 0.2)

    def test_a_watch_survives_broken_connections(self, registry: RunningRegistry) -> None:
        with Watch(registry.client) as watch:
            watch.message()
            for number in range(3):
                break_connections(registry)
                eventually(lambda: somebody_listens(registry))
                write(registry.parts.database, f"{number}")
                assert watch.event().name == f"{number}"

    @pytest.mark.usefixtures("with_short_outage_limit")
    def test_a_watch_ends_after_a_long_outage_of_the_database(
        self, registry: RunningRegistry, postgres: PostgresAddress, database_name: str
    ) -> None:
        with Watch(registry.client) as watch:
            watch.message()
            with closed_database(postgres, database_name), refused(UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                watch.message()
        write(registry.parts.database, "after")
        with Watch(registry.client, resume_token=watch.token) as later:
            assert later.event().name == "after"
