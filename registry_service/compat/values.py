"""Parse the texts of a form: numbers, JSON, labels and precisions."""

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

from registry_service.compat import answers
from registry_service.compat.answers import RestError
from registry_service.domain.models import PRECISIONS, Json
from registry_service.domain.validation import MAX_JSON_DEPTH

_MAX_LITERAL = 65_536
_INTEGER = re.compile(r"\s*([+-]?\d+(?:_\d+)*)(?:\.0+)?\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:_\d+)*(?:\.(?:\d+(?:_\d+)*)?)?|\.\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)
_MAX_DIGITS = 4300


class FieldError(Exception):
    """A field is invalid. `item` is its entry in the list of errors of FastAPI."""

    def __init__(self, kind: str, name: str, message: str, value: object) -> None:
        super().__init__(message)
        self.field = name
        shown = value[:100] if isinstance(value, str) else value
        self.item: Mapping[str, object] = {"type": kind, "loc": ["body", name], "msg": message, "input": shown}


def number(name: str, text: str) -> float:
    """Return a finite number, or raise FieldError."""
    if not _NUMBER.fullmatch(text):
        raise FieldError(
            "float_parsing", name, "Input should be a valid number, unable to parse string as a number", text
        )
    value = float(text)
    if not math.isfinite(value):
        raise FieldError("finite_number", name, "Input should be a finite number", text)
    return value


def integer(name: str, text: str) -> int:
    """Return an integer, or raise FieldError."""
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise FieldError(
            "int_parsing", name, "Input should be a valid integer, unable to parse string as an integer", text
        )
    if len(found[1]) > _MAX_DIGITS:
        raise FieldError(
            "int_parsing_size", name, "Unable to parse input string as an integer, exceeded maximum size", text
        )
    return int(found[1])


def precision(text: str) -> tuple[str, ...]:
    """Return the precision. A form can name only one.

    Raises:
        RestError: 400, the precision is unknown.
    """
    value = text.lower()
    if value not in PRECISIONS:
        raise RestError(answers.text(400, f"{value[:1000]} is not a supported precision.\n"))
    return (value,)


def json_object(name: str, text: str) -> Json:
    """Return a JSON object or string.

    Raises:
        RestError: 422, the text is neither, or has a value that cannot be stored.
    """
    try:
        value = _plain(json.loads(text, parse_constant=_refuse))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, str | Mapping):
        raise RestError(answers.detail(422, f"{name} is not a valid JSON object."))
    return value


def labels(texts: Sequence[str]) -> tuple[Json, ...]:
    """Return the labels: one list of strings or objects, as JSON or as a literal of Python, or each text as a label.

    Raises:
        RestError: 422, the labels are malformed.
    """
    if len(texts) > 1:
        found: object = [text for text in texts if text]
    elif not texts or not texts[0].strip():
        found = []
    else:
        found = _list(texts[0])
    try:
        value = _plain(found)
    except ValueError:
        value = None
    if not isinstance(value, list) or not all(isinstance(label, str | Mapping) for label in value):
        raise RestError(answers.detail(422, "labels is not a valid list of texts or objects."))
    return tuple(value)


def _list(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        pass
    if len(text) > _MAX_LITERAL:  # Python's parser takes a hundred times the memory
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def _plain(value: object, depth: int = 1) -> Json:
    """Return a JSON value that can be stored and read through every API, or raise ValueError."""
    match value:
        case None | bool():
            return value
        case str():
            return _checked(value)
        case int() | float():
            if not -1e308 < value < 1e308:  # also refuses NaN
                raise ValueError(value)
            return value
        case list() if depth <= MAX_JSON_DEPTH:
            return [_plain(item, depth + 1) for item in value]
        case dict() if depth <= MAX_JSON_DEPTH:
            return {_checked(key): _plain(item, depth + 1) for key, item in value.items()}
        case _:
            raise ValueError(type(value).__name__)


def _checked(text: object) -> str:
    if not isinstance(text, str) or "\0" in text:
        raise ValueError("not a string that can be stored")
    text.encode()  # half of a surrogate pair raises UnicodeEncodeError, a ValueError
    return text
