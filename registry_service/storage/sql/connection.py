"""Connections that wait for Postgres for a bounded time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen

from registry_service.storage.sql.fast_lookup import LookupConnection

Answer = TypeVar("Answer")

CONNECT_TIMEOUT_SECONDS = 3
PING_SECONDS = 3.0
"""How long a server that does nothing else may take to respond."""


class SilenceError(psycopg.OperationalError):
    """Postgres did not respond in time."""


@dataclass(frozen=True, slots=True)
class SearchLimit:
    """When a search is cancelled: after its deadline, or once its client has disconnected."""

    deadline: float
    is_abandoned: Callable[[], bool]

    def is_reached(self) -> bool:
        """Tell whether the search is to be cancelled."""
        return time.monotonic() > self.deadline or self.is_abandoned()


class RegistryConnection(LookupConnection):
    """A connection that does not wait forever for a host that is frozen or disconnected without notice."""

    answer_seconds: float | None = None
    """How long to wait for one response; None means forever."""
    pulse: "Pulse | None" = None
    """Ends waits early while Postgres is silent; with None, only `answer_seconds` ends them."""
    stop: SearchLimit | None = None
    """When the running statement is cancelled; with None, only Postgres cancels it."""
    is_worn: bool = False
    """Whether a statement may have made the server process grow, so that the pool replaces the connection."""

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """See psycopg. A connection that does not respond in time is closed, because its state is unknown."""
        if timeout is not None or self.answer_seconds is None:
            return super().wait(gen, interval, timeout)
        started = time.monotonic()
        try:
            return super().wait(self._unless_silent(gen), interval, self.answer_seconds)
        except SilenceError:
            self.close()
            raise
        except psycopg.OperationalError as error:
            if time.monotonic() - started >= self.answer_seconds:
                self.close()
                raise SilenceError(str(error)) from error
            raise

    def _unless_silent(self, gen: PQGen[Answer]) -> PQGen[Answer]:
        """Run a generator of psycopg, and check after each interval without data whether waiting still makes sense.

        Raises:
            SilenceError: Postgres is silent.
        """
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and self.pulse is not None and self.pulse.is_silent:
                    raise SilenceError("Postgres does not respond to any connection")
                if not ready and self.stop is not None and self.stop.is_reached():
                    self.stop = None
                    # Postgres then responds with an error, as to any statement.
                    self.cancel_safe(timeout=CONNECT_TIMEOUT_SECONDS)
                wanted = gen.send(ready)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


class Pulse:
    """Checks whether Postgres responds at all.

    A thread that waits cannot tell a slow statement from a frozen Postgres. `check` asks on a connection of its own,
    outside the pool. While Postgres is silent, running and new statements fail at once instead of holding threads.

    Args:
        connect: Opens a connection, and gives up within a few seconds.
    """

    def __init__(self, connect: "Callable[[], RegistryConnection]") -> None:
        self._connect = connect
        self._connection: RegistryConnection | None = None
        self._lock = threading.Lock()
        self.is_silent = False
        """Whether the last check got no response."""

    def check(self) -> float:
        """Ask Postgres, again on a new connection if the first one is broken. Concurrent callers wait for one another.

        Returns:
            The seconds by which the local clock is ahead of the clock of Postgres, at least. Negative: behind.

        Raises:
            psycopg.Error: Postgres did not respond, or rejected the connection.
        """
        with self._lock:
            try:
                offset = None if self._connection is None else self._offset_unless_broken(self._connection)
                if offset is None:
                    self._connection = None
                    self._connection = self._connect()
                    self._connection.answer_seconds = PING_SECONDS
                    offset = _clock_offset(self._connection)
            except (psycopg.errors.ConnectionTimeout, SilenceError):
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

    def _offset_unless_broken(self, connection: RegistryConnection) -> float | None:
        try:
            return _clock_offset(connection)
        except psycopg.Error:
            connection.close()
            return None


def _clock_offset(connection: RegistryConnection) -> float:
    asked = time.time()
    found = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    answered = time.time()
    theirs = float(found[0]) if found is not None else asked
    # Postgres read its clock at some moment in between.
    return asked - theirs if asked > theirs else min(answered - theirs, 0.0)
