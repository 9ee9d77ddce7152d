"""When a call that failed is repeated."""

from __future__ import annotations

import random
import time

from modelreg._wire.rpc_errors import Failure

MAX_ATTEMPTS = 5
_FIRST_SECONDS = 0.5
_MAX_SECONDS = 8.0
_MAX_DOUBLINGS = 10
_MAX_ASKED_SECONDS = 60.0
"""How long a call without a timeout waits at most, whatever the server asks for."""


class Retries:
    """The attempts of one operation: exponential backoff with jitter, unless the server says how long to wait.

    Args:
        timeout: Seconds from now within which the last attempt must begin. None: no limit.
        max_attempts: The number of attempts without progress. None: no limit.
        failing_seconds: Seconds of failures in a row after which no attempt follows, for calls that may take much
            longer. A failure is none in a row if its attempt took longer than that, or if it says that the server
            works on the call. None: no limit.
    """

    def __init__(
        self,
        timeout: float | None,
        max_attempts: int | None = MAX_ATTEMPTS,
        *,
        failing_seconds: float | None = None,
    ) -> None:
        self._attempt_begin = time.monotonic()
        self._deadline = None if timeout is None else self._attempt_begin + timeout
        self.max_attempts = max_attempts
        self._failed = 0
        self._failing_seconds = failing_seconds
        self._failing_since: float | None = None

    @property
    def remaining_seconds(self) -> float | None:
        """The rest of the timeout, at least a millisecond. None: no limit."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.001)

    def reset(self) -> None:
        """Count from the start again, because an attempt made progress."""
        self._failed = 0

    def pause_after(self, failure: Failure, *, is_transient: bool | None = None) -> float | None:
        """Return the seconds to wait before the next attempt, or None if there is none.

        Args:
            failure: The failure of the last attempt.
            is_transient: Whether another attempt may succeed. Default: as the failure says.
        """
        self._failed += 1
        is_last = self.max_attempts is not None and self._failed >= self.max_attempts
        is_last = is_last or self._fails_too_long(failure)
        if is_last or not (failure.is_transient if is_transient is None else is_transient):
            return None
        # The jitter keeps clients that failed together from coming back together; it does not call for security. It
        # leaves at least half, so that the attempts do not all end while the channel still waits to connect again.
        longest = min(_FIRST_SECONDS * 2 ** min(self._failed - 1, _MAX_DOUBLINGS), _MAX_SECONDS)
        pause = random.uniform(longest / 2, longest)  # noqa: S311
        if failure.retry_seconds is not None:
            pause = failure.retry_seconds + pause / 4
        remaining = self.remaining_seconds
        if remaining is None:
            pause = min(pause, _MAX_ASKED_SECONDS)
        self._attempt_begin = time.monotonic() + pause
        return None if remaining is not None and pause >= remaining else pause

    def _fails_too_long(self, failure: Failure) -> bool:
        if self._failing_seconds is None:
            return False
        now = time.monotonic()
        is_working = failure.reason == "IDEMPOTENT_CALL_RUNNING" or now - self._attempt_begin > self._failing_seconds
        if self._failing_since is None or is_working:
            self._failing_since = now
        return now - self._failing_since >= self._failing_seconds
