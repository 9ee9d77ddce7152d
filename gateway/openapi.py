"""The OpenAPI 3.1 document of the HTTP API: `/v1` from the protos, the documented API from a file beside the gateway.

Run as a program by `make generate`: prints the document.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from google.api import annotations_pb2
from google.api.field_behavior_pb2 import FieldBehavior, field_behavior
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from registry_service import __version__
from registry_service.transport.http_routes import PACKAGES, bindings

Json = dict[str, Any]

_VARIABLE = re.compile(r"\{([\w.]+)(?:=[^}]*)?\}")
_LINT = re.compile(r"buf:lint:ignore \w+")
_REFERENCE = "#/components/schemas/"
_HTTP_BODY = ".google.api.HttpBody"
_COMPAT = "modelregistry.compat.v1"

# The JSON mapping of protobuf (ProtoJSON), as the gateway prints it.
_SCALARS: Mapping[int, Json] = {
    FieldDescriptorProto.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptorProto.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptorProto.TYPE_STRING: {"type": "string"},
    FieldDescriptorProto.TYPE_BYTES: {"type": "string", "format": "byte"},
    FieldDescriptorProto.TYPE_INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptorProto.TYPE_FIXED32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptorProto.TYPE_INT64: {"type": "string", "format": "int64", "pattern": r"^-?[0-9]{1,18}$"},
}
_WELL_KNOWN: Mapping[str, Json] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Names of fields, separated by commas."},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.Value": {},
    ".google.protobuf.ListValue": {"type": "array", "items": {}},
}
# What strangers may ask, whatever AUTH_MODE is.
_OPEN = ("/health", "/ready")
_STATUS: Json = {
    "type": "object",
    "description": "An error, as google.rpc.Status, whether the server found it or the gateway.",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "integer", "description": "Code of gRPC."},
        "message": {"type": "string"},
        "details": {
            "type": "array",
            "description": "A google.rpc.ErrorInfo with the reason, a google.rpc.RequestInfo, and perhaps others.",
            "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
        },
    },
}
_DETAIL: Json = {
    "type": "object",
    "description": "An error that the gateway found itself, outside of /v1.",
    "required": ["detail"],
    "properties": {"detail": {"type": "string"}},
}


class _Api:
    """The messages and services of the typed API, with their comments."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        self.files = [file for file in descriptors.file if file.package in PACKAGES and file.package != _COMPAT]
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, list[str]] = {}
        self._comments: dict[str, str] = {}
        for file in self.files:
            comments = {
                tuple(location.path): " ".join(_LINT.sub("", location.leading_comments).split())
                for location in file.source_code_info.location
            }
            for i, message in enumerate(file.message_type):
                self._add_message(file, message, (4, i), comments)
            for i, service in enumerate(file.service):
                self._comments[service.name] = comments.get((6, i), "")
                for k, method in enumerate(service.method):
                    self._comments[f"{service.name}.{method.name}"] = comments.get((6, i, 2, k), "")

    def _add_message(
        self, file: FileDescriptorProto, message: DescriptorProto, path: tuple[int, ...], comments: Mapping[Any, str]
    ) -> None:
        name = f".{file.package}.{message.name}"
        self.messages[name] = message
        self._comments[name] = comments.get(path, "")
        for i, field in enumerate(message.field):
            self._comments[f"{name}.{field.name}"] = comments.get((*path, 2, i), "")
        for enum in message.enum_type:
            self.enums[f"{name}.{enum.name}"] = [value.name for value in enum.value]

    def comment(self, name: str) -> str:
        return self._comments.get(name, "")

    def schemas(self, *roots: Json) -> dict[str, Json]:
        """Returns the schemas of the messages that the roots refer to, and of those that these refer to."""
        messages = {name.rpartition(".")[2]: name for name in self.messages}
        found: dict[str, Json] = {}
        pending = [name for root in roots for name in _references(root)]
        while pending:
            name = pending.pop()
            if name not in found and name in messages:
                found[name] = self._schema(messages[name])
                pending += _references(found[name])
        return dict(sorted(found.items()))

    def _schema(self, name: str) -> Json:
        message = self.messages[name]
        return {
            "type": "object",
            "description": self.comment(name),
            "properties": {field.name: self.field_schema(name, field) for field in message.field},
        }

    def field_schema(self, message_name: str, field: FieldDescriptorProto) -> Json:
        message = self.messages[message_name]
        entry = next((n for n in message.nested_type if field.type_name == f"{message_name}.{n.name}"), None)
        described: Json = {"description": self.comment(f"{message_name}.{field.name}")}
        if FieldBehavior.OUTPUT_ONLY in field.options.Extensions[field_behavior]:
            described["readOnly"] = True
        if entry is not None and entry.options.map_entry:
            return {"type": "object", "additionalProperties": self._type(entry.field[1])} | described
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return {"type": "array", "items": self._type(field)} | described
        return self._type(field) | described

    def _type(self, field: FieldDescriptorProto) -> Json:
        if field.type == FieldDescriptorProto.TYPE_ENUM:
            return {"type": "string", "enum": self.enums[field.type_name]}
        if field.type != FieldDescriptorProto.TYPE_MESSAGE:
            return dict(_SCALARS[field.type])
        if field.type_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[field.type_name])
        return {"$ref": f"{_REFERENCE}{field.type_name.rpartition('.')[2]}"}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].removeprefix(_REFERENCE)] if "$ref" in value else []
        return own + [name for item in value.values() for name in _references(item)]
    return [name for item in value for name in _references(item)] if isinstance(value, list) else []


def document(descriptors: FileDescriptorSet, documented: Json) -> Json:
    """Makes the document; `documented` has the paths, tags and components of the documented API."""
    api = _Api(descriptors)
    paths: dict[str, Json] = {path: dict(item) for path, item in documented["paths"].items()}
    tags: list[Json] = list(documented["tags"])
    for file in api.files:
        for service in file.service:
            own = [
                op
                for method in service.method
                for verb, template in bindings(method)
                if _path(template) not in documented["paths"]
                for op in [(_path(template), verb.lower(), _operation(api, service.name, method, verb, template))]
            ]
            if own:
                tags.append({"name": service.name, "description": api.comment(service.name)})
            for path, verb, operation in own:
                paths.setdefault(path, {})[verb] = operation
    components = documented["components"]
    for path, item in paths.items():
        for operation in (operation for verb, operation in item.items() if verb != "parameters"):
            if path in _OPEN:
                operation["security"] = []
            elif path in documented["paths"]:
                for status in ("401", "403"):
                    operation["responses"].setdefault(status, {"$ref": "#/components/responses/Text"})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Registry",
            "version": __version__,
            "description": "The documented API under /models and /projects, and the typed API under /v1.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # With AUTH_MODE=none, nothing is needed.
        "security": [{"token": []}, {}],
        "tags": tags,
        "paths": paths,
        "components": {
            **components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the registry, or a JSON Web Token of its OpenID provider.",
                }
            },
            "schemas": {**components["schemas"], **api.schemas(paths), "Status": _STATUS, "Detail": _DETAIL},
        },
    }


def _operation(api: _Api, service: str, method: MethodDescriptorProto, verb: str, template: str) -> Json:
    variables = _VARIABLE.findall(template)
    request = api.messages[method.input_type]
    body = method.options.Extensions[annotations_pb2.http].body
    operation: Json = {
        "tags": [service],
        "operationId": f"{method.name}{'' if verb != 'HEAD' else 'Head'}",
        "summary": api.comment(f"{service}.{method.name}").partition(".")[0],
        "description": api.comment(f"{service}.{method.name}"),
        "parameters": [_path_parameter(_plain(name)) for name in variables],
        "responses": _responses(method),
    }
    if body != "*":
        elsewhere = {body, *(name.partition(".")[0] for name in variables)}
        operation["parameters"] += [
            parameter
            for field in request.field
            if field.name not in elsewhere
            for parameter in _query_parameters(api, method.input_type, field)
        ]
    if body:
        operation["requestBody"] = _request_body(api, method.input_type, body)
    return operation


def _query_parameters(api: _Api, message_name: str, field: FieldDescriptorProto, prefix: str = "") -> Iterator[Json]:
    """Yields the parameter of a field; of a message the parameters of its fields, `lineage.name`."""
    if field.type_name in api.messages:
        for inner in api.messages[field.type_name].field:
            yield from _query_parameters(api, field.type_name, inner, f"{prefix}{field.name}.")
        return
    yield {
        "name": f"{prefix}{field.name}",
        "in": "query",
        "description": api.comment(f"{message_name}.{field.name}"),
        "schema": api.field_schema(message_name, field),
    }


def _path(template: str) -> str:
    # Tools expect plain names, so {model.id} is {id}.
    return _VARIABLE.sub(lambda variable: f"{{{_plain(variable[1])}}}", template)


def _plain(name: str) -> str:
    return name.rpartition(".")[2]


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _request_body(api: _Api, message_name: str, body: str) -> Json:
    if body == "*":
        reference = message_name.rpartition(".")[2]
    else:
        field = next(f for f in api.messages[message_name].field if f.name == body)
        if field.type_name == _HTTP_BODY:
            return {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
        reference = field.type_name.rpartition(".")[2]
    schema = {"$ref": f"{_REFERENCE}{reference}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _responses(method: MethodDescriptorProto) -> Json:
    error = {"application/json": {"schema": {"$ref": f"{_REFERENCE}Status"}}}
    responses: Json = {"default": {"description": "An error.", "content": error}}
    if method.output_type != _HTTP_BODY:
        schema: Json = {"$ref": f"{_REFERENCE}{method.output_type.rpartition('.')[2]}"}
        if method.server_streaming:
            schema = {"type": "array", "items": schema}
        return {"200": {"description": "Done.", "content": {"application/json": {"schema": schema}}}} | responses
    binary = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "200": {"description": "All bytes.", "content": binary},
        "206": {"description": "The bytes of the range.", "content": binary},
        "304": {"description": "Not changed."},
        "416": {"description": "There is no byte in the range.", "content": binary},
    } | responses


def main() -> None:
    """Prints the document of a descriptor set, the first argument, and a file of the documented API, the second."""
    descriptors = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    documented = yaml.safe_load(Path(sys.argv[2]).read_text(encoding="utf-8"))
    json.dump(document(descriptors, documented), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
