"""Hears of new events: Postgres notifies whoever listens when a transaction that wrote some is committed."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)

_CHANNEL = "audit_events"
_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class ChangeSignal:
    """Sets events of threads when the log grows.

    One thread and one connection, beside the pool, serve all of a process; they
    come with the first who wants to hear.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._listeners: set[threading.Event] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @contextmanager
    def wakes(self, event: threading.Event) -> Iterator[None]:
        """See `domain.ports.Database`."""
        with self._lock:
            self._listeners.add(event)
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="change-signal", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(event)

    def close(self) -> None:
        """Ends the thread and its connection."""
        self._closed.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._listen()
            except (psycopg.Error, SQLAlchemyError) as error:
                logger.warning("cannot listen for changes now: %s", error)
            except Exception:
                # Whoever waits looks by himself now and then.
                logger.exception("listening for changes failed")
            self._closed.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        # It is ours from here on; the pool makes another in its place.
        pooled.detach()
        if not isinstance(connection, psycopg.Connection):
            raise TypeError(connection)
        with closing(connection):
            connection.execute(f"LISTEN {_CHANNEL}")
            # What was written before we could hear of it.
            self._wake()
            while not self._closed.is_set():
                if any(True for _ in connection.notifies(timeout=_LOOK_SECONDS, stop_after=1)):
                    self._wake()

    def _wake(self) -> None:
        with self._lock:
            for event in self._listeners:
                event.set()
