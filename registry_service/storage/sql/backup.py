"""`domain.backup.DatabaseCopier` on PostgreSQL: COPY to and from files.

Like the output of pg_dump, the text format of COPY works with every major version of Postgres. Unlike pg_dump, COPY
needs no local program of the version of the server.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, Table, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from typing_extensions import override

from registry_service.domain.backup import OBJECTS, DatabaseCopier, DatabaseCopy, TableCopy
from registry_service.domain.errors import DatabaseUnavailableError
from registry_service.domain.events import LogHead
from registry_service.domain.source_error import SourceError
from registry_service.storage.sql.engine import transactional
from registry_service.storage.sql.errors import domain_errors
from registry_service.storage.sql.schema import known_revisions, migrate
from registry_service.storage.sql.tables import Base

BACKUP_LOCK = 0x6D6F_6465_6C62  # "modelb": deletions of objects share the lock, and a backup holds it exclusively
# Running calls, and tables that the migrations fill.
# Verifications do not apply to the copies that a restore makes.
_LEFT_OUT = {
    "uploads",
    "upload_parts",
    "unreferenced_objects",
    "idempotency_keys",
    "idempotency_usage",
    "schema_compatibility",
    "artifact_verifications",
}
_LOCK_SECONDS = 60
_BLOCK = 1024 * 1024
# A comment records which backup is being restored, because every revision of the schema must support it.
_MARK = text("SELECT obj_description('alembic_version'::regclass, 'pg_class')")
_MARK_PREFIX = "being restored: "
_COLUMNS = text("""
    SELECT column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = :name AND is_generated = 'NEVER'
    ORDER BY ordinal_position
""")


@dataclass(frozen=True, slots=True)
class SqlDatabaseCopier(DatabaseCopier):
    """Copies over connections of a pool."""

    engine: Engine

    @contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """See the port. The lock belongs to the connection, so Postgres releases the lock if the process dies."""
        with domain_errors(), self.engine.connect() as connection:
            connection.execute(text(f"SET lock_timeout = '{_LOCK_SECONDS}s'"))
            connection.execute(text("SET statement_timeout = 0"))
            try:
                connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": BACKUP_LOCK})
            except OperationalError as error:
                if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                    raise SourceError("Another backup is under way.") from error
                raise
            server = _server_of(connection)

            def check_locked() -> None:
                # A connection that was reopened meanwhile has another server process, without the lock.
                with domain_errors():
                    if _server_of(connection) != server:
                        raise DatabaseUnavailableError

            try:
                yield check_locked
            finally:
                # Unlock explicitly: Postgres notices the end of a connection late, and deletions check at once.
                with suppress(SQLAlchemyError):
                    connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": BACKUP_LOCK})
                # The pool would keep the connection with its settings.
                connection.invalidate()

    @override
    def copy(self, folder: Path) -> DatabaseCopy:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with domain_errors(), self.engine.connect().execution_options(**options) as connection:
            _prepare(connection)
            revision = _revision(connection) or ""
            if revision not in known_revisions():
                # A newer schema may have tables that the backup would leave out.
                raise SourceError(f"The database is at revision {revision}, of a newer program: back it up with that.")
            copies = []
            for table in _tables():
                columns = _columns(connection, table.name)
                if columns:  # an older schema may lack it
                    copies.append(TableCopy(name=table.name, columns=columns))
                    _copy_out(connection, folder / f"{table.name}.copy", _copy_statement(copies[-1], "TO STDOUT"))
            objects = sql.SQL("COPY (SELECT object_key, size, sha256 FROM models ORDER BY object_key) TO STDOUT")
            _copy_out(connection, folder / OBJECTS, objects)
            head = connection.execute(text("SELECT sequence, hash FROM audit_head")).one()
            return DatabaseCopy(
                revision=revision,
                tables=tuple(copies),
                log_head=LogHead(sequence=head.sequence, hash=head.hash),
            )

    @override
    def check_target(self, revision: str, backup: str) -> bool:
        with domain_errors(), self.engine.connect() as connection:
            if _revision(connection) is not None and connection.execute(_MARK).scalar_one() == _MARK_PREFIX + backup:
                return True
            _check_empty(connection, revision)
            return False

    @override
    def restore(self, folder: Path, copy: DatabaseCopy, backup: str) -> None:
        with domain_errors():
            migrate(self.engine, copy.revision)
            with transactional(self.engine).begin() as connection:
                _prepare(connection)
                known = {table.name: table for table in _tables()}
                strange = [table.name for table in copy.tables if table.name not in known]
                if strange:
                    raise SourceError(f"The backup has tables that this program does not know: {', '.join(strange)}.")
                for table in copy.tables:
                    _alter(connection, "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", table)
                _check_empty(connection, copy.revision)
                # The log already has its sequence numbers and hashes.
                for table in copy.tables:
                    _alter(connection, "ALTER TABLE {} DISABLE TRIGGER USER", table)
                for table in reversed(copy.tables):
                    _alter(connection, "DELETE FROM {}", table)
                for table in copy.tables:
                    _copy_in(connection, folder / f"{table.name}.copy", _copy_statement(table, "FROM STDIN"))
                    _set_identity(connection, known[table.name])
                for table in copy.tables:
                    _alter(connection, "ALTER TABLE {} ENABLE TRIGGER USER", table)
                _mark(connection, _MARK_PREFIX + backup)

    @override
    def finish(self, *, is_complete: bool) -> None:
        with domain_errors():
            migrate(self.engine)
            if is_complete:
                with transactional(self.engine).begin() as connection:
                    _mark(connection, None)


def _tables() -> list[Table]:
    return [table for table in Base.metadata.sorted_tables if table.name not in _LEFT_OUT]


def _columns(connection: Connection, table: str) -> tuple[str, ...]:
    """Return the columns of a table that are not generated. Return none if the table does not exist."""
    return tuple(connection.execute(_COLUMNS, {"name": table}).scalars())


def _server_of(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def _prepare(connection: Connection) -> None:
    """Lift the timeouts of the transaction, and make the output of COPY independent of the settings of the server."""
    for name, value in (
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("datestyle", "ISO"),
        ("extra_float_digits", "1"),
    ):
        connection.execute(text(f"SET LOCAL {name} = {value}"))


def _revision(connection: Connection) -> str | None:
    """Return the revision of the schema, or None if there are no tables."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return None if found is None else str(found)


def _check_empty(connection: Connection, revision: str) -> None:
    found = _revision(connection)
    if found is None:
        return
    if found != revision:
        raise SourceError(
            f"The database is at revision {found}, the backup at {revision}: restore into a database without tables."
        )
    used = connection.execute(
        text("SELECT EXISTS (SELECT FROM models) OR EXISTS (SELECT FROM audit_events)")
    ).scalar_one()
    if used:
        raise SourceError("The database is not empty: there are, or were, models in it.")


def _mark(connection: Connection, mark: str | None) -> None:
    _cursor(connection).execute(sql.SQL("COMMENT ON TABLE alembic_version IS {}").format(sql.Literal(mark)))


def _alter(connection: Connection, statement: str, table: TableCopy) -> None:
    _cursor(connection).execute(sql.SQL(cast("Any", statement)).format(sql.Identifier(table.name)))


def _set_identity(connection: Connection, table: Table) -> None:
    """Let the sequence of a column continue after its last value."""
    for column in table.columns:
        if column.identity is not None:
            name, table_name = sql.Identifier(column.name), sql.Identifier(table.name)
            _cursor(connection).execute(
                sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), max({})) FROM {} HAVING count(*) > 0").format(
                    sql.Literal(table.name), sql.Literal(column.name), name, table_name
                )
            )


def _copy_statement(table: TableCopy, direction: str) -> sql.Composed:
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    return sql.SQL("COPY {} ({}) {}").format(sql.Identifier(table.name), columns, sql.SQL(cast("Any", direction)))


def _cursor(connection: Connection) -> psycopg.Cursor[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection).cursor()


def _copy_out(connection: Connection, path: Path, statement: sql.SQL | sql.Composed) -> None:
    with path.open("xb") as file, _cursor(connection).copy(statement) as copy:
        for block in copy:
            file.write(block)


def _copy_in(connection: Connection, path: Path, statement: sql.SQL | sql.Composed) -> None:
    with path.open("rb") as file, _cursor(connection).copy(statement) as copy:
        for block in _blocks(file):
            copy.write(block)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block
