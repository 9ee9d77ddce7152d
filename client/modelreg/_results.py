"""What the classes of results have in common."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

Converted = TypeVar("Converted", bound="Result")
Source = TypeVar("Source", bound="Message")
Options = ParamSpec("Options")

MESSAGES_ARE_KEPT: ContextVar[bool] = ContextVar("MESSAGES_ARE_KEPT", default=False)
"""Whether results keep the messages that they were made of, for `message_of`.

The command line prints them as the JSON of `/v1`. The library does not keep them: one message keeps the memory of its
whole page.
"""

SHOWN_ITEMS = 10
"""How many items of a list notebooks show."""


class Result:
    """A result of a call: a frozen dataclass that notebooks show as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in _cells(self)
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def html_table(items: Sequence[Result]) -> str:
    """Return the first results of a list as a table, with the columns that any of them has."""
    shown = items[:SHOWN_ITEMS]
    rows = [dict(_cells(item)) for item in shown]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row.get(name, ''))}</td>" for name in columns) + "</tr>" for row in rows
    )
    if not shown:
        caption = "No items"
    elif len(items) > len(shown):
        caption = f"The first {len(shown)} items"
    else:
        caption = f"{len(shown)} items" if len(shown) > 1 else "1 item"
    return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"


def _cells(result: Result) -> list[tuple[str, str]]:
    """Return the fields that are set, with short texts for values."""
    fields = [field.name for field in dataclasses.fields(result)]  # type: ignore[arg-type]
    values = ((name, getattr(result, name)) for name in fields)
    return [(name, short_text(value)) for name, value in values if value not in (None, "", (), {})]


def keeps_message(
    convert: Callable[Concatenate[Source, Options], Converted],
) -> Callable[Concatenate[Source, Options], Converted]:
    """Let a conversion keep the message beside its result, where `MESSAGES_ARE_KEPT`."""

    @functools.wraps(convert)
    def converted(message: Source, /, *args: Options.args, **kwargs: Options.kwargs) -> Converted:
        result = convert(message, *args, **kwargs)
        if MESSAGES_ARE_KEPT.get():
            # Not a field: it takes no part in comparisons, and `dataclasses.replace` drops it.
            object.__setattr__(result, "_message", message)
        return result

    return converted


def message_of(result: Result) -> Message:
    """Return the message that a result was made of. Raises AttributeError if it was not kept."""
    message: Message = result._message  # type: ignore[attr-defined]  # noqa: SLF001 - of this module
    return message


def short_text(value: Any) -> str:
    """Return a value as a text of at most 200 characters."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:199] + "…"
