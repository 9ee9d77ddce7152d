"""What the classes of results have in common."""

from __future__ import annotations

import dataclasses
import functools
import html
from collections.abc import Callable
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


class Result:
    """A result of a call: a frozen dataclass that notebooks show as a table."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self._rows()
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"

    def _rows(self) -> list[tuple[str, str]]:
        """Return the fields that are set, with short texts for values."""
        fields = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        values = ((name, getattr(self, name)) for name in fields)
        return [(name, _short(value)) for name, value in values if value not in (None, "", (), {})]


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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:199] + "…"
