"""Print docs/reference/api.md, from the comments of the protos. `make generate` runs this program."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto

PACKAGES = {
    "modelregistry.v1": "The API. A method with a path is also JSON over HTTP there.",
    "modelregistry.geti.v1": "Imports from Intel Geti. See [Import from Intel Geti](../geti.md).",
    "modelregistry.compat.v1": "The Intel-compatible API. Call it over HTTP. See"
    " [Migrate from Intel's Model Registry](../migration.md).",
}

_SERVICE, _METHOD = 6, 2  # numbers of fields of FileDescriptorProto and ServiceDescriptorProto
_HEAD = """<!-- Generated from protos/modelregistry by `make generate`. Edit the protos. -->

# API

The protos in `protos/modelregistry` define the API. Their comments state defaults, limits and errors of every field.

- **gRPC**: the server has reflection, so [grpcurl](../clients/grpcurl.md) needs no protos.
- **HTTP**: a running gateway shows the same API at `/docs` (Swagger UI) and serves its OpenAPI document at
  `/openapi.json`. The Intel-compatible API is part of it.

The API follows Google's [API improvement proposals](https://google.aip.dev): resources, field masks, `page_size` and
`page_token`, `filter`, `order_by`, `etag`. `.api-linter.yaml` lists each exception with its reason.
"""


def document(descriptors: FileDescriptorSet) -> str:
    """Return the page in Markdown, with a table of methods for each service.

    Args:
        descriptors: The API, with source info, which holds the comments.
    """
    lines = [_HEAD]
    for package, introduction in PACKAGES.items():
        lines.append(f"\n## {package}\n\n{introduction}\n")
        for file in descriptors.file:
            if file.package == package:
                lines += _services(file)
    return "".join(lines)


def _services(file: FileDescriptorProto) -> Iterator[str]:
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    for i, service in enumerate(file.service):
        yield f"\n### {service.name}\n\n{_summary(comments, (_SERVICE, i))}\n"
        yield "\n| Method | HTTP | Description |\n| --- | --- | --- |\n"
        for j, method in enumerate(service.method):
            summary = _summary(comments, (_SERVICE, i, _METHOD, j))
            yield f"| `{method.name}`{_stream(method)} | {'<br>'.join(_paths(method))} | {summary} |\n"


def _summary(comments: Mapping[tuple[int, ...], str], place: tuple[int, ...]) -> str:
    """Return the first sentence of a comment."""
    text = " ".join(comments.get(place, "").split())
    return re.split(r"(?<=[a-z)`]\.)\s", text, maxsplit=1)[0].replace("|", r"\|")


def _stream(method: MethodDescriptorProto) -> str:
    sides = [
        side for side, streams in (("client", method.client_streaming), ("server", method.server_streaming)) if streams
    ]
    return f" ({' and '.join(sides)} stream)" if sides else ""


def _paths(method: MethodDescriptorProto) -> Iterator[str]:
    rule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        kind = binding.WhichOneof("pattern")
        if kind == "custom":
            yield f"`{binding.custom.kind} {binding.custom.path}`"
        elif kind is not None:
            yield f"`{kind.upper()} {getattr(binding, kind)}`"


if __name__ == "__main__":
    sys.stdout.write(document(FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())))
