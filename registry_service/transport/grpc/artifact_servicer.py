"""ArtifactService."""

import time
from collections.abc import Iterator

import grpc
from google.api import httpbody_pb2
from modelregistry.v1 import artifact_service_pb2 as pb
from modelregistry.v1 import artifact_service_pb2_grpc

from registry_service.domain.validation import checked_model_id
from registry_service.services.artifacts import Verification
from registry_service.services.services import Services
from registry_service.transport.grpc.cancellation import check_cancelled
from registry_service.transport.grpc.chunks import body_messages, chunk_messages, read_first
from registry_service.transport.grpc.convert.artifacts import file_message
from registry_service.transport.grpc.convert.models import artifact_message
from registry_service.transport.grpc.convert.values import time_message
from registry_service.transport.grpc.http_download import IMMUTABLE, DownloadPlan, plan_download, plan_file_download

_PROGRESS_SECONDS = 1.0


class ArtifactServicer(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def DownloadArtifact(  # type: ignore[override]  # messages, or serialized ones
        self, request: pb.DownloadArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactResponse | bytes]:
        model, pieces = self._services.artifacts.read(
            checked_model_id(request.model_id, "model_id"), request.read_offset, request.read_limit
        )
        yield pb.DownloadArtifactResponse(artifact=artifact_message(model))
        yield from chunk_messages(pb.DownloadArtifactResponse.CHUNK_FIELD_NUMBER, pieces)

    def DownloadArtifactContent(
        self, request: pb.DownloadArtifactContentRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody | bytes]:
        model = self._services.models.get(checked_model_id(request.model_id, "model_id"))
        plan = plan_download(model, _headers(context), cache_control=IMMUTABLE)
        yield from _body(plan, self._services.artifacts.pieces(model, plan.offset, plan.length), context)

    def ListArtifactFiles(
        self, request: pb.ListArtifactFilesRequest, context: grpc.ServicerContext
    ) -> pb.ListArtifactFilesResponse:
        members, next_page_token = self._services.artifacts.list_files(
            checked_model_id(request.model_id, "model_id"), size=request.page_size, token=request.page_token
        )
        return pb.ListArtifactFilesResponse(artifact_files=map(file_message, members), next_page_token=next_page_token)

    def DownloadArtifactFile(  # type: ignore[override]  # as above
        self, request: pb.DownloadArtifactFileRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.DownloadArtifactFileResponse | bytes]:
        with self._services.artifacts.open_file(checked_model_id(request.model_id, "model_id"), request.path) as file:
            offset, length = file.range(request.read_offset, request.read_limit)
            yield pb.DownloadArtifactFileResponse(file=file_message(file.member))
            pieces = file.pieces(offset, length, lambda: check_cancelled(context))
            yield from chunk_messages(pb.DownloadArtifactFileResponse.CHUNK_FIELD_NUMBER, pieces)

    def DownloadArtifactFileContent(
        self, request: pb.DownloadArtifactFileContentRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody | bytes]:
        with self._services.artifacts.open_file(checked_model_id(request.model_id, "model_id"), request.path) as file:
            plan = plan_file_download(file.model, file.member.name, file.member.size, _headers(context))
            yield from _body(plan, file.pieces(plan.offset, plan.length, lambda: check_cancelled(context)), context)

    def VerifyArtifact(
        self, request: pb.VerifyArtifactRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.VerifyArtifactResponse]:
        due = 0.0
        for step in self._services.artifacts.verify_in_steps(checked_model_id(request.model_id, "model_id")):
            check_cancelled(context)
            if isinstance(step, Verification):
                yield pb.VerifyArtifactResponse(result=_result_message(step))
            elif time.monotonic() >= due:
                due = time.monotonic() + _PROGRESS_SECONDS
                yield pb.VerifyArtifactResponse(
                    progress=pb.VerificationProgress(verified_bytes=step.verified, size_bytes=step.size)
                )


def _result_message(found: Verification) -> pb.VerificationResult:
    return pb.VerificationResult(
        intact=found.intact,
        expected=artifact_message(found.model),
        actual_size_bytes=found.actual_size,
        actual_sha256=found.actual_sha256,
        verify_time=time_message(found.time),
    )


def _headers(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _body(
    plan: DownloadPlan, pieces: Iterator[bytes], context: grpc.ServicerContext
) -> Iterator[httpbody_pb2.HttpBody | bytes]:
    if plan.error is not None:
        raise plan.error
    # Read the first chunk before the headers are sent: an error can still become an HTTP status.
    pieces = read_first(pieces)
    context.send_initial_metadata(plan.metadata)
    yield from body_messages(plan.content_type, pieces)
