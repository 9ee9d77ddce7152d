"""The errors of the client.

Every error that the registry or the network causes derives from `RegistryError`. `except PermissionError` around a pull
therefore means the local disk. Only `DeadlineExceeded` and `NotCached` are `OSError`s, because their bases are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldViolation:
    """One invalid field of a request."""

    field: str
    """Path of the field, for example `model.metrics`."""
    description: str
    """What is wrong with it, and what would be right."""


class RegistryError(Exception):
    """An error of a call.

    Attributes:
        message: What is wrong.
        hint: What to do next. Empty if the message says it, or nothing helps. `str` of the error has both.
        reason: The stable reason, such as `MODEL_NOT_FOUND`. Empty if the error has none. Decide by the class or the
            reason, never by the message.
        request_id: The id of the call in the logs and the audit log of the registry. Empty if no server answered.
        metadata: The machine-readable details of the reason, for example `{"model_id": "…"}`.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        reason: str = "",
        request_id: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.reason = reason
        self.request_id = request_id
        self.metadata = dict(metadata or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__, self.args)


def _rebuild(kind: type[RegistryError], attributes: dict[str, Any], arguments: tuple[Any, ...]) -> RegistryError:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


class NotFound(RegistryError, LookupError):
    """The model, the file, the alias or another resource does not exist, or the caller may not see it."""


class AlreadyExists(RegistryError):
    """Another model has the same project, name, version and precisions, or the same id."""


class Conflict(RegistryError):
    """A concurrent change was first: the object or the alias is not in the expected state. Read it again."""


class Ambiguous(RegistryError):
    """A reference fits several models.

    Attributes:
        candidates: References that each name one of them, at most 5.
    """

    candidates: Sequence[str] = ()


class InvalidArgument(RegistryError, ValueError):
    """A value is invalid.

    Attributes:
        violations: The invalid fields. Empty if the error is not about fields of a request.
        position: Position of the error in a filter or a reference, in characters from 1. None if there is none.
    """

    violations: Sequence[FieldViolation] = ()
    position: int | None = None


class PreconditionFailed(RegistryError):
    """The state of the resource does not allow the operation.

    Attributes:
        checks: Of a promotion that was refused, the requirements that the model does not meet.
    """

    checks: Sequence[FieldViolation] = ()


class Unauthenticated(RegistryError):
    """The registry requires a token, or refused the one that was sent."""


class PermissionDenied(RegistryError):
    """The caller may not do this. Not a `PermissionError`, which is about local files."""


class RateLimited(RegistryError):
    """The registry is busy, or a quota is used up, and stayed so until the retries ended."""


class Unavailable(RegistryError):
    """The registry, its database or its storage did not respond until the retries ended. Try again later."""


class ConnectionFailed(Unavailable):
    """No connection to the registry: its address, its certificate or the network is wrong.

    Attributes:
        is_permanent: Whether trying again cannot help: the host is unknown, or TLS fails. False if that is not certain.
    """

    is_permanent: bool = False


class DeadlineExceeded(RegistryError, TimeoutError):
    """The call did not end within its timeout. A write may have been done all the same."""


class IntegrityError(RegistryError):
    """Bytes are not the registered ones: damaged in the registry, on the way, or in the cache."""


class SourceChanged(RegistryError):
    """A file was changed while it was pushed."""


class Quarantined(PermissionDenied):
    """The model is quarantined, so it cannot be downloaded."""


class Unsupported(RegistryError, NotImplementedError):
    """The server is too old for this call, or was started without the feature."""


class NotCached(RegistryError, FileNotFoundError):
    """The model is not in the cache, and `offline=True` allows no download."""


class InternalError(RegistryError):
    """The server failed. Report the request id to its operator."""
