"""The metadata that `push` and `update` take, by field."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from google.protobuf.message import Message
from modelregistry.v1 import model_pb2

from modelreg import _arguments
from modelreg._wire.values import list_of, value_of
from modelreg.errors import InvalidArgument
from modelreg.models import Json
from modelreg.provenance import Provenance


class Metadata(TypedDict, total=False):
    """Metadata of a model. `Model` says what each field means."""

    project_id: str | None
    project_name: str | None
    precision: str | Sequence[str]
    """One precision or several, for example `"int8"`."""
    target_device: str
    target_device_type: str | None
    format: str | None
    origin: str | None
    category: str | None
    architecture: str | None
    description: str
    score: float
    overview: Json
    optimization_capabilities: Json
    labels: Sequence[Any]
    metrics: Mapping[str, float | None]
    """Update: merged by key; None removes a key."""
    tags: Mapping[str, str | None]
    """Update: merged by key; None removes a key."""


class NewMetadata(Metadata, total=False):
    """What `update` can change besides."""

    name: str
    version: str


_TEXTS = (
    "name",
    "version",
    "project_id",
    "project_name",
    "target_device",
    "target_device_type",
    "format",
    "origin",
    "category",
    "architecture",
    "description",
)
_NAMES = frozenset(NewMetadata.__annotations__) | frozenset(Metadata.__annotations__)
_OF_PROVENANCE = frozenset(field.name for field in dataclasses.fields(Provenance))
_EXAMPLES = {
    "tags": 'Write tags={"team": "audio"}.',
    "metrics": 'Write metrics={"f1": 0.91}.',
    "metric_goals": 'Write metric_goals={"f1": "maximize"}.',
}


def fill(message: model_pb2.Model, metadata: Mapping[str, Any], *, others: Iterable[str] = ()) -> list[str]:
    """Set the fields of a message, and return their paths for a field mask.

    Args:
        message: The message.
        metadata: The fields of `NewMetadata`. None removes a field, or the key of a map.
        others: The other arguments of the call, for the error.

    Raises:
        InvalidArgument: A field is unknown, or its value has the wrong type.
    """
    if unknown := sorted(set(metadata) - _NAMES):
        raise InvalidArgument(_unknown(unknown[0], sorted(_NAMES.union(others))))
    return [path for name, value in metadata.items() for path in _fill_field(message, name, value)]


def _unknown(name: str, known: Sequence[str]) -> str:
    """Return what is wrong with a field that there is not, and which one may be meant."""
    message = f"Unknown field {name}."
    if name in _OF_PROVENANCE:
        return f"{message} It belongs in a Provenance: provenance=Provenance({name}=…)."
    if near := difflib.get_close_matches(name, known, n=1):
        message += f" Did you mean {near[0]}?"
    return f"{message} The fields are {', '.join(known)}."


def set_field(message: Message, name: str, value: Any) -> None:
    """Set a field of a message that is a text.

    Raises:
        InvalidArgument: The value is no text.
    """
    setattr(message, name, _arguments.text(value, name))


def set_entries(message: Message, name: str, entries: Mapping[str, Any]) -> list[str]:
    """Set entries of a map of scalars, and return their paths for a field mask. An entry of None is only named.

    Raises:
        InvalidArgument: A key or a value has the wrong type, or the key cannot be written in a field mask.
    """
    check: Callable[[Any, str], Any] = _arguments.text if name == "tags" else _arguments.number
    target = getattr(message, name)
    for key, entry in _arguments.mapping(entries, name, advice=_EXAMPLES[name]).items():
        if entry is not None:
            checked = check(entry, f"{name}.{key}")
            target[key] = int(checked) if name == "metric_goals" else checked
    return [f"{name}.{_quoted(key)}" for key in entries]


def _fill_field(message: model_pb2.Model, name: str, value: Any) -> list[str]:
    if name in _TEXTS:
        if value is not None:
            set_field(message, name, value)
    elif name == "score":
        if value is not None:
            message.score = _arguments.number(value, name)
    elif name in ("metrics", "tags"):
        return set_entries(message, name, value)
    elif name == "precision":
        message.precisions.extend([] if value is None else _arguments.texts(value, name))
        return ["precisions"]
    elif name == "labels":
        labels = [] if value is None else _arguments.items(value, name, advice='Write labels=["cat", "dog"].')
        message.labels.CopyFrom(list_of(labels, name))
    else:
        getattr(message, name).CopyFrom(value_of({} if value is None else value, name))
    return [name]


def _quoted(key: str) -> str:
    """Return a key of a map as a path of a field mask writes it (AIP-161)."""
    if "," not in key and "`" not in key:
        return key
    if "`" in key:
        raise InvalidArgument(f"{key!r}: a key with a backtick cannot be changed alone.")
    return f"`{key}`"
