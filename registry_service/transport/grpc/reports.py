"""What a use case reports while it runs, as the messages of a stream."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from registry_service.domain.errors import CallCancelledError

Item_co = TypeVar("Item_co", covariant=True)

_AHEAD = 16
_ATTENTION_SECONDS = 0.5


class Reporting(Protocol[Item_co]):
    """A use case that tells how far it is."""

    def __call__(self, *, report: Callable[[Item_co], None], proceed: Callable[[], None]) -> object:
        """Runs; what `report` or `proceed` raise ends it."""


class _End:
    """Comes after the last report."""


class _Stream:
    """Between the thread that reports and the one that sends."""

    def __init__(self, check_cancelled: Callable[[], None]) -> None:
        self._check_cancelled = check_cancelled
        self._left = threading.Event()
        self._items: queue.Queue[Any] = queue.Queue(_AHEAD)

    def proceed(self) -> None:
        """Raises CallCancelledError when nobody takes reports any more."""
        if self._left.is_set():
            raise CallCancelledError
        self._check_cancelled()

    def report(self, item: object) -> None:
        """Hands a report over, as soon as there is room for it."""
        while True:
            self.proceed()
            if self._put(item):
                return

    def end(self) -> None:
        """Tells that there is no more to come."""
        while not self._put(_End) and not self._left.is_set():
            pass

    def leave(self) -> None:
        """Lets the reporting thread end at its next step."""
        self._left.set()

    def take(self) -> Any:
        """Returns the next report, or `_End`."""
        return self._items.get()

    def _put(self, item: object) -> bool:
        try:
            self._items.put(item, timeout=_ATTENTION_SECONDS)
        except queue.Full:
            return False
        return True


def reported(run: Reporting[Item_co], check_cancelled: Callable[[], None]) -> Iterator[Item_co]:
    """Runs a use case in a thread of its own and yields what it reports; ends as it does, with its exception if any.

    A generator cannot yield from within the calls that it makes, and an import
    is many calls deep when there is something to tell. Whoever closes the
    iterator waits until the use case has come to its next step and ended.
    """
    stream = _Stream(check_cancelled)
    failure: list[BaseException] = []

    def work() -> None:
        try:
            run(report=stream.report, proceed=stream.proceed)
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            failure.append(error)
        stream.end()

    thread = threading.Thread(target=copy_context().run, args=(work,), name="reporting")
    thread.start()
    try:
        while (item := stream.take()) is not _End:
            yield item
    finally:
        stream.leave()
        thread.join()
    if failure:
        raise failure[0]
