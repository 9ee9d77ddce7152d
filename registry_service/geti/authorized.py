"""The port `Geti` restricted to the projects that the current caller may access."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from typing_extensions import override

from registry_service.domain.caller import current_caller
from registry_service.domain.errors import ProjectDeniedError, ProjectNotFoundError
from registry_service.geti.port import Geti, ModelDetails, ModelKey, Project, ProjectSummary


@dataclass(frozen=True, slots=True)
class AuthorizedGeti(Geti):
    """Lists only the projects that the caller may read.

    The other methods raise ProjectNotFoundError for a project that the caller may not
    read, and ProjectDeniedError for one in which the caller may not do what the call does.
    """

    inner: Geti

    @override
    def list_projects(self) -> Sequence[ProjectSummary]:
        """See the port."""
        access = current_caller.get().access
        return [project for project in self.inner.list_projects() if access.sees(project.id)]

    @override
    def with_models(self, projects: Sequence[ProjectSummary]) -> Sequence[Project]:
        """See the port."""
        access = current_caller.get().access
        return self.inner.with_models([project for project in projects if access.sees(project.id)])

    @override
    def get_project(self, project_id: str) -> ProjectSummary:
        """See the port."""
        _require_access(project_id)
        return self.inner.get_project(project_id)

    @override
    def get_model(self, project_id: str, key: ModelKey) -> ModelDetails:
        """See the port."""
        _require_access(project_id)
        return self.inner.get_model(project_id, key)

    @override
    def prepare_deployment(self, project_id: str, key: ModelKey, check_cancelled: Callable[[], None]) -> str:
        """See the port."""
        _require_access(project_id)
        return self.inner.prepare_deployment(project_id, key, check_cancelled)

    @override
    def download_deployment(self, project_id: str, deployment_id: str) -> Iterator[bytes]:
        """See the port."""
        _require_access(project_id)
        return self.inner.download_deployment(project_id, deployment_id)


def _require_access(project_id: str) -> None:
    access = current_caller.get().access
    if not access.sees(project_id):
        raise ProjectNotFoundError(project_id)
    if not access.acts_in(project_id):
        raise ProjectDeniedError(project_id)
