r"""The filter language of AIP-160 (https://google.aip.dev/160) over the fields of a model, a model group or an event.

`parse` turns a text into a tree of typed nodes, all names resolved and all
values checked; a storage only has to translate the tree. The grammar is that of
AIP-160, in which OR binds tighter than AND: `a AND b OR c` is `a AND (b OR c)`,
and two restrictions side by side are joined by AND.

What a restriction means:

- A text is equal with exact case; `*` in the value stands for any text and `\*`
  for itself. `:` asks whether it contains the value, whatever the case. The
  order of texts is that of their code points. Precisions are in lower case, so
  the value is taken so.
- The value of an enum (an action, an artifact's kind, a metric's goal) may be
  written as the API shows it (`ACTION_MODEL_UPDATED`, or `ACTION_MODEL_*`) or as
  it is kept (`model.updated`), which is also what is compared. A value that no
  value of the enum matches is refused.
- On a list, `:` and `=` ask whether one element is equal: a text, or an object
  with such a name (for data sets, also with such a digest).
- On a map, `:` asks whether it has the key; `tags.team` is the value of a key,
  `tags."odd key"` of one that is no plain word.
- JSON is compared with a number, `true` or `false`, or else a text, as the value
  is written; a quoted value is a text. Values of other types are never matched.
  `:` asks whether a text contains it, a list has it or an object has the key.
- A date without a time is its midnight in UTC. Fractions of a second count to
  the microsecond.
- `field:*` asks whether the field is present: an empty text, list or object is
  not, nor is a JSON null. A key of a map or of JSON is present with an empty
  value too. `= null` and `!= null` say the same.
- A bare word asks whether the name contains it; of an event, the model's name.

Every restriction is true or false, never unknown: an absent value matches
none, and `NOT` and `!=` are the exact opposites. So `format != "onnx"` and
`NOT format = "onnx"` both match a model without a format.

Beyond AIP-160, a value may hold `:` and `.` without quotes (timestamps,
digests), and NOT and `-` may be repeated. Short of it, there are no functions and
no parentheses after a comparator. A bare word is refused where it is far more
often a mistake than a search, which would find nothing and say nothing: `and`,
`or` and `not` in lower case, operators of other languages (`LIKE`, `IN`, `&&`,
`~`), and the name of a field without a comparator. In quotes it is searched.
"""

import difflib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from enum import Enum

from registry_service.domain.errors import InvalidFilterError
from registry_service.domain.models import FIELD_KINDS, ArtifactKind, FieldKind
from registry_service.domain.vocabulary import Action, MetricGoal

MAX_LENGTH = 8_192
"""Most characters of a filter."""
MAX_DEPTH = 32
"""Most parentheses inside each other, and most names of one path."""
MAX_RESTRICTIONS = 100
"""Most restrictions of a filter."""


class Kind(Enum):
    """What a field holds, and so how it compares."""

    TEXT = "a text"
    INTEGER = "an integer"
    NUMBER = "a number"
    TIME = "a time"
    LIST = "a list"
    """Texts, or objects that count by their name (data sets also by their digest)."""
    ELEMENT = "a text of each element of a list"
    """The path's last name is one of an object in the list that the others lead to."""
    MAP = "a map"
    OBJECT = "an object"
    JSON = "JSON"
    """Anything that JSON can hold."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a model or of an event, or a value inside one."""

    path: tuple[str, ...]
    """Name of the field, then names and keys inside it; artifact fields by their last name alone."""
    kind: Kind
    """What is there."""
    is_key: bool = False
    """Whether the last of the path is a key of a map or of JSON, not the name of a declared field."""


class Comparator(Enum):
    """How a restriction compares. There is no `!=`: it is NOT with `=`."""

    EQUAL = "="
    """Equal; on LIST and ELEMENT, for one element."""
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    CONTAINS = ":"
    """TEXT and ELEMENT: contains, whatever the case. JSON: also has the element or the key."""
    PRESENT = ":*"
    """Present, as the module says; without a value."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text with wildcards: these parts, in this order, with any text between them."""

    parts: tuple[str, ...]
    """At least one; exactly one without a wildcard. Only the first and the last may be empty."""

    @property
    def literal(self) -> str | None:
        """The text, None where there is a wildcard."""
        return self.parts[0] if len(self.parts) == 1 else None

    @property
    def is_any(self) -> bool:
        """Whether this is just a wildcard."""
        return self.parts == ("", "")


Value = Pattern | bool | int | float | datetime | None
"""TEXT, LIST, ELEMENT: Pattern. INTEGER: int in 64 bits. NUMBER: finite float. TIME: aware datetime in UTC.
JSON: Pattern, bool, int in 64 bits or finite float. None with PRESENT alone."""


@dataclass(frozen=True, slots=True)
class Restriction:
    """One comparison of one field; false where the field is absent."""

    field: Field
    comparator: Comparator
    value: Value = None
    """Without a wildcard where the comparator is an order."""


@dataclass(frozen=True, slots=True)
class And:
    """All of two or more nodes."""

    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of two or more nodes."""

    children: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The exact opposite of a node that is itself no Not."""

    child: "Node"


Node = And | Or | Not | Restriction


class Subject(Enum):
    """What a filter is about, and so which fields there are."""

    MODEL = "model"
    EVENT = "event"
    MODEL_GROUP = "model group"


def parse(text: str, subject: Subject = Subject.MODEL) -> Node | None:
    """Parses a filter and checks it against the fields of its subject.

    Args:
        text: The filter, as the module describes the language.
        subject: What it is about.

    Returns:
        The root of the tree, None for a blank filter (everything). Its depth and
        size are within MAX_DEPTH and MAX_RESTRICTIONS, and no text in it has a
        NUL or half a surrogate pair.

    Raises:
        InvalidFilterError: The text is no filter, names no field of its subject,
            compares what cannot be compared, or is beyond a limit. Its position is
            that of the offending token's first character, from 1; the text's
            length plus 1 where the end comes too early.
    """
    if len(text) > MAX_LENGTH:
        raise _error(f"the filter is longer than {MAX_LENGTH} characters", MAX_LENGTH)
    if unstorable := re.search("[\0\ud800-\udfff]", text):
        raise _error(f"the character U+{ord(unstorable[0]):04X} is not supported", unstorable.start())
    tokens = tuple(_tokens(text))
    return None if tokens[0].kind is _Lexeme.END else _Parser(tokens, _FIELDS[subject]).filter()


def with_field_renamed(text: str, old: str, new: str) -> str:
    """Write a filter with another name for a field; values and searched words stay as they are.

    Raises:
        InvalidFilterError: The text can't be split into tokens.
    """
    tokens = tuple(_tokens(text))
    written, position = "", 0
    for previous, token, following in zip((None, *tokens), tokens, tokens[1:], strict=False):
        begins_path = previous is None or not (previous.kind is _Lexeme.COMPARATOR or previous.is_sign("."))
        if begins_path and following.kind is _Lexeme.COMPARATOR and token.pattern.literal == old:
            written += text[position : token.start] + token.text.replace(old, new)
            position = token.start + len(token.text)
    return written + text[position:]


# ---- Fields


_FIELD_KINDS: Mapping[FieldKind, Kind] = {
    FieldKind.TEXT: Kind.TEXT,
    FieldKind.LONG_TEXT: Kind.TEXT,
    FieldKind.NUMBER: Kind.NUMBER,
    FieldKind.LIST: Kind.LIST,
    FieldKind.JSON: Kind.JSON,
    FieldKind.MAP: Kind.MAP,
    FieldKind.OBJECT: Kind.OBJECT,
}
_TEXTS = (
    "id",
    "model_group_id",
    "creator",
    "provenance.source_repository",
    "provenance.source_commit",
    "provenance.training_run",
    "provenance.framework",
    "provenance.framework_version",
)
_KINDS: Mapping[str, Kind] = {
    **{name: _FIELD_KINDS[kind] for name, kind in FIELD_KINDS.items()},
    **dict.fromkeys(_TEXTS, Kind.TEXT),
    "aliases": Kind.LIST,
    "create_time": Kind.TIME,
    "update_time": Kind.TIME,
    "revision": Kind.INTEGER,
    "provenance.datasets": Kind.LIST,
    "provenance.datasets.name": Kind.ELEMENT,
    "provenance.datasets.uri": Kind.ELEMENT,
    "provenance.datasets.digest": Kind.ELEMENT,
    "provenance.parent_model_ids": Kind.LIST,
    "provenance.hyperparameters": Kind.JSON,
    "provenance.environment": Kind.MAP,
    "provenance.seed": Kind.INTEGER,
    "signature": Kind.OBJECT,
    "signature.format": Kind.TEXT,
    "signature.path": Kind.TEXT,
    **{
        name: kind
        for tensors in ("inputs", "outputs", "weights")
        for name, kind in (
            (f"signature.{tensors}", Kind.LIST),
            (f"signature.{tensors}.name", Kind.ELEMENT),
            (f"signature.{tensors}.element_type", Kind.ELEMENT),
        )
    },
    "signature.weight_count": Kind.INTEGER,
    "signature.precisions": Kind.LIST,
    "signature.producer": Kind.TEXT,
    "signature.opsets": Kind.MAP,
    "signature.metadata": Kind.MAP,
    "signature.problems": Kind.LIST,
}
# Names that a model had in earlier versions of the API, or has in the Intel-compatible one.
_RENAMED: Mapping[str, str] = {
    "precision": "precisions",
    "schema": "signature",
    "size": "artifact.size_bytes",
    "created_date": "create_time",
    "last_updated_date": "update_time",
}
# Maps whose values are numbers.
_NUMBERS = {("metrics",), ("signature", "opsets")}
_ARTIFACT_KINDS: Mapping[str, Kind] = {
    "file_name": Kind.TEXT,
    "media_type": Kind.TEXT,
    "size_bytes": Kind.INTEGER,
    "sha256": Kind.TEXT,
}
_EVENT_KINDS: Mapping[str, Kind] = {
    "sequence": Kind.INTEGER,
    "event_time": Kind.TIME,
    **dict.fromkeys(
        (
            "actor",
            "request_id",
            "action",
            "model_id",
            "model_group_id",
            "project_id",
            "project_name",
            "name",
            "alias",
            "reason",
        ),
        Kind.TEXT,
    ),
}
_MODEL_GROUP_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("id", "name", "project_id", "project_name", "description", "owner"), Kind.TEXT),
    "tags": Kind.MAP,
    "metric_goals": Kind.MAP,
    "version_count": Kind.INTEGER,
    "create_time": Kind.TIME,
    "update_time": Kind.TIME,
}
_Fields = Mapping[tuple[str, ...], Field]
_FIELDS: Mapping[Subject, _Fields] = {
    Subject.MODEL: {
        **{(path := tuple(name.split("."))): Field(path, kind) for name, kind in _KINDS.items()},
        **{
            (*prefix, name): Field((name,), kind)
            for name, kind in _ARTIFACT_KINDS.items()
            for prefix in ((), ("artifact",))
        },
        ("artifact", "kind"): Field(("artifact_kind",), Kind.TEXT),
        ("artifact", "verify_time"): Field(("verify_time",), Kind.TIME),
    },
    Subject.EVENT: {
        (name,): Field(("time",) if name == "event_time" else (name,), kind) for name, kind in _EVENT_KINDS.items()
    },
    Subject.MODEL_GROUP: {(name,): Field((name,), kind) for name, kind in _MODEL_GROUP_KINDS.items()},
}
_NAME = Field(("name",), Kind.TEXT)
_PRECISIONS = (Field(("precisions",), Kind.LIST), Field(("signature", "precisions"), Kind.LIST))


@dataclass(frozen=True, slots=True)
class _Enum:
    """A field that has one of a few values."""

    prefix: str
    """Of the values' names in the API."""
    values: tuple[str, ...]
    """As they are kept."""

    def names(self) -> tuple[str, ...]:
        """Returns the values as the API shows them: alias.rolled_back is `ACTION_ALIAS_ROLLED_BACK`."""
        return tuple(self.prefix + value.replace(".", "_").upper() for value in self.values)

    def kept(self, pattern: Pattern, comparator: Comparator) -> Pattern | None:
        """Writes the pattern as values are kept, None where there is no value that it can mean."""
        if not pattern.parts[0].startswith(self.prefix):
            return pattern if self._has(pattern, comparator) else None
        # No text has a NUL, so it can stand for the wildcards.
        name = "\0".join(pattern.parts).removeprefix(self.prefix).lower()
        if len(name) > 2 * max(map(len, self.values)) + 1:  # longer than a wildcard around every character
            return None
        # Any one of the underscores may be a dot, an early one rather than a late one: ACTION_MODEL_* is model.*.
        dots = [position for position, character in enumerate(name) if character == "_"]
        texts = [*(f"{name[:dot]}.{name[dot + 1 :]}" for dot in dots), name]
        forms = [Pattern(tuple(text.split("\0"))) for text in texts]
        return next((form for form in forms if self._has(form, comparator)), None)

    def nearest(self, pattern: Pattern, comparator: Comparator) -> str | None:
        """Returns what was probably meant, as the API shows it."""
        parts = [re.sub(r"[\s.-]", "_", part).upper() for part in pattern.parts]
        parts[0] = parts[0].removeprefix(self.prefix)
        named = Pattern((self.prefix + parts[0], *parts[1:]))
        if any(parts) and self.kept(named, comparator) is not None:
            return "*".join(named.parts)
        names = [name.removeprefix(self.prefix) for name in self.names()]
        nearest = difflib.get_close_matches(_shown(parts[0]), names, n=1) if len(parts) == 1 else []
        return self.prefix + nearest[0] if nearest else None

    def _has(self, pattern: Pattern, comparator: Comparator) -> bool:
        if comparator is Comparator.CONTAINS:
            pattern = Pattern(("", *(part.lower() for part in pattern.parts), ""))
        return any(_matches(pattern, value) for value in self.values)


def _matches(pattern: Pattern, text: str) -> bool:
    if pattern.literal is not None:
        return pattern.literal == text
    first, *middle, last = pattern.parts
    if not text.startswith(first) or not text[len(first) :].endswith(last):
        return False
    rest = text[len(first) : len(text) - len(last)]
    for part in middle:
        _, found, rest = rest.partition(part) if part else ("", "*", rest)
        if not found:
            return False
    return True


_ARTIFACT_KIND = _Enum("KIND_", tuple(ArtifactKind))
_ACTION = _Enum("ACTION_", tuple(action for action in Action if action is not Action.UNKNOWN))
_METRIC_GOAL = _Enum("METRIC_GOAL_", tuple(MetricGoal))


def _enum_of(field: Field) -> _Enum | None:
    match field.path:
        case ("artifact_kind",):
            return _ARTIFACT_KIND
        case ("action",):
            return _ACTION
        case ("metric_goals", _):
            return _METRIC_GOAL
    return None


def _field_of(path: Sequence["_Token"], fields: _Fields) -> Field:
    """Finds the field that the path names, and the key inside it."""
    if len(path) > MAX_DEPTH:
        raise _error(f"the path has more than {MAX_DEPTH} names", path[MAX_DEPTH].start)
    names = tuple(_name_of(token) for token in path)
    for length in range(1, len(names) + 1):
        declared = fields.get(names[:length])
        if declared and declared.kind in {Kind.MAP, Kind.JSON}:
            return _inside(declared, names[length:], path[length:])
        siblings = {
            known[length - 1] for known in fields if len(known) >= length and known[: length - 1] == names[: length - 1]
        }
        if names[length - 1] not in siblings:
            raise _unknown(path[length - 1], siblings, owner=".".join(names[: length - 1]))
    if field := fields.get(names):
        return field
    inner = ", ".join(".".join(known) for known in fields if known[: len(names)] == names)
    raise _error(f"{'.'.join(names)} has no value of its own; use one of {inner}", path[0].start)


def _inside(declared: Field, keys: tuple[str, ...], path: Sequence["_Token"]) -> Field:
    if not keys:
        return declared
    if declared.kind is Kind.JSON:
        return Field(declared.path + keys, Kind.JSON, is_key=True)
    if len(keys) > 1:
        raise _error(
            f"the values of {'.'.join(declared.path)} have no fields; quote a key that contains a dot",
            path[1].start,
        )
    return Field(declared.path + keys, Kind.NUMBER if declared.path in _NUMBERS else Kind.TEXT, is_key=True)


def _unknown(token: "_Token", siblings: set[str], *, owner: str) -> InvalidFilterError:
    name = _shown(token.text)
    nearest = difflib.get_close_matches(name, sorted(siblings), n=1, cutoff=0.5)
    if not owner and "precisions" in siblings and name in _RENAMED:
        nearest = [_RENAMED[name]]
    if not siblings:
        return _error(f"{owner} has no fields, so {name} is unknown", token.start)
    hint = f"; did you mean {nearest[0]}?" if nearest else f"; the fields are {', '.join(sorted(siblings))}"
    return _error(f"unknown field {name}{f' in {owner}' if owner else ''}{hint}", token.start)


def _name_of(token: "_Token") -> str:
    if token.pattern.literal is None:
        raise _error("a field name cannot have a wildcard; write \\* for the character", token.start)
    return token.pattern.literal


# ---- Values

_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<time>[0-9]{2}:[0-9]{2}):(?P<second>[0-5][0-9]|60)(?:\.(?P<fraction>[0-9]+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>[01][0-9]|2[0-3]):(?P<minutes>[0-5][0-9])))?"
)
_INTEGERS = range(-(2**63), 2**63)


def _restriction(field: Field, operator: "_Token", argument: "_Token", fields: _Fields) -> Node:
    """Types one comparison; the errors point at the operator or at the argument."""
    if operator.text == "!=":
        return _negated(_compared(field, Comparator.EQUAL, operator, argument, fields))
    return _compared(field, Comparator(operator.text), operator, argument, fields)


def _compared(field: Field, comparator: Comparator, operator: "_Token", argument: "_Token", fields: _Fields) -> Node:
    if comparator is Comparator.CONTAINS and argument.pattern.is_any:
        return Restriction(field, Comparator.PRESENT)
    if argument.text == "null" and comparator is not Comparator.CONTAINS:
        if comparator is not Comparator.EQUAL:
            raise _error(f"operator {operator.text} is not supported for null", argument.start)
        return _negated(Restriction(field, Comparator.PRESENT))
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


def _pattern(field: Field, comparator: Comparator, operator: "_Token", argument: "_Token") -> Pattern:
    if comparator not in {Comparator.EQUAL, Comparator.CONTAINS}:
        _refuse_order(field, operator, argument)
    enum = _enum_of(field)
    if enum is None:
        return argument.pattern
    kept = enum.kept(argument.pattern, comparator)
    if kept is None:
        nearest = enum.nearest(argument.pattern, comparator)
        hint = f"did you mean {nearest}?" if nearest else f"the values are {', '.join(enum.names())}"
        raise _error(f"unknown value {_shown(argument.text)}; {hint}", argument.start)
    return kept


def _refuse_order(field: Field, operator: "_Token", argument: "_Token") -> None:
    """Refuses an order of what has none (`InvalidFilterError`)."""
    if field.kind is Kind.ELEMENT:
        raise _error(
            f"{_shown_field(field)}: operator {operator.text} is not supported for {field.kind.value}", operator.start
        )
    if argument.pattern.literal is None:
        raise _error(
            f"operator {operator.text} does not support wildcards; write \\* for the character", argument.start
        )


def _element(field: Field, comparator: Comparator, operator: "_Token", argument: "_Token") -> Pattern:
    if comparator not in {Comparator.EQUAL, Comparator.CONTAINS}:
        raise _error(f"{_shown_field(field)}: operator {operator.text} is not supported for a list", operator.start)
    if field in _PRECISIONS:
        return Pattern(tuple(part.lower() for part in argument.pattern.parts))
    return argument.pattern


def _member(
    field: Field, comparator: Comparator, operator: "_Token", argument: "_Token", fields: _Fields
) -> Restriction:
    if comparator is not Comparator.CONTAINS:
        raise _error(
            f"{_shown_field(field)}: operator {operator.text} is not supported for {field.kind.value};"
            f" use {_shown_field(field)}.NAME",
            operator.start,
        )
    key = argument.pattern.literal
    if key is None:
        raise _error("a key cannot have a wildcard; write \\* for the character", argument.start)
    if field.kind is Kind.MAP:
        return Restriction(_inside(field, (key,), [argument]), Comparator.PRESENT)
    inner = {known[-1]: found for known, found in fields.items() if known[:-1] == field.path}
    if key not in inner:
        raise _unknown(argument, set(inner), owner=_shown_field(field))
    return Restriction(inner[key], Comparator.PRESENT)


def _scalar(field: Field, argument: "_Token") -> int | float | datetime:
    text = argument.pattern.literal
    if text is None:
        raise _error(f"{_shown_field(field)}: {field.kind.value} does not support wildcards", argument.start)
    if field.kind is Kind.TIME:
        return _time(text, argument)
    if not _NUMBER.fullmatch(text):
        raise _error(f"{_shown_field(field)}: must be {field.kind.value}, not {_shown(argument.text)}", argument.start)
    if field.kind is Kind.NUMBER:
        return _float(text, argument)
    integer = _integer(text)
    if integer is None:
        raise _error(f"{_shown(argument.text)} is not a 64-bit integer", argument.start)
    return integer


def _json(field: Field, comparator: Comparator, operator: "_Token", argument: "_Token") -> Pattern | bool | int | float:
    if argument.kind is _Lexeme.TEXT:
        if argument.text in {"true", "false"}:
            if comparator not in {Comparator.EQUAL, Comparator.CONTAINS}:
                raise _error(f"operator {operator.text} is not supported for true and false", argument.start)
            return argument.text == "true"
        if _NUMBER.fullmatch(argument.text):
            integer = _integer(argument.text)
            return _float(argument.text, argument) if integer is None else integer
    return _pattern(field, comparator, operator, argument)


def _float(text: str, argument: "_Token") -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _error(f"{_shown(argument.text)} is beyond the range of a double", argument.start)
    return number


def _integer(text: str) -> int | None:
    """Reads an integer of 64 bits, None where the text is a number but no such integer."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent of very many digits
        return None
    # The range first: the integer of a number like 1e999999999 would take all memory.
    if not _INTEGERS[0] <= number <= _INTEGERS[-1] or number != number.to_integral_value():
        return None
    return int(number)


def _time(text: str, argument: "_Token") -> datetime:
    found = _TIME.fullmatch(text)
    if not found:
        raise _error(
            f"{_shown(argument.text)} is not a time; write 2026-01-31T23:59:59Z or 2026-01-31",
            argument.start,
        )
    second = int(found["second"] or 0)
    offset = timedelta(hours=int(found["hours"] or 0), minutes=int(found["minutes"] or 0))
    try:
        # RFC 3339 has leap seconds and datetime has none, so the 60th is added.
        minute = datetime.fromisoformat(f"{found['date']}T{found['time'] or '00:00'}").replace(
            tzinfo=timezone(-offset if found["sign"] == "-" else offset)
        )
        fraction = timedelta(microseconds=int((found["fraction"] or "")[:6].ljust(6, "0")))
        return (minute + timedelta(seconds=second) + fraction).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _error(f"{_shown(argument.text)} is not a valid time", argument.start) from None


# ---- Text to tokens


class _Lexeme(Enum):
    TEXT = "text"
    QUOTED = "quoted"
    COMPARATOR = "comparator"
    SIGN = "sign"
    """A parenthesis, a comma, a dot or the minus before a term."""
    END = "end"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: _Lexeme
    text: str
    """As written."""
    start: int
    """From 0."""
    is_spaced: bool
    """Whether there is white space before it."""
    pattern: Pattern = Pattern(("",))
    """What is meant: without quotes and escapes. TEXT and QUOTED alone."""

    def is_sign(self, *signs: str) -> bool:
        return self.kind is _Lexeme.SIGN and self.text in signs

    def is_keyword(self, *keywords: str) -> bool:
        return self.kind is _Lexeme.TEXT and self.text in keywords

    def begins_term(self) -> bool:
        return self.kind in {_Lexeme.TEXT, _Lexeme.QUOTED} or self.is_sign("(", "-")


_SPACE = re.compile(r"\s*")
_COMPARATOR = re.compile(r"<=|>=|!=|[=<>:]")
_PLAIN = re.compile(r"(?:[^\s()\"'=<>:!.,\\]|\\\S)+")
# A value may be a timestamp, a digest or a decimal number.
_PLAIN_VALUE = re.compile(r"(?:[^\s()\"'=<>:!,\\]|\\\S)(?:[^\s()\"'=<>!,\\]|\\\S)*")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


def _tokens(text: str) -> Iterator[_Token]:
    """Splits the text; the last token is the END."""
    previous: _Token | None = None
    position = 0
    while True:
        start = _SPACE.match(text, position).end()  # type: ignore[union-attr] # it matches the empty text
        previous = _token(text, start, previous, is_spaced=start > position)
        yield previous
        if previous.kind is _Lexeme.END:
            return
        position = start + len(previous.text)


def _token(text: str, start: int, previous: _Token | None, *, is_spaced: bool) -> _Token:
    first = text[start : start + 1]
    is_value = previous is not None and previous.kind is _Lexeme.COMPARATOR
    is_name = previous is not None and previous.is_sign(".")
    if not first:
        return _Token(_Lexeme.END, "", start, is_spaced)
    if found := _COMPARATOR.match(text, start):
        return _Token(_Lexeme.COMPARATOR, found[0], start, is_spaced)
    if first in "\"'":
        if not (found := _QUOTED.match(text, start)):
            raise _error("missing closing quote", start)
        return _Token(_Lexeme.QUOTED, found[0], start, is_spaced, _unescaped(found[0][1:-1], start + 1))
    if first in "()," or (first == "." and not is_value) or (first == "-" and not is_value and not is_name):
        return _Token(_Lexeme.SIGN, first, start, is_spaced)
    if found := (_PLAIN_VALUE if is_value else _PLAIN).match(text, start):
        return _Token(_Lexeme.TEXT, found[0], start, is_spaced, _unescaped(found[0], start))
    if first == "!":
        raise _error("! is only valid in !=; write NOT", start)
    raise _error("missing character after the backslash", start)


def _unescaped(text: str, start: int) -> Pattern:
    """Undoes the escapes of the text, which begins at `start`, and splits it at the wildcards."""
    parts = [""]
    characters = iter(enumerate(text, start))
    for position, character in characters:
        if character == "*":
            # Wildcards side by side say no more than one.
            if len(parts) == 1 or parts[-1]:
                parts.append("")
        elif character == "\\":
            _, escaped = next(characters)
            if escaped.isalnum() and escaped not in _ESCAPES:
                raise _error(f"unknown escape \\{escaped}; write \\\\ for a backslash", position)
            parts[-1] += _ESCAPES.get(escaped, escaped)
        else:
            parts[-1] += character
    return Pattern(tuple(parts))


# ---- Tokens to nodes


class _Parser:
    """Recursive descent over the EBNF of AIP-160; as deep as the parentheses, which are limited."""

    def __init__(self, tokens: Sequence[_Token], fields: _Fields) -> None:
        self._tokens = tokens
        self._fields = fields
        self._next = 0
        self._restrictions = 0

    def filter(self) -> Node:
        root = self._expression(depth=0)
        if self._peek().kind is not _Lexeme.END:
            raise _error("unbalanced )", self._peek().start)
        return root

    def _expression(self, *, depth: int) -> Node:
        # A sequence (factors side by side) binds tighter than AND, which makes no
        # difference, since it means AND.
        factors = [self._factor(depth=depth)]
        while self._peek().kind is not _Lexeme.END and not self._peek().is_sign(")"):
            if not self._take_keyword("AND"):
                self._expect_sequel()
            factors.append(self._factor(depth=depth))
        return And(tuple(factors)) if len(factors) > 1 else factors[0]

    def _factor(self, *, depth: int) -> Node:
        terms = [self._term(depth=depth)]
        while self._take_keyword("OR"):
            terms.append(self._term(depth=depth))
        return Or(tuple(terms)) if len(terms) > 1 else terms[0]

    def _term(self, *, depth: int) -> Node:
        is_negated = False
        while self._peek().is_keyword("NOT") or self._peek().is_sign("-"):
            is_minus = self._take().is_sign("-")
            if is_minus and (self._peek().is_spaced or not self._peek().begins_term()):
                raise _error("missing restriction after -", self._tokens[self._next - 1].start)
            is_negated = not is_negated
        simple = self._simple(depth=depth)
        return _negated(simple) if is_negated else simple

    def _simple(self, *, depth: int) -> Node:
        token = self._peek()
        if token.is_sign("("):
            return self._composite(depth=depth)
        if token.kind is _Lexeme.END:
            raise _error("the filter ends where a restriction is expected", token.start)
        if token.kind not in {_Lexeme.TEXT, _Lexeme.QUOTED} or token.is_keyword("AND", "OR"):
            raise _error(f"expected a restriction instead of {_shown(token.text)}", token.start)
        return self._restriction()

    def _composite(self, *, depth: int) -> Node:
        opening = self._take()
        if depth == MAX_DEPTH:
            raise _error(f"parentheses are nested deeper than {MAX_DEPTH}", opening.start)
        inner = self._expression(depth=depth + 1)
        if self._peek().kind is _Lexeme.END:
            raise _error("missing ) for this (", opening.start)
        self._take()
        return inner

    def _restriction(self) -> Node:
        path = self._path()
        self._restrictions += 1
        if self._restrictions > MAX_RESTRICTIONS:
            raise _error(f"the filter has more than {MAX_RESTRICTIONS} restrictions", path[0].start)
        if self._peek().kind is _Lexeme.COMPARATOR:
            operator = self._take()
            return _restriction(_field_of(path, self._fields), operator, self._argument(operator), self._fields)
        self._refuse_mistaken(path)
        searched = _joined([token.pattern for token in path])
        return Restriction(_NAME, Comparator.CONTAINS, searched)

    def _refuse_mistaken(self, path: Sequence[_Token]) -> None:
        """Refuses a bare word, or words with dots, that is no search but a mistake."""
        if len(path) == 1 and path[0].is_keyword("and", "or", "not"):
            keyword = path[0].text
            raise _error(
                f'write {keyword.upper()} in upper case, or "{keyword}" in quotes to search for it', path[0].start
            )
        for token in path:
            _refuse_operator(token)
        following = self._peek()
        if path[0].kind is _Lexeme.TEXT and any(known[0] == path[0].text for known in self._fields):
            name = _shown(".".join(token.text for token in path))
            if following.begins_term() and not following.is_keyword("AND", "OR"):
                raise _error(f"{name}: unknown operator {_shown(following.text)}; {_OPERATORS}", following.start)
            raise _error(
                f"missing operator after the field {name}; {_OPERATORS}; quote the word to search for it",
                following.start,
            )

    def _path(self) -> list[_Token]:
        path = [self._take()]
        while self._peek().is_sign(".") and not self._peek().is_spaced:
            dot = self._take()
            name = self._peek()
            if name.is_spaced or name.kind not in {_Lexeme.TEXT, _Lexeme.QUOTED}:
                raise _error("missing name after the dot", dot.start)
            path.append(self._take())
        self._refuse_call(path[0])
        return path

    def _argument(self, operator: _Token) -> _Token:
        argument = self._peek()
        if argument.is_sign("("):
            raise _error(
                f"expected one value after {operator.text}; write a = 1 OR a = 2 for several",
                argument.start,
            )
        if argument.kind not in {_Lexeme.TEXT, _Lexeme.QUOTED}:
            raise _error(f"missing value after {operator.text}", argument.start)
        if argument.is_keyword("AND", "OR", "NOT"):
            raise _error(
                f"expected a value after {operator.text}, not a keyword; quote it to use it as a value", argument.start
            )
        if argument.kind is _Lexeme.TEXT and (_is_operator_sign(argument.text[0]) or _CHAIN.search(argument.text)):
            raise _error(
                f"unknown operator in {_shown(argument.text)}; quote it to use it as a value",
                argument.start,
            )
        self._take()
        self._refuse_call(argument)
        return argument

    def _refuse_call(self, name: _Token) -> None:
        if self._peek().is_sign("(") and not self._peek().is_spaced:
            raise _error(f"functions are not supported: {_shown(name.text)}()", name.start)

    def _expect_sequel(self) -> None:
        token = self._peek()
        if not token.begins_term():
            raise _error(f"unexpected {token.text}", token.start)
        follows_parenthesis = self._tokens[self._next - 1].is_sign(")")
        if not token.is_spaced and not follows_parenthesis and not token.is_sign("("):
            raise _error(f"expected a space or a keyword before {_shown(token.text)}", token.start)

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _take_keyword(self, keyword: str) -> bool:
        is_there = self._peek().is_keyword(keyword)
        self._next += is_there
        return is_there


_OPERATORS = "the operators are =, !=, <, <=, >, >= and :"
_FOREIGN_OPERATORS = re.compile(
    "i?like|rlike|glob|regexp|matches|contains|startswith|endswith|between|in|is|isnull|notnull"
    "|eq|neq?|gte?|ge|lte?|le|xor",
    re.IGNORECASE,
)
# Words that a name may well have in lower case.
_FOREIGN_KEYWORDS = re.compile(
    "NULL|EXISTS|HAS|ANY|ALL|SOME|SIMILAR|MATCH|ESCAPE|WHERE|ORDER|BY|GROUP|HAVING|LIMIT|OFFSET|ASC|DESC"
)
_CHAIN = re.compile(r"&&|\|\|")
_ESCAPED = re.compile(r"\\.")


def _is_operator_sign(character: str) -> bool:
    """Tells whether a character is a sign of mathematics: ~, |, ≥. A + may be a part of a name."""
    return unicodedata.category(character) == "Sm" and character != "+"


def _refuse_operator(token: _Token) -> None:
    """Refuses a bare word that is, or has, an operator of another language (`InvalidFilterError`)."""
    if token.kind is not _Lexeme.TEXT:
        return
    text = _ESCAPED.sub("x", token.text)
    if (
        _FOREIGN_OPERATORS.fullmatch(text)
        or _FOREIGN_KEYWORDS.fullmatch(text)
        or any(map(_is_operator_sign, text))
        or _CHAIN.search(text)
        or not any(character.isalnum() or character in "*_" for character in text)
    ):
        raise _error(f"unknown operator {_shown(token.text)}; {_OPERATORS}; quote it to search for it", token.start)


def _negated(node: Node) -> Node:
    return node.child if isinstance(node, Not) else Not(node)


def _joined(patterns: Sequence[Pattern]) -> Pattern:
    """Puts the names of a path together again: a bare word may have dots (`v1.5`)."""
    parts = list(patterns[0].parts)
    for pattern in patterns[1:]:
        parts[-1] += "." + pattern.parts[0]
        parts += pattern.parts[1:]
    return Pattern(tuple(parts))


def _shown(text: str) -> str:
    """Shortens what the client wrote, so that an error stays readable."""
    return text if len(text) <= 60 else text[:59] + "…"


def _shown_field(field: Field) -> str:
    return _shown(".".join(field.path))


def _error(description: str, start: int) -> InvalidFilterError:
    """Makes the error at the character `start`, from 0."""
    return InvalidFilterError(description, start + 1)
