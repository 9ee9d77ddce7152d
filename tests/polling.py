"""Waits for what happens in its own time, up to a deadline; nothing sleeps blindly."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def eventually(look: Callable[[], Result], seconds: float = 30, what: str = "what was waited for") -> Result:
    """Returns the first true result of `look`; an exception counts as not yet.

    Raises:
        AssertionError: It did not happen in time; the last exception is its cause.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := look():
                return result
            last = None
        except Exception as error:  # noqa: BLE001 - whatever it is, it may pass
            last = error
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s") from last
