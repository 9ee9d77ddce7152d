# Generated from modelreg/_async by `make generate`. Do not edit.
"""Lists that fetch their pages themselves."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from modelreg._sync import runtime
from modelreg.errors import Unsupported

if TYPE_CHECKING:
    import pandas

Item = TypeVar("Item")
Page = tuple[Sequence[Any], str]
"""The messages of a page, and the token of the next one; empty on the last."""


class Listing(Generic[Item]):
    """Items of the registry, in pages that are fetched as they are needed.

    Each iteration begins anew, with what the registry has then. While one page is consumed, the next one is fetched.

    Args:
        fetch: Fetches the page of a token.
        convert: Makes an item of a message.
    """

    def __init__(self, fetch: Callable[[str], Page], convert: Callable[[Any], Item]) -> None:
        self._fetch = fetch
        self._convert = convert

    def __iter__(self) -> Iterator[Item]:
        messages, token = self._fetch("")
        while True:
            half = len(messages) // 2
            for message in itertools.islice(messages, half):
                yield self._convert(message)
            ahead = runtime.Prefetch(self._fetch, token) if token else None
            try:
                for message in itertools.islice(messages, half, None):
                    yield self._convert(message)
                if ahead is None:
                    return
                messages, token = ahead.result()
            finally:
                if ahead is not None:
                    ahead.cancel()

    def first(self) -> Item | None:
        """Return the first item, or None if there is none."""
        for item in self:
            return item
        return None

    def to_list(self, limit: int | None = None) -> list[Item]:
        """Return the items as a list.

        Args:
            limit: The maximum number of items. None: all.
        """
        items: list[Item] = []
        if limit == 0:
            return items
        for item in self:
            items.append(item)
            if len(items) == limit:
                break
        return items

    def to_pandas(self) -> pandas.DataFrame:
        """Return the items as a data frame, a column per field, and one per metric (`metrics.f1`) and tag.

        Raises:
            Unsupported: pandas is not installed.
        """
        try:
            import pandas as pd  # noqa: PLC0415 - optional, and slow to import
        except ImportError as error:
            raise Unsupported("to_pandas needs pandas: pip install pandas") from error
        return pd.DataFrame([_row(item) for item in self.to_list()])


def _row(item: Any) -> dict[str, Any]:
    """Return the cells of an item, with the entries of its maps as cells of their own."""
    row: dict[str, Any] = {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.name in ("metrics", "tags"):
            row.update({f"{field.name}.{key}": found for key, found in value.items()})
        elif field.name == "artifact":
            row.update({f"artifact.{key}": getattr(value, key) for key in ("file_name", "size_bytes", "sha256")})
        elif not dataclasses.is_dataclass(value):
            row[field.name] = value
    return row
