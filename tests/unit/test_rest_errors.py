"""Every error of the domain has an answer in the Intel-compatible API."""

from collections.abc import Iterator

import pytest

from registry_service.compat.errors import _ANSWERS, answer_to
from registry_service.domain import errors
from registry_service.domain.errors import (
    AlreadyExistsError,
    ArtifactLostError,
    ArtifactTooLargeError,
    DatabaseUnavailableError,
    GetiDeniedError,
    GetiNotConfiguredError,
    GetiUnavailableError,
    IdentityProviderUnavailableError,
    InvalidArgumentError,
    InvalidCredentialsError,
    ModelHasAliasesError,
    ModelInUseError,
    ModelNotFoundError,
    ModelsRegisteredError,
    ProjectDeniedError,
    ProjectNotFoundError,
    QueryTooSlowError,
    RegistryError,
    RoleMissingError,
    TooManyStreamsError,
    UnauthenticatedError,
)


def kinds(base: type[RegistryError]) -> Iterator[type[RegistryError]]:
    for kind in base.__subclasses__():
        if kind.__module__.startswith(errors.__name__):
            yield kind
            yield from kinds(kind)


def test_the_table_knows_every_error_that_a_request_can_meet() -> None:
    unknown = {kind.__name__ for kind in kinds(RegistryError) if not set(kind.__mro__) & set(_ANSWERS)}
    # Of uploads, groups, aliases, references, idempotency keys, tokens, and members of archives, none of which this
    # API has; and of clients who hear nothing.
    assert unknown == {
        "AmbiguousReferenceError",
        "CallCancelledError",
        "FailedPreconditionError",
        "IdempotencyKeyReusedError",
        "ModelGroupNotEmptyError",
        "ModelNotInGroupError",
        "NeverTargetError",
        "NoPreviousTargetError",
        "NotAnArchiveError",
        "OutOfRangeError",
        "PrecisionMismatchError",
        "RangeNotSatisfiableError",
        "RequirementsNotMetError",
        "TargetGoneError",
        "TokenExistsError",
        "UploadNotActiveError",
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModelNotFoundError("x"), 404),
        (AlreadyExistsError("x", model_id="other", conflict="id"), 409),
        (ModelInUseError("x", "vad:1", ["production"]), 409),
        (ModelHasAliasesError("x", "vad:1", ["production"]), 409),
        (InvalidArgumentError.of("artifact", "must not be empty."), 422),
        (ArtifactTooLargeError(5), 413),
        (ArtifactLostError(), 404),
        (DatabaseUnavailableError(), 503),
        (QueryTooSlowError(), 503),
        (TooManyStreamsError(1, 2.0), 429),
        (ProjectNotFoundError("x"), 404),
        (ModelsRegisteredError(["x", "y"]), 409),
        (GetiNotConfiguredError(), 500),
        (GetiUnavailableError(), 502),
        (GetiDeniedError(), 502),
        (UnauthenticatedError(), 401),
        (InvalidCredentialsError(), 401),
        (RoleMissingError("write"), 403),
        (ProjectDeniedError("x"), 403),
        (IdentityProviderUnavailableError(), 503),
        (ValueError("postgres://user@host SELECT"), 500),
    ],
)
def test_answers(error: Exception, status: int) -> None:
    answer = answer_to(error)
    assert answer.status == status
    assert b"SELECT" not in answer.body
