"""ModelService."""

from collections.abc import Iterator

import grpc
from modelregistry.v1 import model_service_pb2 as pb
from modelregistry.v1 import model_service_pb2_grpc

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import checked_model_id
from registry_service.services.use_cases import UseCases
from registry_service.transport.grpc.calls import expect_client
from registry_service.transport.grpc.convert import changes_of, model_message, spec_of


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Converts, calls one use case, converts back."""

    def __init__(self, use_cases: UseCases) -> None:
        self._use_cases = use_cases

    def RegisterModel(
        self, request_iterator: Iterator[pb.RegisterModelRequest | memoryview], context: grpc.ServicerContext
    ) -> pb.RegisterModelResponse:
        first = next(request_iterator, None)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("payload") != "spec":
            raise InvalidArgumentError.of("spec", "must be in the first message.")
        model = self._use_cases.register_model(
            spec_of(first.spec), _chunks(request_iterator), lambda: expect_client(context)
        )
        return pb.RegisterModelResponse(model=model_message(model))

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=model_message(self._use_cases.get_model(checked_model_id(request.id))))

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:
        models, next_page_token = self._use_cases.list_models(
            filter=request.filter, order_by=request.order_by, size=request.page_size, token=request.page_token
        )
        return pb.ListModelsResponse(models=map(model_message, models), next_page_token=next_page_token)

    def UpdateModel(self, request: pb.UpdateModelRequest, context: grpc.ServicerContext) -> pb.UpdateModelResponse:
        changes, entries = changes_of(request)
        model = self._use_cases.update_model(
            checked_model_id(request.model.id, "model.id"), changes, entries=entries, etag=request.model.etag
        )
        return pb.UpdateModelResponse(model=model_message(model))

    def DeleteModel(self, request: pb.DeleteModelRequest, context: grpc.ServicerContext) -> pb.DeleteModelResponse:
        self._use_cases.delete_model(
            checked_model_id(request.id), etag=request.etag, allow_missing=request.allow_missing, force=request.force
        )
        return pb.DeleteModelResponse()


def _chunks(requests: Iterator[pb.RegisterModelRequest | memoryview]) -> Iterator[bytes]:
    for request in requests:
        if isinstance(request, memoryview):
            yield request  # type: ignore[misc]  # whoever takes bytes here takes any buffer
            continue
        if request.WhichOneof("payload") != "chunk":
            raise InvalidArgumentError.of("chunk", "must be in every message after the first.")
        yield request.chunk
