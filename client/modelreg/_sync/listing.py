# Generated from modelreg/_async by `make generate`. Do not edit.
"""Lists that fetch their pages themselves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from modelreg import _arguments
from modelreg._sync import runtime
from modelreg.errors import InternalError, InvalidArgument, Unsupported
from modelreg.models import Model

if TYPE_CHECKING:
    import pandas

MAX_PAGE_SIZE = 1000
"""The maximum number of items that the server puts on a page."""

Item = TypeVar("Item")
Page = tuple[Sequence[Any], str]
"""The messages of a page, and the token of the next one; empty on the last."""


class Listing(Generic[Item], runtime.Shown):
    """Items of the registry, in pages that are fetched as they are needed.

    Each iteration begins anew, with what the registry has then. While one page is consumed, the next one is fetched.

    It has no length and no positions, because it may be longer than the memory, and differs from one time to the next.

    Args:
        fetch: Fetches the page of a token, with at most as many items as the second argument says.
        convert: Makes an item of a message.
        of: What it lists, for its `repr`.
        page_size: The maximum number of items of a page.
    """

    def __init__(
        self,
        fetch: Callable[[str, int], Page],
        convert: Callable[[Any], Item],
        *,
        of: str,
        page_size: int = MAX_PAGE_SIZE,
    ) -> None:
        self._fetch = fetch
        self._convert = convert
        self._of = of
        self._page_size = _arguments.whole_number(page_size, "page_size")

    def __repr__(self) -> str:
        return f"<Listing of {self._of}>"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "A Listing is neither true nor false before it is read. Use `listing.first() is not None`, or "
            "`listing.to_list()`."
        )

    def __len__(self) -> NoReturn:
        raise TypeError("A Listing has no length before it is read. Use `len(listing.to_list())`.")

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError(
            "A Listing has no positions. Use `listing.first()`, or `listing.to_list(limit)` for the first "
            "items as a list."
        )

    def __iter__(self) -> Iterator[Item]:
        return self._iterate(None)

    def first(self) -> Item | None:
        """Return the first item, or None if there is none. Fetches no more than this item."""
        items = self.to_list(1)
        return items[0] if items else None

    def to_list(self, limit: int | None = None) -> list[Item]:
        """Return the items as a list.

        Args:
            limit: The maximum number of items. None: all.

        Raises:
            InvalidArgument: The limit is negative.
        """
        if limit is not None and _arguments.whole_number(limit, "limit") < 0:
            raise InvalidArgument(f"limit: {limit} is negative. Pass None for all items.")
        return [] if limit == 0 else list(self._iterate(limit))

    def _iterate(self, limit: int | None) -> Iterator[Item]:
        messages, token = self._fetch("", self._size(limit))
        while True:
            if limit is not None:
                messages = messages[:limit]
                limit -= len(messages)
                token = token if limit else ""
            # Not before half of the page is consumed: many consumers stop early.
            half = len(messages) // 2
            for message in itertools.islice(messages, half):
                yield self._convert(message)
            ahead = runtime.Prefetch(self._fetch, token, self._size(limit)) if token else None
            try:
                for message in itertools.islice(messages, half, None):
                    yield self._convert(message)
                if ahead is None:
                    return
                asked = token
                messages, token = ahead.result()
                if token == asked:
                    raise InternalError(f"The registry returns the same page of the {self._of} again and again.")
            finally:
                if ahead is not None:
                    ahead.cancel()

    def _size(self, limit: int | None) -> int:
        return self._page_size if limit is None else min(self._page_size, limit)

    def to_pandas(self) -> pandas.DataFrame:
        """Return the items as a data frame: a column per field, per metric (`metrics.f1`) and per tag.

        Models have their reference in the first column.

        Raises:
            Unsupported: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - optional, and slow to import
        except ImportError as error:
            raise Unsupported("to_pandas needs pandas: pip install pandas") from error
        return pd.DataFrame([_row(item) for item in self.to_list()])


def listed(items: str, **arguments: str) -> str:
    """Return what a list is of, with the arguments that are not empty: `models, filter 'name = vad'`."""
    given = [f"{name} {text!r:.200}" for name, text in arguments.items() if text]
    return ", ".join([items, *given])


def _row(item: Any) -> dict[str, Any]:
    """Return the cells of an item, with the entries of its maps as cells of their own."""
    row: dict[str, Any] = {"reference": item.reference} if isinstance(item, Model) else {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.name in ("metrics", "tags"):
            row.update({f"{field.name}.{key}": found for key, found in value.items()})
        elif field.name == "artifact":
            row.update({f"artifact.{key}": getattr(value, key) for key in ("file_name", "size_bytes", "sha256")})
        elif not dataclasses.is_dataclass(value):
            row[field.name] = value
    return row
