"""Convert times and JSON values."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import Json

# Doubles from the first to the last may be rounded 64-bit integers.
_FIRST_INEXACT = 2.0**53
_LAST_INTEGER = 2.0**64
_MAX_PLACE_LENGTH = 200


def printable(text: str) -> str:
    """Replace characters that no message can hold: lone surrogates."""
    return text.encode(errors="replace").decode()


def time_of(message: Timestamp, name: str) -> datetime:
    """Return an aware time in UTC.

    Raises:
        InvalidArgumentError: The time is out of range; names the field `name`.
    """
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError.of(name, "must be a time of the years 1 to 9999.") from error


def time_message(time: datetime) -> Timestamp:
    """Return a time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def json_of(message: struct_pb2.Value, place: str) -> Json:
    """Return a JSON value. Whole numbers, which a Value holds as doubles, become integers again.

    Raises:
        InvalidArgumentError: A number looks like a 64-bit integer that was rounded to a double; names its path, which
            begins with `place`.
    """
    match message.WhichOneof("kind"):
        case "number_value":
            return _number_of(message.number_value, place)
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return {key: json_of(value, f"{place}.{key}") for key, value in message.struct_value.fields.items()}
        case "list_value":
            return [json_of(value, f"{place}[{i}]") for i, value in enumerate(message.list_value.values)]
        case _:
            return None


def _number_of(number: float, place: str) -> int | float:
    if not number.is_integer() or abs(number) > _LAST_INTEGER:
        return number
    if abs(number) >= _FIRST_INEXACT:
        raise InvalidArgumentError.of(
            place[:_MAX_PLACE_LENGTH],
            f"{number:.0f} may be rounded, because a double holds integers below 2^53 only. Write it as a string.",
        )
    return int(number)


def value_message(value: Json) -> struct_pb2.Value:
    """Return a JSON value as a message. An integer that no double can hold becomes a string, like an int64 in JSON."""
    message = struct_pb2.Value()
    set_value(message, value)
    return message


def set_value(message: struct_pb2.Value, value: Json) -> None:
    """Write a JSON value into a message, in a fraction of the time of json_format.ParseDict."""
    match value:
        case None:
            message.null_value = struct_pb2.NULL_VALUE
        case bool():
            message.bool_value = value
        case str():
            message.string_value = value
        case int() if abs(value) >= _FIRST_INEXACT and not _is_double(value):
            message.string_value = str(value)
        case int() | float():
            message.number_value = value
        case Mapping():
            set_struct(message.struct_value, value)
        case _:
            message.list_value.SetInParent()
            for item in value:
                set_value(message.list_value.values.add(), item)


def set_struct(message: struct_pb2.Struct, values: Mapping[str, Json]) -> None:
    """Write a JSON object into a message."""
    message.SetInParent()
    for key, item in values.items():
        set_value(message.fields[key], item)


def _is_double(integer: int) -> bool:
    """Return whether a double holds an integer exactly, or its shortest text does (1e300, which Postgres expands)."""
    try:
        number = float(integer)
    except OverflowError:
        return False
    return number == integer or Decimal(repr(number)) == integer
