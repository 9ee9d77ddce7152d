"""Ordered, paged listings: `order_by` (AIP-132) and `page_token` (AIP-158)."""

import base64
import binascii
import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from registry_service.domain import filter as filters
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import FieldKind, Model, fields_of_kind

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_PAGE_BYTES = 2 * 1024 * 1024
"""Maximum metadata in a page, as JSON. By default, gRPC clients accept messages of 4 MiB."""
DEFAULT_ORDER = "create_time desc"
SORT_PREFIX = 400
"""Orders compare this many characters of a text. An index row of Postgres takes at most 2,704 bytes."""
MAX_ORDER_FIELDS = 8
"""Maximum number of fields of an order."""
_ARTIFACT_FIELDS = ("file_name", "media_type", "size_bytes", "sha256")
SORTABLE_FIELDS = (
    "id",
    *fields_of_kind(FieldKind.TEXT, FieldKind.LONG_TEXT, FieldKind.NUMBER),
    "creator",
    "create_time",
    "update_time",
    "revision",
    *(f"artifact.{name}" for name in _ARTIFACT_FIELDS),
)
METRICS = "metrics"
"""The map whose values an order can name by key."""
VERSION_ORDER = "version order 1"
"""Identifies the order of versions in page tokens. Change both together: a token is a place in one order."""
LOWEST_NUMBER = float("-inf")
"""The sort value of a model without a score or metric."""
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(fields_of_kind(FieldKind.NUMBER), float),
    METRICS: float,
    "create_time": datetime,
    "update_time": datetime,
    "revision": int,
    "artifact.size_bytes": int,
}
# Names, separated by dots. In double quotes, a name may contain any character.
_PATH = re.compile(r'[^\s,."]+(?:\.(?:"(?:[^"\\]|\\.)*"|[^\s,."]+))*')
_NAME = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s,."]+')
_DIRECTION = re.compile(r"asc|desc")

SortValue = str | int | float | datetime


@dataclass(frozen=True, slots=True)
class OrderField:
    """One field of an order."""

    name: str
    """One of SORTABLE_FIELDS, or METRICS."""
    descending: bool
    key: str = ""
    """The key in METRICS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A page of a listing."""

    filter: filters.Node | None
    order: tuple[OrderField, ...]
    """Ends with the id, which makes it total."""
    after: tuple[SortValue, ...] | None
    """The sort values of the last model of the previous page."""
    limit: int
    with_signature: bool = False
    """Whether the models have their full signature, or only what warnings need."""
    max_bytes: int = MAX_PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The result of a listing."""

    models: Sequence[Model]
    more: bool


def parse_order(text: str) -> tuple[OrderField, ...]:
    """Parse `order_by`: fields with ` desc` or ` asc`, separated by commas.

    Returns:
        The order, which ends with the id. An order that ends with the version continues by the time of registration.

    Raises:
        InvalidArgumentError: A field is unknown or named twice, or there are more than MAX_ORDER_FIELDS.
    """
    order = _order_fields(text if text.strip() else DEFAULT_ORDER)
    names = {field.name for field in order}
    if order[-1].name == "version" and "id" not in names and "create_time" not in names:
        order.append(OrderField("create_time", order[-1].descending))
    if "id" not in names:
        order.append(OrderField("id", order[-1].descending))
    return tuple(order)


def _order_fields(text: str) -> list[OrderField]:
    order: list[OrderField] = []
    position = 0
    while True:
        start = _after_space(text, position)
        found = _PATH.match(text, start)
        if found is None:
            raise _order_error("missing name of a field", start)
        name, key = _order_field(found[0], start)
        position = _after_space(text, found.end())
        direction = _DIRECTION.match(text, position) if position > found.end() else None
        if direction is not None:
            position = _after_space(text, direction.end())
        if any((field.name, field.key) == (name, key) for field in order):
            raise _order_error(f"{found[0][:100]} appears twice", start)
        if len(order) == MAX_ORDER_FIELDS:
            raise _order_error(f"at most {MAX_ORDER_FIELDS} fields are supported", start)
        order.append(OrderField(name, direction is not None and direction[0] == "desc", key))
        if position == len(text):
            return order
        if text[position] != ",":
            raise _order_error(f"expected asc, desc or a comma after {found[0][:100]}", position)
        position += 1


def _order_field(path: str, start: int) -> tuple[str, str]:
    """Return the field that a path names, and the key in it."""
    if path in SORTABLE_FIELDS:
        return path, ""
    name, *keys = (_unquoted(part) for part in _NAME.findall(path))
    if name == METRICS:
        if len(keys) == 1 and keys[0] and "\0" not in keys[0]:
            return METRICS, keys[0]
        raise _order_error(f'{METRICS} requires one key, for example {METRICS}.mAP50 or {METRICS}."a.b"', start)
    if path[0] == "-" and (path[1:] in SORTABLE_FIELDS or path.startswith(f"-{METRICS}.")):
        raise _order_error(f"write {path[1:100]} desc instead of {path[:100]}", start)
    known = [*SORTABLE_FIELDS, f"{METRICS}.KEY"]
    nearest = difflib.get_close_matches(path[:100], known, n=2, cutoff=0.5)
    if path.isidentifier() and not difflib.get_close_matches(path[:100], known, n=1, cutoff=0.75):
        nearest.append(f"{METRICS}.{path[:100]}")
    else:
        del nearest[1:]
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"expected a scalar field of Model or {METRICS}.KEY"
    raise _order_error(f"unknown field {path[:100]}; {hint}", start)


def _unquoted(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL) if name.startswith('"') else name


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _order_error(description: str, start: int) -> InvalidArgumentError:
    """Make the error at the character `start`, from 0."""
    return InvalidArgumentError.of("order_by", f"{description} (position {start + 1}).")


def page_query(filter: str, order_by: str, order: Sequence[OrderField]) -> tuple[str, ...]:  # noqa: A002 - AIP-160's name
    """Return the query that the page tokens of a listing belong to."""
    return (filter, order_by, *(VERSION_ORDER for field in order if field.name == "version"))


def sort_values(model: Model, order: Sequence[OrderField]) -> tuple[SortValue, ...]:
    """Return the values of a model that an order compares."""
    return tuple(_sort_value(model, field) for field in order)


def _sort_value(model: Model, field: OrderField) -> SortValue:
    result: SortValue | None
    match field.name:
        case "metrics":
            result = model.metrics.get(field.key)
        case "artifact.size_bytes":
            result = model.artifact.size
        case _ if field.name.startswith("artifact."):
            result = getattr(model.artifact, field.name.removeprefix("artifact."))
        case _:
            result = getattr(model, field.name)
    if isinstance(result, str):
        return result[:SORT_PREFIX]
    if result is None:
        return "" if _KINDS.get(field.name) is None else LOWEST_NUMBER
    return result


def sort_kinds(order: Sequence[OrderField]) -> tuple[type, ...]:
    """Return the types of `sort_values`."""
    return tuple(_KINDS.get(field.name, str) for field in order)


def page_size(requested: int, default: int = DEFAULT_PAGE_SIZE) -> int:
    """Return the number of items of a page (AIP-158).

    Raises:
        InvalidArgumentError: The number is negative.
    """
    if requested < 0:
        raise InvalidArgumentError.of("page_size", "must not be negative.")
    return min(requested or default, MAX_PAGE_SIZE)


def encode_page_token(query: Sequence[str], values: Sequence[SortValue]) -> str:
    """Return the token of the page after `values`, which is valid for the same `query` only."""
    encoded = [{"t": v.isoformat()} if isinstance(v, datetime) else v for v in values]
    data = json.dumps([_fingerprint(query), encoded], separators=(",", ":"))
    return base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")


def decode_page_token(
    token: str, query: Sequence[str], kinds: Sequence[type], field: str = "page_token"
) -> tuple[SortValue, ...] | None:
    """Return the values that a token was encoded with, or None for an empty token.

    `kinds` are the types of the values. A forged token passes only if its values have these types, and is then just a
    place to start from. `field` is the name of the token in the request.

    Raises:
        InvalidArgumentError: The text is not a token, or a token of another query.
    """
    if not token:
        return None
    try:
        data = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        fingerprint, encoded = data
        values = tuple(_time(v["t"]) if isinstance(v, dict) else v for v in encoded)
    except (binascii.Error, ValueError, OverflowError, TypeError, KeyError, RecursionError) as error:
        raise InvalidArgumentError.of(field, "must be a token that this server returned.") from error
    if fingerprint != _fingerprint(query):
        raise InvalidArgumentError.of(field, "was returned for another filter or order.")
    if len(values) != len(kinds) or not all(map(_fits, values, kinds)):
        raise InvalidArgumentError.of(field, "must be a token that this server returned.")
    return values


def _fits(value: object, kind: type) -> bool:
    if isinstance(value, bool):
        return False
    if kind is str:
        return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)
    if isinstance(value, int):
        return kind in {int, float} and abs(value) < 2**63
    return isinstance(value, kind)


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    # Convert to UTC, because Postgres has no fractions of a second in a UTC offset.
    return time.astimezone(UTC)


def _fingerprint(query: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(query)).encode()).hexdigest()[:16]
