"""Import one model from Geti."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from registry_service.domain.errors import (
    CallCancelledError,
    GetiDeploymentError,
    GetiRefusedError,
    NotAnArchiveError,
    RegistryError,
    UnauthenticatedError,
)
from registry_service.domain.models import ArtifactSpec, Model, ModelFields, ModelSpec, compat_precision
from registry_service.geti.port import Geti, ModelDetails, ModelKey, Project
from registry_service.services.archives import open_archive
from registry_service.services.artifact_staging import StagedArtifact
from registry_service.services.models import ModelService
from registry_service.services.repacking import file_name, folder_name, repacked

logger = logging.getLogger(__name__)

_ORIGIN = "Geti"
_FORMAT = "openvino"
_MEDIA_TYPE = "application/zip"
_REPORT_SECONDS = 0.5


class ImportState(StrEnum):
    """The state of the import of one model."""

    PREPARING = "preparing"
    DOWNLOADING = "downloading"
    REGISTERED = "registered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProgress:
    """The progress of the import of one model."""

    model_id: str
    state: ImportState
    downloaded_bytes: int = 0
    model: Model | None = None
    """The registered model, in the state REGISTERED."""
    error: RegistryError | None = None
    """The error, in the state FAILED."""


Report = Callable[[ImportProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelImport:
    """The import of one model."""

    geti: Geti
    models: ModelService
    project: Project
    key: ModelKey
    report: Report
    check_cancelled: Callable[[], None]

    def result(self, *, has_right_group: bool) -> ImportProgress:
        """Import the model. Report the result and return it."""
        try:
            if not has_right_group:
                raise GetiRefusedError(f"The model {self.key.id!r} is in another model group.", model_id=self.key.id)
            result = self._progress(ImportState.REGISTERED, model=self._run())
        except (CallCancelledError, UnauthenticatedError):
            raise
        except RegistryError as error:
            logger.warning("import of the model %s failed: %s", self.key.id, error, exc_info=True)
            result = self._progress(ImportState.FAILED, error=error)
        self.report(result)
        return result

    def _run(self) -> Model:
        self.report(self._progress(ImportState.PREPARING))
        folder = folder_name(self.project.name)
        details = self.geti.get_model(self.project.id, self.key)
        spec = self.models.checked(_spec(self.key.id, self.project, details, folder))
        self.models.check_absent(spec)
        deployment_id = self.geti.prepare_deployment(self.project.id, self.key, self.check_cancelled)
        # Stored twice, because a ZIP file is read from its end, and the repacked file is written from its start.
        with self.models.staging.stage() as download:
            download.write(self._downloaded(deployment_id), ArtifactSpec())
            with self.models.staging.stage(spec) as staged:
                staged.write(self._repacked(download, folder), spec.artifact)
                staged.check_archive(spec)
                return staged.commit_model(spec, self.check_cancelled)

    def _downloaded(self, deployment_id: str) -> Iterator[bytes]:
        size = 0
        reported = float("-inf")
        for chunk in self.geti.download_deployment(self.project.id, deployment_id):
            self.check_cancelled()
            size += len(chunk)
            if time.monotonic() > reported + _REPORT_SECONDS:
                self.report(self._progress(ImportState.DOWNLOADING, downloaded_bytes=size))
                reported = time.monotonic()
            yield chunk
        if size == 0:
            raise GetiDeploymentError("The ZIP from Geti is empty.")
        self.report(self._progress(ImportState.DOWNLOADING, downloaded_bytes=size))

    def _repacked(self, download: StagedArtifact, folder: str) -> Iterator[bytes]:
        policy = self.models.policy
        try:
            with open_archive(
                self.models.staging.store,
                download.key,
                download.size,
                directory_max_bytes=policy.zip_directory_max_bytes,
            ) as archive:
                for chunk in repacked(archive, folder, max_bytes=policy.artifact_max_bytes):
                    self.check_cancelled()
                    download.renew_lease()
                    yield chunk
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


def _spec(model_id: str, project: Project, details: ModelDetails, folder: str) -> ModelSpec:
    """Return the specification of the model to register."""
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
        compat_size=details.size,
        compat_precision=None if compat_precision(precision) or details.precision == precision else details.precision,
    )


def _category(task_types: Iterable[str]) -> str | None:
    """Return the category of the project's tasks, as Intel's Model Registry names it: `Detection_Classification`."""
    return "_".join(task_types).title() or None
