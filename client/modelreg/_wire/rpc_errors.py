"""From the status of a call to an error of the client."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from modelreg.errors import (
    AlreadyExists,
    Ambiguous,
    Conflict,
    ConnectionFailed,
    DeadlineExceeded,
    FieldViolation,
    IntegrityError,
    InternalError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    Quarantined,
    RateLimited,
    RegistryError,
    SourceChanged,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from modelreg.references import group_reference
from modelreg.urls import Endpoint

_DETAILS_KEY = "grpc-status-details-bin"
Detail = TypeVar("Detail", bound=Message)

_KINDS: dict[grpc.StatusCode, type[RegistryError]] = {
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    # The channel was closed, or something on the way gave up.
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DATA_LOSS: IntegrityError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.FAILED_PRECONDITION: PreconditionFailed,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimited,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
}
_KINDS_BY_REASON: dict[str, type[RegistryError]] = {
    "AMBIGUOUS_REFERENCE": Ambiguous,
    "ARTIFACT_MISMATCH": SourceChanged,
    "ARTIFACT_TOO_LARGE": InvalidArgument,
    "GATEWAY_BODY_TOO_LARGE": InvalidArgument,
    "MODEL_QUARANTINED": Quarantined,
}
_WHOAMI = "`whoami` of the registry shows what you may do."
_HINTS: dict[str, str] = {
    "UNAUTHENTICATED": "Sign in with `mreg login`, or set MODELREG_TOKEN.",
    "INVALID_CREDENTIALS": "Sign in again with `mreg login`, or set MODELREG_TOKEN.",
    "ETAG_MISMATCH": "Read the model again, then repeat the change.",
    "ALIAS_CHANGED": "Read the alias again, then decide anew.",
    "MODEL_ALREADY_EXISTS": 'Choose another version, or pass if_exists="return" if the bytes are the same.',
    "MODEL_IN_USE": "Move or delete the aliases first, or pass force=True.",
    "MODEL_HAS_ALIASES": "Move or delete the aliases first, with `promote` or `delete_alias`.",
    "MODEL_NOT_IN_GROUP": "An alias points to versions of its own model only.",
    "REQUIREMENTS_NOT_MET": "Choose another model, or require less.",
    "NO_PREVIOUS_TARGET": "Name the target with `to`.",
    "INVALID_REFERENCE": "Write NAME, NAME:VERSION or NAME@ALIAS, each also after PROJECT/, or the id of a model.",
    "INVALID_FILTER": "Example of a filter: 'format = onnx AND metrics.f1 > 0.9'.",
    "AMBIGUOUS_REFERENCE": "Name one of `candidates`, by its id or its project, or with `precision`.",
    "PRECISION_MISMATCH": "Name the precisions of the model, or none.",
    "PROVENANCE_CYCLE": "Leave out the parents that were made from this model. `lineage` shows them.",
    "MODEL_GROUP_NOT_FOUND": "`groups` of the registry lists the model groups that you may see.",
    "MODEL_GROUP_NOT_EMPTY": "Delete its models first. `versions` of the registry lists them.",
    "UPLOAD_NOT_FOUND": "`uploads` of the registry lists the uploads.",
    "ARTIFACT_FILE_NOT_FOUND": "`files` of the registry lists the files of an artifact.",
    "NOT_AN_ARCHIVE": "Only the artifact itself can be read: leave the file out.",
    "TARGET_GONE": "`history` of the registry lists the earlier targets.",
    "NEVER_A_TARGET": "`promote` points the alias to it.",
    "ACCESS_DENIED": _WHOAMI,
    "ROLE_MISSING": _WHOAMI,
    "PROJECT_DENIED": _WHOAMI,
}
_NOT_FOUND = ("REFERENCE_NOT_FOUND", "ALIAS_NOT_FOUND")
# How the transport says that a stream was cut, with the codes below, by which it does not mean a fault of the server.
# "Internal error from Core": grpc.aio, when it writes to a stream that has just ended.
_CUT = re.compile(
    r"RST_STREAM|GOAWAY|[Ss]tream removed|[Ss]ocket closed|[Cc]onnection (reset|closed)|[Tt]ransport|"
    r"Internal error from Core"
)
_CLOSED = "channel closed"
_CUT_CODES = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}


class FailedCall(Protocol):
    """What the errors of `grpc` and `grpc.aio` have in common."""

    def code(self) -> grpc.StatusCode:
        """Return the status code."""

    def details(self) -> str | None:
        """Return the message of the status."""

    def trailing_metadata(self) -> Any:
        """Return the metadata at the end of the response."""


@dataclass(frozen=True)
class Failure:
    """The status of a call that failed, decoded once."""

    code: grpc.StatusCode
    message: str
    details: list[Any] = field(default_factory=list)

    def find(self, kind: type[Detail]) -> Detail | None:
        """Return the first detail of a type, or None."""
        return next(self.find_all(kind), None)

    def find_all(self, kind: type[Detail]) -> Iterator[Detail]:
        """Return the details of a type. A damaged one is left out."""
        for detail in self.details:
            if detail.Is(kind.DESCRIPTOR):
                found = kind()
                with suppress(DecodeError):
                    detail.Unpack(found)
                    yield found

    @property
    def reason(self) -> str:
        """The stable reason; empty if the status did not come from a registry."""
        info = self.find(error_details_pb2.ErrorInfo)
        return "" if info is None else info.reason

    @property
    def metadata(self) -> Mapping[str, str]:
        """The machine-readable details of the reason."""
        info = self.find(error_details_pb2.ErrorInfo)
        return {} if info is None else info.metadata

    @property
    def retry_seconds(self) -> float | None:
        """How long the server asks to wait before the call is repeated. None if it does not say."""
        info = self.find(error_details_pb2.RetryInfo)
        return None if info is None else max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9)

    @property
    def is_transient(self) -> bool:
        """Whether the same call may succeed later."""
        if self.is_hopeless:
            return False
        if self.code == grpc.StatusCode.UNAVAILABLE or self.retry_seconds is not None:
            return True
        if self.reason or self.is_closed_here:
            return False
        return self.code in _CUT_CODES and bool(_CUT.search(self.message))

    @property
    def is_closed_here(self) -> bool:
        """Whether the caller closed the registry while the call ran."""
        return self.code == grpc.StatusCode.CANCELLED and not self.details and _CLOSED in self.message.lower()

    @property
    def is_closed_connection(self) -> bool:
        """Whether the server closed the connection before anything could be sent."""
        text = self.message.lower()
        # An alert of TLS after the handshake, which grpc calls corrupted data.
        is_closed = "socket closed" in text or "tsi_data_corrupted" in text
        return self.code == grpc.StatusCode.UNAVAILABLE and "failed to connect" in text and is_closed

    @property
    def is_hopeless(self) -> bool:
        """Whether no repetition can open the connection: the certificate or the name of the host is wrong."""
        if self.code != grpc.StatusCode.UNAVAILABLE or self.details:
            return False
        text = self.message.lower()
        return any(sign in text for sign in _HOPELESS)


# The messages of grpc 1.71 to 1.85, on several systems. tests/client/test_tls.py holds the table against the real ones.
_HOPELESS: dict[str, str] = {
    "certificate has expired": "Its certificate has expired.",
    "certificate_verify_failed": "Its certificate is not trusted. Name the CA with ca_file or MODELREG_CA_FILE.",
    "certificate verify failed": "Its certificate is not trusted. Name the CA with ca_file or MODELREG_CA_FILE.",
    "hostname verification": "Its certificate is for another host name.",
    "is not in peer certificate": "Its certificate is for another host name.",
    "wrong_version_number": "It does not speak TLS. Use grpc:// or http:// if that is meant.",
    "missing selected alpn": "It speaks TLS, but not HTTP/2, which gRPC needs. Check host and port.",
    "proxy returned response code 407": "The proxy (HTTP_PROXY, HTTPS_PROXY) requires a user and password in its URL.",
    "proxy returned response code 403": "The proxy (HTTP_PROXY, HTTPS_PROXY) refuses. If none is needed, set NO_PROXY.",
    "trying to connect an http1": "It is a web server that does not speak gRPC. Check host and port.",
    "certificate_required": "It requires a client certificate: client_certificate and client_key.",
    "domain name not found": "The name of the host is unknown.",
    "name or service not known": "The name of the host is unknown.",
    "nodename nor servname provided": "The name of the host is unknown.",
    "no such host is known": "The name of the host is unknown.",
}


def failure_of(error: FailedCall) -> Failure:
    """Decode the status of a call that failed."""
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    encoded = next((value for key, value in metadata if key == _DETAILS_KEY), None)
    details: list[Any] = []
    if isinstance(encoded, bytes):
        try:
            details = list(status_pb2.Status.FromString(encoded).details)
        except DecodeError:
            details = []
    return Failure(error.code(), error.details() or "", details)


def failure_of_status(status: status_pb2.Status) -> Failure:
    """Return the failure that a message of a stream contains."""
    code = next((code for code in grpc.StatusCode if code.value[0] == status.code), grpc.StatusCode.UNKNOWN)
    return Failure(code, status.message, list(status.details))


def registry_error(failure: Failure, endpoint: Endpoint, note: str = "") -> RegistryError:
    """Return the error that the caller gets.

    Args:
        failure: What the call ended with.
        endpoint: The registry.
        note: What is known besides: why the server closes connections, or why it got no token.
    """
    if failure.is_closed_here:
        return registry_closed()
    info = failure.find(error_details_pb2.ErrorInfo)
    request = failure.find(error_details_pb2.RequestInfo)
    reason = "" if info is None else info.reason
    kind = _KINDS_BY_REASON.get(reason) or _KINDS.get(failure.code, InternalError)
    if info is None and failure.code == grpc.StatusCode.UNAVAILABLE:
        message, hint = _connection_message(failure, endpoint, note if failure.is_closed_connection else "")
        unreachable = ConnectionFailed(message, hint=hint)
        unreachable.is_permanent = failure.is_hopeless
        return unreachable
    message = failure.message or failure.code.name
    hint = _HINTS.get(reason, "") or (_lister(dict(info.metadata)) if info and reason in _NOT_FOUND else "")
    if kind is Unauthenticated and note:
        hint = note
    if kind is Unsupported:
        hint = "The server is too old for this, or was started without it."
    error = kind(
        _sentence(message),
        hint=hint,
        reason=reason,
        request_id="" if request is None else request.request_id,
        metadata=None if info is None else info.metadata,
    )
    _add_details(error, failure)
    return error


def registry_closed() -> RegistryError:
    """Return the error of a call on a registry that the caller closed."""
    return RegistryError(
        "The registry is closed.",
        hint="Make the calls inside its `with` block, or open it again with another one.",
    )


def _lister(metadata: Mapping[str, str]) -> str:
    """Return which call lists what the part of a reference could be that names nothing."""
    part = metadata.get("part", "alias")
    if not (name := group_reference(metadata)):
        return ""
    return {
        "version": f"`versions({name!r})` of the registry lists the versions.",
        "precisions": f"`versions({name!r})` of the registry lists the versions with their precisions.",
        "alias": f"`aliases({name!r})` of the registry lists the aliases, and `history({name!r})` the earlier ones.",
    }.get(part, "`groups()` of the registry lists the names that you may see.")


def _connection_message(failure: Failure, endpoint: Endpoint, diagnosis: str) -> tuple[str, str]:
    """Return what is wrong, and what to do next."""
    if diagnosis:
        return f"No connection to {endpoint.url}.", diagnosis
    text = failure.message.lower()
    for sign, hint in _HOPELESS.items():
        if sign in text:
            return f"No connection to {endpoint.url}.", hint
    return (
        f"No connection to {endpoint.url}: {_sentence(failure.message or 'nothing answers')}",
        "Check that the registry runs, and MODELREG_URL or the profile of `mreg login`.",
    )


def _add_details(error: RegistryError, failure: Failure) -> None:
    if isinstance(error, InvalidArgument):
        request = failure.find(error_details_pb2.BadRequest)
        violations = () if request is None else request.field_violations
        error.violations = tuple(FieldViolation(found.field, found.description) for found in violations)
        position = error.metadata.get("position", "")
        error.position = int(position) if position.isdecimal() else None
    if isinstance(error, PreconditionFailed):
        precondition = failure.find(error_details_pb2.PreconditionFailure)
        found_violations = () if precondition is None else precondition.violations
        error.checks = tuple(
            FieldViolation(found.subject or found.type, found.description) for found in found_violations
        )
    if isinstance(error, Ambiguous):
        resources = failure.find_all(error_details_pb2.ResourceInfo)
        # The id of a model is a reference. The reference of a model group is its description.
        error.candidates = tuple(
            found.description if found.resource_type.endswith(".ModelGroup") else found.resource_name
            for found in resources
        )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
