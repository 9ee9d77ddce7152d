"""Types of arguments and options."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _Time = click.ParamType[datetime]
    _Duration = click.ParamType[timedelta]
    _Assignment = click.ParamType[tuple[str, str]]
    _NumberAssignment = click.ParamType[tuple[str, float]]
    _JsonValue = click.ParamType[Any]
else:
    # It is no generic class in click 8.1.
    _Time = _Duration = _Assignment = _NumberAssignment = _JsonValue = click.ParamType

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
Parameter = click.Parameter | None
Context = click.Context | None


class Time(_Time):
    """A time in ISO 8601. Without a zone, it is in that of this machine."""

    name = "TIME"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> datetime:
        """Return an aware time."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            # Python 3.10 does not read the Z of UTC.
            return datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is not a time: write 2026-11-30, 2026-11-30T14:43 or 2026-11-30T14:43:34Z.", param, ctx
            )


class Duration(_Duration):
    """A duration: `90s`, `30m`, `12h`, `7d`."""

    name = "DURATION"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> timedelta:
        """Return the duration."""
        if isinstance(value, timedelta):
            return value
        try:
            return timedelta(seconds=float(value[:-1]) * _UNIT_SECONDS[value[-1:]])
        except (KeyError, ValueError, OverflowError):
            self.fail(f"{value!r} is not a duration: write 90s, 30m, 12h or 7d.", param, ctx)


class Assignment(_Assignment):
    """`NAME=VALUE`."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, str]:
        """Return the name and the value."""
        if isinstance(value, tuple):
            return value
        name, separator, text = value.partition("=")
        if not (name and separator):
            self.fail(f"{value!r} is not NAME=VALUE.", param, ctx)
        return name, text


class NumberAssignment(_NumberAssignment):
    """`NAME=NUMBER`."""

    name = "NAME=NUMBER"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, float]:
        """Return the name and the number."""
        if isinstance(value, tuple):
            return value
        name, _, text = value.rpartition("=")
        try:
            number = float(text)
        except ValueError:
            name = ""
        if not name:
            self.fail(f"{value!r} is not NAME=NUMBER, for example f1=0.91.", param, ctx)
        return name, number


class JsonValue(_JsonValue):
    """JSON, or `@FILE` for that of a file; `@-` is stdin."""

    name = "JSON|@FILE"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        """Return the data."""
        if not isinstance(value, str):
            return value
        try:
            if value.startswith("@"):
                value = sys.stdin.read() if value == "@-" else Path(value[1:]).read_text(encoding="utf-8")
            return json.loads(value)
        except OSError as error:
            self.fail(f"{error.filename}: {error.strerror}", param, ctx)
        except (ValueError, RecursionError) as error:
            self.fail(f"no JSON: {error}", param, ctx)
