"""Errors of Geti imports."""

from collections.abc import Sequence

from registry_service.domain.errors.base import (
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from registry_service.domain.errors.models import AlreadyExistsError


class ProjectNotFoundError(NotFoundError):
    """Geti has no project with this id."""

    reason = "GETI_PROJECT_NOT_FOUND"

    def __init__(self, project_id: str) -> None:
        super().__init__(f"No Geti project has the id {project_id!r}.", project_id=project_id)


class GetiModelNotFoundError(NotFoundError):
    """The project has no OpenVINO model with this id."""

    reason = "GETI_MODEL_NOT_FOUND"

    def __init__(self, project_id: str, model_id: str) -> None:
        super().__init__(
            f"The Geti project {project_id!r} has no OpenVINO model with the id {model_id!r}.",
            project_id=project_id,
            model_id=model_id,
        )


class ModelsRegisteredError(AlreadyExistsError):
    """Some of the models to import are already registered."""

    reason = "MODELS_REGISTERED"

    def __init__(self, model_ids: Sequence[str]) -> None:
        super().__init__(
            f"Already registered: {', '.join(model_ids)}. Nothing was imported.",
            model_id=model_ids[0],
            conflict="id",
        )
        self.model_ids = tuple(model_ids)


class GetiNotConfiguredError(FailedPreconditionError):
    """The registry is not connected to Geti."""

    reason = "GETI_NOT_CONFIGURED"

    def __init__(self) -> None:
        super().__init__("The server is not connected to an Intel Geti.")


class GetiRefusedError(FailedPreconditionError):
    """Geti refuses to export the model."""

    reason = "GETI_REFUSED"


class GetiDeploymentError(FailedPreconditionError):
    """The deployment package that Geti made is missing or invalid."""

    reason = "GETI_DEPLOYMENT_FAILED"


class GetiDeniedError(PermissionDeniedError):
    """Geti rejects the API key of the registry, or the key belongs to another workspace."""

    reason = "GETI_DENIED"

    def __init__(self) -> None:
        super().__init__("Geti rejects the API key of the server. It may be wrong or expired.")


class GetiUnavailableError(UnavailableError):
    """Geti does not respond, or its response is invalid."""

    reason = "GETI_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("Geti does not respond, or its response is invalid. Try again later.")
