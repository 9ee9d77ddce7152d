"""The base of all errors, and one class for each kind of failure."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One invalid field of the input."""

    field: str
    """Path of the field in the resource that has it, or else in the request: `metrics.mAP50`."""
    description: str
    """What is wrong and what would be right, for people."""


class RegistryError(Exception):
    """Base of all errors that clients see. Abstract: raise a subclass."""

    reason: str
    """UPPER_SNAKE_CASE, at most 63 characters. Stable, for programs."""
    retry_seconds: float | None = None
    """Delay after which the same call may succeed; None for errors that a retry does not help."""

    def __init__(self, message: str, /, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        """Every variable part of the message. A model that the message names by its version is named by its id here."""


class NotFoundError(RegistryError):
    """The resource that the request names does not exist."""

    reason = "NOT_FOUND"


class InvalidArgumentError(RegistryError):
    """The input is invalid, whatever the state of the registry."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(" ".join(f"{v.field}: {v.description}" for v in violations), field=violations[0].field)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidArgumentError":
        """Return the error of one field."""
        return cls([FieldViolation(field, description)])

    def with_violations(self, violations: Sequence[FieldViolation]) -> "InvalidArgumentError":
        """Return an error with the same reason and metadata, but with other violations."""
        error = InvalidArgumentError(violations)
        error.reason = self.reason
        error.metadata = self.metadata | error.metadata
        return error


class FailedPreconditionError(RegistryError):
    """The registry is not in a state in which it can serve the request."""

    reason = "FAILED_PRECONDITION"


class PermissionDeniedError(RegistryError):
    """The caller, or the registry towards another service, lacks a permission."""

    reason = "PERMISSION_DENIED"


class AbortedError(RegistryError):
    """A concurrent change was committed first."""

    reason = "ABORTED"
    retry_seconds: float | None = 0.1


class OutOfRangeError(RegistryError):
    """An offset is past the end, or differs from the committed size of the upload."""

    reason = "OUT_OF_RANGE"


class ResourceExhaustedError(RegistryError):
    """A limit is reached."""

    reason = "RESOURCE_EXHAUSTED"


class DeadlineExceededError(RegistryError):
    """The request takes longer than a request may."""

    reason = "DEADLINE_EXCEEDED"


class UnavailableError(RegistryError):
    """A dependency does not respond. The same request may succeed later."""

    reason = "UNAVAILABLE"
    retry_seconds = 2.0


class DataLossError(RegistryError):
    """Stored bytes are gone or damaged."""

    reason = "DATA_LOSS"


class CallCancelledError(RegistryError):
    """The client disconnected or its deadline passed, so nobody receives a response."""

    reason = "CANCELLED"

    def __init__(self) -> None:
        super().__init__("The call was cancelled.")
