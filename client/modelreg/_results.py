"""What the classes of results have in common."""

from __future__ import annotations

import dataclasses
import functools
import html
import itertools
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, TypeVar

from modelreg._sizes import format_size

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


_EMPTY: tuple[Any, ...] = (None, "", (), {}, [])
_REPR = reprlib.Repr()
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = 6
_REPR.maxstring = _REPR.maxlong = 100
# Of other objects, such as nested results, nothing is cut.
_REPR.maxother = 100_000


class Result:
    """A result of a call: a frozen dataclass that notebooks show as a table."""

    __slots__ = ()
    _columns: ClassVar[Sequence[str]] = ()
    """The attributes that tables of several results show. Default: all fields."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # Here, because the decorator of dataclasses writes one of its own into classes that have none.
        if "__repr__" not in vars(cls):
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        """Return the fields that are set. Of long texts and lists, a part."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = ((field, getattr(self, field.name)) for field in fields if field.repr)
        shown = [f"{field.name}={_REPR.repr(value)}" for field, value in values if not _is_default(field, value)]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._cells([field.name for field in dataclasses.fields(self)])  # type: ignore[arg-type]
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"

    def _cells(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Return those of some attributes that are set, as texts for people."""
        return [(name, text) for name in names if (text := _cell(name, getattr(self, name)))]

    def _row(self) -> dict[str, str]:
        """Return the cells of a row in a table of several results."""
        names = self._columns or [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return dict(self._cells(names))

    def _summary(self) -> str:
        """Return a short text for a cell of a table."""
        return ", ".join(self._row().values())

    def _named_summary(self) -> str:
        """Return a short text with the names of the fields, where the values alone say little."""
        return ", ".join(f"{name}={text}" for name, text in self._row().items())


def html_table(items: Sequence[Result], caption: str = "") -> str:
    """Return the first results of a list as a table, with the columns that any of them has.

    Args:
        items: The results.
        caption: The title. Default: the number of items that are shown.
    """
    shown = items[:SHOWN_ITEMS]
    rows = [item._row() for item in shown]  # noqa: SLF001 - of this module
    columns = [name for name in shown[0]._columns if any(name in row for row in rows)] if shown else []  # noqa: SLF001
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row.get(name, ''))}</td>" for name in columns) + "</tr>" for row in rows
    )
    if not shown:
        count = "No items"
    elif len(items) > len(shown):
        count = f"The first {len(shown)} items"
    else:
        count = f"{len(shown)} items" if len(shown) > 1 else "1 item"
    title = f"{html.escape(caption)}: {count[0].lower()}{count[1:]}" if caption else count
    return f"<table><caption>{title}</caption><tr>{head}</tr>{body}</table>"


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory()) or value in _EMPTY
    return field.default is not dataclasses.MISSING and (value is field.default or value == field.default)


def _cell(name: str, value: Any) -> str:
    """Return the value of a field as a text for people."""
    if name.endswith(("_bytes", "committed_size")) and isinstance(value, int):
        return format_size(value)
    return short_text(value)


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
    """Return a value as a text for people, of at most 200 characters."""
    text = _text(value)
    return text if len(text) <= 200 else text[:199] + "…"


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, (str, timedelta, os.PathLike)):
        return str(value)
    if isinstance(value, Result):
        return value._summary()  # noqa: SLF001 - of this module
    # What is cut away in the end need not be made.
    if isinstance(value, Mapping):
        parts = (f"{key}={short_text(item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        parts = (short_text(item) for item in value)
    else:
        return repr(value)
    return ", ".join(itertools.islice(parts, 50))
