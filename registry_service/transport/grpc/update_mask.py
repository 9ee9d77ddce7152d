"""The `update_mask` of an update (AIP-161): its paths, and the fields that they name.

Over HTTP, the mask is read from the URL that the client sent: Envoy's transcoder treats every segment of a path as a
field name and converts it to snake case, so that `tags.ownerTeam` would name another tag.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

import grpc
from google.protobuf.message import Message
from modelregistry.v1 import model_group_pb2, model_group_service_pb2, model_pb2, model_service_pb2

from registry_service.domain import model_groups
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import MUTABLE_FIELDS, FieldKind, fields_of_kind

FIELD = "update_mask"
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Resource:
    """The changes of an update."""

    message: type[Message]
    mutable: Collection[str]
    """The fields that an update can change."""
    maps: Collection[str]
    """The fields whose entries an update can change one by one."""

    @property
    def json_names(self) -> Mapping[str, str]:
        """The names of all fields in JSON, by name."""
        return {field.name: field.json_name for field in self.message.DESCRIPTOR.fields}


MODEL = Resource(model_pb2.Model, MUTABLE_FIELDS, fields_of_kind(FieldKind.MAP))
MODEL_GROUP = Resource(model_group_pb2.ModelGroup, model_groups.MUTABLE_FIELDS, ("tags", "metric_goals"))
_JSON_NAMES = {json_name: name for resource in (MODEL, MODEL_GROUP) for name, json_name in resource.json_names.items()}


def mask_of(
    request: model_service_pb2.UpdateModelRequest | model_group_service_pb2.UpdateModelGroupRequest,
    context: grpc.ServicerContext,
) -> Sequence[str]:
    """Return the paths of a call's mask; none if it has no mask.

    Raises:
        InvalidArgumentError: The mask of an HTTP call is empty.
    """
    for key, value in context.invocation_metadata():
        if key == "x-envoy-original-path" and isinstance(value, str):
            return _mask_of_query(value.partition("?")[2])
    return request.update_mask.paths


def fields_and_entries(paths: Iterable[str], resource: Resource = MODEL) -> Iterator[tuple[str, str | None]]:
    """Yield for each path the mutable field, or the field and the key in it.

    A key is the unchanged rest of the path, including dots. It may be in backticks, with two for a literal one,
    or in double quotes, with backslash escapes as in a filter.

    Raises:
        InvalidArgumentError: A path names an unknown or immutable field.
    """
    for path in paths:
        name, dot, key = path.partition(".")
        if path in resource.mutable:
            yield path, None
        elif dot and key and name in resource.maps:
            yield name, _unquoted(key)
        elif name in resource.json_names:
            raise InvalidArgumentError.of(FIELD, f"{path[:100]!r} cannot be changed.")
        else:
            raise InvalidArgumentError.of(
                FIELD, f"{path[:100]!r} is not a field of {resource.message.DESCRIPTOR.name}."
            )


def _unquoted(key: str) -> str:
    if len(key) > 1 and key[0] == key[-1] == "`":
        return key[1:-1].replace("``", "`")
    if _QUOTED.fullmatch(key):
        return _ESCAPED.sub(r"\1", key[1:-1])
    return key


def _mask_of_query(query: str) -> Sequence[str]:
    paths: list[str] = []
    is_given = False
    for key, value in parse_qsl(query, keep_blank_values=True):
        name, _, inner = key.partition(".")
        if name not in {FIELD, "updateMask"}:
            continue
        is_given = True
        paths += [value] if inner else _split(value)
    if is_given and not any(paths):
        raise InvalidArgumentError.of(FIELD, "must not be empty. Omit it to change every field that the model sets.")
    return [_with_proto_name(path) for path in paths]


def _split(mask: str) -> Iterator[str]:
    """Split a mask at its commas, except for those in backticks or double quotes."""
    start, quote, is_escaped = 0, "", False
    for position, character in enumerate(mask):
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote == '"':
            is_escaped = True
        elif character == quote:
            quote = ""
        # A double quote inside a key belongs to the key.
        elif not quote and (character == "`" or (character == '"' and mask[position - 1 : position] == ".")):
            quote = character
        elif character == "," and not quote:
            yield mask[start:position]
            start = position + 1
    yield mask[start:]


def _with_proto_name(path: str) -> str:
    """Return a path with the proto name of its field, which JSON may write in camel case."""
    name, dot, key = path.partition(".")
    return _JSON_NAMES.get(name, name) + dot + key
