"""Text on terminals: what is safe to print, how wide it is, and how numbers and times read."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import IO, Any

import click

# Control characters, and those that change the direction or the layout of what follows: names come from other people.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_UNSAFE_LINES = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""Return a text in which characters that could mislead a terminal or its reader are escaped, as in `\x1b`.

    Args:
        text: The text.
        lines: Whether line feeds and tabs stay.
    """
    return (_UNSAFE_LINES if lines else _UNSAFE).sub(_escape, text)


def safe_json(text: str) -> str:
    r"""Return JSON whose strings have such characters as `\u` escapes, which mean the same."""
    return _SURROGATES.sub(_escape_json, _UNSAFE_LINES.sub(_escape_json, text))


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    named = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(match[0])
    return named or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def _escape_json(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def is_terminal(stream: IO[Any]) -> bool:
    """Tell whether a stream is a terminal."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):  # None without a console on Windows; or closed.
        return False


def has_colors(stream: IO[Any]) -> bool:
    """Tell whether colors may be written to a stream (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, *, err: bool = False, **style: Any) -> str:
    """Return a text with colors, if stdout (or stderr) takes them."""
    return click.style(text, **style) if has_colors(sys.stderr if err else sys.stdout) else text


def width_of(text: str) -> int:
    """Return the number of columns that a printable text takes on a terminal."""
    plain = click.unstyle(text)
    if plain.isascii():
        return len(plain)
    return sum(_width(character) for character in plain)


def shortened(text: str, width: int) -> str:
    """Return a text that is at most so wide, with an ellipsis at its end if it was wider."""
    if width_of(text) <= width:
        return text
    taken, columns = [], 0
    for character in click.unstyle(text):
        columns += _width(character)
        if columns > width - 1:
            break
        taken.append(character)
    return "".join(taken) + "…"


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def size(size_bytes: int) -> str:
    """Return a size for people, in decimal units: `12.3 MB`."""
    if size_bytes < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} PB"


def number(value: float) -> str:
    """Return a number as short as it reads back."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def aligned(values: Iterable[float]) -> list[str]:
    """Return numbers with their decimal points below each other."""
    texts = [number(value) for value in values]
    width = max((len(text.partition(".")[0]) for text in texts), default=0)
    return [" " * (width - len(text.partition(".")[0])) + text for text in texts]


def age(time: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago a time was: `3 hours ago`."""
    if time is None:
        return ""
    seconds = ((now or datetime.now(timezone.utc)) - time).total_seconds()
    if seconds < 0:
        return local(time)
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def local(time: datetime | None) -> str:
    """Return a time in the zone of this machine: `2026-11-30 14:43:34 +01:00`, or with `UTC`."""
    if time is None:
        return ""
    found = time.astimezone()
    zone = f"{found:%z}"
    return f"{found:%Y-%m-%d %H:%M:%S} {'UTC' if not found.utcoffset() else f'{zone[:3]}:{zone[3:5]}'}"


def when(time: datetime | None) -> str:
    """Return a time for people, with how long ago it was."""
    return "" if time is None else f"{local(time)} ({age(time)})"


def utc(time: datetime | None) -> str:
    """Return a time for programs: `2026-11-30T14:43:34Z`."""
    return "" if time is None else f"{time.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
