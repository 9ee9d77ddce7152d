"""Wrap the writing methods of servicers, so that calls with the same idempotency key are executed once."""

import hashlib
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import chain
from typing import Any, Protocol, TypeVar, cast

import grpc
from google.protobuf.message import Message

from registry_service.domain.caller import AccessRecheck, current_caller
from registry_service.domain.errors import IdempotencyKeyReusedError, InvalidArgumentError
from registry_service.domain.idempotency import FIELD, KeptAnswer, KeyedCall, checked_key
from registry_service.services.services import Services
from registry_service.transport.grpc import if_match
from registry_service.transport.grpc.call import current_call
from registry_service.transport.grpc.update_mask import FIELD as MASK
from registry_service.transport.grpc.update_mask import mask_of

HEADER = "idempotency-key"

ResultT = TypeVar("ResultT")
AnswerT = TypeVar("AnswerT", bound=Message)
RequestT = TypeVar("RequestT")
Method = Callable[[Any, RequestT, grpc.ServicerContext], ResultT]


class _Servicer(Protocol):
    _services: Services


def idempotent(
    answer_type: type[AnswerT],
    answer: Callable[[ResultT], AnswerT],
    *,
    again: Callable[[Services, str], ResultT] | None = None,
) -> Callable[[Method[RequestT, ResultT]], Method[RequestT, AnswerT]]:
    """Turn a method that returns the domain's result into one that returns a response and supports idempotency keys.

    Args:
        answer_type: The method's response.
        answer: Converts the result into the response.
        again: Reads the resource by its id if the answer was too large to be kept.
    """

    def wrap(method: Method[RequestT, ResultT]) -> Method[RequestT, AnswerT]:
        @wraps(method)
        def run(self: _Servicer, request: RequestT, context: grpc.ServicerContext) -> AnswerT:
            call = _call(cast("Message", request), context, answer)
            # A validation changes nothing.
            if call is None or getattr(request, "validate_only", False):
                return answer(method(self, request, context))
            with self._services.idempotency.attempt(call) as kept:
                if kept is None:
                    return answer(method(self, request, context))
            return _repeated(kept, answer_type, answer, again, self._services)

        return run

    return wrap


def idempotent_stream(
    answer_type: type[AnswerT],
    answer: Callable[[ResultT], AnswerT],
    *,
    again: Callable[[Services, str], ResultT],
) -> Callable[[Method[Iterator[Any], ResultT]], Method[Iterator[Any], AnswerT]]:
    """Do the same for a stream with a spec in the first message, and an artifact's bytes in the others.

    A repeated stream needs no bytes if its spec declares their SHA-256. Otherwise the bytes are read and compared.
    """

    def wrap(method: Method[Iterator[Any], ResultT]) -> Method[Iterator[Any], AnswerT]:
        @wraps(method)
        def run(self: _Servicer, requests: Iterator[Any], context: grpc.ServicerContext) -> AnswerT:
            first = next(requests, None)
            if first is None:
                return answer(method(self, iter(()), context))
            call = _call(first, context, answer) if isinstance(first, Message) else None
            if call is None:
                return answer(method(self, chain([first], requests), context))
            with self._services.idempotency.attempt(call) as kept:
                if kept is None:
                    return answer(method(self, chain([first], requests), context))
            if not first.spec.artifact.sha256 and _sha256(requests) != kept.artifact_sha256:
                raise IdempotencyKeyReusedError(call.key)
            return _repeated(kept, answer_type, answer, again, self._services)

        return run

    return wrap


def _call(request: Message, context: grpc.ServicerContext, answer: Callable[[Any], Message]) -> KeyedCall | None:
    """Return the call with its key from the request or the header; None without a key."""
    key = _key(getattr(request, FIELD), context)
    if key is None:
        return None
    rest = type(request)()
    rest.CopyFrom(request)
    rest.ClearField(FIELD)
    return KeyedCall(
        caller=current_caller.get().actor,
        method=current_call.get().method.path,
        key=key,
        digest=hashlib.sha256(rest.SerializeToString(deterministic=True) + _beside(request, context)).digest(),
        encode=lambda result: answer(result).SerializeToString(),
    )


def _beside(request: Message, context: grpc.ServicerContext) -> bytes:
    """Return the parts of a request outside its message: the conditional header, and the mask as sent."""
    conditions = [str(value) for name, value in context.invocation_metadata() if name == if_match.HEADER]
    mask = mask_of(cast("Any", request), context) if MASK in request.DESCRIPTOR.fields_by_name else ()
    return "\0".join((*conditions, "", *mask)).encode()


def _key(in_request: str, context: grpc.ServicerContext) -> str | None:
    given = {str(value) for name, value in context.invocation_metadata() if name == HEADER}
    if in_request:
        given.add(in_request)
    if len(given) > 1:
        raise InvalidArgumentError.of(FIELD, "must be the same in the header Idempotency-Key.")
    return checked_key(given.pop()) if given else None


def _repeated(
    kept: KeptAnswer,
    answer_type: type[AnswerT],
    answer: Callable[[ResultT], AnswerT],
    again: Callable[[Services, str], ResultT] | None,
    services: Services,
) -> AnswerT:
    if kept.answer is not None:
        return answer_type.FromString(kept.answer)
    if again is None:
        raise AssertionError("answers without a resource to read are kept at any size")
    return answer(again(services, kept.resource_id))


def _sha256(requests: Iterator[Any]) -> str:
    """Return the SHA-256 of the bytes of a stream."""
    digest, recheck = hashlib.sha256(), AccessRecheck()
    for request in requests:
        digest.update(request if isinstance(request, memoryview) else request.chunk)
        recheck()
    return digest.hexdigest()
