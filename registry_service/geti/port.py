"""The port to an Intel Geti server: its projects, and their models that can be imported."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry_service.domain.models import Json

MAX_IMPORTS = 100
"""Largest number of models in one import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizedModel:
    """A model that can be imported: a trained model in OpenVINO format."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A trained model."""

    id: str
    name: str
    number: int
    openvino_models: tuple[OptimizedModel, ...]
    """Optimized models in other formats are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGroup:
    """All versions of one architecture for one task."""

    id: str
    name: str
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectSummary:
    """A project without its models."""

    id: str
    name: str
    creation_time: str
    """In Geti's notation (ISO 8601)."""
    task_types: tuple[str, ...]
    """Types of the pipeline's tasks with models, in their order, such as `detection`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(ProjectSummary):
    """A project with its models, in Geti's order."""

    model_groups: tuple[ModelGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelKey:
    """The ids by which Geti addresses an optimized model of a project."""

    id: str
    group_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """Geti's details of an optimized model, unchecked; None where Geti has no value."""

    id: str
    name: str
    number: int
    """Number of the version."""
    creation_date: str | None
    precision: tuple[str, ...]
    target_device: str | None
    target_device_type: str | None
    architecture: str | None
    score: float | None
    size: int | None
    """Size in bytes of the model itself, which is smaller than its deployment's ZIP file."""
    optimization_capabilities: Json
    labels: Sequence[Json] | None


class Geti(Protocol):
    """A workspace of a Geti server.

    Every method may raise `GetiUnavailableError`, after a limited number of retries,
    and `GetiDeniedError`. All methods are thread-safe.
    """

    def list_projects(self) -> Sequence[ProjectSummary]:
        """Return every project of the workspace."""

    def with_models(self, projects: Sequence[ProjectSummary]) -> Sequence[Project]:
        """Return projects with their models, in the same order."""

    def get_project(self, project_id: str) -> ProjectSummary:
        """Return a project.

        Raises:
            ProjectNotFoundError: There is no such project.
        """

    def get_model(self, project_id: str, key: ModelKey) -> ModelDetails:
        """Return the details of a model."""

    def prepare_deployment(self, project_id: str, key: ModelKey, check_cancelled: Callable[[], None]) -> str:
        """Make Geti prepare a ZIP file of a model, wait for it, and return the deployment's id.

        Args:
            project_id: The project.
            key: The model.
            check_cancelled: Called periodically during the wait; an exception that it raises ends the wait.

        Raises:
            GetiRefusedError: Geti refuses to prepare a deployment of this model.
            GetiDeploymentError: The preparation failed, or took too long.
        """

    def download_deployment(self, project_id: str, deployment_id: str) -> Iterator[bytes]:
        """Yield the ZIP file of a deployment. Closing the iterator ends the download.

        Raises:
            GetiUnavailableError: The download was interrupted; the iterator never ends early without an error.
        """
