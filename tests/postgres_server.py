"""A real PostgreSQL for tests, from the wheel, and a fresh database for each test."""

import itertools
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress
from registry_service.storage.sql.engine import Tls, make_engine, transactional
from registry_service.storage.sql.schema import migrate
from tests.temporary_folders import accessible_folder

_TEMPLATE = "migrated"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresAddress]:
    """A running server."""
    with accessible_folder() as folder, EmbeddedPostgres(folder, durable=False) as address:
        yield address


@pytest.fixture(scope="session")
def _template(postgres: PostgresAddress) -> str:
    create_database(postgres, _TEMPLATE, "template1")
    engine = engine_of(postgres, _TEMPLATE)
    migrate(engine)
    engine.dispose()
    return _TEMPLATE


@pytest.fixture
def empty_database(postgres: PostgresAddress) -> Iterator[Engine]:
    """An empty database, without tables."""
    name = f"test_{next(_numbers)}"
    create_database(postgres, name, "template1")
    yield from _engine(postgres, name)


@pytest.fixture
def database_name(postgres: PostgresAddress, _template: str) -> Iterator[str]:
    """The name of a migrated database without rows."""
    with migrated_database(postgres, _template) as name:
        yield name


@pytest.fixture(scope="module")
def module_database_name(postgres: PostgresAddress, _template: str) -> Iterator[str]:
    """The name of a migrated database that the tests of a module share."""
    with migrated_database(postgres, _template) as name:
        yield name


@contextmanager
def migrated_database(postgres: PostgresAddress, template: str) -> Iterator[str]:
    """Create a copy of a database, and drop it in the end."""
    name = f"test_{next(_numbers)}"
    create_database(postgres, name, template)
    yield name
    drop_database(postgres, name)


@pytest.fixture
def engine(postgres: PostgresAddress, database_name: str) -> Iterator[Engine]:
    """Connections to `database_name`."""
    engine = engine_of(postgres, database_name)
    yield engine
    engine.dispose()


def engine_of(address: PostgresAddress, database: str, *, statement_timeout_seconds: int = 30) -> Engine:
    engine = make_engine(
        host=str(address.socket_dir),
        port=address.port,
        database=database,
        user=address.user,
        password="",
        tls=Tls(mode="prefer"),
        pool_size=16,
        statement_timeout_seconds=statement_timeout_seconds,
    )
    return transactional(engine)


def _engine(address: PostgresAddress, name: str) -> Iterator[Engine]:
    engine = engine_of(address, name)
    yield engine
    engine.dispose()
    drop_database(address, name)


def create_database(address: PostgresAddress, name: str, template: str) -> None:
    # With the default, WAL_LOG, this statement takes Postgres twice the CPU time.
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY")
    _execute(address, statement.format(sql.Identifier(name), sql.Identifier(template)))


def drop_database(address: PostgresAddress, name: str) -> None:
    _execute(address, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _execute(address: PostgresAddress, statement: sql.Composed) -> None:
    with closing(
        psycopg.connect(
            host=str(address.socket_dir),
            port=address.port,
            user=address.user,
            dbname=address.database,
            autocommit=True,
        )
    ) as connection:
        connection.execute(statement)
