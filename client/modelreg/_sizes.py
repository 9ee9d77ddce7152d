"""Sizes in bytes as people write them."""

from __future__ import annotations

import re

from modelreg.errors import InvalidArgument

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{letter}{suffix}": 1000**power for power, letter in enumerate("kmgtp", 1) for suffix in ("", "b")}
_UNITS |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", 1)}


def parse_size(value: int | str, name: str) -> int:
    """Return a size in bytes.

    Args:
        value: A number of bytes, or a text such as `50GB` (10^9) or `50 GiB` (2^30). Case does not matter.
        name: What the size is for, for the error.

    Raises:
        InvalidArgument: The value is no size.

    >>> parse_size("1.5 kB", "max_bytes")
    1500
    """
    if isinstance(value, int):
        if value < 0:
            raise InvalidArgument(f"{name}: {value} is negative. Write a number of bytes, or a size such as 50GB.")
        return value
    match = _SIZE.fullmatch(str(value).strip())
    unit = None if match is None else _UNITS.get(match[2].lower())
    if match is None or unit is None:
        raise InvalidArgument(
            f"{name}: {value!r} is no size. Write a number of bytes, or a size such as 50GB or 50GiB."
        )
    return int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit


def format_size(size_bytes: int) -> str:
    """Return a size for people.

    >>> format_size(1_500_000)
    '1.5 MB'
    """
    size, unit = float(size_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
