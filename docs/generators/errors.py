"""Print docs/reference/errors.md, from the comments of the enum ErrorReason. `make generate` runs this program."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

PREFIX = "ERROR_REASON_"
GATEWAY_PREFIX = "GATEWAY_"

_FILE = "modelregistry/v1/error_reason.proto"
_ENUM, _VALUE = 5, 2  # numbers of fields of FileDescriptorProto and EnumDescriptorProto
_COMMENT = re.compile(
    r"(?P<meaning>.+) Status: (?P<status>[A-Z_]+)(?: \((?P<http>\d{3})\))?\."
    r" Action: (?P<action>.+?)(?: Metadata: (?P<metadata>[^:]+)\.)?"
)
# How the gateway translates status codes (google/rpc/code.proto).
_HTTP = {
    "INVALID_ARGUMENT": 400,
    "OUT_OF_RANGE": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}

_HEAD = """<!-- Generated from protos/modelregistry/v1/error_reason.proto by `make generate`. Edit that file. -->

# Errors

Every error of the API has these details:

- A `google.rpc.ErrorInfo` with the domain `modelregistry`, a `reason`, and `metadata`. Reasons are stable: decide by
  the reason, never by the message.
- A `google.rpc.RequestInfo` with the request id, which the server's log and the header `x-request-id` have, too.
- A `google.rpc.BadRequest` where input is wrong. It names each field.
- A `google.rpc.RetryInfo` where the same call may succeed later. It has the delay; over HTTP, so has `Retry-After`.

Under `/v1`, the body of an error is the same as JSON. The sections below have the HTTP status in parentheses.

```json
{
  "code": 5,
  "message": "No model has the id '4f1c2d8e-0f5b-4c57-8f4e-9f3f6f0f2b11'.",
  "details": [
    {
      "@type": "type.googleapis.com/google.rpc.ErrorInfo",
      "reason": "MODEL_NOT_FOUND",
      "domain": "modelregistry",
      "metadata": {"model_id": "4f1c2d8e-0f5b-4c57-8f4e-9f3f6f0f2b11"}
    },
    {
      "@type": "type.googleapis.com/google.rpc.RequestInfo",
      "request_id": "0b0c9a5e-7a63-4a0a-9a40-3c0c5b9a4e0d",
      "serving_data": ""
    }
  ]
}
```

The enum `modelregistry.v1.ErrorReason` has the same reasons for generated clients. A later version may add reasons:
decide by the status code where your client does not know the reason.

The Intel-compatible API answers `{"detail": "…"}` instead, as Intel's service did. A download that fails after its
first byte breaks the connection, so that a client never takes it for complete.
"""
_GATEWAY_HEAD = """
## Errors of the gateway

The gateway answers these itself under `/v1`, in the same shape. It also answers `UNAUTHENTICATED` and
`INVALID_CREDENTIALS`, as a server does.
"""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """A value of ErrorReason, as its comment describes it."""

    name: str
    """Without the prefix."""
    status: str
    """Name of the status code."""
    http_status: int
    meaning: str
    action: str
    metadata: tuple[str, ...]
    """Keys that the metadata can have."""

    @property
    def is_of_gateway(self) -> bool:
        """Whether the gateway answers with this reason, not a server."""
        return self.name.startswith(GATEWAY_PREFIX)


def reasons(descriptors: FileDescriptorSet) -> Iterator[Reason]:
    """Yield the reasons in the order of the enum.

    Args:
        descriptors: The API, with source info, which holds the comments.

    Raises:
        ValueError: A comment lacks its meaning, status or action.
    """
    file = next(file for file in descriptors.file if file.name == _FILE)
    comments = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
    for i, value in enumerate(file.enum_type[0].value):
        if value.number == 0:
            continue
        comment = " ".join(comments.get((_ENUM, 0, _VALUE, i), "").split())
        parts = _COMMENT.fullmatch(comment)
        if parts is None:
            raise ValueError(f"{value.name}: its comment must have a meaning, `Status:`, `Action:`: {comment!r}")
        yield Reason(
            name=value.name.removeprefix(PREFIX),
            status=parts["status"],
            http_status=int(parts["http"] or _HTTP[parts["status"]]),
            meaning=parts["meaning"],
            action=parts["action"],
            metadata=tuple(re.findall(r"`(\w+)`", parts["metadata"] or "")),
        )


def document(found: Sequence[Reason]) -> str:
    """Return the document in Markdown."""
    lines = [_HEAD]
    of_server = [reason for reason in found if not reason.is_of_gateway]
    for status in dict.fromkeys(reason.status for reason in of_server):
        rows = [reason for reason in of_server if reason.status == status]
        lines += [f"\n## {status} ({rows[0].http_status})\n\n", "| Reason | Metadata | Meaning | What to do |\n"]
        lines += ["| --- | --- | --- | --- |\n"]
        lines += [
            f"| `{row.name}` | {', '.join(f'`{key}`' for key in row.metadata)} | {row.meaning} | {row.action} |\n"
            for row in rows
        ]
    lines += [_GATEWAY_HEAD, "\n| Reason | Code | HTTP | Metadata | Meaning | What to do |\n"]
    lines += ["| --- | --- | --- | --- | --- | --- |\n"]
    lines += [
        f"| `{row.name}` | {row.status} | {row.http_status} | {', '.join(f'`{key}`' for key in row.metadata)}"
        f" | {row.meaning} | {row.action} |\n"
        for row in found
        if row.is_of_gateway
    ]
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document(list(reasons(FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())))))
