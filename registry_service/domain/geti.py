"""The port to an Intel Geti server: its projects, and the models that can be imported from them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from registry_service.domain.models import Json

MAX_IMPORTS = 100
"""Most models of one import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizedModel:
    """A model that can be imported: what Geti made of a trained model for OpenVINO."""

    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A trained model."""

    id: str
    name: str
    number: int
    openvino_models: tuple[OptimizedModel, ...]
    """Those in other formats are left out."""


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
    """As Geti writes it (ISO 8601)."""
    task_types: tuple[str, ...]
    """Of the tasks that models are trained for, in the order of the pipeline: `detection`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project(ProjectSummary):
    """A project with its models, in Geti's order."""

    model_groups: tuple[ModelGroup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelKey:
    """How Geti addresses an optimized model in a project."""

    id: str
    group_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    """What Geti says of an optimized model; None where it says nothing. Its values are not checked."""

    id: str
    name: str
    number: int
    """Of the version."""
    creation_date: str | None
    precision: tuple[str, ...]
    target_device: str | None
    target_device_type: str | None
    architecture: str | None
    score: float | None
    size: int | None
    """In bytes, of the model without what surrounds it in a deployment."""
    optimization_capabilities: Json
    labels: Sequence[Json] | None


class Geti(Protocol):
    """A workspace of a Geti server.

    Every method may raise `GetiUnavailableError`, after its own bounded retries,
    and `GetiDeniedError`. All are safe to call from several threads.
    """

    def list_projects(self) -> Sequence[ProjectSummary]:
        """Returns every project of the workspace."""

    def with_models(self, projects: Sequence[ProjectSummary]) -> Sequence[Project]:
        """Returns the projects with their models, in the same order."""

    def get_project(self, project_id: str) -> ProjectSummary:
        """Returns a project (`ProjectNotFoundError`)."""

    def get_model(self, project_id: str, key: ModelKey) -> ModelDetails:
        """Returns what there is to know of a model."""

    def prepare_deployment(self, project_id: str, key: ModelKey, proceed: Callable[[], None]) -> str:
        """Lets Geti make a ZIP of a model, and returns the deployment's id when it is there.

        `proceed` is called again and again meanwhile; what it raises ends the wait.

        Raises:
            GetiRefusedError: Geti will not make one of this model.
            GetiDeploymentError: It failed.
        """

    def download_deployment(self, project_id: str, deployment_id: str) -> Iterator[bytes]:
        """Yields the ZIP's bytes; raises rather than end early. Closing the iterator ends the download."""
