"""The HTTP routes of the API: plain data from its descriptor set, for the gateway's configuration."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto

PACKAGES = ("modelregistry.v1", "modelregistry.geti.v1", "modelregistry.compat.v1")

_VARIABLE = re.compile(r"\{([\w.]+)(?:=([^}]*))?\}")
# Positions at which a Lua pattern needs a percent sign.
_SPECIAL = re.compile(r"(?=\W)")


_HTTP_BODY = "google.api.HttpBody"
_JSON_TYPES: Mapping[int, str] = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BYTES: "string",
    FieldDescriptorProto.TYPE_BOOL: "boolean",
    FieldDescriptorProto.TYPE_DOUBLE: "number",
    FieldDescriptorProto.TYPE_INT32: "integer",
    FieldDescriptorProto.TYPE_INT64: "integer",
    FieldDescriptorProto.TYPE_FIXED32: "integer",
}
_WELL_KNOWN_TYPES: Mapping[str, str] = {
    "google.protobuf.Duration": "duration",
    "google.protobuf.Timestamp": "time",
    "google.protobuf.FieldMask": "string",
    "google.protobuf.Value": "value",
    "google.protobuf.Struct": "struct",
    "google.protobuf.ListValue": "list",
}

_QUERY_SCALARS: Mapping[int, str] = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_INT32: "int32",
    FieldDescriptorProto.TYPE_INT64: "int64",
}
_QUERY_KINDS: Mapping[str, str] = {
    "google.protobuf.Duration": "string",
    "google.protobuf.FieldMask": "string",
    "google.protobuf.Timestamp": "time",
}

BodyField = Mapping[str, str]
"""A field of a JSON object: its `name` in the proto, its `type` (`string`, `number`, `integer`, `boolean`, `time`,
`duration`; `enum`, with the names of its `values` between commas; `value`, `struct` and `list` for JSON of any kind;
else a message's full name) and perhaps its `shape`, `list` or `map`."""


@dataclass(frozen=True, kw_only=True)
class JsonBodies:
    """The JSON bodies and query parameters that requests may have."""

    messages: Mapping[str, Mapping[str, BodyField]]
    """The fields of each message: by its full name, then by each spelling of a field's name in JSON."""
    methods: Mapping[str, Mapping[str, Mapping[str, str]]]
    """The HTTP methods of each path under /v1, by the path's regular expression. Each method has, separated by spaces:

    - `query`: its parameters as `name=kind`. The kind is `string`, `int32`, `int64`, `double`, `bool`, `time`, or
      `enum` followed by the names of its values, separated by commas.
    - `lists`: the parameters that a query may repeat.

    A method with a body has the `field` of the request that the body is (`*`: the whole request), and its `message`, or
    `raw` if the body is bytes. One with a message has the names of its `variables`, fields of the body that are in the
    path, too, and the `pattern` (of Lua) that finds their values in a path."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One HTTP method of a path, and the gRPC method that serves it."""

    path: str
    """Regular expression (RE2) of the whole path."""
    verb: str
    rpc: str
    """Path of the gRPC method."""
    takes_json: bool
    """Whether a body must be JSON."""


@dataclass(frozen=True, kw_only=True)
class HttpRoutes:
    """The HTTP routes of the gRPC services."""

    descriptor_set: Path
    """File of a serialized google.protobuf.FileDescriptorSet with the services, their messages and error details."""
    bindings: tuple[Binding, ...]
    """The gRPC method of each HTTP method of each path, in the order of `paths`."""
    services: tuple[str, ...]
    """Full names of the gRPC services that have JSON routes."""
    rpcs: tuple[str, ...]
    """Paths of all gRPC methods, sorted."""
    reads: tuple[str, ...]
    """Paths of the gRPC methods without side effects, by their idempotency levels, sorted."""
    streamed: tuple[str, ...]
    """Paths of the gRPC methods with request streams, sorted."""
    openapi: Path
    """File of the OpenAPI document."""
    paths: tuple[tuple[str, tuple[str, ...]], ...]
    """Each path as a regular expression (RE2, of the whole path) with its HTTP methods, in the order of precedence:
    paths with a verb (`:complete`) come before those whose last segment would match it, too."""
    bodies: JsonBodies
    """The bodies and query parameters of the paths under /v1."""


def http_routes() -> HttpRoutes:
    """Return the routes of the descriptor set that is generated from the protos."""
    generated = _generated_dir()
    descriptor_set = generated / "descriptor.binpb"
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set.read_bytes())
    services: list[str] = []
    reads: list[str] = []
    streamed: list[str] = []
    rpcs: list[str] = []
    bound: list[Binding] = []
    for file in descriptors.file:
        if file.package not in PACKAGES:
            continue
        for service in file.service:
            if any(True for rpc in service.method for _ in bindings(rpc)):
                services.append(f"{file.package}.{service.name}")
            for rpc in service.method:
                path = f"/{file.package}.{service.name}/{rpc.name}"
                rpcs.append(path)
                reads += [path] if _is_read(rpc) else []
                streamed += [path] if rpc.client_streaming else []
                bound += [
                    Binding(
                        path=_regex(template),
                        verb=verb,
                        rpc=path,
                        takes_json=template.startswith("/v1/") and not rpc.client_streaming,
                    )
                    for verb, template in bindings(rpc)
                ]
    bound.sort(key=lambda binding: (_verbs_first(binding.path), binding.verb))
    methods: dict[str, list[str]] = {}
    for binding in bound:
        methods.setdefault(binding.path, []).append(binding.verb)
    return HttpRoutes(
        descriptor_set=descriptor_set,
        bindings=tuple(bound),
        rpcs=tuple(sorted(rpcs)),
        reads=tuple(sorted(reads)),
        streamed=tuple(sorted(streamed)),
        openapi=generated / "openapi.json",
        services=tuple(sorted(services)),
        paths=tuple((path, tuple(verbs)) for path, verbs in methods.items()),
        bodies=_json_bodies(descriptors),
    )


def _generated_dir() -> Path:
    """Return the folder of the descriptor set: in the installed package, or in the repository."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "gateway_files"
    return installed if installed.is_dir() else package.parent / "generated" / "gateway_files"


def _json_bodies(descriptors: descriptor_pb2.FileDescriptorSet) -> JsonBodies:
    messages = {f"{file.package}.{message.name}": message for file in descriptors.file for message in file.message_type}
    methods: dict[str, dict[str, Mapping[str, str]]] = {}
    for rpc in (rpc for file in descriptors.file for service in file.service for rpc in service.method):
        for rule in _rules(rpc):
            verb, template = _method_and_template(rule)
            if template.startswith("/v1/"):
                expected = _expected(messages, rpc, template, rule.body)
                query = _query(descriptors, messages, rpc, template, rule.body)
                methods.setdefault(_regex(template), {})[verb] = {**expected, "query": query}
    roots = [expected["message"] for verbs in methods.values() for expected in verbs.values() if "message" in expected]
    return JsonBodies(messages=_body_fields(messages, _enums(descriptors), roots), methods=methods)


def _body_variables(template: str, body: str) -> str:
    """Return the body's names of the path variables, each surrounded by spaces."""
    prefix = "" if body == "*" else f"{body}."
    names = [variable[1] for variable in _VARIABLE.finditer(template)]
    if not all(name.startswith(prefix) for name in names):
        raise ValueError(f"{template}: a variable is not in the body, {body}")
    return " ".join(name.removeprefix(prefix) for name in names)


def _lua_pattern(template: str) -> str:
    """Return the Lua pattern of a path template of single segments."""
    literals = _VARIABLE.split(template)[:: _VARIABLE.groups + 1]
    return f"^{'([^/]+)'.join(_SPECIAL.sub('%', literal) for literal in literals)}$"


def _enums(descriptors: descriptor_pb2.FileDescriptorSet) -> Mapping[str, EnumDescriptorProto]:
    """Return the enums by their full names with a leading dot."""
    return {
        f".{prefix}.{enum.name}": enum
        for file in descriptors.file
        for prefix, found in (
            (file.package, file.enum_type),
            *((f"{file.package}.{message.name}", message.enum_type) for message in file.message_type),
        )
        for enum in found
    }


def _values(enum: EnumDescriptorProto) -> str:
    """Return the names of an enum's values, separated by commas; the gateway derives their numbers from their order."""
    if [value.number for value in enum.value] != list(range(len(enum.value))):
        raise ValueError(f"{enum.name}: the numbers of its values must be 0, 1, 2 and so on")
    return ",".join(value.name for value in enum.value)


def _expected(
    messages: Mapping[str, DescriptorProto], rpc: descriptor_pb2.MethodDescriptorProto, template: str, body: str
) -> Mapping[str, str]:
    """Return the body and the repeatable parameters of a method, as in `JsonBodies.methods`."""
    expected = {"lists": f" {' '.join(_lists(messages, rpc.input_type))} "}
    if body:
        expected["field"] = body
        message = _body_message(messages, rpc, body)
        if message == _HTTP_BODY:
            return expected | {"raw": "yes"}
        expected |= {
            "message": message,
            "variables": _body_variables(template, body),
            "pattern": _lua_pattern(template),
        }
    return expected


def _query(
    descriptors: descriptor_pb2.FileDescriptorSet,
    messages: Mapping[str, DescriptorProto],
    rpc: descriptor_pb2.MethodDescriptorProto,
    template: str,
    body: str,
) -> str:
    """Return the query parameters of a method, as in `JsonBodies.methods`: fields in neither the path nor the body."""
    elsewhere = {variable[1] for variable in _VARIABLE.finditer(template)} | {body}
    enums = _enums(descriptors)

    def parameters(type_name: str, prefix: str = "") -> Iterator[str]:
        for field in messages[type_name.removeprefix(".")].field:
            name = prefix + field.name
            if name in elsewhere:
                continue
            kind = _QUERY_KINDS.get(field.type_name.removeprefix(".")) or _QUERY_SCALARS.get(field.type)
            if field.type == FieldDescriptorProto.TYPE_ENUM:
                # The unspecified value is useless in a query.
                kind = f"enum,{_values(enums[field.type_name]).partition(',')[2]}"
            if kind is not None:
                yield f"{name}={kind}"
                if field.type_name == ".google.protobuf.FieldMask":
                    yield f"{name}.paths=string"
            elif field.type_name.removeprefix(".") in messages and not prefix:
                yield from parameters(field.type_name, f"{name}.")

    return "" if body == "*" else f" {' '.join(parameters(rpc.input_type))} "


def _body_message(messages: Mapping[str, DescriptorProto], rpc: descriptor_pb2.MethodDescriptorProto, body: str) -> str:
    request = rpc.input_type.removeprefix(".")
    if body == "*":
        return request
    return next(f.type_name.removeprefix(".") for f in messages[request].field if f.name == body)


def _lists(messages: Mapping[str, DescriptorProto], type_name: str, prefix: str = "") -> Iterator[str]:
    """Yield the names of a request's repeated fields, and of those in its messages (`update_mask.paths`)."""
    for field in messages[type_name.removeprefix(".")].field:
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            yield prefix + field.name
        elif field.type == FieldDescriptorProto.TYPE_MESSAGE and not prefix:
            yield from _lists(messages, field.type_name, f"{field.name}.")


def _body_fields(
    messages: Mapping[str, DescriptorProto], enums: Mapping[str, EnumDescriptorProto], roots: list[str]
) -> Mapping[str, Mapping[str, BodyField]]:
    """Return the fields of the messages, and of all messages within them."""
    found: dict[str, Mapping[str, BodyField]] = {}
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        fields = [(field, _body_field(name, messages[name], field, enums)) for field in messages[name].field]
        found[name] = {spelling: body for field, body in fields for spelling in (field.name, field.json_name)}
        pending += [body["type"] for _, body in fields if body["type"] in messages]
    return found


def _body_field(
    owner: str, message: DescriptorProto, field: FieldDescriptorProto, enums: Mapping[str, EnumDescriptorProto]
) -> BodyField:
    entry = next((n for n in message.nested_type if field.type_name == f".{owner}.{n.name}"), None)
    if entry is not None and entry.options.map_entry:
        return {"name": field.name, **_body_type(entry.field[1], enums), "shape": "map"}
    shape = {"shape": "list"} if field.label == FieldDescriptorProto.LABEL_REPEATED else {}
    return {"name": field.name, **_body_type(field, enums), **shape}


def _body_type(field: FieldDescriptorProto, enums: Mapping[str, EnumDescriptorProto]) -> BodyField:
    if field.type == FieldDescriptorProto.TYPE_ENUM:
        return {"type": "enum", "values": _values(enums[field.type_name])}
    if field.type != FieldDescriptorProto.TYPE_MESSAGE:
        return {"type": _JSON_TYPES[field.type]}
    name = field.type_name.removeprefix(".")
    return {"type": _WELL_KNOWN_TYPES.get(name, name)}


def bindings(method: descriptor_pb2.MethodDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yield the HTTP methods and path templates of one RPC."""
    return map(_method_and_template, _rules(method))


def _rules(method: descriptor_pb2.MethodDescriptorProto) -> tuple[http_pb2.HttpRule, ...]:
    if not method.options.HasExtension(annotations_pb2.http):
        return ()
    rule = method.options.Extensions[annotations_pb2.http]
    return (rule, *rule.additional_bindings)


def _is_read(method: descriptor_pb2.MethodDescriptorProto) -> bool:
    return method.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


def _method_and_template(rule: http_pb2.HttpRule) -> tuple[str, str]:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise ValueError("a google.api.http annotation without a pattern")
    if kind == "custom":
        return rule.custom.kind, rule.custom.path
    return kind.upper(), getattr(rule, kind)


def _verbs_first(path: str) -> tuple[bool, str]:
    return ":" not in path, path


def _regex(template: str) -> str:
    """Return the regular expression of a path template: `{x}` is one segment, `{x=**}` the rest of the path."""
    parts = []
    end = 0
    for variable in _VARIABLE.finditer(template):
        parts.append(re.escape(template[end : variable.start()]))
        pattern = variable[2] or "*"
        parts.append(".+" if pattern == "**" else re.escape(pattern).replace(r"\*", "[^/]+"))
        end = variable.end()
    parts.append(re.escape(template[end:]))
    return "".join(parts)
