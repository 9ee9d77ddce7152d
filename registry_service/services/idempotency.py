"""Carry out calls with idempotency keys once."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import RegistryError
from registry_service.domain.idempotency import KeptAnswer, KeyedCall, current_keyed_call
from registry_service.domain.ports import Database

logger = logging.getLogger(__name__)

# How long the key of a call stays taken after the call's process crashed.
_LEASE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class IdempotencyService:
    """Calls with idempotency keys.

    A lease only tells other calls that one is running. If it expires too early, both run, and the database lets only
    one of them commit.
    """

    database: Database
    lease: timedelta = _LEASE
    _running: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _renewers: list[threading.Thread] = field(default_factory=list)

    @contextmanager
    def attempt(self, call: KeyedCall) -> Iterator[KeptAnswer | None]:
        """Give the response that the call had before, or None if its change is to be made in the block.

        Raises:
            IdempotencyKeyReusedError: Another request used the key.
            IdempotentCallRunningError: A call with the key is running.
            TooManyIdempotencyKeysError: The key is new, and the caller used too many others.
        """
        with self.database.transaction() as transaction:
            kept = transaction.idempotency.begin(call, lease=self.lease)
        if kept is not None:
            yield kept
            return
        token = current_keyed_call.set(call)
        try:
            with self._renewed(call.attempt):
                yield None
        except BaseException:
            # The outcome of a commit is unknown if its connection broke. If it took place, the kept response stays.
            self._forget(call)
            raise
        finally:
            current_keyed_call.reset(token)
        if not call.is_kept:
            self._forget(call)

    def _forget(self, call: KeyedCall) -> None:
        try:
            with acting_as_registry(), self.database.transaction() as transaction:
                transaction.idempotency.forget(call)
        except RegistryError:
            logger.warning("an idempotency key stays taken until its lease expires", exc_info=True)

    @contextmanager
    def _renewed(self, attempt: str) -> Iterator[None]:
        with self._lock:
            self._running.add(attempt)
            if not self._renewers:
                thread = threading.Thread(target=self._renew, name="idempotency", daemon=True)
                self._renewers.append(thread)
                thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(attempt)

    def _renew(self) -> None:
        """Renew the leases of all calls until none is running."""
        while True:
            time.sleep(self.lease.total_seconds() / 3)
            with self._lock:
                if not self._running:
                    self._renewers.clear()
                    return
                attempts = list(self._running)
            try:
                with acting_as_registry(), self.database.transaction() as transaction:
                    transaction.idempotency.renew(attempts, lease=self.lease)
            except RegistryError:
                logger.warning("leases of idempotency keys could not be renewed", exc_info=True)
            except Exception:
                logger.exception("leases of idempotency keys could not be renewed")
