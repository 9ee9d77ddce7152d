"""Connections to a Postgres that says nothing more."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from registry_service.domain.errors import DatabaseUnavailableError, QueryTooSlowError
from registry_service.embedded.postgres import PostgresAddress
from registry_service.storage.sql.engine import Tls, domain_errors, make_engine


@contextmanager
def frozen(connection: Connection) -> Iterator[None]:
    """Stops the process that serves a connection, for a while."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    connection.commit()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_frozen_postgres_holds_a_statement_little_longer_than_it_may_take(
    postgres: PostgresAddress, database_name: str
) -> None:
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
    try:
        with engine.connect() as connection, pytest.raises(QueryTooSlowError), domain_errors():
            connection.execute(text("SELECT pg_sleep(10)"))
        with engine.connect() as connection, frozen(connection):
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailableError), domain_errors():
                connection.execute(text("SELECT 1"))
            assert 0.5 < time.monotonic() - started < 60
            assert connection.invalidated
        # The only place of the pool is free for another connection.
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    finally:
        engine.dispose()
