"""Poll for a condition, up to a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def eventually(look: Callable[[], Result], seconds: float = 30, what: str = "what was waited for") -> Result:
    """Return the first true result of `look`. An exception counts as not yet true.

    Raises:
        AssertionError: No result was true in time. Its cause is the last exception.
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if result := look():
                return result
            last = None
        except Exception as error:  # noqa: BLE001 - any error may pass
            last = error
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds} s") from last
