"""The table that maps the domain's errors to gRPC statuses, and their details (AIP-193)."""

import math
from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status.rpc_status import to_status

from registry_service.domain import errors
from registry_service.domain.errors import (
    AmbiguousReferenceError,
    InvalidArgumentError,
    InvalidCredentialsError,
    RegistryError,
    RequirementsNotMetError,
    UnauthenticatedError,
)

DOMAIN = "modelregistry"

STATUS_CODES: dict[type[RegistryError], grpc.StatusCode] = {
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TokenExistsError: grpc.StatusCode.ALREADY_EXISTS,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.AbortedError: grpc.StatusCode.ABORTED,
    errors.CallCancelledError: grpc.StatusCode.CANCELLED,
    errors.OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.UnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.DataLossError: grpc.StatusCode.DATA_LOSS,
}

# A status travels in headers, for which peers accept 8 KiB by default: the details in base64, and the message again,
# with three characters for each byte outside ASCII.
_MAX_MESSAGE_BYTES = 600
_MAX_VALUE_BYTES = 200
_MAX_FIELD_BYTES = 120
_MAX_VIOLATIONS = 8
# A candidate is twice as large as a violation.
_MAX_CANDIDATES = 5
_RESOURCE_TYPES = {"model": "modelregistry.v1.Model", "model_group": "modelregistry.v1.ModelGroup"}


class InternalError(RegistryError):
    """An unexpected error. The client learns no details; the log has them."""

    reason = "INTERNAL"


@dataclass(frozen=True, slots=True)
class CallStatus(grpc.Status):
    """The status of a failed call, for `ServicerContext.abort_with_status`."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def status_code(error: RegistryError) -> grpc.StatusCode:
    """Return the code of an error: that of its nearest class in the table."""
    for kind in type(error).__mro__:
        if kind in STATUS_CODES:
            return STATUS_CODES[kind]
    return grpc.StatusCode.INTERNAL


def error_status(error: RegistryError, request_id: str) -> Status:
    """Return an error as a message with details."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata={key: _cut(value, _MAX_VALUE_BYTES) for key, value in error.metadata.items()},
        ),
        error_details_pb2.RequestInfo(request_id=request_id),
    ]
    if error.retry_seconds is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(math.ceil(error.retry_seconds * 1000))
        details.append(retry)
    if isinstance(error, InvalidArgumentError):
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(
                        field=_cut(v.field, _MAX_FIELD_BYTES), description=_cut(v.description, _MAX_VALUE_BYTES)
                    )
                    for v in error.violations[:_MAX_VIOLATIONS]
                ]
            )
        )
    if isinstance(error, AmbiguousReferenceError):
        details += [
            error_details_pb2.ResourceInfo(
                resource_type=_RESOURCE_TYPES[candidate.kind],
                resource_name=candidate.id,
                owner=_cut(candidate.owner, _MAX_VALUE_BYTES),
                description=_cut(candidate.description, _MAX_VALUE_BYTES),
            )
            for candidate in error.candidates[:_MAX_CANDIDATES]
        ]
    if isinstance(error, RequirementsNotMetError):
        details.append(
            error_details_pb2.PreconditionFailure(
                violations=[
                    error_details_pb2.PreconditionFailure.Violation(
                        type="REQUIREMENT",
                        subject=_cut(v.field, _MAX_FIELD_BYTES),
                        description=_cut(v.description, _MAX_VALUE_BYTES),
                    )
                    for v in error.violations[:_MAX_VIOLATIONS]
                ]
            )
        )
    number: int = status_code(error).value[0]
    status = Status(code=number, message=_cut(error.message, _MAX_MESSAGE_BYTES))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def call_status(error: RegistryError, request_id: str, more: tuple[tuple[str, str], ...] = ()) -> CallStatus:
    """Return the final status of a call, with the error's details and `more` metadata."""
    status = error_status(error, request_id)
    encoded = to_status(status)
    metadata = (*(encoded.trailing_metadata or ()), ("x-request-id", request_id), *more)
    if error.retry_seconds is not None:
        # For HTTP clients, which do not read the details (RFC 9110, section 10.2.3).
        metadata = (*metadata, ("retry-after", str(math.ceil(error.retry_seconds))))
    if isinstance(error, UnauthenticatedError):
        metadata = (*metadata, ("www-authenticate", _challenge(error)))
    return CallStatus(status_code(error), status.message, metadata)


def _challenge(error: UnauthenticatedError) -> str:
    """Return the challenge for the client (RFC 6750, section 3)."""
    return 'Bearer realm="model-registry"' + (
        ', error="invalid_token"' if isinstance(error, InvalidCredentialsError) else ""
    )


def _cut(text: str, size: int) -> str:
    data = text.encode()
    return text if len(data) <= size else data[: size - 3].decode(errors="ignore") + "…"
