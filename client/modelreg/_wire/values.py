"""Conversion between the well-known messages and Python's values: times, durations, JSON, enums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, TypeVar, cast

from google.protobuf import json_format, struct_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from modelreg.errors import InvalidArgument

Parsed = TypeVar("Parsed", bound=Message)
Entry = TypeVar("Entry")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_EXACT = 2.0**53


def time_of(message: Message, field: str) -> datetime | None:
    """Return an aware UTC time, or None if the field is absent or no time of the calendar."""
    if not message.HasField(field):
        return None
    value: Timestamp = getattr(message, field)
    try:
        return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        return None


def timestamp(time: datetime, name: str) -> Timestamp:
    """Return a time as a message.

    Raises:
        InvalidArgument: The value is not a time, or has no time zone.
    """
    if not isinstance(time, datetime):
        raise InvalidArgument(f"{name}: {time!r:.200} is not a time. Pass a datetime with a time zone.")
    if time.tzinfo is None:
        raise InvalidArgument(f"{name}: a time without a time zone is ambiguous. Use datetime.now(timezone.utc).")
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def duration_of(message: Message, field: str) -> timedelta | None:
    """Return a duration, or None if the field is absent or too long for Python."""
    if not message.HasField(field):
        return None
    value: Duration = getattr(message, field)
    try:
        return timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)
    except OverflowError:
        return None


def json_of(value: struct_pb2.Value) -> Any:
    """Return the JSON value of a Value. A whole number is an int, as far as doubles are exact."""
    # MessageToDict takes twice as long, fails on NaN, and makes floats of all numbers.
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return json_of_struct(value.struct_value)
    if kind == "list_value":
        return json_of_list(value.list_value)
    return None


def json_of_struct(value: struct_pb2.Struct) -> dict[str, Any]:
    """Return the JSON object of a Struct."""
    return {key: json_of(item) for key, item in sorted_map(value.fields).items()}


def json_of_list(value: struct_pb2.ListValue) -> list[Any]:
    """Return the JSON array of a ListValue."""
    return [json_of(item) for item in value.values]


def value_of(data: Any, name: str) -> struct_pb2.Value:
    """Return JSON data as a Value.

    Raises:
        InvalidArgument: The data is not JSON.
    """
    return _parsed(data, struct_pb2.Value(), name)


def list_of(data: Sequence[Any], name: str) -> struct_pb2.ListValue:
    """Return JSON data as a ListValue. Raises InvalidArgument as `value_of`."""
    return _parsed(data, struct_pb2.ListValue(), name)


def struct_of(data: Mapping[str, Any], name: str) -> struct_pb2.Struct:
    """Return JSON data as a Struct. Raises InvalidArgument as `value_of`."""
    return _parsed(data, struct_pb2.Struct(), name)


def sorted_map(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return a map by key: protobuf has its entries in another order in each process, also of equal messages."""
    return {key: entries[key] for key in sorted(entries)}


def document(message: Message) -> dict[str, Any]:
    """Return a message as the JSON of the API under `/v1`. The entries of maps and Structs are sorted by key."""
    data = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    tidied: dict[str, Any] = _tidied(data, message.DESCRIPTOR)
    return tidied


def _tidied(data: Any, kind: Any) -> Any:
    """Return JSON with its fields in order, sorted maps, and whole numbers as the gateway prints them: `5`, not `5.0`.

    Args:
        data: The JSON of a message, or of a part of one.
        kind: The descriptor of the message. None: a scalar.
    """
    if isinstance(data, float):
        return _number(data)
    if isinstance(data, list):
        return [_tidied(item, kind) for item in data]
    if not isinstance(data, dict):
        return data
    if kind is None or kind.file.package == "google.protobuf":  # A Struct, or inside of one.
        return {key: _tidied(data[key], None) for key in sorted(data)}
    if kind.GetOptions().map_entry:
        value_kind = kind.fields_by_name["value"].message_type
        return {key: _tidied(data[key], value_kind) for key in sorted(data)}
    # Also those that are not set in their place: json_format has them at the end.
    return {field.name: _tidied(data[field.name], field.message_type) for field in kind.fields if field.name in data}


def _number(number: float) -> float:
    """Return a whole number as an int, as far as doubles are exact."""
    return int(number) if number.is_integer() and -_MAX_EXACT <= number <= _MAX_EXACT else number


@lru_cache(maxsize=1024)
def enum_name(kind: EnumTypeWrapper, number: int, prefix: str) -> str:
    """Return the lower-case name of an enum's value without its prefix; `unknown` if it is unknown or unspecified."""
    if number == 0:
        return "unknown"
    try:
        name = kind.Name(cast(Any, number))
    except ValueError:
        return "unknown"
    return name.removeprefix(prefix).lower()


def _parsed(data: Any, message: Parsed, name: str) -> Parsed:
    try:
        return json_format.ParseDict(_plain(data), message)
    except (json_format.ParseError, TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name}: not a JSON value: {error}") from None


def _plain(data: Any) -> Any:
    """Return data with the lists and numbers that JSON knows: tuples become lists, NumPy's scalars numbers."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    if not isinstance(data, (str, bool, int, float, type(None))) and hasattr(data, "item"):
        item: Callable[[], Any] = data.item
        return item()
    return data
