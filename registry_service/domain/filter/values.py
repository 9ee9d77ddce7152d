"""Restrictions: one field, one comparator, and a value of the type of the field."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation

from registry_service.domain.filter.enums import enum_of
from registry_service.domain.filter.fields import Fields, key_field, shown_field, unknown_field
from registry_service.domain.filter.lexer import Lexeme, Token, error, shown
from registry_service.domain.filter.nodes import Comparator, Field, Kind, Node, Pattern, Restriction, negated

_PRECISIONS = (Field(("precisions",), Kind.LIST), Field(("signature", "precisions"), Kind.LIST))
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<time>[0-9]{2}:[0-9]{2}):(?P<second>[0-5][0-9]|60)(?:\.(?P<fraction>[0-9]+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9])))?"
)
_INTEGERS = range(-(2**63), 2**63)


def restriction(field: Field, operator: Token, argument: Token, fields: Fields) -> Node:
    """Return a comparison with a typed value. Errors point at the operator or at the argument."""
    if operator.text == "!=":
        return negated(_compared(field, Comparator.EQUAL, operator, argument, fields))
    return _compared(field, Comparator(operator.text), operator, argument, fields)


def _compared(field: Field, comparator: Comparator, operator: Token, argument: Token, fields: Fields) -> Node:
    if comparator is Comparator.CONTAINS and argument.pattern.is_any:
        return Restriction(field, Comparator.PRESENT)
    if argument.text == "null" and comparator is not Comparator.CONTAINS:
        if comparator is not Comparator.EQUAL:
            raise error(f"operator {operator.text} is not supported for null", argument.start)
        return negated(Restriction(field, Comparator.PRESENT))
    match field.kind:
        case Kind.INTEGER | Kind.NUMBER | Kind.TIME:
            equal_or_order = Comparator.EQUAL if comparator is Comparator.CONTAINS else comparator
            return Restriction(field, equal_or_order, _scalar(field, argument))
        case Kind.LIST:
            return Restriction(field, Comparator.EQUAL, _element(field, comparator, operator, argument))
        case Kind.MAP | Kind.OBJECT:
            return _member(field, comparator, operator, argument, fields)
        case Kind.TEXT | Kind.ELEMENT | Kind.JSON:
            is_json = field.kind is Kind.JSON
            return Restriction(
                field, comparator, (_json if is_json else _pattern)(field, comparator, operator, argument)
            )


def _pattern(field: Field, comparator: Comparator, operator: Token, argument: Token) -> Pattern:
    if comparator not in {Comparator.EQUAL, Comparator.CONTAINS}:
        _refuse_order(field, operator, argument)
    enum = enum_of(field)
    if enum is None:
        return argument.pattern
    stored = enum.stored(argument.pattern, comparator)
    if stored is None:
        nearest = enum.nearest(argument.pattern, comparator)
        hint = f"did you mean {nearest}?" if nearest else f"the values are {', '.join(enum.names())}"
        raise error(f"unknown value {shown(argument.text)}; {hint}", argument.start)
    return stored


def _refuse_order(field: Field, operator: Token, argument: Token) -> None:
    """Raise `InvalidFilterError` for a field or a value that has no order."""
    if field.kind is Kind.ELEMENT:
        raise error(
            f"{shown_field(field)}: operator {operator.text} is not supported for {field.kind.value}", operator.start
        )
    if argument.pattern.literal is None:
        raise error(f"operator {operator.text} does not support wildcards; write \\* for the character", argument.start)


def _element(field: Field, comparator: Comparator, operator: Token, argument: Token) -> Pattern:
    if comparator not in {Comparator.EQUAL, Comparator.CONTAINS}:
        raise error(f"{shown_field(field)}: operator {operator.text} is not supported for a list", operator.start)
    if field in _PRECISIONS:
        return Pattern(tuple(part.lower() for part in argument.pattern.parts))
    return argument.pattern


def _member(field: Field, comparator: Comparator, operator: Token, argument: Token, fields: Fields) -> Restriction:
    if comparator is not Comparator.CONTAINS:
        raise error(
            f"{shown_field(field)}: operator {operator.text} is not supported for {field.kind.value};"
            f" use {shown_field(field)}.NAME",
            operator.start,
        )
    key = argument.pattern.literal
    if key is None:
        raise error("a key cannot have a wildcard; write \\* for the character", argument.start)
    if field.kind is Kind.MAP:
        return Restriction(key_field(field, (key,), [argument]), Comparator.PRESENT)
    inner = {known[-1]: found for known, found in fields.items() if known[:-1] == field.path}
    if key not in inner:
        raise unknown_field(argument, set(inner), owner=shown_field(field))
    return Restriction(inner[key], Comparator.PRESENT)


def _scalar(field: Field, argument: Token) -> int | float | datetime:
    text = argument.pattern.literal
    if text is None:
        raise error(f"{shown_field(field)}: {field.kind.value} does not support wildcards", argument.start)
    if field.kind is Kind.TIME:
        return _time(text, argument)
    if not _NUMBER.fullmatch(text):
        raise error(f"{shown_field(field)}: must be {field.kind.value}, not {shown(argument.text)}", argument.start)
    if field.kind is Kind.NUMBER:
        return _float(text, argument)
    integer = _integer(text)
    if integer is None:
        raise error(f"{shown(argument.text)} is not a 64-bit integer", argument.start)
    return integer


def _json(field: Field, comparator: Comparator, operator: Token, argument: Token) -> Pattern | bool | int | float:
    if argument.kind is Lexeme.TEXT:
        if argument.text in {"true", "false"}:
            if comparator not in {Comparator.EQUAL, Comparator.CONTAINS}:
                raise error(f"operator {operator.text} is not supported for true and false", argument.start)
            return argument.text == "true"
        if _NUMBER.fullmatch(argument.text):
            integer = _integer(argument.text)
            return _float(argument.text, argument) if integer is None else integer
    return _pattern(field, comparator, operator, argument)


def _float(text: str, argument: Token) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise error(f"{shown(argument.text)} is beyond the range of a double", argument.start)
    return number


def _integer(text: str) -> int | None:
    """Return a 64-bit integer, or None if the number is not one."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # the exponent has too many digits
        return None
    # Check the range first: converting a number such as 1e999999999 would take all memory.
    if not _INTEGERS[0] <= number <= _INTEGERS[-1] or number != number.to_integral_value():
        return None
    return int(number)


def _time(text: str, argument: Token) -> datetime:
    found = _TIME.fullmatch(text)
    if not found:
        raise error(
            f"{shown(argument.text)} is not a time; write 2026-01-31T23:59:59Z or 2026-01-31",
            argument.start,
        )
    second = int(found["second"] or 0)
    offset = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    try:
        # RFC 3339 allows leap seconds and datetime does not, so the seconds are added.
        minute = datetime.fromisoformat(f"{found['date']}T{found['time'] or '00:00'}").replace(
            tzinfo=timezone(-offset if found["sign"] == "-" else offset)
        )
        fraction = timedelta(microseconds=int((found["fraction"] or "")[:6].ljust(6, "0")))
        return (minute + timedelta(seconds=second) + fraction).astimezone(UTC)
    except (ValueError, OverflowError):
        raise error(f"{shown(argument.text)} is not a valid time", argument.start) from None
