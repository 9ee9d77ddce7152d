"""The one place that turns errors of Postgres into errors of the domain."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from registry_service.domain.errors import (
    AbortedError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    QueryTooSlowError,
    StorageFullError,
)

logger = logging.getLogger(__name__)

# Deadlock, serialization failure: the client can retry.
_RETRYABLE = {"40001", "40P01"}
_STATEMENT_TIMEOUT = "57014"
_DISK_FULL = "53100"
_LOCK_TIMEOUT = "55P03"
# Read-only transaction (during a failover), server shutting down or starting.
_UNAVAILABLE = {"25006", "57P01", "57P02", "57P03"}


@contextmanager
def domain_errors() -> Iterator[None]:
    """Turn operational errors of Postgres into errors of the domain. Other errors pass unchanged.

    Raises:
        DatabaseUnavailableError: Postgres is down, restarting or read-only, or the pool has no free connection.
        StorageFullError: Postgres has no disk space.
        QueryTooSlowError: The statement exceeded its timeout.
        DatabaseBusyError: Another transaction held a lock for too long.
        AbortedError: A deadlock or a serialization failure.
    """
    try:
        yield
    except PoolTimeoutError as error:
        logger.warning("no free connection to Postgres: %s", error)
        raise DatabaseUnavailableError from error
    except DBAPIError as error:
        sqlstate = getattr(error.orig, "sqlstate", None)
        if sqlstate in _RETRYABLE:
            raise AbortedError("A concurrent change was committed first. Try again.") from error
        if sqlstate == _DISK_FULL:
            logger.error("Postgres has no space: %s", error.orig)  # noqa: TRY400 - the cause is known
            raise StorageFullError("the database") from error
        if sqlstate == _STATEMENT_TIMEOUT:
            raise QueryTooSlowError from error
        if sqlstate == _LOCK_TIMEOUT:
            logger.warning("timeout waiting for a lock in Postgres: %s", error.orig)
            raise DatabaseBusyError from error
        if (
            error.connection_invalidated
            or sqlstate in _UNAVAILABLE
            or isinstance(error, OperationalError | InterfaceError)
        ):
            logger.warning("Postgres does not respond: %s", error.orig)
            raise DatabaseUnavailableError from error
        raise
