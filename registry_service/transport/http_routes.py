"""What the gateway must know of the API, read from its descriptor set: plain data, no protobuf."""

import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

PACKAGE = "modelregistry.v1"

_VARIABLE = re.compile(r"\{([\w.]+)(?:=([^}]*))?\}")


@dataclass(frozen=True, kw_only=True)
class HttpRoutes:
    """The HTTP face of the gRPC services."""

    descriptor_set: Path
    """File of a serialized google.protobuf.FileDescriptorSet, with all that the services and their errors need."""
    path_variables: tuple[str, ...]
    """Names of the variables of all paths, in lower case and without underscores, sorted."""
    services: tuple[str, ...]
    """Full names of the gRPC services that have JSON routes."""
    reads: tuple[str, ...]
    """Paths of the gRPC methods that change nothing, those that are GET or HEAD over HTTP, sorted."""
    streamed: tuple[str, ...]
    """Paths of the gRPC methods whose requests are streams of messages, sorted."""
    openapi: Path
    """The file of the HTTP API's description."""
    paths: tuple[tuple[str, tuple[str, ...]], ...]
    """Each path as a regular expression (RE2, for the whole path) and its HTTP methods, sorted. The first that
    matches counts: paths with a verb (`:complete`) come before the ones whose last segment would swallow it."""


def http_routes() -> HttpRoutes:
    """Reads the descriptor set that was generated beside the stubs."""
    generated = Path(str(importlib.resources.files("modelregistry")))
    descriptor_set = generated / "descriptor.binpb"
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set.read_bytes())
    services: list[str] = []
    reads: list[str] = []
    streamed: list[str] = []
    methods: dict[str, set[str]] = {}
    variables: set[str] = set()
    for file in descriptors.file:
        if file.package != PACKAGE:
            continue
        for service in file.service:
            bound = [binding for method in service.method for binding in bindings(method)]
            if bound:
                services.append(f"{PACKAGE}.{service.name}")
            for rpc in service.method:
                path = f"/{PACKAGE}.{service.name}/{rpc.name}"
                reads += [path] if _is_read(rpc) else []
                streamed += [path] if rpc.client_streaming else []
            for method, template in bound:
                methods.setdefault(_regex(template), set()).add(method)
                variables |= {variable[1].replace("_", "").lower() for variable in _VARIABLE.finditer(template)}
    return HttpRoutes(
        descriptor_set=descriptor_set,
        path_variables=tuple(sorted(variables)),
        reads=tuple(sorted(reads)),
        streamed=tuple(sorted(streamed)),
        openapi=generated / "openapi.json",
        services=tuple(sorted(services)),
        paths=tuple((path, tuple(sorted(methods[path]))) for path in sorted(methods, key=_verbs_first)),
    )


def bindings(method: descriptor_pb2.MethodDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yields the HTTP methods and path templates of one RPC."""
    if not method.options.HasExtension(annotations_pb2.http):
        return
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        yield _method_and_template(binding)


def _is_read(method: descriptor_pb2.MethodDescriptorProto) -> bool:
    verbs = {verb for verb, _ in bindings(method)}
    return bool(verbs) and verbs <= {"GET", "HEAD"}


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
    """The regular expression of a path template: `{x}` is one segment, `{x=**}` the rest of the path."""
    parts = []
    end = 0
    for variable in _VARIABLE.finditer(template):
        parts.append(re.escape(template[end : variable.start()]))
        pattern = variable[2] or "*"
        parts.append(".+" if pattern == "**" else re.escape(pattern).replace(r"\*", "[^/]+"))
        end = variable.end()
    parts.append(re.escape(template[end:]))
    return "".join(parts)
