"""Convert projects and imports of Geti."""

from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.geti.v1 import geti_service_pb2, project_pb2

from registry_service.geti.imports import ImportProgress, ImportState
from registry_service.geti.port import Project
from registry_service.transport.grpc.convert.models import model_message
from registry_service.transport.grpc.convert.values import time_message
from registry_service.transport.grpc.errors import error_status

_IMPORT_STATES = {
    ImportState.PREPARING: geti_service_pb2.ImportProgress.STATE_PREPARING,
    ImportState.DOWNLOADING: geti_service_pb2.ImportProgress.STATE_DOWNLOADING,
    ImportState.REGISTERED: geti_service_pb2.ImportProgress.STATE_REGISTERED,
    ImportState.FAILED: geti_service_pb2.ImportProgress.STATE_FAILED,
}


def project_message(project: Project) -> project_pb2.Project:
    """Return a project as a message."""
    return project_pb2.Project(
        id=project.id,
        name=project.name,
        create_time=_iso_time(project.creation_time),
        task_types=project.task_types,
        model_groups=[
            project_pb2.ProjectModelGroup(
                id=group.id,
                name=group.name,
                versions=[
                    project_pb2.ProjectModelVersion(
                        id=version.id,
                        name=version.name,
                        number=version.number,
                        openvino_models=[
                            project_pb2.ProjectModel(id=model.id, name=model.name) for model in version.openvino_models
                        ],
                    )
                    for version in group.versions
                ],
            )
            for group in project.model_groups
        ],
    )


def import_message(progress: ImportProgress, request_id: str) -> geti_service_pb2.ImportModelsResponse:
    """Return a step of an import as a message."""
    error = progress.error
    return geti_service_pb2.ImportModelsResponse(
        progress=geti_service_pb2.ImportProgress(
            model_id=progress.model_id,
            state=_IMPORT_STATES[progress.state],
            downloaded_bytes=progress.downloaded_bytes,
            model=None if progress.model is None else model_message(progress.model),
            error=None if error is None else error_status(error, request_id),
        )
    )


def import_result_message(ended: Mapping[str, ImportState]) -> geti_service_pb2.ImportModelsResponse:
    """Return how the imports of all models ended as a message."""
    return geti_service_pb2.ImportModelsResponse(
        result=geti_service_pb2.ImportResult(
            registered_model_ids=[name for name, state in ended.items() if state is ImportState.REGISTERED],
            failed_model_ids=[name for name, state in ended.items() if state is ImportState.FAILED],
        )
    )


def _iso_time(text: str) -> Timestamp | None:
    """Return the time that Geti wrote; None if it cannot be parsed."""
    try:
        time = datetime.fromisoformat(text)
        return time_message(time.replace(tzinfo=UTC) if time.tzinfo is None else time)
    except ValueError:
        return None
