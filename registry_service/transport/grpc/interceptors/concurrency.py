"""Limit how many calls of each kind run at once."""

import time
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from registry_service.methods import Kind, Method
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.concurrency_limit import ConcurrencyLimit
from registry_service.transport.grpc.interceptors.behaviour import Behaviour


class _Slots:
    """The slots that a short call holds, until its response begins or it turns out to be long."""

    def __init__(self, call: Call, long_calls: ConcurrencyLimit) -> None:
        self._call = call
        self._long_calls = long_calls
        self._held: list[tuple[ConcurrencyLimit, float]] = []

    def acquire(self, limit: ConcurrencyLimit) -> None:
        """Take a slot (`ResourceExhaustedError`, `CallCancelledError`)."""
        limit.acquire(self._call.limits_key, self._call.context)
        self._held.append((limit, time.monotonic()))

    def release(self) -> None:
        """Give all slots back."""
        while self._held:
            limit, since = self._held.pop()
            limit.release(self._call.limits_key, time.monotonic() - since)

    @contextmanager
    def long_slot(self) -> Iterator[None]:
        """Give all slots back, and hold one slot of the long calls instead."""
        self.release()
        with _slot(self._long_calls, self._call):
            yield


_short_slots: ContextVar[_Slots] = ContextVar("short_slots")


def long_slot() -> AbstractContextManager[None]:
    """Count the current call, which began as a short one, as a long one until the end of the block.

    Raises:
        TooManyStreamsError: Too many long calls run and wait.
        CallCancelledError: The client has gone meanwhile.
    """
    return _short_slots.get().long_slot()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyLimits:
    """The limits of all calls."""

    short_calls: ConcurrencyLimit
    lists: ConcurrencyLimit
    """For those of the short calls that may keep Postgres busy for long."""
    long_calls: ConcurrencyLimit
    watches: ConcurrencyLimit
    reflection: ConcurrencyLimit

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        match method.kind:
            case Kind.PROBE:
                return behaviour
            case Kind.SHORT:
                return _short(behaviour, self.long_calls, self.short_calls)
            case Kind.LIST:
                # In this order, so that a list that waits for its turn holds no slot of other short calls.
                return _short(behaviour, self.long_calls, self.lists, self.short_calls)
            case Kind.LONG:
                return _long(behaviour, self.long_calls)
            case Kind.WATCH:
                return _long(behaviour, self.watches)
            case Kind.REFLECTION:
                return _long(behaviour, self.reflection)

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return self.short_calls.waiting + self.lists.waiting + self.long_calls.waiting


def _short(behaviour: Behaviour, long_calls: ConcurrencyLimit, *limits: ConcurrencyLimit) -> Behaviour:
    def run(request: Any, call: Call) -> Generator[Any]:
        slots = _Slots(call, long_calls)
        _short_slots.set(slots)
        try:
            for limit in limits:
                slots.acquire(limit)
            with closing(behaviour(request, call)) as responses:
                for response in responses:
                    # A client that reads slowly holds no slot.
                    slots.release()
                    yield response
        finally:
            slots.release()

    return run


def _long(behaviour: Behaviour, limit: ConcurrencyLimit) -> Behaviour:
    def run(request: Any, call: Call) -> Generator[Any]:
        with _slot(limit, call):
            yield from behaviour(request, call)

    return run


@contextmanager
def _slot(limit: ConcurrencyLimit, call: Call) -> Iterator[None]:
    limit.acquire(call.limits_key, call.context)
    begun = time.monotonic()
    try:
        yield
    finally:
        limit.release(call.limits_key, time.monotonic() - begun)
