"""The responses of the Intel-compatible API to the errors of the domain, in one table."""

from collections.abc import Callable
from dataclasses import replace

from registry_service.compat import answers
from registry_service.compat.answers import Answer, RestError
from registry_service.domain import errors
from registry_service.domain.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    ModelsRegisteredError,
    RegistryError,
)


def _conflict(error: RegistryError) -> Answer:
    if not isinstance(error, AlreadyExistsError):
        raise TypeError(error)
    return answers.conflict(error.model_id)


def _registered(error: RegistryError) -> Answer:
    if not isinstance(error, ModelsRegisteredError):
        raise TypeError(error)
    return answers.registered(error.model_ids)


# Part of the recorded contract, so they never change.
_RECORDED_TEXTS: dict[type[RegistryError], str] = {
    errors.GetiUnavailableError: "Geti does not answer as it should; try again later.",
    errors.GetiDeniedError: "Geti denies access to the registry; its key may be wrong or out of date.",
}


def text_of(error: RegistryError) -> str:
    """Return the text about an error for clients of this API."""
    return _RECORDED_TEXTS.get(type(error), error.message)


def _bad_gateway(error: RegistryError) -> Answer:
    return answers.bad_gateway(text_of(error))


def _invalid(error: RegistryError) -> Answer:
    if not isinstance(error, InvalidArgumentError):
        raise TypeError(error)
    return answers.details(
        [
            {
                "type": "value_error",
                "loc": ["body", "file" if violation.field.startswith("artifact") else violation.field],
                "msg": f"Value error, {violation.description}",
                "input": None,
            }
            for violation in error.violations
        ]
    )


def _too_many(error: RegistryError) -> Answer:
    return replace(answers.text(429, f"{error.message}\n"), retry_seconds=error.retry_seconds)


def _storage_full(error: RegistryError) -> Answer:
    return replace(answers.detail(507, error.message), retry_seconds=error.retry_seconds)


_ANSWERS: dict[type[RegistryError], Callable[[RegistryError], Answer]] = {
    errors.NotFoundError: lambda _: answers.MODEL_NOT_FOUND,
    errors.ProjectNotFoundError: lambda _: answers.PROJECT_NOT_FOUND,
    errors.GetiModelNotFoundError: lambda _: answers.GETI_MODELS_NOT_FOUND,
    errors.InvalidArgumentError: _invalid,
    errors.AlreadyExistsError: _conflict,
    errors.ModelsRegisteredError: _registered,
    errors.GetiNotConfiguredError: lambda _: answers.GETI_NOT_CONFIGURED,
    errors.UnauthenticatedError: lambda error: answers.text(401, f"{error.message}\n"),
    errors.AccessDeniedError: lambda error: answers.text(403, f"{error.message}\n"),
    # Geti denied access to the registry, not to the client, so the status is not 403.
    errors.PermissionDeniedError: _bad_gateway,
    errors.GetiRefusedError: _bad_gateway,
    errors.GetiDeploymentError: _bad_gateway,
    errors.GetiUnavailableError: _bad_gateway,
    errors.ModelInUseError: lambda error: answers.text(409, f"{error.message}\n"),
    errors.ModelHasAliasesError: lambda error: answers.text(409, f"{error.message}\n"),
    errors.ArtifactTooLargeError: lambda error: answers.detail(413, error.message),
    # The store works, but lost the object. A retry cannot help.
    errors.DataLossError: lambda _: answers.FILES_NOT_FOUND,
    errors.AbortedError: lambda _: answers.UNAVAILABLE,
    errors.StorageFullError: _storage_full,
    errors.ResourceExhaustedError: _too_many,
    errors.DeadlineExceededError: lambda _: answers.UNAVAILABLE,
    errors.UnavailableError: lambda _: answers.UNAVAILABLE,
}


def answer_to(error: Exception) -> Answer:
    """Return the response to an error: that of its nearest class in the table, or 500."""
    if isinstance(error, RestError):
        return error.answer
    for kind in type(error).__mro__:
        if kind in _ANSWERS and isinstance(error, RegistryError):
            return _ANSWERS[kind](error)
    return answers.INTERNAL
