"""What the classes of results have in common."""

from __future__ import annotations

import dataclasses
import html
from typing import Any


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


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:199] + "…"
