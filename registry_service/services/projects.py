"""Looks at the projects of a connected Intel Geti, and imports models from them."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from registry_service.domain.errors import (
    CallCancelledError,
    GetiDeploymentError,
    GetiModelNotFoundError,
    GetiNotConfiguredError,
    GetiRefusedError,
    InvalidArgumentError,
    ModelNotFoundError,
    ModelsRegisteredError,
    NotAnArchiveError,
    RegistryError,
    UnauthenticatedError,
)
from registry_service.domain.geti import MAX_IMPORTS, Geti, ModelDetails, ModelKey, Project
from registry_service.domain.listing import decode_page_token, encode_page_token, page_size
from registry_service.domain.models import ArtifactSpec, Model, ModelFields, ModelSpec, documented_precision
from registry_service.services.archives import open_archive
from registry_service.services.registering import RegisterModel, StagedArtifact, check_archive
from registry_service.services.repacking import file_name, folder_name, repacked

logger = logging.getLogger(__name__)

_ORIGIN = "Geti"
_FORMAT = "openvino"
_MEDIA_TYPE = "application/zip"
_REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class ListProjects:
    """Lists the projects of the workspace with their models."""

    geti: Geti | None

    def __call__(self) -> Sequence[Project]:
        """Returns every project (`GetiNotConfiguredError`)."""
        geti = _connected(self.geti)
        return geti.with_models(geti.list_projects())

    def page(self, *, size: int, token: str) -> tuple[Sequence[Project], str]:
        """Returns the projects of a page and the token of the next, empty where this is the last.

        Raises:
            InvalidArgumentError: Size or token are wrong.
            GetiNotConfiguredError: There is no Geti.
        """
        geti = _connected(self.geti)
        limit = page_size(size)
        start = decode_page_token(token, ("projects",), (int,))
        first = max(start[0], 0) if start is not None and isinstance(start[0], int) else 0
        projects = geti.list_projects()
        end = first + limit
        more = encode_page_token(("projects",), (end,)) if end < len(projects) else ""
        return geti.with_models(projects[first:end]), more


@dataclass(frozen=True, slots=True)
class GetProject:
    """Gets a project of the workspace with its models."""

    geti: Geti | None

    def __call__(self, project_id: str) -> Project:
        """Returns the project (`GetiNotConfiguredError`, `ProjectNotFoundError`)."""
        geti = _connected(self.geti)
        (project,) = geti.with_models([geti.get_project(project_id)])
        return project


class ImportState(StrEnum):
    """Where the import of one model stands."""

    PREPARING = "preparing"
    DOWNLOADING = "downloading"
    REGISTERED = "registered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProgress:
    """Where the import of one model stands."""

    model_id: str
    state: ImportState
    downloaded_bytes: int = 0
    model: Model | None = None
    """The registered one."""
    error: RegistryError | None = None
    """Why it failed."""


Report = Callable[[ImportProgress], None]


@dataclass(frozen=True, slots=True)
class ImportModels:
    """Imports models of a project, each whole or not at all, and each whatever becomes of the others."""

    geti: Geti | None
    register: RegisterModel

    def __call__(
        self, project_id: str, wanted: Sequence[ModelKey], *, report: Report, proceed: Callable[[], None]
    ) -> Sequence[ImportProgress]:
        """Returns how each ended, in the order of `wanted`; what is wanted twice is imported once.

        Args:
            project_id: The project.
            wanted: Its models; the group of one that is in another is an error of that model alone.
            report: Is told of each step.
            proceed: Is called again and again; what it raises, when nobody waits any more, ends all of it.

        Raises:
            GetiNotConfiguredError: There is no Geti.
            InvalidArgumentError: No model is wanted, or too many.
            ProjectNotFoundError: There is no such project. Nothing is imported, as with the next two.
            GetiModelNotFoundError: It does not have one of the models, at least not for OpenVINO.
            ModelsRegisteredError: Some are registered already.
        """
        geti = _connected(self.geti)
        if not 0 < len(wanted) <= MAX_IMPORTS:
            raise InvalidArgumentError.of("models", f"must have 1 to {MAX_IMPORTS} entries.")
        by_id: dict[str, ModelKey] = {}
        for key in wanted:
            by_id.setdefault(key.id, key)
        keys = list(by_id.values())
        (project,) = geti.with_models([geti.get_project(project_id)])
        groups = {
            model.id: group.id
            for group in project.model_groups
            for version in group.versions
            for model in version.openvino_models
        }
        for key in keys:
            if key.id not in groups:
                raise GetiModelNotFoundError(project_id, key.id)
        self._check_absent(keys)
        results = []
        for key in keys:
            run = _Import(geti=geti, register=self.register, project=project, key=key, report=report, proceed=proceed)
            results.append(run.result(in_its_group=groups[key.id] == key.group_id))
        return results

    def expect_connection(self) -> None:
        """Raises GetiNotConfiguredError where there is no Geti."""
        _connected(self.geti)

    def _check_absent(self, keys: Iterable[ModelKey]) -> None:
        registered = []
        with self.register.database.transaction() as transaction:
            for key in keys:
                try:
                    transaction.models.get(key.id)
                except ModelNotFoundError:
                    continue
                registered.append(key.id)
        if registered:
            raise ModelsRegisteredError(registered)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Import:
    """The import of one model."""

    geti: Geti
    register: RegisterModel
    project: Project
    key: ModelKey
    report: Report
    proceed: Callable[[], None]

    def result(self, *, in_its_group: bool) -> ImportProgress:
        """Imports the model, and returns and reports how that ended."""
        try:
            if not in_its_group:
                raise GetiRefusedError(f"The model {self.key.id!r} is in another model group.", model_id=self.key.id)
            result = self._progress(ImportState.REGISTERED, model=self._run())
        except (CallCancelledError, UnauthenticatedError):
            raise
        except RegistryError as error:
            logger.warning("the import of %s failed: %s", self.key.id, error, exc_info=True)
            result = self._progress(ImportState.FAILED, error=error)
        self.report(result)
        return result

    def _run(self) -> Model:
        policy = self.register.policy
        self.report(self._progress(ImportState.PREPARING))
        folder = folder_name(self.project.name)
        details = self.geti.get_model(self.project.id, self.key)
        spec = self.register.checked(_spec(self.key.id, self.project, details, folder))
        self.register.check_absent(spec)
        deployment_id = self.geti.prepare_deployment(self.project.id, self.key, self.proceed)
        # What comes is read from its end, and what is kept is written from its beginning: so it is stored twice.
        with self.register.stage() as download:
            download.write(self._downloaded(deployment_id), ArtifactSpec())
            with self.register.stage(spec) as staged:
                staged.write(self._repacked(download, folder), spec.artifact)
                check_archive(self.register.store, spec, staged.key, staged.size, policy)
                return staged.commit(spec, self.proceed)

    def _downloaded(self, deployment_id: str) -> Iterator[bytes]:
        size = 0
        reported = float("-inf")
        for piece in self.geti.download_deployment(self.project.id, deployment_id):
            self.proceed()
            size += len(piece)
            if time.monotonic() > reported + _REPORT_SECONDS:
                self.report(self._progress(ImportState.DOWNLOADING, downloaded_bytes=size))
                reported = time.monotonic()
            yield piece
        if size == 0:
            raise GetiDeploymentError("The ZIP from Geti is empty.")
        self.report(self._progress(ImportState.DOWNLOADING, downloaded_bytes=size))

    def _repacked(self, download: StagedArtifact, folder: str) -> Iterator[bytes]:
        policy = self.register.policy
        try:
            with open_archive(
                self.register.store,
                download.key,
                download.size,
                directory_max_bytes=policy.zip_directory_max_bytes,
            ) as archive:
                for piece in repacked(archive, folder, max_bytes=policy.artifact_max_bytes):
                    self.proceed()
                    download.hold()
                    yield piece
        except NotAnArchiveError as error:
            raise GetiDeploymentError("The response of Geti is not a readable ZIP.") from error

    def _progress(
        self,
        state: ImportState,
        *,
        downloaded_bytes: int = 0,
        model: Model | None = None,
        error: RegistryError | None = None,
    ) -> ImportProgress:
        return ImportProgress(
            model_id=self.key.id, state=state, downloaded_bytes=downloaded_bytes, model=model, error=error
        )


def _connected(geti: Geti | None) -> Geti:
    if geti is None:
        raise GetiNotConfiguredError
    return geti


def _spec(model_id: str, project: Project, details: ModelDetails, folder: str) -> ModelSpec:
    """Returns what is registered of a model."""
    precision = tuple(text.lower() for text in details.precision)
    return ModelSpec(
        fields=ModelFields(
            name=details.name,
            version=str(details.number),
            project_id=project.id,
            project_name=project.name,
            precisions=precision,
            target_device=details.target_device,
            target_device_type=details.target_device_type,
            format=_FORMAT,
            origin=_ORIGIN,
            category=_category(project.task_types),
            architecture=details.architecture,
            score=details.score,
            overview=None,
            optimization_capabilities=details.optimization_capabilities,
            labels=details.labels,
        ),
        id=model_id,
        created_date=details.creation_date or "",
        artifact=ArtifactSpec(file_name=file_name(folder), media_type=_MEDIA_TYPE),
        documented_size=details.size,
        documented_precision=None
        if documented_precision(precision) or details.precision == precision
        else details.precision,
    )


def _category(task_types: Iterable[str]) -> str | None:
    """Returns the project's tasks as the documented API names them: `Detection_Classification`."""
    return "_".join(task_types).title() or None
