"""UploadService."""

import re
from collections.abc import Iterator

import grpc
from modelregistry.v1 import upload_pb2, upload_service_pb2_grpc
from modelregistry.v1 import upload_service_pb2 as pb

from registry_service.domain.errors import FieldViolation, InvalidArgumentError, OutOfRangeError
from registry_service.domain.models import Model
from registry_service.domain.uploads import Upload
from registry_service.services.services import Services
from registry_service.transport.grpc.convert.models import model_message, spec_of
from registry_service.transport.grpc.convert.uploads import planned_model_message, upload_message
from registry_service.transport.grpc.idempotency import idempotent

_OFFSET = "is not supported. Use the query parameter write_offset."
_DIGEST = "is not supported. Declare the SHA-256 of the artifact in the spec, or in :complete."
# Headers that ask for something else than appending the body at write_offset: to ignore them would store other bytes,
# or unchecked ones, than the client means (RFC 9110, 9530). The gateway refuses conditions.
_REFUSED_HEADERS = {
    "content-range": _OFFSET,
    "upload-offset": _OFFSET,
    "content-encoding": "must be identity. The bytes are stored as they arrive.",
    "content-md5": _DIGEST,
    "digest": _DIGEST,
    "content-digest": _DIGEST,
    "repr-digest": _DIGEST,
}
_UPLOAD_ID = re.compile(r"[0-9a-f-]{36}")


def _completed(found: Model | Upload) -> pb.CompleteUploadResponse:
    return pb.CompleteUploadResponse(
        model=planned_model_message(found) if isinstance(found, Upload) else model_message(found)
    )


def _again(services: Services, model_id: str) -> Model | Upload:
    return services.models.get(model_id)


def _cancelled(_: None) -> pb.CancelUploadResponse:
    return pb.CancelUploadResponse()


class UploadServicer(upload_service_pb2_grpc.UploadServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @idempotent(upload_pb2.Upload, upload_message, again=lambda services, upload_id: services.uploads.get(upload_id))
    def CreateUpload(self, request: pb.CreateUploadRequest, context: grpc.ServicerContext) -> Upload:
        return self._services.uploads.create(spec_of(request.upload.spec))

    def WriteUpload(
        self, request_iterator: Iterator[pb.WriteUploadRequest | memoryview], context: grpc.ServicerContext
    ) -> pb.WriteUploadResponse:
        first = next(request_iterator, None)
        if first is None or isinstance(first, memoryview):
            raise InvalidArgumentError.of("upload_id", "must be in the first message.")
        return pb.WriteUploadResponse(
            upload=upload_message(self._write(first.upload_id, first.write_offset, _data(first, request_iterator)))
        )

    def WriteUploadContent(
        self, request_iterator: Iterator[pb.WriteUploadContentRequest], context: grpc.ServicerContext
    ) -> pb.WriteUploadContentResponse:
        first = next(request_iterator, None)
        if first is None:
            raise InvalidArgumentError.of("upload_id", "must be in the first message.")
        _refuse_headers(context)

        def pieces() -> Iterator[bytes]:
            yield first.content.data
            for request in request_iterator:
                yield request.content.data

        return pb.WriteUploadContentResponse(
            upload=upload_message(self._write(first.upload_id, first.write_offset, pieces()))
        )

    def GetUpload(self, request: pb.GetUploadRequest, context: grpc.ServicerContext) -> upload_pb2.Upload:
        return upload_message(self._services.uploads.get(_upload_id(request.upload_id)))

    def ListUploads(self, request: pb.ListUploadsRequest, context: grpc.ServicerContext) -> pb.ListUploadsResponse:
        uploads, next_page_token = self._services.uploads.list(size=request.page_size, token=request.page_token)
        return pb.ListUploadsResponse(uploads=map(upload_message, uploads), next_page_token=next_page_token)

    @idempotent(pb.CompleteUploadResponse, _completed, again=_again)
    def CompleteUpload(self, request: pb.CompleteUploadRequest, context: grpc.ServicerContext) -> Model | Upload:
        upload_id = _upload_id(request.upload_id)
        if request.validate_only:
            return self._services.uploads.validate_completion(upload_id, request.sha256)
        return self._services.uploads.complete(upload_id, request.sha256)

    @idempotent(pb.CancelUploadResponse, _cancelled)
    def CancelUpload(self, request: pb.CancelUploadRequest, context: grpc.ServicerContext) -> None:
        self._services.uploads.cancel(_upload_id(request.upload_id))

    def _write(self, upload_id: str, offset: int, pieces: Iterator[bytes]) -> Upload:
        if offset < 0:
            raise InvalidArgumentError.of("write_offset", "must not be negative.")
        return self._services.uploads.write(_upload_id(upload_id), offset, pieces)


def _data(first: pb.WriteUploadRequest, requests: Iterator[pb.WriteUploadRequest | memoryview]) -> Iterator[bytes]:
    position = first.write_offset + len(first.data)
    yield first.data
    for request in requests:
        if isinstance(request, memoryview):
            position += len(request)
            yield request  # type: ignore[misc]  # the consumers of bytes accept any buffer
            continue
        if request.upload_id and request.upload_id != first.upload_id:
            raise InvalidArgumentError.of("upload_id", "must be that of the first message.")
        if request.HasField("write_offset") and request.write_offset != position:
            raise OutOfRangeError(
                f"The next byte has the offset {position}, not {request.write_offset}.", write_offset=str(position)
            )
        position += len(request.data)
        yield request.data


def _refuse_headers(context: grpc.ServicerContext) -> None:
    refused = [
        FieldViolation(name, _REFUSED_HEADERS[name])
        for name, value in context.invocation_metadata()
        if name in _REFUSED_HEADERS and (name, value) != ("content-encoding", "identity")
    ]
    if refused:
        raise InvalidArgumentError(refused)


def _upload_id(text: str) -> str:
    if not _UPLOAD_ID.fullmatch(text):
        raise InvalidArgumentError.of("upload_id", "must be the id of an upload: a UUID in lower case.")
    return text
