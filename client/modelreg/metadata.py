"""The metadata that `push` and `update` take, by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from google.protobuf.message import Message
from modelregistry.v1 import model_pb2

from modelreg._wire.values import list_of, value_of
from modelreg.errors import InvalidArgument
from modelreg.models import Json


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


_TEXTS_AND_NUMBERS = (
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
    "score",
)
_NAMES = frozenset(NewMetadata.__annotations__) | frozenset(Metadata.__annotations__)


def fill(message: model_pb2.Model, metadata: Mapping[str, Any]) -> list[str]:
    """Set the fields of a message, and return their paths for a field mask.

    Args:
        message: The message.
        metadata: The fields of `NewMetadata`. None removes a field, or the key of a map.

    Raises:
        InvalidArgument: A field is unknown, or its value has the wrong type.
    """
    if unknown := sorted(set(metadata) - _NAMES):
        raise InvalidArgument(f"Unknown field {unknown[0]}. The fields are {', '.join(sorted(_NAMES))}.")
    return [path for name, value in metadata.items() for path in _fill_field(message, name, value)]


def set_field(message: Message, name: str, value: Any) -> None:
    """Set a scalar field of a message.

    Raises:
        InvalidArgument: The value has the wrong type.
    """
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise _wrong_type(name, value, error) from None


def set_entries(message: Message, name: str, entries: Mapping[str, Any]) -> list[str]:
    """Set entries of a map of scalars, and return their paths for a field mask. An entry of None is only named.

    Raises:
        InvalidArgument: A key or a value has the wrong type, or the key cannot be written in a field mask.
    """
    target = getattr(message, name)
    try:
        for key, entry in entries.items():
            if entry is not None:
                target[key] = entry
    except (TypeError, ValueError, AttributeError) as error:
        raise _wrong_type(name, entries, error) from None
    return [f"{name}.{_quoted(key)}" for key in entries]


def _fill_field(message: model_pb2.Model, name: str, value: Any) -> list[str]:
    if name in _TEXTS_AND_NUMBERS:
        if value is not None:
            set_field(message, name, value)
        return [name]
    if name in ("metrics", "tags"):
        return set_entries(message, name, value)
    try:
        if name == "precision":
            message.precisions.extend([value] if isinstance(value, str) else value)
            return ["precisions"]
        if name == "labels":
            message.labels.CopyFrom(list_of(value, name))
            return [name]
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        raise _wrong_type(name, value, error) from None
    getattr(message, name).CopyFrom(value_of({} if value is None else value, name))
    return [name]


def _wrong_type(name: str, value: Any, error: Exception) -> InvalidArgument:
    return InvalidArgument(f"{name}: {value!r:.200} has the wrong type: {error}")


def _quoted(key: str) -> str:
    """Return a key of a map as a path of a field mask writes it (AIP-161)."""
    if "," not in key and "`" not in key:
        return key
    if "`" in key:
        raise InvalidArgument(f"{key!r}: a key with a backtick cannot be changed alone.")
    return f"`{key}`"
