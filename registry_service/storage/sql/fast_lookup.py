"""The most frequent statement of all, a lookup of one JSON value by texts, sent past SQLAlchemy and psycopg's cursors.

Measured with SQLAlchemy 2.1 and psycopg 3.3 on CPython 3.11: a lookup takes 35 to 95 us of CPU, a psycopg cursor 135 to
165 us, and `Connection.execute` of SQLAlchemy 250 to 410 us. A cursor also releases the GIL five times more often, and
each release may wake another thread.

This module overrides `psycopg.Connection._deallocate`, which is private, and uses `psycopg.pq` and
`psycopg.errors.error_from_result`. It is tested with psycopg 3.3; read psycopg's changes before you raise the version.
"""

import json
from collections.abc import Sequence
from typing import Any, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Wait
from sqlalchemy import Connection, Select, TextClause
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError

_SUCCESS = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})


class LookupConnection(psycopg.Connection[Any]):
    """A connection that prepares lookups itself."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self._lookups: dict[bytes, bytes] = {}

    def first_value(self, statement: bytes, parameters: Sequence[bytes]) -> bytes | None:
        """Return the first column of the first row, or None if there is no row or the value is NULL.

        Args:
            statement: With text parameters, written `$1`. Prepared; begins no transaction.
            parameters: In UTF-8.

        Raises:
            psycopg.Error: As `execute`.
        """
        name = self._lookups.get(statement)
        if name is None:
            name = b"lookup_%d" % len(self._lookups)
            self.pgconn.send_prepare(name, statement)
            self.wait(self._answer())
            self._lookups[statement] = name
        # In binary format, because NUL ends a parameter in text format.
        self.pgconn.send_query_prepared(name, parameters, [Format.BINARY] * len(parameters))
        answer = self.wait(self._answer())
        return answer.get_value(0, 0) if answer.ntuples else None

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        if name is None:  # all, which psycopg does after each rollback
            self._lookups.clear()
        yield from super()._deallocate(name)

    def _answer(self) -> PQGen[PGresult]:
        """Receive the one result of a request. Requests are too short to be sent in two parts.

        Only the wait for the first byte yields to psycopg. libpq receives the rest in one call, which releases the GIL
        less often. TCP keepalives notice a server that dies meanwhile.
        """
        while not (yield Wait.R):
            pass
        answer = self.pgconn.get_result()
        while self.pgconn.get_result() is not None:
            pass
        if answer is None:
            raise psycopg.OperationalError("Postgres sent no result")
        if answer.status not in _SUCCESS:
            raise error_from_result(answer)
        return answer


class Lookup:
    """A statement with text parameters that returns one JSON value. SQLAlchemy compiles it once."""

    def __init__(self, statement: Select[Any] | TextClause) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=PGDialect_psycopg(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]
        self._sql = str(compiled).encode()
        self._names = compiled.positiontup or ()

    def value(self, connection: Connection, **parameters: str) -> Any:
        """Return the first column of the row, or None if there is no row.

        Raises:
            DBAPIError: As `Connection.execute`.
        """
        driver = cast(LookupConnection, connection.connection.driver_connection)
        # SQLAlchemy sends the statement if a listener observes statements, or if psycopg must begin a transaction.
        if connection.dispatch.before_cursor_execute or not driver.autocommit:
            return connection.execute(self._statement, parameters).scalar_one_or_none()
        try:
            found = driver.first_value(self._sql, [parameters[name].encode() for name in self._names])
        except psycopg.Error as error:
            if driver.closed:
                connection.invalidate(error)
            raise DBAPIError.instance(
                self._sql.decode(),
                parameters,
                error,
                psycopg.Error,
                hide_parameters=True,
                connection_invalidated=driver.closed,
                dialect=connection.dialect,
            ) from error
        return None if found is None else json.loads(found)
