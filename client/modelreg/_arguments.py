"""Checks of the types of arguments, so that errors name the argument instead of a field of protobuf."""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from modelreg.errors import FieldViolation, InvalidArgument

Expected = TypeVar("Expected")


def text(value: Any, name: str, *, advice: str = "") -> str:
    """Return a text.

    Args:
        value: The argument.
        name: Its name, for the error.
        advice: A sentence on what to pass.

    Raises:
        InvalidArgument: The value is no text, or one that cannot be sent.
    """
    if not isinstance(value, str):
        raise wrong_type(name, "a text", value, advice)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{name}: {value!r:.200} has lone surrogates, which UTF-8 cannot encode.") from None
    return value


def texts(value: Any, name: str) -> list[str]:
    """Return one text or several as a list. Raises InvalidArgument as `text`."""
    if isinstance(value, str):
        return [text(value, name)]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise wrong_type(name, "a text or a list of texts", value)
    return [text(item, f"{name}[{index}]") for index, item in enumerate(value)]


def number(value: Any, name: str) -> float:
    """Return a number, which may be one of NumPy.

    Raises:
        InvalidArgument: The value is no number.
    """
    try:
        if not isinstance(value, (str, bytes)):
            return float(value)
    except OverflowError:
        raise InvalidArgument(f"{name}: must be at most 1.8e308, the largest number of 64 bits.") from None
    except (TypeError, ValueError):
        pass
    raise wrong_type(name, "a number", value)


def whole_number(value: Any, name: str) -> int:
    """Return a whole number, which may be one of NumPy.

    Raises:
        InvalidArgument: The value is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise wrong_type(name, "a whole number", value) from None


def items(value: Any, name: str, *, advice: str) -> Sequence[Any]:
    """Return a list of anything. A text or a mapping, which Python would take apart, is none.

    Raises:
        InvalidArgument: The value is no list.
    """
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise wrong_type(name, "a list", value, advice)
    return list(value)


def mapping(value: Any, name: str, *, advice: str) -> Mapping[str, Any]:
    """Return a mapping with texts as its keys.

    Raises:
        InvalidArgument: The value is no mapping, or a key is no text.
    """
    if not isinstance(value, Mapping):
        raise wrong_type(name, "a mapping", value, advice)
    for key in value:
        text(key, f"{name}: the key {key!r:.50}")
    return value


def instance(value: Any, kind: type[Expected], name: str, *, advice: str) -> Expected:
    """Return an object of a class.

    Raises:
        InvalidArgument: The value is something else.
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0].lower() in "aeiou" else "a"
        raise wrong_type(name, f"{article} {kind.__name__}", value, advice)
    return value


@contextlib.contextmanager
def renamed(field: str, argument: str) -> Iterator[None]:
    """Let the errors of calls name an argument instead of the field of the request that has its value."""
    pattern = re.compile(rf"\b{field}\b")
    try:
        yield
    except InvalidArgument as error:
        error.message = pattern.sub(argument, error.message)
        error.args = tuple(pattern.sub(argument, text) for text in error.args)
        error.violations = tuple(
            FieldViolation(pattern.sub(argument, found.field), found.description) for found in error.violations
        )
        raise


def wrong_type(name: str, expected: str, value: Any, advice: str = "") -> InvalidArgument:
    """Return the error of a value of another type than the expected one."""
    found = "None" if value is None else type(value).__name__
    return InvalidArgument(f"{name}: must be {expected}, not {found}.{f' {advice}' if advice else ''}")
