"""A map over many items in several threads, with bounded memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(items: Iterable[Item], work: Callable[[Item], Result], *, workers: int) -> Iterator[Result]:
    """Yield the result of `work` for each item in the order of the items, or raise the first exception.

    At most two items per worker are taken ahead. `work` runs in a copy of the caller's context.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(pending) >= 2 * workers:
                    yield pending.popleft().result()
                pending.append(pool.submit(copy_context().run, partial(work, item)))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
