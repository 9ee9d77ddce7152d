"""GetiService."""

from collections.abc import Iterator
from functools import partial

import grpc
from modelregistry.geti.v1 import geti_service_pb2 as pb
from modelregistry.geti.v1 import geti_service_pb2_grpc, project_pb2

from registry_service.domain.caller import current_caller
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.validation import is_model_id
from registry_service.geti.imports import ImportState
from registry_service.geti.messages import import_message, import_result_message, project_message
from registry_service.geti.port import ModelKey
from registry_service.geti.projects import ProjectService
from registry_service.transport.grpc.cancellation import check_cancelled
from registry_service.transport.grpc.progress import stream_progress
from registry_service.transport.grpc.server import OptionalService


class GetiServicer(geti_service_pb2_grpc.GetiServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, projects: ProjectService) -> None:
        self._projects = projects

    def ListProjects(self, request: pb.ListProjectsRequest, context: grpc.ServicerContext) -> pb.ListProjectsResponse:
        projects, token = self._projects.list_page(size=request.page_size, token=request.page_token)
        return pb.ListProjectsResponse(projects=map(project_message, projects), next_page_token=token)

    def GetProject(self, request: pb.GetProjectRequest, context: grpc.ServicerContext) -> project_pb2.Project:
        return project_message(self._projects.get(_project_id(request.project_id, "project_id")))

    def ImportModels(
        self, request: pb.ImportModelsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.ImportModelsResponse]:
        run = partial(
            self._projects.import_models,
            _project_id(request.project_id, "project_id"),
            [ModelKey(id=model.model_id, group_id=model.group_id) for model in request.models],
        )
        states: dict[str, ImportState] = {}
        request_id = current_caller.get().request_id
        for progress in stream_progress(run, lambda: check_cancelled(context)):
            states[progress.model_id] = progress.state
            yield import_message(progress, request_id)
        yield import_result_message(states)


def geti_service(projects: ProjectService) -> OptionalService:
    """Return the service for the server."""
    return OptionalService(
        name=pb.DESCRIPTOR.services_by_name["GetiService"].full_name,
        add_to_server=geti_service_pb2_grpc.add_GetiServiceServicer_to_server,
        servicer=GetiServicer(projects),
    )


def _project_id(text: str, name: str) -> str:
    if not is_model_id(text):  # the Intel-compatible API has the same rule
        raise InvalidArgumentError.of(name, "must be 16 to 256 characters of A-Z, a-z, 0-9, _ and -.")
    return text
