"""ArtifactService."""

from collections.abc import Iterator

import grpc
from google.api import httpbody_pb2
from modelregistry.v1 import artifact_service_pb2 as pb
from modelregistry.v1 import artifact_service_pb2_grpc

from registry_service.domain.models import checked_model_id
from registry_service.services.use_cases import UseCases
from registry_service.transport.grpc.calls import expect_client
from registry_service.transport.grpc.chunks import body_messages, chunk_messages, read_first
from registry_service.transport.grpc.convert import artifact_message, file_message
from registry_service.transport.grpc.http_download import IMMUTABLE, DownloadPlan, plan_download, plan_file_download


class ArtifactServicer(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Converts, calls one use case, converts back."""

    def __init__(self, use_cases: UseCases) -> None:
        self._use_cases = use_cases

    def DownloadArtifact(  # type: ignore[override]  # messages, or serialized ones
        self, request: pb.DownloadArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactResponse | bytes]:
        model, pieces = self._use_cases.read_artifact(
            checked_model_id(request.model_id, "model_id"), request.read_offset, request.read_limit
        )
        yield pb.DownloadArtifactResponse(artifact=artifact_message(model.artifact))
        yield from chunk_messages(pb.DownloadArtifactResponse.CHUNK_FIELD_NUMBER, pieces)

    def DownloadArtifactContent(
        self, request: pb.DownloadArtifactContentRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody | bytes]:
        model = self._use_cases.get_model(checked_model_id(request.model_id, "model_id"))
        plan = plan_download(model, _headers(context), cache_control=IMMUTABLE)
        yield from _body(plan, self._use_cases.read_artifact.pieces(model, plan.offset, plan.length), context)

    def ListArtifactFiles(
        self, request: pb.ListArtifactFilesRequest, context: grpc.ServicerContext
    ) -> pb.ListArtifactFilesResponse:
        members, next_page_token = self._use_cases.list_artifact_files(
            checked_model_id(request.model_id, "model_id"), size=request.page_size, token=request.page_token
        )
        return pb.ListArtifactFilesResponse(files=map(file_message, members), next_page_token=next_page_token)

    def DownloadArtifactFile(  # type: ignore[override]  # as above
        self, request: pb.DownloadArtifactFileRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactFileResponse | bytes]:
        with self._use_cases.read_artifact_file(checked_model_id(request.model_id, "model_id"), request.path) as file:
            offset, length = file.range(request.read_offset, request.read_limit)
            yield pb.DownloadArtifactFileResponse(file=file_message(file.member))
            pieces = file.pieces(offset, length, lambda: expect_client(context))
            yield from chunk_messages(pb.DownloadArtifactFileResponse.CHUNK_FIELD_NUMBER, pieces)

    def DownloadArtifactFileContent(
        self, request: pb.DownloadArtifactFileContentRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody | bytes]:
        with self._use_cases.read_artifact_file(checked_model_id(request.model_id, "model_id"), request.path) as file:
            plan = plan_file_download(file.model, file.member.name, file.member.size, _headers(context))
            yield from _body(plan, file.pieces(plan.offset, plan.length, lambda: expect_client(context)), context)

    def VerifyArtifact(
        self, request: pb.VerifyArtifactRequest, context: grpc.ServicerContext
    ) -> pb.VerifyArtifactResponse:
        found = self._use_cases.verify_artifact(checked_model_id(request.model_id, "model_id"))
        expected = artifact_message(found.model.artifact)
        return pb.VerifyArtifactResponse(
            intact=found.intact,
            expected=expected,
            actual_size=found.actual_size,
            actual_sha256=found.actual_sha256,
        )


def _headers(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _body(
    plan: DownloadPlan, pieces: Iterator[bytes], context: grpc.ServicerContext
) -> Iterator[httpbody_pb2.HttpBody | bytes]:
    # The first piece before the headers: an error may still become a status of its own.
    pieces = read_first(pieces)
    context.send_initial_metadata(plan.metadata)
    yield from body_messages(plan.content_type, pieces)
