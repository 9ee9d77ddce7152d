"""List the projects of Geti, and import models from them."""

from collections.abc import Callable, Sequence

from registry_service.domain.errors import (
    GetiModelNotFoundError,
    GetiNotConfiguredError,
    InvalidArgumentError,
    ModelNotFoundError,
    ModelsRegisteredError,
)
from registry_service.domain.listing import decode_page_token, encode_page_token, page_size
from registry_service.geti.authorized import AuthorizedGeti
from registry_service.geti.imports import ImportProgress, ModelImport, Report
from registry_service.geti.port import MAX_IMPORTS, Geti, ModelKey, Project
from registry_service.services.models import ModelService


class ProjectService:
    """The projects of the workspace, as far as the current caller may access them.

    Every method raises GetiNotConfiguredError without a Geti.

    Args:
        geti: The Geti server; None without one.
        models: Registers the imported models.
    """

    def __init__(self, geti: Geti | None, models: ModelService) -> None:
        self._geti_or_none = None if geti is None else AuthorizedGeti(geti)
        self._models = models

    def require_geti(self) -> None:
        """Raise GetiNotConfiguredError without a Geti."""
        _ = self._geti

    @property
    def _geti(self) -> Geti:
        if self._geti_or_none is None:
            raise GetiNotConfiguredError
        return self._geti_or_none

    def list(self) -> Sequence[Project]:
        """Return all projects with their models."""
        geti = self._geti
        return geti.with_models(geti.list_projects())

    def list_page(self, *, size: int, token: str) -> tuple[Sequence[Project], str]:
        """Return a page of projects, and the token of the next page, which is empty for the last page.

        Raises:
            InvalidArgumentError: The size or the token is invalid.
        """
        geti = self._geti
        limit = page_size(size)
        start = decode_page_token(token, ("projects",), (int,))
        first = max(start[0], 0) if start is not None and isinstance(start[0], int) else 0
        projects = geti.list_projects()
        end = first + limit
        next_token = encode_page_token(("projects",), (end,)) if end < len(projects) else ""
        return geti.with_models(projects[first:end]), next_token

    def get(self, project_id: str) -> Project:
        """Return a project with its models.

        Raises:
            ProjectNotFoundError: There is no such project.
        """
        geti = self._geti
        (project,) = geti.with_models([geti.get_project(project_id)])
        return project

    def import_models(
        self, project_id: str, keys: Sequence[ModelKey], *, report: Report, check_cancelled: Callable[[], None]
    ) -> Sequence[ImportProgress]:
        """Import models of a project. Each import is atomic and independent of the others.

        Args:
            project_id: The project.
            keys: The models. Duplicates are imported once. A wrong model group fails the import of that model alone.
            report: Receives the progress of each import.
            check_cancelled: Called periodically; an exception that it raises ends the import of all models.

        Returns:
            The result of each import, in the order of `keys`.

        Raises:
            InvalidArgumentError: There are no models, or more than MAX_IMPORTS. Nothing is imported, as for the
                following errors.
            ProjectNotFoundError: There is no such project.
            GetiModelNotFoundError: The project has no such model in OpenVINO format.
            ModelsRegisteredError: Some of the models are already registered.
        """
        geti = self._geti
        if not 0 < len(keys) <= MAX_IMPORTS:
            raise InvalidArgumentError.of("models", f"must have 1 to {MAX_IMPORTS} entries.")
        by_id: dict[str, ModelKey] = {}
        for key in keys:
            by_id.setdefault(key.id, key)
        unique_keys = list(by_id.values())
        project = self.get(project_id)
        groups = {
            model.id: group.id
            for group in project.model_groups
            for version in group.versions
            for model in version.openvino_models
        }
        for key in unique_keys:
            if key.id not in groups:
                raise GetiModelNotFoundError(project_id, key.id)
        self._require_unregistered(unique_keys)
        results = []
        for key in unique_keys:
            run = ModelImport(
                geti=geti, models=self._models, project=project, key=key, report=report, check_cancelled=check_cancelled
            )
            results.append(run.result(has_right_group=groups[key.id] == key.group_id))
        return results

    def _require_unregistered(self, keys: Sequence[ModelKey]) -> None:
        registered = []
        with self._models.database.transaction() as transaction:
            for key in keys:
                try:
                    transaction.models.get(key.id)
                except ModelNotFoundError:
                    continue
                registered.append(key.id)
        if registered:
            raise ModelsRegisteredError(registered)
