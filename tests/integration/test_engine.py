"""Database connections whose Postgres is frozen, full or broken."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Integer, bindparam, event, select, text
from sqlalchemy.exc import DataError, ProgrammingError

from registry_service.domain.errors import DatabaseUnavailableError, QueryTooSlowError, StorageFullError
from registry_service.embedded.postgres import PostgresAddress
from registry_service.storage.sql.engine import PLANNED_ANEW, Tls, make_engine, transactional
from registry_service.storage.sql.errors import domain_errors
from registry_service.storage.sql.fast_lookup import Lookup


@contextmanager
def frozen(connection: Connection) -> Iterator[None]:
    """Freeze the Postgres process of a connection during the block."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    connection.commit()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def engine(postgres: PostgresAddress, database_name: str) -> Iterator[Engine]:
    """A pool of one connection with a statement timeout of half a second."""
    engine = make_engine(
        host=str(postgres.socket_dir),
        port=postgres.port,
        database=database_name,
        user=postgres.user,
        password="",
        tls=Tls(mode="prefer"),
        pool_size=1,
        statement_timeout_seconds=0.5,
    )
    yield engine
    engine.dispose()


Send = Callable[[Connection, str], Any]


def by_sqlalchemy(connection: Connection, statement: str) -> Any:
    return connection.execute(text(statement)).scalar_one_or_none()


def by_lookup(connection: Connection, statement: str) -> Any:
    return Lookup(text(statement)).value(connection)


both_ways = pytest.mark.parametrize("send", [by_sqlalchemy, by_lookup])


@both_ways
def test_a_statement_on_a_frozen_postgres_fails_soon_after_its_timeout(engine: Engine, send: Send) -> None:
    with engine.connect() as connection, pytest.raises(QueryTooSlowError), domain_errors():
        send(connection, "SELECT pg_sleep(10)")
    with engine.connect() as connection, frozen(connection):
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailableError), domain_errors():
            send(connection, "SELECT 1")
        assert 0.5 < time.monotonic() - started < 60
        assert connection.invalidated
    # The only slot of the pool is free for another connection.
    with engine.connect() as connection:
        assert send(connection, "SELECT 1") == 1


@both_ways
def test_a_full_disk_of_postgres_is_distinguished_from_an_outage(engine: Engine, send: Send) -> None:
    with engine.connect() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION pg_temp.extend() RETURNS int LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
            )
        )
        with pytest.raises(StorageFullError, match="No space is left in the database"), domain_errors():
            send(connection, "SELECT pg_temp.extend()")
        assert send(connection, "SELECT 1") == 1


@both_ways
def test_a_connection_broken_by_a_statement_is_not_reused(engine: Engine, send: Send) -> None:
    with engine.connect() as connection:
        with pytest.raises(DatabaseUnavailableError), domain_errors():
            send(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
        assert connection.invalidated
    with engine.connect() as connection:
        assert send(connection, "SELECT 1") == 1


@both_ways
def test_an_invalid_statement_breaks_no_connection(engine: Engine, send: Send) -> None:
    with engine.connect() as connection:
        with pytest.raises(ProgrammingError) as raised, domain_errors():
            send(connection, "SELECT nothing")
        assert "nothing" in str(raised.value.orig)
        assert not connection.invalidated
        assert send(connection, "SELECT 1") == 1
        assert send(connection, "SELECT 1 WHERE false") is None


def test_a_lookup_works_after_a_rollback_has_dropped_all_prepared_statements(engine: Engine) -> None:
    lookup = Lookup(text("SELECT to_json(CAST(:key AS text))"))
    with engine.connect() as connection:
        assert lookup.value(connection, key="before") == "before"
    # psycopg prepares a statement after five executions, and drops all prepared statements after a rollback.
    with transactional(engine).connect() as connection:
        for _ in range(7):
            connection.execute(text("SELECT 1"))
        connection.rollback()
    with engine.connect() as connection:
        prepared = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
        assert prepared == 0
        assert lookup.value(connection, key="after") == "after"


def test_a_lookup_with_a_nul_character_finds_nothing(engine: Engine) -> None:
    lookup = Lookup(text("SELECT to_json(CAST(:key AS text))"))
    with engine.connect() as connection:
        with pytest.raises(DataError):
            lookup.value(connection, key="some\0thing")
        assert lookup.value(connection, key="some") == "some"


def test_a_lookup_in_a_transaction_is_part_of_it(engine: Engine) -> None:
    with transactional(engine).connect() as connection:
        assert Lookup(text("SELECT to_json(pg_current_xact_id()::text)")).value(connection) == (
            connection.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()
        )


def test_a_lookup_is_seen_by_listeners_of_statements(engine: Engine) -> None:
    seen: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *told: seen.append(told[2]))
    with engine.connect() as connection:
        assert by_lookup(connection, "SELECT 1") == 1
    assert seen == ["SELECT 1"]


@pytest.mark.parametrize(("options", "prepared"), [({}, 1), (PLANNED_ANEW, 0)])
def test_a_statement_that_needs_a_new_plan_is_never_prepared(
    engine: Engine, options: Mapping[str, bool], prepared: int
) -> None:
    statement = select(bindparam("value", type_=Integer)).execution_options(**options)
    count = text("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%AS anon%'")
    with engine.connect() as connection:
        for value in range(20):
            assert connection.execute(statement, {"value": value}).scalar_one() == value
        assert connection.execute(count).scalar_one() == prepared
