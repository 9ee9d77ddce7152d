"""Migrations of the database to the schema of this program."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from registry_service.domain.errors import DatabaseBusyError
from registry_service.domain.user_error import UserError
from registry_service.storage.sql.engine import transactional

logger = logging.getLogger(__name__)

MINIMUM_SERVER = 15
"""The first major version of PostgreSQL with UNIQUE NULLS NOT DISTINCT."""
_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x6D6F_6465_6C72  # "modelr": an arbitrary unique number
# An index on a million models takes seconds, a minute on a slow disk.
_LOCK_SECONDS = 300.0
_RETRY_SECONDS = 0.1


class SchemaError(UserError):
    """The database cannot be migrated. The message says why."""


def migrate(engine: Engine, revision: str = "head") -> str:
    """Apply the missing migrations up to one, and return the revision of the schema.

    Each migration is a transaction of its own, so that none keeps the locks of another. A migration that fails changes
    nothing, and the next attempt continues there. A migration may leave its transaction (`autocommit_block`) for
    statements such as CREATE INDEX CONCURRENTLY. Such steps must be repeatable. Replicas that start at the same time
    wait for one another under an advisory lock. The schema of a newer program stays as it is if it also serves this
    program, during a rolling upgrade or a rollback.

    Raises:
        SchemaError: The server is too old, or the schema is of a newer program and does not serve this one.
        DatabaseBusyError: Another replica has been migrating for too long.
    """
    with _migrating(engine) as connection:
        version = connection.execute(text("SELECT current_setting('server_version_num')::int / 10000")).scalar_one()
        if version < MINIMUM_SERVER:
            raise SchemaError(f"PostgreSQL {version} is too old: {MINIMUM_SERVER} or newer is needed.")
        found = _revision(connection)
        if revision == "head" and found is not None and found not in known_revisions():
            _check_served(connection, found)
            return found
        # Alembic begins and commits transactions only if none is open.
        connection.commit()
        if revision != "head" or found != max(known_revisions()):
            _upgrade(connection, revision)
        reached: str = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    logger.info("database schema is at revision %s", reached)
    return reached


def _upgrade(connection: Connection, revision: str) -> None:
    # Imported here, because most processes find a migrated database, and the import would delay their start.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise SchemaError(f"The database's schema is not one of this program's: {error}") from error


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """Yield a connection that holds the lock of migrations until the end of the block."""
    with transactional(engine).connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        deadline = time.monotonic() + _LOCK_SECONDS
        # Poll instead of waiting inside Postgres: CREATE INDEX CONCURRENTLY waits for every running statement, so a
        # statement that waits for the lock would deadlock.
        while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": _LOCK}).scalar_one():
            connection.commit()
            if time.monotonic() > deadline:
                raise DatabaseBusyError
            time.sleep(_RETRY_SECONDS)
        connection.commit()
        try:
            yield connection
        finally:
            # The lock and the setting belong to the connection, which the pool would keep.
            connection.invalidate()


def known_revisions() -> frozenset[str]:
    """Return the revisions that this program has migrations for.

    Revisions are numbers of four digits, with which the names of the migrations' files begin.
    """
    return frozenset(file.name[:4] for file in (_MIGRATIONS / "versions").glob("[0-9]*.py"))


def _revision(connection: Connection) -> str | None:
    """Return the revision of the schema, or None if there is no schema."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def _check_served(connection: Connection, found: str) -> None:
    own = max(known_revisions())
    oldest: str | None = None
    if connection.execute(text("SELECT to_regclass('schema_compatibility')")).scalar_one() is not None:
        oldest = connection.execute(text("SELECT oldest_revision FROM schema_compatibility")).scalar_one_or_none()
    if oldest is None:
        # Every newer version of the registry records it. Tables of another program do not.
        raise SchemaError(f"The database's schema is not one of this program's: it is at revision {found}.")
    if own < oldest:
        raise SchemaError(
            f"The database's schema is at revision {found}, of a newer program, and serves programs from revision"
            f" {oldest} on; this one is at {own}. Run the newer program."
        )
    logger.warning("the database schema is at revision %s, of a newer program; it serves this one (%s) too", found, own)
