"""Map the errors of failed calls to gRPC statuses. Unexpected errors are logged in full and become INTERNAL."""

import logging
from collections.abc import Generator, Iterator
from typing import Any, NoReturn

import grpc

from registry_service.domain.errors import RegistryError
from registry_service.methods import Method, OnFailure
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.cancellation import is_cancelled
from registry_service.transport.grpc.errors import InternalError, call_status, error_status
from registry_service.transport.grpc.field_paths import with_request_paths
from registry_service.transport.grpc.if_match import http_metadata_of
from registry_service.transport.grpc.interceptors.behaviour import Behaviour

logger = logging.getLogger("registry_service.calls")

BROKEN_MESSAGE = b"\xff"
"""A message of one byte that no protobuf parser takes: an unfinished tag."""


class MissingMessageError(Exception):
    """The client ended a unary call without its one message."""


class Errors:
    """Maps exceptions to gRPC statuses."""

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""

        def run(requests: Any, call: Call) -> Generator[Any]:
            last: Any = None
            responses = behaviour(requests, call)
            try:
                for response in responses:
                    yield response
                    last = response
            except GeneratorExit:
                responses.close()
                raise
            except Exception as error:  # noqa: BLE001 - all have a status
                if last is not None:
                    yield from _last_message(method, call, last, error)
                _abort(call, error)

        return run


def _abort(call: Call, error: Exception) -> NoReturn:
    context = call.context
    if isinstance(error, MissingMessageError):
        # The code and the text that grpcio and gRPC's list of status codes have for it.
        call.code = grpc.StatusCode.UNIMPLEMENTED
        context.abort(call.code, f"{call.method.path} requires exactly one request message.")
    if isinstance(error, RegistryError):
        located = with_request_paths(error, call.method.path)
        status = call_status(located, call.request_id, http_metadata_of(error, context))
    elif is_cancelled(context):
        # The client has gone, and what it sent broke off. grpcio would log any error but its own.
        call.code = grpc.StatusCode.CANCELLED
        context.abort(call.code, "")
    else:
        logger.error("unexpected error", exc_info=error, extra={"method": call.method.path})
        status = call_status(_internal(call), call.request_id)
    call.code = status.code
    context.abort_with_status(status)
    raise AssertionError("abort_with_status raises")


def _last_message(method: Method, call: Call, last: Any, error: Exception) -> Iterator[Any]:
    """Yield the message that tells the client that the stream failed, if its method has one."""
    if method.on_failure is OnFailure.BROKEN_MESSAGE:
        yield BROKEN_MESSAGE
    elif method.on_failure is OnFailure.ERROR_MESSAGE and not is_cancelled(call.context):
        message = type(last)()
        # A watch goes on from there.
        if "resume_token" in message.DESCRIPTOR.fields_by_name:
            message.resume_token = last.resume_token
        known = error if isinstance(error, RegistryError) else _internal(call)
        message.error.CopyFrom(error_status(with_request_paths(known, method.path), call.request_id))
        yield message


def _internal(call: Call) -> InternalError:
    return InternalError(
        f"Internal error. The log of the server has the details under the request id {call.request_id}."
    )
