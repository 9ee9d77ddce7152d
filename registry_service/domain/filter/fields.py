"""The fields that a filter can name."""

import difflib
import re
from collections.abc import Mapping, Sequence
from enum import Enum

from registry_service.domain.errors import InvalidFilterError
from registry_service.domain.filter.lexer import Lexeme, Token, error, shown
from registry_service.domain.filter.nodes import MAX_DEPTH, Field, Kind
from registry_service.domain.models import FIELD_KINDS, FieldKind


class Subject(Enum):
    """The resource that a filter selects, which decides the fields."""

    MODEL = "model"
    EVENT = "event"
    MODEL_GROUP = "model group"


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
# Names that a model had in earlier versions of the API or has in the Intel-compatible one, and short ones of times.
_RENAMED: Mapping[str, str] = {
    "precision": "precisions",
    "schema": "signature",
    "size": "artifact.size_bytes",
    "created": "create_time",
    "created_date": "create_time",
    "last_updated_date": "update_time",
    "updated": "update_time",
}
# Maps with numbers as values.
_NUMBER_MAPS = {("metrics",), ("signature", "opsets")}
_PLAIN_NUMBER = re.compile(r"-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?")
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
Fields = Mapping[tuple[str, ...], Field]
FIELDS: Mapping[Subject, Fields] = {
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


def field_of(path: Sequence[Token], fields: Fields, argument: Token) -> Field:
    """Return the field that a path names, with the key inside the field.

    Args:
        path: The names.
        fields: The fields of the resource.
        argument: What the field is compared with, which tells a misspelt metric from other fields.
    """
    if len(path) > MAX_DEPTH:
        raise error(f"the path has more than {MAX_DEPTH} names", path[MAX_DEPTH].start)
    names = tuple(_name_of(token) for token in path)
    for length in range(1, len(names) + 1):
        declared = fields.get(names[:length])
        if declared and declared.kind in {Kind.MAP, Kind.JSON}:
            return key_field(declared, names[length:], path[length:])
        siblings = {
            known[length - 1] for known in fields if len(known) >= length and known[: length - 1] == names[: length - 1]
        }
        if names[length - 1] not in siblings:
            owner = ".".join(names[: length - 1])
            elsewhere = _elsewhere(path[0], fields, argument) if len(path) == 1 else ""
            raise unknown_field(path[length - 1], siblings, owner=owner, elsewhere=elsewhere)
    if field := fields.get(names):
        return field
    inner = ", ".join(".".join(known) for known in fields if known[: len(names)] == names)
    raise error(f"{'.'.join(names)} has no value of its own; use one of {inner}", path[0].start)


def key_field(declared: Field, keys: tuple[str, ...], path: Sequence[Token]) -> Field:
    """Return the value under keys of a map or of JSON as a field."""
    if not keys:
        return declared
    if declared.kind is Kind.JSON:
        return Field(declared.path + keys, Kind.JSON, is_key=True)
    if len(keys) > 1:
        raise error(
            f"the values of {'.'.join(declared.path)} have no fields; quote a key that contains a dot",
            path[1].start,
        )
    return Field(declared.path + keys, Kind.NUMBER if declared.path in _NUMBER_MAPS else Kind.TEXT, is_key=True)


def _elsewhere(name: Token, fields: Fields, argument: Token) -> str:
    """Return the field inside another one that an unknown name probably means; empty if there is none."""
    inner = [".".join(known) for known in fields if len(known) > 1 and known[-1] == name.text]
    if inner:
        return inner[0]
    is_number = argument.kind is Lexeme.TEXT and _PLAIN_NUMBER.fullmatch(argument.text)
    if is_number and name.kind is Lexeme.TEXT and ("metrics",) in fields:
        return f"metrics.{shown(name.text)}"
    return ""


def unknown_field(token: Token, siblings: set[str], *, owner: str, elsewhere: str = "") -> InvalidFilterError:
    """Return the error of an unknown name, with the nearest of the known ones, or the field `elsewhere`."""
    name = shown(token.text)
    nearest = difflib.get_close_matches(name, sorted(siblings), n=1, cutoff=0.5)
    if not owner and "precisions" in siblings and name in _RENAMED:
        nearest = [_RENAMED[name]]
    elif elsewhere and not difflib.get_close_matches(name, sorted(siblings), n=1, cutoff=0.75):
        nearest = [elsewhere]
    if not siblings:
        return error(f"{owner} has no fields, so {name} is unknown", token.start)
    hint = f"; did you mean {nearest[0]}?" if nearest else f"; the fields are {', '.join(sorted(siblings))}"
    return error(f"unknown field {name}{f' in {owner}' if owner else ''}{hint}", token.start)


def _name_of(token: Token) -> str:
    if token.pattern.literal is None:
        raise error("a field name cannot have a wildcard; write \\* for the character", token.start)
    return token.pattern.literal


def shown_field(field: Field) -> str:
    """Return the path of a field for an error."""
    return shown(".".join(field.path))
