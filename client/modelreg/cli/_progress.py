"""The progress of transfers: a bar on a terminal, elsewhere a line every 30 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType

from modelreg.cli._output import Output, note
from modelreg.cli._text import is_terminal, size

INTERVAL_SECONDS = 30.0


def progress_for(output: Output, description: str) -> bool | Callable[[int, int | None], object]:
    """Return how a transfer shows its progress, as `Registry.push` and `Registry.pull` take it."""
    if output.kind == "quiet":
        return False
    return True if is_terminal(sys.stderr) else ProgressLines(description)


class TransferProgress:
    """Shows the progress of one transfer, and knows whether any bytes have moved. Use it as a context manager.

    Args:
        output: Where results are printed.
        description: What is transferred.
    """

    def __init__(self, output: Output, description: str) -> None:
        from modelreg.progress import Progress  # noqa: PLC0415 - as all of the library, not before it is used

        self._shown = Progress(progress_for(output, description), description=description, total=None)
        self.has_begun = False
        """Whether bytes were transferred, by this process or by one whose transfer it continues."""

    def __call__(self, done: int, total: int | None) -> None:
        self.has_begun = self.has_begun or done > 0
        self._shown.update(done, total)

    def __enter__(self) -> TransferProgress:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, traceback)


class ProgressLines:
    """Prints a line to stderr every 30 seconds, so that the log of a job shows that it is alive.

    Args:
        description: What is transferred.
        clock: Returns seconds.
    """

    def __init__(self, description: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._description = description
        self._clock = clock
        self._begin: tuple[float, int] | None = None
        self._next = clock() + INTERVAL_SECONDS

    def __call__(self, done: int, total: int | None) -> None:
        now = self._clock()
        if self._begin is None:
            # What a resumed transfer had already says nothing of its speed.
            self._begin = (now, done)
        if now < self._next:
            return
        self._next = now + INTERVAL_SECONDS
        seconds, moved = now - self._begin[0], done - self._begin[1]
        speed = moved / seconds if seconds > 0 else 0
        text = f"{self._description}: {size(done)}"
        if total:
            text += f" of {size(total)} ({done / total:.0%})"
        text += f", {size(int(max(speed, 0)))}/s"
        if total and speed > 0:
            text += f", about {_duration((total - done) / speed)} left"
        note(text)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes == 0:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
