"""Concurrency limits: how many calls run at once, how many wait, and whose turn is next."""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from registry_service.domain.errors import CallCancelledError, ResourceExhaustedError

# Of a call's duration in the average of those before it.
_WEIGHT = 0.1
# How much longer than the estimate a refused caller should stay away, as an estimate is often too low.
_MARGIN = 1.5
# How much later than told a refused call may come back.
_PROMISE_SECONDS = 30.0
_MAX_PROMISES = 1_000
# Of those that are remembered without calls, before it is looked whether they still have to be.
_MAX_CALLERS = 1_000
_MIN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0

Refuse = Callable[[int, float], ResourceExhaustedError]
"""Makes the error of a refused call, of the limit that it met and the seconds after which it may succeed."""


def share_of(most: int, share: float) -> int:
    """Return a caller's share of a limit: at least one."""
    return max(1, math.ceil(most * share))


@dataclass(slots=True, eq=False)
class _Waiter:
    """A call that waits for its turn."""

    turn: threading.Event = field(default_factory=threading.Event)
    is_granted: bool = False


@dataclass(slots=True)
class _Caller:
    """What one caller has of a limit."""

    running: int = 0
    waiting: deque[_Waiter] = field(default_factory=deque)
    promises: deque[float] = field(default_factory=deque)
    """When its refused calls were told to come back, in this order: then they may wait even where too many do."""


class ConcurrencyLimit:
    """Bounds the calls that run at once, and shares the places fairly among callers.

    A call that finds no place waits for one. Callers take turns, whatever the number
    of their calls, and none may have more than its share of the places, running or
    waiting. Beyond that, calls are refused, with a delay after which they may wait:
    refused calls are told different delays, in the order in which places will be free.

    Args:
        most: Most calls that run at once.
        most_of_caller: Most of them of one caller.
        most_waiting: Most calls that wait, and as many again that come back when they were told to; each holds a
            thread.
        most_waiting_of_caller: Most of them of one caller.
        wait_seconds: How long a call waits at most.
        refuse: Makes the error of a refused call.
    """

    def __init__(
        self,
        *,
        most: int,
        most_of_caller: int,
        most_waiting: int,
        most_waiting_of_caller: int,
        wait_seconds: float,
        refuse: Refuse,
    ) -> None:
        self._most = most
        self._most_of_caller = min(most, most_of_caller)
        self._most_waiting = most_waiting
        self._most_waiting_of_caller = min(most_waiting, most_waiting_of_caller)
        self._wait_seconds = wait_seconds
        self._refuse = refuse
        self._running = 0
        self._waiting = 0
        self._callers: dict[str, _Caller] = {}
        # Callers with calls that wait, the one whose turn is next first.
        self._turns: OrderedDict[str, _Caller] = OrderedDict()
        self._held_seconds = 0.1
        # Never held while anything is waited for, as grpcio's event thread may want it.
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """Calls that have a place."""
        return self._running

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return self._waiting

    def acquire(self, caller: str, context: grpc.ServicerContext) -> None:
        """Take a place for a call, to be given back by `release`.

        Raises:
            ResourceExhaustedError: Too many calls wait already, or this one waited in vain.
            CallCancelledError: The client has gone meanwhile.
        """
        with self._lock:
            found = self._callers.get(caller)
            if found is None:
                found = self._callers[caller] = _Caller()
            # Where others wait although there are places, they have their share.
            if self._running < self._most and found.running < self._most_of_caller and not found.waiting:
                self._running += 1
                found.running += 1
                return
            is_promised = self._redeem_promise(found)
            if self._is_full(found) and not is_promised:
                raise self._refusal(caller, found)
            waiter = _Waiter()
            found.waiting.append(waiter)
            self._turns.setdefault(caller, found)
            self._waiting += 1
        self._await_turn(caller, found, waiter, context)

    def release(self, caller: str, held_seconds: float) -> None:
        """Give a place back.

        Args:
            caller: Whose place it is.
            held_seconds: For how long it was held, which retry delays are estimated of.
        """
        with self._lock:
            self._held_seconds += (held_seconds - self._held_seconds) * _WEIGHT
            found = self._callers[caller]
            self._running -= 1
            found.running -= 1
            self._grant()
            self._forget_idle(caller, found)

    def _await_turn(self, caller: str, found: _Caller, waiter: _Waiter, context: grpc.ServicerContext) -> None:
        # Wakes also when the client goes.
        if context.add_callback(waiter.turn.set):
            waiter.turn.wait(min(self._wait_seconds, context.time_remaining()))
        with self._lock:
            if waiter.is_granted:
                if context.is_active():
                    return
                self._running -= 1
                found.running -= 1
                self._grant()
            else:
                found.waiting.remove(waiter)
                self._waiting -= 1
                if not found.waiting:
                    del self._turns[caller]
            error = self._refusal(caller, found) if context.is_active() else CallCancelledError()
            self._forget_idle(caller, found)
        raise error

    def _grant(self) -> None:
        """Hand free places to calls that wait, one caller after the other."""
        while self._running < self._most:
            turn = next((turn for turn in self._turns.items() if turn[1].running < self._most_of_caller), None)
            if turn is None:
                return
            caller, found = turn
            waiter = found.waiting.popleft()
            self._waiting -= 1
            self._running += 1
            found.running += 1
            waiter.is_granted = True
            if found.waiting:
                self._turns.move_to_end(caller)
            else:
                del self._turns[caller]
            waiter.turn.set()

    def _is_full(self, found: _Caller) -> bool:
        return self._waiting >= self._most_waiting or len(found.waiting) >= self._most_waiting_of_caller

    def _redeem_promise(self, found: _Caller) -> bool:
        """Return whether a call comes back that was told to, and forget the promise."""
        now = time.monotonic()
        while found.promises and found.promises[0] < now - _PROMISE_SECONDS:
            found.promises.popleft()
        if not found.promises or found.promises[0] > now or self._waiting >= 2 * self._most_waiting:
            return False
        found.promises.popleft()
        return True

    def _forget_idle(self, caller: str, found: _Caller) -> None:
        if not found.running and not found.waiting and not found.promises:
            self._callers.pop(caller, None)

    def _refusal(self, caller: str, found: _Caller) -> ResourceExhaustedError:
        """Make the error of a refused call; its delay follows those of the caller's other refused calls."""
        now = time.monotonic()
        places = self._most_of_caller
        seconds_each = self._held_seconds / places * _MARGIN
        begin = now + max(_MIN_RETRY_SECONDS, seconds_each * (len(found.waiting) + 1))
        if found.promises:
            begin = max(begin, found.promises[-1] + seconds_each)
        begin = min(begin, now + _MAX_RETRY_SECONDS)
        if len(found.promises) < _MAX_PROMISES:
            found.promises.append(begin)
        self._forget_idle(caller, found)
        if len(self._callers) > _MAX_CALLERS:
            self._forget_expired(now)
        return self._refuse(places if found.running >= places else self._most, begin - now)

    def _forget_expired(self, now: float) -> None:
        """Forget callers that are not there, and did not come back when they were told to."""
        for caller, found in list(self._callers.items()):
            if found.promises and found.promises[-1] < now - _PROMISE_SECONDS:
                found.promises.clear()
                self._forget_idle(caller, found)
