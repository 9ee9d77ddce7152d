"""The progress reports of a long operation, as a response stream."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from registry_service.domain.errors import CallCancelledError

Report_co = TypeVar("Report_co", covariant=True)

_MAX_QUEUED = 16
_CHECK_SECONDS = 0.5


class Operation(Protocol[Report_co]):
    """A long operation that reports its progress."""

    def __call__(self, *, report: Callable[[Report_co], None], check_cancelled: Callable[[], None]) -> object:
        """Run, calling `check_cancelled` often. An exception of `report` or `check_cancelled` ends the operation."""


class _End:
    """Follows the last report."""


class _Reports:
    """The queue between the thread of the operation and the thread of the call."""

    def __init__(self, check_cancelled: Callable[[], None]) -> None:
        self._check_call_cancelled = check_cancelled
        self._closed = threading.Event()
        self._queue: queue.Queue[Any] = queue.Queue(_MAX_QUEUED)

    def check_cancelled(self) -> None:
        """Raise CallCancelledError if no reader is left."""
        if self._closed.is_set():
            raise CallCancelledError
        self._check_call_cancelled()

    def put(self, report: object) -> None:
        """Queue a report as soon as there is room (`CallCancelledError`)."""
        while True:
            self.check_cancelled()
            if self._try_put(report):
                return

    def end(self) -> None:
        """Queue the end."""
        while not self._try_put(_End) and not self._closed.is_set():
            pass

    def close(self) -> None:
        """Cancel the operation at its next check."""
        self._closed.set()

    def get(self) -> Any:
        """Wait for the next report or `_End`."""
        return self._queue.get()

    def _try_put(self, item: object) -> bool:
        try:
            self._queue.put(item, timeout=_CHECK_SECONDS)
        except queue.Full:
            return False
        return True


def stream_progress(run: Operation[Report_co], check_cancelled: Callable[[], None]) -> Iterator[Report_co]:
    """Run an operation in its own thread, and yield its reports.

    The operation reports from within its calls, from where a generator could not yield. Closing the iterator cancels
    the operation and waits for its end.

    Args:
        run: The operation.
        check_cancelled: Raises if the call was cancelled.

    Raises:
        Exception: The operation's own, after its last report.
    """
    reports = _Reports(check_cancelled)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            run(report=reports.put, check_cancelled=reports.check_cancelled)
        except BaseException as error:  # noqa: BLE001 - raised in the thread of the call
            failure.append(error)
        reports.end()

    thread = threading.Thread(target=copy_context().run, args=(work,), name="progress")
    thread.start()
    try:
        while (item := reports.get()) is not _End:
            yield item
    finally:
        reports.close()
        thread.join()
    if failure:
        raise failure[0]
