"""Ordered, paged listings: `order_by` (AIP-132) and `page_token` (AIP-158)."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from registry_service.domain import filter as filters
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import Lineage, Model

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_PAGE_BYTES = 2 * 1024 * 1024
"""Most metadata in a page, as JSON: gRPC clients take messages of 4 MiB unless told otherwise."""
DEFAULT_ORDER = "create_time desc"
SORTABLE_FIELDS = ("id", "name", "version", "score", "create_time", "update_time")
VERSION_ORDER = "version order 1"
"""Names the order of versions in page tokens. It must change with the order: a token holds a place in one order."""
LOWEST_SCORE = float("-inf")
"""Where a model without a score sorts."""

SortValue = str | int | float | datetime


@dataclass(frozen=True, slots=True)
class OrderField:
    """One field of an order."""

    name: str
    descending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A page of a listing."""

    filter: filters.Node | None
    lineage: Lineage | None = None
    """None: whatever the name and the project."""
    order: tuple[OrderField, ...]
    """Ends with id, so that it is total."""
    after: tuple[SortValue, ...] | None
    """The order's values of the last model of the previous page."""
    limit: int
    max_bytes: int = MAX_PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a listing found."""

    models: Sequence[Model]
    more: bool


def parse_order(text: str) -> tuple[OrderField, ...]:
    """Parse `order_by`: fields with ` desc` or ` asc`, separated by commas.

    Returns:
        The order, which ends with id. Models of one version at its end come in the order of their registration.

    Raises:
        InvalidArgumentError: A field is unknown or named twice.
    """
    order: list[OrderField] = []
    for item in (text.strip() or DEFAULT_ORDER).split(","):
        words = item.split()
        if not 1 <= len(words) <= 2 or words[0] not in SORTABLE_FIELDS or words[1:] not in ([], ["asc"], ["desc"]):
            raise InvalidArgumentError.of(
                "order_by",
                f"{item.strip()[:100]!r} is not a field to order by. Use one of {', '.join(SORTABLE_FIELDS)},"
                " optionally with asc or desc.",
            )
        if any(words[0] == field.name for field in order):
            raise InvalidArgumentError.of("order_by", f"must not name {words[0]} twice.")
        order.append(OrderField(words[0], words[1:] == ["desc"]))
    names = {field.name for field in order}
    if order[-1].name == "version" and "id" not in names and "create_time" not in names:
        order.append(OrderField("create_time", order[-1].descending))
    if "id" not in names:
        order.append(OrderField("id", order[-1].descending))
    return tuple(order)


def page_query(filter: str, order_by: str, order: Sequence[OrderField]) -> tuple[str, ...]:  # noqa: A002 - AIP-160's name
    """Return what the page tokens of a listing belong to."""
    return (filter, order_by, *(VERSION_ORDER for field in order if field.name == "version"))


def sort_values(model: Model, order: Sequence[OrderField]) -> tuple[SortValue, ...]:
    """Returns the values of a model that an order compares."""

    def value(name: str) -> SortValue:
        if name == "score":
            return LOWEST_SCORE if model.score is None else model.score
        result: SortValue = getattr(model, name)
        return result

    return tuple(value(field.name) for field in order)


def sort_kinds(order: Sequence[OrderField]) -> tuple[type, ...]:
    """Returns the types of `sort_values`."""
    kinds = {"score": float, "create_time": datetime, "update_time": datetime}
    return tuple(kinds.get(field.name, str) for field in order)


def page_size(requested: int, default: int = DEFAULT_PAGE_SIZE) -> int:
    """Returns how many items a page has (AIP-158).

    Raises:
        InvalidArgumentError: The number is negative.
    """
    if requested < 0:
        raise InvalidArgumentError.of("page_size", "must not be negative.")
    return min(requested or default, MAX_PAGE_SIZE)


def encode_page_token(query: Sequence[str], values: Sequence[SortValue]) -> str:
    """Makes the token of the page after `values`, which works for the same `query` only."""
    encoded = [{"t": v.isoformat()} if isinstance(v, datetime) else v for v in values]
    data = json.dumps([_fingerprint(query), encoded], separators=(",", ":"))
    return base64.urlsafe_b64encode(data.encode()).decode().rstrip("=")


def decode_page_token(
    token: str, query: Sequence[str], kinds: Sequence[type], field: str = "page_token"
) -> tuple[SortValue, ...] | None:
    """Returns what `encode_page_token` was given, None for an empty token.

    `kinds` are the types of the values; whatever a client made up passes only
    where it fits them, and then is no more than a place to start from. `field` is
    the token's name in the request.

    Raises:
        InvalidArgumentError: It is no token, or one of another query.
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
    # In UTC, as Postgres has no fractions of a second in a zone.
    return time.astimezone(UTC)


def _fingerprint(query: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(query)).encode()).hexdigest()[:16]
