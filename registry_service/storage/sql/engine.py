"""The pool of connections to Postgres."""

import ctypes
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import psycopg
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor, Dialect, ExecutionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from registry_service.domain.caller import current_caller
from registry_service.storage.sql.connection import (
    CONNECT_TIMEOUT_SECONDS,
    PING_SECONDS,
    Pulse,
    RegistryConnection,
    SearchLimit,
    SilenceError,
)

_POOL_TIMEOUT = 10
_LOCK_SECONDS = 6.0
# How long a replica that freezes or disconnects in the middle of a transaction keeps its locks. Transactions that wait
# for the same lock get it one after the other, until their own timeout: in less than 10 s together.
_IDLE_IN_TRANSACTION_SECONDS = 3.0
_TRUSTED_SECONDS = 1.0
# How much longer than the statement timeout to wait for a response.
_ANSWER_MARGIN_SECONDS = 5.0
# The seconds or characters of a filtered statement beyond which the server process is replaced. The process keeps the
# memory of the plan: 20 to 50 MiB for two times 50 restrictions.
_WORN_SECONDS = 1.0
_WORN_LENGTH = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """TLS towards Postgres."""

    mode: str
    """libpq's sslmode."""
    ca_cert: Path | None = None
    """File with the CA that signed the certificate of Postgres; None leaves it to libpq (PGSSLROOTCERT)."""
    client_cert: Path | None = None
    """File with the client certificate, which needs the private key. None leaves both to libpq."""
    client_private_key: Path | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The connection parameters of libpq."""
        files = {"sslrootcert": self.ca_cert, "sslcert": self.client_cert, "sslkey": self.client_private_key}
        return {"sslmode": self.mode} | {name: str(file) for name, file in files.items() if file is not None}


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
    """Create the pool of connections. The first statement opens the first connection.

    Each statement is a transaction of its own, which saves reads the round trips of BEGIN and COMMIT. Use
    `transactional` for transactions of several statements.

    Args:
        host: A host name, or the folder of a Unix socket.
        port: The port of Postgres.
        database: The name of the database.
        user: The name of the role.
        password: The password of the role; may be empty.
        tls: How connections are encrypted.
        pool_size: The maximum number of connections.
        statement_timeout_seconds: The timeout of one statement, which Postgres enforces, and the maximum of a lock.
        search_timeout_seconds: The timeout of a statement with a filter or a page (`PLANNED_ANEW`), which this process
            enforces. Such a statement is also cancelled when its client disconnects. None: as for other statements.
        is_bounded: Whether this process enforces the timeouts, too, and locks time out within seconds. Set False for
            statements that lift the timeout, such as migrations.
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
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        # Both sides notice a lost host within seconds rather than minutes. Until Postgres does, the client's locks
        # remain.
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
        # Few server processes stay busy, which costs less than waking another one each time.
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Parameters are data of clients, which does not belong in logs.
        hide_parameters=True,
    )
    answer_seconds = statement_timeout_seconds + _ANSWER_MARGIN_SECONDS if is_bounded else None

    arguments: dict[str, Any] = {**engine.dialect.create_connect_args(url)[1], **connect_args}
    pulse = Pulse(lambda: RegistryConnection.connect(**arguments, autocommit=True))

    def connect(_dialect: Dialect, _record: ConnectionPoolEntry, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if pulse.is_silent:
            raise SilenceError("Postgres does not respond to any connection")
        connection = RegistryConnection.connect(*args, **options)
        connection.answer_seconds = answer_seconds
        connection.pulse = pulse
        return connection

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "do_execute", _execute_unprepared)
    event.listen(engine, "do_execute", _execute_and_commit)
    _check_idle_connections(engine, pulse)
    return engine.execution_options(pulse=pulse, search_seconds=search_timeout_seconds)


def pulse_of(engine: Engine) -> Pulse:
    """Return the pulse of an engine of `make_engine`."""
    return cast("Pulse", engine.get_execution_options()["pulse"])


PLANNED_ANEW: Mapping[str, bool] = {"is_planned_anew": True}
"""Execution options of a statement whose best plan depends on its values: filters and pages.

After some calls, Postgres would use one plan of the prepared statement for all values, which reads the whole table for
some of them.
"""


def _execute_unprepared(
    cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext | None
) -> Literal[True] | None:
    if context is None or not context.execution_options.get("is_planned_anew"):
        return None
    driver = cast("psycopg.Cursor[Any]", cursor)
    connection = cast(RegistryConnection, driver.connection)
    seconds: float | None = context.execution_options.get("search_seconds")
    started = time.monotonic()
    if seconds is not None:
        connection.stop = SearchLimit(started + seconds, current_caller.get().is_gone)
    try:
        driver.execute(statement, parameters, prepare=False)
    finally:
        connection.stop = None
        connection.is_worn |= len(statement) > _WORN_LENGTH or time.monotonic() - started > _WORN_SECONDS
    return True


COMMITTING: Mapping[str, bool] = {"is_committing": True}
"""Execution options of the last statement of a transaction, which sends the commit in the same message.

Postgres reads a whole message before it executes it. So the locks of the statement are released even if this process
freezes or disconnects right then.
"""


def _execute_and_commit(
    cursor: DBAPICursor, statement: str, parameters: Any, context: ExecutionContext | None
) -> Literal[True] | None:
    if context is None or not context.execution_options.get("is_committing"):
        return None
    driver = cast("psycopg.Cursor[Any]", cursor)
    # A message with several statements cannot have parameters.
    merged = psycopg.ClientCursor(driver.connection).mogrify(statement, parameters)
    driver.execute(f"{merged}; COMMIT".encode(), prepare=False)
    return True


def transactional(engine: Engine) -> Engine:
    """Return the engine, on the same pool, with transactions that last from `begin` to their end."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def _check_idle_connections(engine: Engine, pulse: Pulse) -> None:
    """Replace connections that broke while they were idle.

    `pool_pre_ping` would add a round trip to every call. Here, a connection that worked a moment ago, and on which
    Postgres has sent nothing since (such as the end of the stream), is used without a ping.
    """

    def note(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None and cast(RegistryConnection, connection).is_worn:
            record.invalidate()
        record.info["idle_since"] = time.monotonic()

    def check(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if pulse.is_silent:
            raise DisconnectionError("Postgres does not respond to any connection")
        idle_seconds = time.monotonic() - record.info.get("idle_since", time.monotonic())
        if idle_seconds < _TRUSTED_SECONDS and not _has_unread(connection):
            return
        own = cast(RegistryConnection, connection)
        answer_seconds, own.answer_seconds = own.answer_seconds, PING_SECONDS
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError from error
        finally:
            own.answer_seconds = answer_seconds

    event.listen(engine, "checkin", note)
    event.listen(engine, "checkout", check)


class _PollEntry(ctypes.Structure):
    """The struct pollfd of poll(2)."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


# select.poll would release the GIL for a microsecond, which wakes another thread for nothing.
_poll = ctypes.PyDLL(None).poll


def _has_unread(connection: DBAPIConnection) -> bool:
    """Tell whether Postgres has sent data that is not read yet."""
    entry = _PollEntry(cast(psycopg.Connection, connection).fileno(), select.POLLIN, 0)
    return bool(_poll(ctypes.byref(entry), 1, 0))
