"""CompatService: the Intel-compatible API, whose HTTP requests arrive as gRPC calls."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from http import HTTPStatus
from itertools import chain
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import grpc
from google.api import httpbody_pb2
from modelregistry.compat.v1 import compat_service_pb2 as pb
from modelregistry.compat.v1 import compat_service_pb2_grpc

from registry_service.compat import answers
from registry_service.compat.answers import Answer, RestError
from registry_service.compat.documents import document
from registry_service.compat.errors import answer_to
from registry_service.compat.forms import MEDIA_TYPE, RegistrationForm, changes, form_texts
from registry_service.compat.projects import import_answer, project_document, wanted_models
from registry_service.compat.queries import query_of
from registry_service.compat.registration import registration_parts
from registry_service.domain.errors import ProjectNotFoundError
from registry_service.domain.models import Model
from registry_service.domain.validation import is_model_id
from registry_service.geti.projects import ProjectService
from registry_service.services.services import Services
from registry_service.transport.grpc.cancellation import check_cancelled
from registry_service.transport.grpc.chunks import body_messages, read_first
from registry_service.transport.grpc.http_download import plan_download
from registry_service.transport.grpc.interceptors.concurrency import long_slot
from registry_service.transport.grpc.server import OptionalService

logger = logging.getLogger(__name__)

_SERVICE = pb.DESCRIPTOR.services_by_name["CompatService"].full_name
_PATH = "x-envoy-original-path"

Method = TypeVar("Method", bound=Callable[..., Any])


def _unary(method: Method) -> Method:
    """Make a servicer method of a method that returns an Answer or raises."""

    @wraps(method)
    def run(self: object, request: Any, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
        try:
            answer: Answer = method(self, request, context)
        except Exception as error:  # noqa: BLE001 - each has a response
            answer = _answer_to(error, context)
        if answer.status == HTTPStatus.OK and answer.body:
            # The gateway knows the length of a single message. Metadata would be one more thing to send.
            return httpbody_pb2.HttpBody(content_type=answer.content_type, data=answer.body)
        return _sent(answer, context)

    return cast("Method", run)


def _streaming(method: Method) -> Method:
    """Turn errors before the first message of a streaming method into responses."""

    @wraps(method)
    def run(self: object, request: Any, context: grpc.ServicerContext) -> Iterator[httpbody_pb2.HttpBody]:
        try:
            messages = read_first(iter(method(self, request, context)))
        except Exception as error:  # noqa: BLE001 - each has a response
            yield _sent(_answer_to(error, context), context)
            return
        yield from messages

    return cast("Method", run)


def _answer_to(error: Exception, context: grpc.ServicerContext) -> Answer:
    if not context.is_active():
        raise error  # the client is gone, and its request stream broke off
    answer = answer_to(error)
    if answer is answers.INTERNAL:
        logger.error("unexpected error", exc_info=error)
    return answer


def _sent(answer: Answer, context: grpc.ServicerContext) -> httpbody_pb2.HttpBody:
    metadata = [("x-http-status", str(answer.status)), ("x-content-type", answer.content_type)]
    if answer.body:
        metadata.append(("x-content-length", str(len(answer.body))))
    if answer.retry_seconds is not None:
        metadata.append(("retry-after", str(math.ceil(answer.retry_seconds))))
    context.send_initial_metadata(tuple(metadata))
    return httpbody_pb2.HttpBody(content_type=answer.content_type, data=answer.body)


class CompatServicer(compat_service_pb2_grpc.CompatServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services, projects: ProjectService) -> None:
        self._services = services
        self._projects = projects

    @_unary
    def RegisterModel(
        self, request_iterator: Iterator[httpbody_pb2.HttpBody | memoryview], context: grpc.ServicerContext
    ) -> Answer:
        first = next(request_iterator, httpbody_pb2.HttpBody())
        if isinstance(first, memoryview):
            first = httpbody_pb2.HttpBody(data=bytes(first))
        chunks = (
            bytes(message) if isinstance(message, memoryview) else message.data
            for message in chain((first,), request_iterator)
        )
        form = RegistrationForm()
        parts = registration_parts(form, first.content_type, chunks)
        model = self._services.models.register_in_parts(form, parts, lambda: check_cancelled(context))
        return answers.text(201, model.id)

    @_streaming
    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody]:
        query = query_of(_headers(context).get(_PATH, ""))
        pages = self._services.models.find(query.node)
        # Read the first page before sending headers, so that an error can still become a status.
        first = next(pages, None)
        if first is None and query.must_match:
            raise RestError(answers.MODELS_NOT_FOUND)
        second = next(pages, None)
        if second is None:
            yield _sent(Answer(status=200, content_type=answers.JSON, body=b"[" + _joined(first or ()) + b"]"), context)
            return
        with long_slot():
            context.send_initial_metadata((("x-http-status", "200"),))
            yield httpbody_pb2.HttpBody(content_type=answers.JSON, data=b"[" + _joined(first or ()))
            for page in chain((second,), pages):
                yield httpbody_pb2.HttpBody(data=b"," + _joined(page))
            yield httpbody_pb2.HttpBody(data=b"]")

    @_unary
    def GetModel(self, request: pb.GetModelRequest, context: grpc.ServicerContext) -> Answer:
        return answers.json_answer(200, document(self._services.models.get(_model_id(request.id, context))))

    @_unary
    def UpdateModel(self, request_iterator: Iterator[pb.UpdateModelRequest], context: grpc.ServicerContext) -> Answer:
        first = next(request_iterator, pb.UpdateModelRequest())
        model_id = _model_id(first.id, context)
        chunks = (message.content.data for message in chain((first,), request_iterator))
        found = changes(form_texts(first.content.content_type, chunks))
        check_cancelled(context)  # an urlencoded form has no end mark
        self._services.models.update(model_id, found, touch=True)
        return answers.COMPLETED

    @_unary
    def DeleteModel(self, request: pb.DeleteModelRequest, context: grpc.ServicerContext) -> Answer:
        self._services.models.delete(_model_id(request.id, context))
        return answers.DELETED

    @_streaming
    def DownloadModelFiles(
        self, request: pb.DownloadModelFilesRequest, context: grpc.ServicerContext
    ) -> Iterator[httpbody_pb2.HttpBody | bytes]:
        headers = _headers(context)
        model = self._services.models.get(_model_id(request.id, context))
        # The interactive page cannot show a ZIP.
        content_type = "application/octet-stream" if headers.get("referer", "").endswith("/docs") else MEDIA_TYPE
        plan = plan_download(model, headers, content_type)
        pieces = read_first(self._services.artifacts.pieces(model, plan.offset, plan.length))
        context.send_initial_metadata(plan.metadata)
        yield from body_messages(plan.content_type, pieces)

    @_unary
    def ListProjects(self, request: pb.ListProjectsRequest, context: grpc.ServicerContext) -> Answer:
        projects = self._projects.list()
        return answers.json_answer(200, [project_document(project) for project in projects])

    @_unary
    def GetProject(self, request: pb.GetProjectRequest, context: grpc.ServicerContext) -> Answer:
        project = self._projects.get(_project_id(request.id, context))
        return answers.json_answer(200, project_document(project))

    @_unary
    def ImportModels(self, request: pb.ImportModelsRequest, context: grpc.ServicerContext) -> Answer:
        project_id = _project_id(request.id, context)
        self._projects.require_geti()
        models = wanted_models(request.content.content_type, request.content.data)

        def check() -> None:
            check_cancelled(context)

        try:
            results = self._projects.import_models(project_id, models, report=lambda _: check(), check_cancelled=check)
        except ProjectNotFoundError:
            return answers.GETI_MODELS_NOT_FOUND
        return import_answer(results)


def compat_service(services: Services, projects: ProjectService) -> OptionalService:
    """Return the service, for the server to serve."""
    return OptionalService(
        name=_SERVICE,
        add_to_server=compat_service_pb2_grpc.add_CompatServiceServicer_to_server,
        servicer=CompatServicer(services, projects),
        # Its clients expect every error as a response of the Intel-compatible API.
        refuse=lambda error, context: _sent(_answer_to(error, context), context),
    )


def _headers(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}


def _model_id(bound: str, context: grpc.ServicerContext) -> str:
    model_id = _addressed(bound, context)
    if not is_model_id(model_id):
        raise RestError(answers.INVALID_ID)
    return model_id


def _project_id(bound: str, context: grpc.ServicerContext) -> str:
    project_id = _addressed(bound, context)
    if not is_model_id(project_id):  # models and projects have the same rule
        raise RestError(answers.INVALID_PROJECT_ID)
    return project_id


def _addressed(bound: str, context: grpc.ServicerContext) -> str:
    """Return the id in the path. The id that the gateway bound may be a query parameter instead."""
    path = _headers(context).get(_PATH)
    if path is None:
        return bound
    _, _, *rest = path.partition("?")[0].split("/") + [""] * 2  # a gRPC client may send any path
    return unquote(rest[0])


def _joined(models: Iterable[Model]) -> bytes:
    return b",".join(answers.json_bytes(document(model)) for model in models)
