"""A concurrency limit with a queue that is fair to callers."""

import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from registry_service.domain.errors import CallCancelledError, ResourceExhaustedError

# Weight of a call's duration in the moving average.
_WEIGHT = 0.1
# Factor on the estimated delay of a refused call, as estimates are often too low.
_MARGIN = 1.5
# Seconds after its retry delay within which a refused call may return and still wait.
_INVITATION_SECONDS = 30.0
_MAX_INVITATIONS = 1_000
# Callers in memory beyond which those with expired invitations are removed.
_MAX_CALLERS = 1_000
_MIN_RETRY_SECONDS, _MAX_RETRY_SECONDS = 1.0, 60.0

Refuse = Callable[[int, float], ResourceExhaustedError]
"""Makes the error of a refused call from the limit that it met and the seconds after which it may succeed."""


def share_of(most: int, share: float) -> int:
    """Return how many slots of a limit one caller may have: at least one."""
    return max(1, math.ceil(most * share))


@dataclass(slots=True, eq=False)
class _Waiter:
    """A queued call."""

    turn: threading.Event = field(default_factory=threading.Event)
    is_granted: bool = False


@dataclass(slots=True)
class _Caller:
    """The calls of one caller."""

    running: int = 0
    waiting: deque[_Waiter] = field(default_factory=deque)
    invitations: deque[float] = field(default_factory=deque)
    """The times at which refused calls may come back, in order. Then they may wait even if too many calls wait."""


class ConcurrencyLimit:
    """Bounds the calls that run at once, and shares the slots fairly among callers.

    A call that finds no slot waits for one. Callers take turns, whatever the number of their calls, and no caller may
    have more than its share of the slots, or of the waiting calls. Beyond that, calls are refused, each with the delay
    after which it may return and wait. The delays are staggered in the order in which slots become free.

    Args:
        max_running: Limit of concurrent calls.
        max_running_per_caller: Limit of concurrent calls of one caller.
        max_waiting: Limit of queued calls, and of refused calls that return in time. Each occupies a thread.
        max_waiting_per_caller: Limit of queued calls of one caller.
        wait_seconds: Limit of the time in the queue.
        refuse: Creates the error of a refused call.
    """

    def __init__(
        self,
        *,
        max_running: int,
        max_running_per_caller: int,
        max_waiting: int,
        max_waiting_per_caller: int,
        wait_seconds: float,
        refuse: Refuse,
    ) -> None:
        self._max_running = max_running
        self._max_running_per_caller = min(max_running, max_running_per_caller)
        self._max_waiting = max_waiting
        self._max_waiting_per_caller = min(max_waiting, max_waiting_per_caller)
        self._wait_seconds = wait_seconds
        self._refuse = refuse
        self._running = 0
        self._waiting = 0
        self._callers: dict[str, _Caller] = {}
        # Callers with queued calls; the first one gets the next slot.
        self._turns: OrderedDict[str, _Caller] = OrderedDict()
        self._held_seconds = 0.1
        # Never held while waiting for anything: grpcio's event thread may need it.
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """The number of slots in use."""
        return self._running

    @property
    def waiting(self) -> int:
        """The number of queued calls."""
        return self._waiting

    def acquire(self, caller: str, context: grpc.ServicerContext) -> None:
        """Take a slot for a call; `release` gives it back.

        Raises:
            ResourceExhaustedError: The queue is full, or the call waited for too long.
            CallCancelledError: The client has gone.
        """
        with self._lock:
            found = self._callers.get(caller)
            if found is None:
                found = self._callers[caller] = _Caller()
            # If calls of this caller wait although slots are free, its share is used up.
            if self._running < self._max_running and found.running < self._max_running_per_caller and not found.waiting:
                self._running += 1
                found.running += 1
                return
            is_invited = self._redeem_invitation(found)
            if self._is_full(found) and not is_invited:
                raise self._refusal(caller, found)
            waiter = _Waiter()
            found.waiting.append(waiter)
            self._turns.setdefault(caller, found)
            self._waiting += 1
        self._await_turn(caller, found, waiter, context)

    def release(self, caller: str, held_seconds: float) -> None:
        """Give a slot back.

        Args:
            caller: The caller that holds it.
            held_seconds: How long it was held. Retry delays are estimated from it.
        """
        with self._lock:
            self._held_seconds += (held_seconds - self._held_seconds) * _WEIGHT
            found = self._callers[caller]
            self._running -= 1
            found.running -= 1
            self._grant()
            self._forget_idle(caller, found)

    def _await_turn(self, caller: str, found: _Caller, waiter: _Waiter, context: grpc.ServicerContext) -> None:
        # Also set when the client goes.
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
        """Hand free slots to waiting calls, one caller after the other."""
        while self._running < self._max_running:
            turn = next((turn for turn in self._turns.items() if turn[1].running < self._max_running_per_caller), None)
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
        return self._waiting >= self._max_waiting or len(found.waiting) >= self._max_waiting_per_caller

    def _redeem_invitation(self, found: _Caller) -> bool:
        """Return whether a refused call returns after its retry delay, and remove the invitation."""
        now = time.monotonic()
        while found.invitations and found.invitations[0] < now - _INVITATION_SECONDS:
            found.invitations.popleft()
        if not found.invitations or found.invitations[0] > now or self._waiting >= 2 * self._max_waiting:
            return False
        found.invitations.popleft()
        return True

    def _forget_idle(self, caller: str, found: _Caller) -> None:
        if not found.running and not found.waiting and not found.invitations:
            self._callers.pop(caller, None)

    def _refusal(self, caller: str, found: _Caller) -> ResourceExhaustedError:
        """Create the error of a refused call. Its delay follows those of the caller's other refused calls."""
        now = time.monotonic()
        slots = self._max_running_per_caller
        seconds_each = self._held_seconds / slots * _MARGIN
        begin = now + max(_MIN_RETRY_SECONDS, seconds_each * (len(found.waiting) + 1))
        if found.invitations:
            begin = max(begin, found.invitations[-1] + seconds_each)
        begin = min(begin, now + _MAX_RETRY_SECONDS)
        if len(found.invitations) < _MAX_INVITATIONS:
            found.invitations.append(begin)
        self._forget_idle(caller, found)
        if len(self._callers) > _MAX_CALLERS:
            self._forget_expired(now)
        return self._refuse(slots if found.running >= slots else self._max_running, begin - now)

    def _forget_expired(self, now: float) -> None:
        """Forget callers that did not return after their retry delays."""
        for caller, found in list(self._callers.items()):
            if found.invitations and found.invitations[-1] < now - _INVITATION_SECONDS:
                found.invitations.clear()
                self._forget_idle(caller, found)
