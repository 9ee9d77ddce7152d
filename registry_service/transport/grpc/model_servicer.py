"""ModelService."""

from collections.abc import Iterator
from contextlib import nullcontext

import grpc
from modelregistry.v1 import lineage_pb2, model_pb2, model_service_pb2_grpc
from modelregistry.v1 import model_service_pb2 as pb

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import Model
from registry_service.domain.validation import checked_model_id
from registry_service.services.services import Services
from registry_service.transport.grpc.cancellation import check_cancelled
from registry_service.transport.grpc.convert.comparison import comparison_message
from registry_service.transport.grpc.convert.lineage import (
    direction_of,
    edges_messages,
    manifest_message,
    nodes_messages,
)
from registry_service.transport.grpc.convert.models import changes_of, is_full, model_message, spec_of
from registry_service.transport.grpc.convert.values import time_of
from registry_service.transport.grpc.idempotency import idempotent, idempotent_stream
from registry_service.transport.grpc.if_match import etag_of
from registry_service.transport.grpc.interceptors.concurrency import long_slot
from registry_service.transport.grpc.update_mask import mask_of


def _model(services: Services, model_id: str) -> Model:
    return services.models.get(model_id)


def _deleted(_: None) -> pb.DeleteModelResponse:
    return pb.DeleteModelResponse()


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @idempotent_stream(
        pb.RegisterModelResponse, lambda model: pb.RegisterModelResponse(model=model_message(model)), again=_model
    )
    def RegisterModel(
        self, request_iterator: Iterator[pb.RegisterModelRequest | memoryview], context: grpc.ServicerContext
    ) -> Model:
        first = next(request_iterator, None)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("payload") != "spec":
            raise InvalidArgumentError.of("spec", "must be in the first message.")
        return self._services.models.register(
            spec_of(first.spec), _chunks(request_iterator), lambda: check_cancelled(context)
        )

    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> model_pb2.Model:
        full = is_full(request.view, default=True)
        return model_message(self._services.models.get(checked_model_id(request.model_id)), full=full)

    def ListModels(self, request: pb.ListModelsRequest, context: grpc.ServicerContext) -> pb.ListModelsResponse:
        models, next_page_token = self._services.models.list(
            filter=request.filter,
            order_by=request.order_by,
            size=request.page_size,
            token=request.page_token,
            with_signature=is_full(request.view, default=False),
        )
        return pb.ListModelsResponse(models=map(model_message, models), next_page_token=next_page_token)

    @idempotent(model_pb2.Model, model_message, again=_model)
    def UpdateModel(self, request: pb.UpdateModelRequest, context: grpc.ServicerContext) -> Model:
        changes, entries = changes_of(request.model, mask_of(request, context))
        return self._services.models.update(
            checked_model_id(request.model.id, "model.id"),
            changes,
            entries=entries,
            etag=etag_of(request.model.etag, context),
        )

    @idempotent(pb.DeleteModelResponse, _deleted)
    def DeleteModel(self, request: pb.DeleteModelRequest, context: grpc.ServicerContext) -> None:
        self._services.models.delete(
            checked_model_id(request.model_id),
            etag=etag_of(request.etag, context),
            allow_missing=request.allow_missing,
            force=request.force,
            validate_only=request.validate_only,
        )

    def ResolveModel(self, request: pb.ResolveModelRequest, context: grpc.ServicerContext) -> pb.ResolveModelResponse:
        full = is_full(request.view, default=True)
        resolved = self._services.references.resolve(
            request.reference,
            precisions=request.precisions,
            at_time=time_of(request.at_time, "at_time") if request.HasField("at_time") else None,
        )
        return pb.ResolveModelResponse(model=model_message(resolved.model, full=full), alias=resolved.alias)

    def CompareModels(
        self, request: pb.CompareModelsRequest, context: grpc.ServicerContext
    ) -> pb.CompareModelsResponse:
        # Only hashing takes long.
        with long_slot() if request.hash_files else nullcontext():
            comparison = self._services.comparison.compare(
                request.model_ids,
                lambda: check_cancelled(context),
                diff_only=request.diff_only,
                hash_files=request.hash_files,
            )
        return comparison_message(comparison)

    def GetLineage(self, request: pb.GetLineageRequest, context: grpc.ServicerContext) -> pb.GetLineageResponse:
        page, next_page_token = self._services.lineage.get(
            checked_model_id(request.model_id),
            direction_of(request.direction),
            max_depth=request.max_depth,
            size=request.page_size,
            token=request.page_token,
        )
        return pb.GetLineageResponse(
            nodes=nodes_messages(page),
            edges=edges_messages(page),
            next_page_token=next_page_token,
            truncated=page.truncated,
        )

    def GetModelManifest(
        self, request: pb.GetModelManifestRequest, context: grpc.ServicerContext
    ) -> lineage_pb2.ModelManifest:
        return manifest_message(self._services.lineage.get_manifest(checked_model_id(request.model_id)))


def _chunks(requests: Iterator[pb.RegisterModelRequest | memoryview]) -> Iterator[bytes]:
    for request in requests:
        if isinstance(request, memoryview):
            yield request  # type: ignore[misc]  # the consumers of bytes accept any buffer
            continue
        if request.WhichOneof("payload") != "chunk":
            raise InvalidArgumentError.of("chunk", "must be in every message after the first.")
        yield request.chunk
