"""Write the OpenAPI 3.1 document of the HTTP API.

The typed API under `/v1` comes from the protos, from `typed_api.yaml` (headers, errors) and from `examples.json`, the
Intel-compatible API from `compat_api.yaml`. `make generate` runs this module as a program, which prints the document.
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
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

from registry_service import __version__
from registry_service.transport.http_routes import PACKAGES, bindings

Json = dict[str, Any]

_VARIABLE = re.compile(r"\{([\w.]+)(?:=[^}]*)?\}")
_LINT = re.compile(r"buf:lint:ignore \w+|\(--.*?--\)", re.DOTALL)
_CODE = re.compile(r"\b[A-Z]+(?:_[A-Z]+)*\b")
_REFERENCE = "#/components/schemas/"
_HTTP_BODY = ".google.api.HttpBody"
_STATUS = ".google.rpc.Status"
_COMPAT = "modelregistry.compat.v1"
_JSON = "application/json"

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
    ".google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Names of fields, separated by commas."},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.Value": {},
    ".google.protobuf.ListValue": {"type": "array", "items": {}},
}
# Paths that need no credentials with any AUTH_MODE.
_OPEN = ("/health", "/ready", "/v1/serverInfo")
_ANYONE_MAY_GET = {"400", "429", "500", "503", "504"}


class Schemas:
    """The messages and enums of the typed API as JSON schemas, with the comments of the protos."""

    def __init__(self, descriptors: FileDescriptorSet) -> None:
        self.files = [file for file in descriptors.file if file.package in PACKAGES and file.package != _COMPAT]
        self.messages: dict[str, DescriptorProto] = {}
        self._enums: dict[str, EnumDescriptorProto] = {}
        self._comments: dict[str, str] = {}
        for file in self.files:
            comments = {
                tuple(location.path): " ".join(_LINT.sub("", location.leading_comments).split())
                for location in file.source_code_info.location
            }
            scope = f".{file.package}"
            for i, message in enumerate(file.message_type):
                self._add_message(f"{scope}.{message.name}", message, (4, i), comments)
            for i, enum in enumerate(file.enum_type):
                self._add_enum(f"{scope}.{enum.name}", enum, (5, i), comments)
            for i, service in enumerate(file.service):
                self._comments[service.name] = comments.get((6, i), "")
                for k, method in enumerate(service.method):
                    self._comments[f"{service.name}.{method.name}"] = comments.get((6, i, 2, k), "")

    def _add_message(
        self, name: str, message: DescriptorProto, path: tuple[int, ...], comments: Mapping[tuple[int, ...], str]
    ) -> None:
        self.messages[name] = message
        self._comments[name] = comments.get(path, "")
        for i, field in enumerate(message.field):
            self._comments[f"{name}.{field.name}"] = comments.get((*path, 2, i), "")
        for i, enum in enumerate(message.enum_type):
            self._add_enum(f"{name}.{enum.name}", enum, (*path, 4, i), comments)

    def _add_enum(
        self, name: str, enum: EnumDescriptorProto, path: tuple[int, ...], comments: Mapping[tuple[int, ...], str]
    ) -> None:
        self._enums[name] = enum
        self._comments[name] = comments.get(path, "")
        for i, value in enumerate(enum.value):
            self._comments[f"{name}.{value.name}"] = comments.get((*path, 2, i), "")

    def comment(self, name: str) -> str:
        """Return the comment of a message, enum, service, or of a part of one; empty if there is none."""
        return self._comments.get(name, "")

    def reachable(self, *roots: Json) -> dict[str, Json]:
        """Return the schemas that the roots refer to, and those that these refer to, by their names."""
        kinds = {_short(name): name for name in (*self.messages, *self._enums)}
        found: dict[str, Json] = {}
        pending = [name for root in roots for name in _references(root)]
        while pending:
            name = pending.pop()
            if name not in found and name in kinds:
                found[name] = self._schema(kinds[name])
                pending += _references(found[name])
        return dict(sorted(found.items()))

    def _schema(self, name: str) -> Json:
        if name in self._enums:
            values = [value.name for value in self._enums[name].value]
            lines = [f"* `{value}`: {self.comment(f'{name}.{value}')}" for value in values]
            return {"type": "string", "enum": values, "description": "\n".join([self.comment(name), "", *lines])}
        message = self.messages[name]
        return {
            "type": "object",
            "description": self.comment(name),
            "properties": {field.name: self.field(name, field) for field in message.field},
        }

    def field(self, message_name: str, field: FieldDescriptorProto) -> Json:
        """Return the schema of a field."""
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
        if field.type_name == _STATUS:
            return {"$ref": f"{_REFERENCE}Status"}
        if field.type_name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[field.type_name])
        if field.type in (FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.TYPE_ENUM):
            return {"$ref": f"{_REFERENCE}{_short(field.type_name)}"}
        return dict(_SCALARS[field.type])


class Operations:
    """The operations of the typed API."""

    def __init__(self, schemas: Schemas, typed: Json, examples: Mapping[str, Json]) -> None:
        self._schemas = schemas
        self._errors: Mapping[str, Json] = typed["errors"]
        self._parameter_examples: Mapping[str, Any] = typed["parameter_examples"]
        self._examples = examples

    def operation(self, service: str, method: MethodDescriptorProto, verb: str, template: str) -> Json:
        """Return one HTTP method of one path."""
        comment = self._schemas.comment(f"{service}.{method.name}")
        variables = _VARIABLE.findall(template)
        body = _body(method, verb, template)
        example = self._examples.get(f"{service}_{method.name}", {})
        operation: Json = {
            "tags": [service],
            "operationId": f"{service}_{method.name}{_suffix(method, verb, template)}",
            "summary": comment.partition(".")[0],
            "description": comment,
            "parameters": [*self._parameters(method, variables, body), *self._headers(method, verb)],
            "responses": self._responses(method, comment, verb=verb, template=template, has_body=bool(body)),
        }
        if body:
            operation["requestBody"] = self._request_body(method.input_type, body)
            _add_example(operation["requestBody"], example.get("request"))
        _add_example(operation["responses"]["200"], example.get("response"))
        return operation

    def _parameters(self, method: MethodDescriptorProto, variables: list[str], body: str) -> Iterator[Json]:
        for variable in variables:
            yield self._path_parameter(method.input_type, variable)
        if body == "*":
            return
        elsewhere = {body, *(name.partition(".")[0] for name in variables)}
        for field in self._schemas.messages[method.input_type].field:
            if field.name not in elsewhere:
                yield from self._query_parameters(method.input_type, field)

    def _path_parameter(self, message_name: str, variable: str) -> Json:
        outer, _, inner = variable.rpartition(".")
        if outer:
            message_name = next(
                field.type_name for field in self._schemas.messages[message_name].field if field.name == outer
            )
        parameter: Json = {
            "name": _plain(variable),
            "in": "path",
            "required": True,
            "description": self._schemas.comment(f"{message_name}.{inner or variable}"),
            "schema": {"type": "string", "minLength": 1},
        }
        return parameter | self._example(f"{outer}.{inner}" if outer else inner or variable)

    def _query_parameters(self, message_name: str, field: FieldDescriptorProto, prefix: str = "") -> Iterator[Json]:
        """Yield the parameter of a field; of a message the parameters of its fields."""
        if field.type_name in self._schemas.messages:
            for inner in self._schemas.messages[field.type_name].field:
                yield from self._query_parameters(field.type_name, inner, f"{prefix}{field.name}.")
            return
        name = f"{prefix}{field.name}"
        required = FieldBehavior.REQUIRED in field.options.Extensions[field_behavior]
        schema = self._schemas.field(message_name, field)
        description = schema.pop("description", "")
        yield {
            "name": name,
            "in": "query",
            "description": description,
            "schema": schema,
            **({"required": True} if required else {}),
            **self._example(name),
        }

    def _example(self, parameter: str) -> Json:
        return {"example": self._parameter_examples[parameter]} if parameter in self._parameter_examples else {}

    def _headers(self, method: MethodDescriptorProto, verb: str) -> Iterator[Json]:
        fields = {field.name for field in self._schemas.messages[method.input_type].field}
        names = ["RequestId"]
        if "idempotency_key" in fields:
            names.append("IdempotencyKey")
        if self._is_conditional(method):
            names.append("IfMatch")
        if method.output_type == _HTTP_BODY:
            names += ["IfMatch", "IfNoneMatch", *(["Range", "IfRange"] if verb == "GET" else [])]
        return ({"$ref": f"#/components/parameters/{name}"} for name in names)

    def _is_conditional(self, method: MethodDescriptorProto) -> bool:
        """Return whether a method has an etag, in its request or in the updated resource."""
        fields = {field.name for field in self._schemas.messages[method.input_type].field}
        return not fields.isdisjoint({"etag", "update_mask"})

    def _request_body(self, message_name: str, body: str) -> Json:
        if body != "*":
            field = next(f for f in self._schemas.messages[message_name].field if f.name == body)
            message_name = field.type_name
        if message_name == _HTTP_BODY:
            binary = {"schema": {"type": "string", "format": "binary"}}
            return {"required": True, "content": {"application/octet-stream": binary}}
        schema = {"$ref": f"{_REFERENCE}{_short(message_name)}"}
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _responses(
        self, method: MethodDescriptorProto, comment: str, *, verb: str, template: str, has_body: bool
    ) -> Json:
        codes = set(_CODE.findall(comment))
        statuses = set(_ANYONE_MAY_GET)
        statuses |= {status for status, error in self._errors.items() if codes & set(error["codes"])}
        if template not in _OPEN:
            statuses |= {"401", "403"}
        if "{" in template:
            statuses.add("404")
        if has_body:
            statuses.add("413")
        if any(field.name in ("etag", "idempotency_key") for field in self._schemas.messages[method.input_type].field):
            statuses.add("409")
        is_download = method.output_type == _HTTP_BODY
        if self._is_conditional(method) or is_download:
            statuses.add("412")
        if is_download and verb == "GET":
            statuses.add("416")
        errors: Json = {
            status: {"$ref": f"#/components/responses/{self._errors[status]['name']}"} for status in sorted(statuses)
        }
        errors["default"] = {"$ref": "#/components/responses/Error"}
        if is_download:
            return _binary_responses(verb) | errors
        schema: Json = {"$ref": f"{_REFERENCE}{_short(method.output_type)}"}
        if method.server_streaming:
            schema = {"type": "array", "items": schema}
        headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
        answer = {"description": "Done.", "headers": headers, "content": {_JSON: {"schema": schema}}}
        return {"200": answer} | errors


def _add_example(body: Json, example: Any) -> None:
    if example is not None and _JSON in body["content"]:
        body["content"][_JSON]["example"] = example


def _binary_responses(verb: str) -> Json:
    content: Json = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    content = content if verb == "GET" else {}
    headers = {
        "etag": {"$ref": "#/components/headers/ETag"},
        "accept-ranges": {"$ref": "#/components/headers/AcceptRanges"},
    }
    ranged = headers | {"content-range": {"$ref": "#/components/headers/ContentRange"}}
    return {
        "200": {"description": "All bytes, with the media type of the artifact.", "headers": headers, **content},
        "206": {"description": "The bytes of the range.", "headers": ranged, **content},
        "304": {"description": "The client's copy is current.", "headers": {"etag": headers["etag"]}},
    }


def document(descriptors: FileDescriptorSet, compat: Json, typed: Json, examples: Mapping[str, Json]) -> Json:
    """Return the document.

    Args:
        descriptors: The protos, with their comments.
        compat: Paths, tags and components of the Intel-compatible API.
        typed: Headers, errors, and examples of parameters of the typed API.
        examples: The `request` and the `response` of each operation, by its name.
    """
    schemas = Schemas(descriptors)
    operations = Operations(schemas, typed, examples)
    paths: dict[str, Json] = {path: dict(item) for path, item in compat["paths"].items()}
    tags: list[Json] = list(compat["tags"])
    for file in schemas.files:
        for service in file.service:
            bound = [
                (template, verb, method)
                for method in service.method
                for verb, template in bindings(method)
                if _path(template) not in compat["paths"]
            ]
            if bound:
                tags.append({"name": service.name, "description": schemas.comment(service.name)})
            for template, verb, method in bound:
                operation = operations.operation(service.name, method, verb, template)
                paths.setdefault(_path(template), {})[verb.lower()] = operation
    for path, item in paths.items():
        for operation in (operation for verb, operation in item.items() if verb != "parameters"):
            if path in _OPEN:
                operation["security"] = []
            elif path in compat["paths"]:
                for status in ("401", "403"):
                    operation["responses"].setdefault(status, {"$ref": "#/components/responses/Text"})
    components = compat["components"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Registry",
            "version": __version__,
            "description": "The typed API under /v1, and the Intel-compatible API under /models and /projects.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        # The empty requirement is for AUTH_MODE=none.
        "security": [{"token": []}, {}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of the registry, or a JSON Web Token of its OpenID provider.",
                }
            },
            "parameters": {**components["parameters"], **typed["parameters"]},
            "headers": typed["headers"],
            "responses": {**components["responses"], **_error_responses(typed["errors"])},
            "schemas": {**components["schemas"], **schemas.reachable(paths), **typed["schemas"]},
        },
    }


def _error_responses(errors: Mapping[str, Json]) -> Json:
    schema = {"$ref": f"{_REFERENCE}Status"}
    responses: Json = {}
    for error in errors.values():
        headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
        if error.get("retry"):
            headers["retry-after"] = {"$ref": "#/components/headers/RetryAfter"}
        if error["name"] == "RangeNotSatisfiable":
            headers["content-range"] = {"$ref": "#/components/headers/ContentRange"}
        content = {"application/json": {"schema": schema, "example": error["example"]}}
        responses[error["name"]] = {"description": error["description"], "headers": headers, "content": content}
    responses["Error"] = {"description": "Any other error.", "content": {"application/json": {"schema": schema}}}
    return responses


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].removeprefix(_REFERENCE)] if "$ref" in value else []
        return own + [name for item in value.values() for name in _references(item)]
    return [name for item in value for name in _references(item)] if isinstance(value, list) else []


def _body(method: MethodDescriptorProto, verb: str, template: str) -> str:
    rule = method.options.Extensions[annotations_pb2.http]
    rules = (rule, *rule.additional_bindings)
    bound = zip(bindings(method), rules, strict=True)
    return next(str(r.body) for binding, r in bound if binding == (verb, template))


def _suffix(method: MethodDescriptorProto, verb: str, template: str) -> str:
    """Return the suffix of an operation's name: `Head` for HEAD, and `Alternative` for a further path."""
    if verb == "HEAD":
        return "Head"
    others = [binding for binding in bindings(method) if binding[0] != "HEAD"]
    return "Alternative" * others.index((verb, template))


def _path(template: str) -> str:
    # Tools expect names without a dot, so {model.id} becomes {model_id}, as in the other methods of the path.
    return _VARIABLE.sub(lambda variable: f"{{{_plain(variable[1])}}}", template)


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _short(name: str) -> str:
    """Return the name of a schema: the message's, or for a nested enum both names (`Alias.Kind`: AliasKind)."""
    return "".join(part for part in name.split(".") if part[:1].isupper())


def main() -> None:
    """Print the document: the arguments are a descriptor set, compat_api.yaml, typed_api.yaml and examples.json."""
    descriptors = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    # JSON is YAML too.
    compat, typed, examples = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) for path in sys.argv[2:])
    json.dump(document(descriptors, compat, typed, examples), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
