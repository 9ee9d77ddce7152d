"""Connections to Postgres, and the one place where its errors become the domain's."""

import ctypes
import json
import logging
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Wait
from sqlalchemy import URL, Connection, Engine, Select, TextClause, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, Dialect, ExecutionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from registry_service.domain.caller import current_caller
from registry_service.domain.errors import (
    AbortedError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    QueryTooSlowError,
    StorageFullError,
)

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_CONNECT_TIMEOUT = 3
_POOL_TIMEOUT = 10
_LOCK_SECONDS = 6.0
# A replica that is frozen, or cut off, in the middle of a transaction keeps its locks for so long. Its transactions
# that wait for the same lock get it one after the other, until their own wait is over: together less than 10 s.
_IDLE_IN_TRANSACTION_SECONDS = 3.0
_TRUSTED_SECONDS = 1.0
_PING_SECONDS = 3.0
# How much longer than a statement may take is waited for its answer.
_ANSWER_MARGIN_SECONDS = 5.0
# What a statement with a filter may take, in time and in characters, before Postgres's process is replaced: it keeps
# the memory that it took for the plan, of two times 50 restrictions 20 to 50 MiB each time.
_WORN_SECONDS = 1.0
_WORN_LENGTH = 6_000
# Deadlock, serialization failure: the loser may simply try again.
_RETRYABLE = {"40001", "40P01"}
# Read-only transaction (a failover is under way), server shutting down or starting.
_STATEMENT_TIMEOUT = "57014"
_DISK_FULL = "53100"
_LOCK_TIMEOUT = "55P03"
_WELL = frozenset({ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK})
_AWAY = {"25006", "57P01", "57P02", "57P03"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS towards Postgres."""

    mode: str
    """libpq's sslmode."""
    ca_cert: Path | None = None
    """File of what Postgres's certificate is checked with; None leaves it to libpq (PGSSLROOTCERT)."""
    client_cert: Path | None = None
    """File of what Postgres may ask for; its key goes with it. None leaves them to libpq."""
    client_private_key: Path | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """How libpq is told."""
        files = {"sslrootcert": self.ca_cert, "sslcert": self.client_cert, "sslkey": self.client_private_key}
        return {"sslmode": self.mode} | {name: str(file) for name, file in files.items() if file is not None}


class Pulse:
    """Finds out whether Postgres answers at all, so that nothing waits long for one that is frozen or cut off.

    A slow statement and a frozen Postgres look the same to the thread that waits. `check`
    asks on a connection beside the pool. While that finds only silence, statements that
    are under way fail at once, and so do new ones, instead of each holding a thread.

    Args:
        connect: Makes a connection; it gives up within a few seconds.
    """

    def __init__(self, connect: "Callable[[], _Connection]") -> None:
        self._connect = connect
        self._connection: _Connection | None = None
        self._lock = threading.Lock()
        self.is_silent = False
        """Whether Postgres did not answer when it was last asked."""

    def check(self) -> float:
        """Ask, twice where the first connection may be broken. For one thread at a time; others wait.

        Returns:
            By how many seconds this machine's clock is ahead of Postgres's, at least; negative: behind.

        Raises:
            psycopg.Error: Postgres did not answer, or refused.
        """
        with self._lock:
            try:
                offset = None if self._connection is None else self._offset_unless_broken(self._connection)
                if offset is None:
                    self._connection = None
                    self._connection = self._connect()
                    self._connection.answer_seconds = _PING_SECONDS
                    offset = _clock_offset(self._connection)
            except (psycopg.errors.ConnectionTimeout, _SilenceError):
                self.is_silent = True
                raise
            except psycopg.Error:
                self.is_silent = False
                raise
            self.is_silent = False
            return offset

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _offset_unless_broken(self, connection: "_Connection") -> float | None:
        try:
            return _clock_offset(connection)
        except psycopg.Error:
            connection.close()
            return None


def _clock_offset(connection: "_Connection") -> float:
    asked = time.time()
    found = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    answered = time.time()
    theirs = float(found[0]) if found is not None else asked
    # Postgres looked at its clock at some time in between.
    return asked - theirs if asked > theirs else min(answered - theirs, 0.0)


class _SilenceError(psycopg.OperationalError):
    """Postgres has not answered in time."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """When a search is given up: after its time, or once its client is gone."""

    deadline: float
    is_abandoned: Callable[[], bool]

    def is_due(self) -> bool:
        return time.monotonic() > self.deadline or self.is_abandoned()


class _Connection(psycopg.Connection[Any]):
    """Does not wait for ever: a host that is frozen, or cut off without notice, ends no statement and no connection."""

    answer_seconds: float | None = None
    """How long one answer may take; None has no bound."""
    pulse: Pulse | None = None
    """Ends the wait while Postgres is silent; None leaves that to `answer_seconds`."""
    stop: "_Stop | None" = None
    """When the statement under way is given up; None leaves that to Postgres."""
    is_worn: bool = False
    """Whether Postgres's process may have grown by a statement, so that the pool shall replace the connection."""

    def __init__(self, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        self._lookups: dict[bytes, bytes] = {}

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """See psycopg; a connection that is waited for in vain is closed, as nobody knows what it is doing."""
        if timeout is not None or self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        started = time.monotonic()
        try:
            return super().wait(self._unless_silent(gen), interval, self.answer_seconds)
        except _SilenceError:
            self.close()
            raise
        except psycopg.OperationalError as error:
            if time.monotonic() - started >= self.answer_seconds:
                self.close()
                raise _SilenceError(str(error)) from error
            raise

    def _unless_silent(self, gen: PQGen[Answer]) -> PQGen[Answer]:
        """Run a generator of psycopg; whenever it has waited for an interval in vain, look whether that is for nothing.

        Raises:
            _SilenceError: Postgres is silent.
        """
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and self.pulse is not None and self.pulse.is_silent:
                    raise _SilenceError("Postgres does not answer anybody")
                if not ready and self.stop is not None and self.stop.is_due():
                    self.stop = None
                    # It then answers with an error, which is waited for as any other answer.
                    self.cancel_safe(timeout=_CONNECT_TIMEOUT)
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: Answer = end.value
            return answer

    def first_value(self, statement: bytes, parameters: Sequence[bytes]) -> bytes | None:
        """Returns the first column of the first row that a statement finds; None where there is no row, or it is NULL.

        Args:
            statement: With parameters of type text, as `$1`. It is prepared, and begins no transaction.
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
        # In binary, as a NUL would be the end of a text.
        self.pgconn.send_query_prepared(name, parameters, [Format.BINARY] * len(parameters))
        answer = self.wait(self._answer())
        return answer.get_value(0, 0) if answer.ntuples else None

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        if name is None:  # all: psycopg does so after each rollback
            self._lookups.clear()
        yield from super()._deallocate(name)

    def _answer(self) -> PQGen[PGresult]:
        """Takes the one answer to what was sent, which is too short to be sent in two.

        It is waited for until it begins. Then libpq takes the rest by itself, for
        which a thread gives up the GIL less often; who dies in the midst of it is
        noticed by TCP's keepalives.
        """
        while not (yield Wait.R):
            pass
        answer = self.pgconn.get_result()
        while self.pgconn.get_result() is not None:
            pass
        if answer is None:
            raise psycopg.OperationalError("Postgres has not answered")
        if answer.status not in _WELL:
            raise error_from_result(answer)
        return answer


def make_engine(
    *,
    host: str,
    port: int,
    database: str,
    user: str,
    password: str,
    tls: Tls,
    pool_size: int,
    statement_timeout_seconds: float,
    search_timeout_seconds: float | None = None,
    is_bounded: bool = True,
) -> Engine:
    """Makes the pool of connections; connects nowhere yet.

    Each statement is a transaction of its own, which spares reads the round trips
    of BEGIN and COMMIT: who needs several in one takes `transactional`.

    Args:
        host: Or the folder of a Unix socket.
        port: Of Postgres.
        database: Its name.
        user: Its name.
        password: Of the user; may be empty.
        tls: Towards Postgres.
        pool_size: Most connections at once.
        statement_timeout_seconds: For one statement, and at most for a lock; Postgres sees to it.
        search_timeout_seconds: For a statement with a filter or a page (`PLANNED_ANEW`), which is given up before also
            when its client goes; None: as for others. We see to it.
        is_bounded: Whether we see to it, too, where Postgres does not, and whether locks are waited for, and kept by
            who says nothing more, for seconds only. Not for statements that lift the timeout.
    """
    lock_seconds, idle_seconds = statement_timeout_seconds, statement_timeout_seconds * 4
    if is_bounded:
        lock_seconds, idle_seconds = min(lock_seconds, _LOCK_SECONDS), _IDLE_IN_TRANSACTION_SECONDS
    settings = {
        "statement_timeout": int(statement_timeout_seconds * 1000),
        "lock_timeout": int(lock_seconds * 1000),
        "idle_in_transaction_session_timeout": int(idle_seconds * 1000),
        "tcp_keepalives_idle": 4,
        "tcp_keepalives_interval": 2,
        "tcp_keepalives_count": 2,
        "tcp_user_timeout": 8_000,
        "timezone": "UTC",
    }
    url = URL.create("postgresql+psycopg", username=user, password=password or None, database=database)
    connect_args = {
        "host": host,
        "port": port,
        **tls.parameters,
        "application_name": "model-registry",
        "connect_timeout": _CONNECT_TIMEOUT,
        # A host that vanished is noticed in seconds, not in TCP's minutes; by Postgres as well, which keeps
        # the locks of a client until it notices.
        "keepalives_idle": 4,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": 8_000,
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }
    engine = create_engine(
        url,
        connect_args=connect_args,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT,
        pool_recycle=1800,
        # Those that are in use stay few: to wake another process of Postgres each time costs more.
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Statements' parameters are clients' data, which has no place in a log.
        hide_parameters=True,
    )
    answer_seconds = statement_timeout_seconds + _ANSWER_MARGIN_SECONDS if is_bounded else None

    arguments: dict[str, Any] = {**engine.dialect.create_connect_args(url)[1], **connect_args}
    pulse = Pulse(lambda: _Connection.connect(**arguments, autocommit=True))

    def connect(_dialect: Dialect, _record: ConnectionPoolEntry, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if pulse.is_silent:
            raise _SilenceError("Postgres does not answer anybody")
        connection = _Connection.connect(*args, **options)
        connection.answer_seconds = answer_seconds
        connection.pulse = pulse
        return connection

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "do_execute", _execute_unprepared)
    event.listen(engine, "do_execute", _execute_and_commit)
    _check_idle_connections(engine, pulse)
    return engine.execution_options(pulse=pulse, search_seconds=search_timeout_seconds)


def pulse_of(engine: Engine) -> Pulse:
    """Return what finds out whether the Postgres of an engine of `make_engine` answers."""
    return cast("Pulse", engine.get_execution_options()["pulse"])


PLANNED_ANEW: Mapping[str, bool] = {"is_planned_anew": True}
"""Execution options of a statement whose best plan depends on its values: how much a filter leaves over, how deep a
page is. Prepared, it would get a plan for any values after some calls, which for some of them reads the whole table."""


def _execute_unprepared(
    cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext | None
) -> Literal[True] | None:
    if context is None or not context.execution_options.get("is_planned_anew"):
        return None
    driver = cast("psycopg.Cursor[Any]", cursor)
    connection = cast("_Connection", driver.connection)
    seconds: float | None = context.execution_options.get("search_seconds")
    started = time.monotonic()
    if seconds is not None:
        connection.stop = _Stop(started + seconds, current_caller.get().is_gone)
    try:
        driver.execute(statement, parameters, prepare=False)
    finally:
        connection.stop = None
        connection.is_worn |= len(statement) > _WORN_LENGTH or time.monotonic() - started > _WORN_SECONDS
    return True


COMMITTING: Mapping[str, bool] = {"is_committing": True}
"""Execution options of the last statement of a transaction: it takes the commit along, in one message.

Postgres reads a message whole before it acts on it. So what the statement locks is free again without another word
from this process, which may be frozen, or cut off, right then."""


def _execute_and_commit(
    cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext | None
) -> Literal[True] | None:
    if context is None or not context.execution_options.get("is_committing"):
        return None
    driver = cast("psycopg.Cursor[Any]", cursor)
    # A message of several statements takes no parameters.
    merged = psycopg.ClientCursor(driver.connection).mogrify(statement, parameters)
    driver.execute(f"{merged}; COMMIT".encode(), prepare=False)
    return True


def transactional(engine: Engine) -> Engine:
    """Returns the engine, on the same pool, with transactions that last from `begin` to their end."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def _check_idle_connections(engine: Engine, pulse: Pulse) -> None:
    """Replaces connections that broke while nobody used them.

    As `pool_pre_ping` does, which asks each time, another round trip for every
    call: one that was well a moment ago, and on which Postgres has sent nothing
    since (its farewell, the end of the stream), is taken as it is.
    """

    def note(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None and cast(_Connection, connection).is_worn:
            record.invalidate()
        record.info["idle_since"] = time.monotonic()

    def check(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if pulse.is_silent:
            raise DisconnectionError("Postgres does not answer anybody")
        idle_seconds = time.monotonic() - record.info.get("idle_since", time.monotonic())
        if idle_seconds < _TRUSTED_SECONDS and not _has_unread(connection):
            return
        own = cast(_Connection, connection)
        answer_seconds, own.answer_seconds = own.answer_seconds, _PING_SECONDS
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error
        finally:
            own.answer_seconds = answer_seconds

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", check)


class _PollEntry(ctypes.Structure):
    """poll(2)'s struct pollfd."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# Not by select.poll: that gives up the GIL for the microsecond that it takes, which wakes another thread for nothing.
_poll = ctypes.PyDLL(None).poll


def _has_unread(connection: DBAPIConnection) -> bool:
    """Whether something has come from Postgres that nobody has read yet."""
    entry = _PollEntry(cast(psycopg.Connection, connection).fileno(), select.POLLIN, 0)
    return bool(_poll(ctypes.byref(entry), 1, 0))


class Lookup:
    """A statement of text parameters that finds one JSON value, as the most frequent call of all sends it.

    SQLAlchemy makes it, once; to have it sent by SQLAlchemy costs 42 us of CPU each
    time, and by psycopg's cursors five times more that a thread gives up the GIL.
    """

    def __init__(self, statement: Select[Any] | TextClause) -> None:
        self._statement = statement
        compiled = statement.compile(dialect=PGDialect_psycopg(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]
        self._sql = str(compiled).encode()
        self._names = compiled.positiontup or ()

    def value(self, connection: Connection, **parameters: str) -> Any:
        """Returns the first column of the row, None where there is no row.

        Raises:
            DBAPIError: As `Connection.execute`.
        """
        driver = cast(_Connection, connection.connection.driver_connection)
        # Who looks on at statements sees them only when SQLAlchemy sends them; a transaction is for psycopg to begin.
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


@contextmanager
def domain_errors() -> Iterator[None]:
    """Turns errors of Postgres that are nobody's mistake into the domain's; others pass.

    Raises:
        DatabaseUnavailableError: It is away, restarting, full, or read-only.
        QueryTooSlowError: The statement took longer than it may.
        DatabaseBusyError: Another transaction kept a lock for too long.
        AbortedError: A deadlock or a serialization failure.
    """
    try:
        yield
    except PoolTimeoutError as error:
        logger.warning("no free connection to Postgres within %s s", _POOL_TIMEOUT)
        raise DatabaseUnavailableError from error
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None)
        if sqlstate in _RETRYABLE:
            raise AbortedError("A concurrent change was committed first. Try again.") from error
        if sqlstate == _DISK_FULL:
            logger.error("Postgres has no space: %s", error.orig)  # noqa: TRY400 (it is known)
            raise StorageFullError("the database") from error
        if sqlstate == _STATEMENT_TIMEOUT:
            raise QueryTooSlowError from error
        if sqlstate == _LOCK_TIMEOUT:
            logger.warning("a lock in Postgres was not to be had in time: %s", error.orig)
            raise DatabaseBusyError from error
        if error.connection_invalidated or sqlstate in _AWAY or isinstance(error, OperationalError | InterfaceError):
            logger.warning("Postgres does not answer: %s", error.orig)
            raise DatabaseUnavailableError from error
        raise
