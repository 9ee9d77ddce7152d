"""`domain.ports.Database` on PostgreSQL: transactions and their repositories."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import cached_property

import psycopg
from sqlalchemy import Connection, DateTime, Engine, func, select
from typing_extensions import override

from registry_service.domain.errors import DatabaseUnavailableError
from registry_service.domain.events import Event
from registry_service.domain.ports import Database, Transaction
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql.aliases import SqlAliasRepository
from registry_service.storage.sql.change_signal import ChangeSignal
from registry_service.storage.sql.engine import pulse_of, transactional
from registry_service.storage.sql.errors import domain_errors
from registry_service.storage.sql.event_log import SqlEventLog
from registry_service.storage.sql.idempotency import SqlIdempotencyKeys
from registry_service.storage.sql.model_groups import SqlModelGroupRepository
from registry_service.storage.sql.models import SqlModelRepository
from registry_service.storage.sql.objects import SqlObjectLedger
from registry_service.storage.sql.references import SqlReferenceRepository
from registry_service.storage.sql.tokens import SqlTokenRepository
from registry_service.storage.sql.uploads import SqlUploadRepository

logger = logging.getLogger(__name__)

_NOW = select(func.clock_timestamp(type_=DateTime(timezone=True)))


class SqlDatabase(Database):
    """`domain.ports.Database` on a pool of connections."""

    def __init__(
        self, engine: Engine, committed: Callable[[Event], None] | None = None, *, disk: DiskReserve | None = None
    ) -> None:
        """Take a pool of connections.

        Args:
            engine: The pool.
            committed: Called with each event after its commit.
            disk: The disk of Postgres, if it is local. Writes that would fill the disk fail (`StorageFullError`).
        """
        self._engine = engine
        self._disk = disk
        self._committed = committed
        self._writing = transactional(engine)
        self._signal = ChangeSignal(engine)
        self._pulse = pulse_of(engine)

    @contextmanager
    @override
    def transaction(self) -> Iterator[Transaction]:
        with domain_errors(), self._writing.begin() as connection:
            transaction = SqlTransaction(connection, self._disk)
            yield transaction
            transaction.events.commit()
        if self._committed is not None:
            for event in transaction.events.written:
                self._committed(event)

    @contextmanager
    @override
    def reading(self) -> Iterator[Transaction]:
        with domain_errors(), self._engine.connect() as connection:
            yield SqlTransaction(connection)

    @override
    def wakes(self, event: threading.Event) -> AbstractContextManager[None]:
        return self._signal.wakes(event)

    def close(self) -> None:
        """Stop the threads of `wakes` and `check`. The caller closes the pool."""
        self._signal.close()
        self._pulse.close()

    @override
    def check(self) -> float:
        try:
            return self._pulse.check()
        except psycopg.Error as error:
            logger.warning("Postgres does not respond: %s", error)
            raise DatabaseUnavailableError from error


class SqlTransaction(Transaction):
    """`domain.ports.Transaction` on one connection."""

    def __init__(self, connection: Connection, disk: DiskReserve | None = None) -> None:
        self._connection = connection
        self._disk = disk

    @cached_property
    @override
    def now(self) -> datetime:
        return self._connection.execute(_NOW).scalar_one()

    @cached_property
    @override
    def models(self) -> SqlModelRepository:
        return SqlModelRepository(self._connection, self.events)

    @cached_property
    @override
    def aliases(self) -> SqlAliasRepository:
        return SqlAliasRepository(self._connection, self.events)

    @cached_property
    @override
    def groups(self) -> SqlModelGroupRepository:
        return SqlModelGroupRepository(self._connection, self.events)

    @cached_property
    @override
    def references(self) -> SqlReferenceRepository:
        return SqlReferenceRepository(self._connection)

    @cached_property
    @override
    def objects(self) -> SqlObjectLedger:
        return SqlObjectLedger(self._connection, self._disk)

    @cached_property
    @override
    def uploads(self) -> SqlUploadRepository:
        return SqlUploadRepository(self._connection, self._disk)

    @cached_property
    @override
    def events(self) -> SqlEventLog:
        return SqlEventLog(self._connection, self._disk)

    @cached_property
    @override
    def idempotency(self) -> SqlIdempotencyKeys:
        return SqlIdempotencyKeys(self._connection)

    @cached_property
    @override
    def tokens(self) -> SqlTokenRepository:
        return SqlTokenRepository(self._connection, self.events)
