"""Signals of new events: Postgres notifies listeners when a transaction with events commits."""

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
    """Sets events of threads when the audit log grows.

    One thread and one connection, outside the pool, serve the whole process. The first listener starts them.
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
        """Stop the thread and close its connection."""
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
                # Listeners also poll from time to time.
                logger.exception("listening for changes failed")
            self._closed.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        pooled = self._engine.raw_connection()
        connection = pooled.driver_connection
        # Detach the connection, so that the pool replaces it.
        pooled.detach()
        if not isinstance(connection, psycopg.Connection):
            raise TypeError(connection)
        with closing(connection):
            connection.execute(f"LISTEN {_CHANNEL}")
            # Events may have been written before LISTEN took effect.
            self._wake()
            while not self._closed.is_set():
                if any(True for _ in connection.notifies(timeout=_LOOK_SECONDS, stop_after=1)):
                    self._wake()

    def _wake(self) -> None:
        with self._lock:
            for event in self._listeners:
                event.set()
