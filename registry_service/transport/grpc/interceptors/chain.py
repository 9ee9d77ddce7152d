"""Put the interceptors around every method that the server serves."""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeAlias

import grpc

from registry_service.methods import method_of
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.interceptors.access_log import AccessLog
from registry_service.transport.grpc.interceptors.authentication import Authentication, StreamAccess
from registry_service.transport.grpc.interceptors.behaviour import Behaviour, Interceptor
from registry_service.transport.grpc.interceptors.codec import codec_of
from registry_service.transport.grpc.interceptors.concurrency import ConcurrencyLimits
from registry_service.transport.grpc.interceptors.errors import Errors
from registry_service.transport.grpc.interceptors.request_context import RequestContext, request_id_of
from registry_service.transport.grpc.interceptors.telemetry import CallObserver, Telemetry
from registry_service.transport.grpc.interceptors.watchdog import (
    MessageReader,
    MessageStreamReader,
    ResponseWatchdog,
    Watchdog,
)

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class InterceptorChain(grpc.ServerInterceptor):
    """Surrounds every call with the interceptors that its method needs, the outermost first.

    Args:
        watchdog: Cancels calls whose clients keep them waiting.
        limits: How many calls may run.
        authentication: Who may call.
        observer: Receives metrics and traces; None: nobody does.
    """

    def __init__(
        self,
        *,
        watchdog: Watchdog,
        limits: ConcurrencyLimits,
        authentication: Authentication,
        observer: CallObserver | None = None,
    ) -> None:
        self._watchdog = watchdog
        self._limits = limits
        self._authentication = authentication
        self._telemetry = Telemetry(observer)
        # By path: the handler of the servicer, and the wrapped one.
        self._wrapped: dict[str, tuple[_Handler, _Handler]] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Any, Any] | None"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """See grpc.ServerInterceptor."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        # grpcio asks for every call, with the same handler each time.
        path = handler_call_details.method
        known = self._wrapped.get(path)
        if known is None or known[0] is not handler:
            known = self._wrapped[path] = handler, self._wrap(path, handler)
        return known[1]

    def _interceptors_of(self, handler: _Handler) -> Sequence[Interceptor]:
        """Return the interceptors of a method, the outermost first."""
        watchdog = self._watchdog
        return (
            RequestContext(),
            AccessLog(),
            self._telemetry,
            *([ResponseWatchdog(watchdog)] if handler.response_streaming else []),
            Errors(),
            self._authentication,
            *([StreamAccess()] if handler.response_streaming else []),
            MessageStreamReader(watchdog) if handler.request_streaming else MessageReader(watchdog),
            self._limits,
        )

    def _wrap(self, path: str, handler: _Handler) -> _Handler:
        method = method_of(path)
        behaviour = _behaviour_of(handler)
        for interceptor in reversed(self._interceptors_of(handler)):
            behaviour = interceptor.wrap(method, behaviour)

        def begin(requests: Iterator[Any], context: grpc.ServicerContext) -> Generator[Any]:
            return behaviour(requests, Call(method=method, context=context, request_id=request_id_of(context)))

        def respond(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            # Read to its end, so that each interceptor runs its code after the response.
            [response] = begin(requests, context)
            return response

        deserialize, serialize = codec_of(method, handler, self._telemetry.observer_of(method))
        # Every method is served as if its request were a stream, which is the same on the wire: grpcio would wait for
        # the one message of a unary call for as long as the connection lasts, before any interceptor runs.
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(begin, deserialize, serialize)
        return grpc.stream_unary_rpc_method_handler(respond, deserialize, serialize)


def _behaviour_of(handler: _Handler) -> Behaviour:
    """Return the servicer's method as a behaviour."""
    serve: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

    def stream(request: Any, call: Call) -> Generator[Any]:
        yield from serve(request, call.context)

    def respond(request: Any, call: Call) -> Generator[Any]:
        yield serve(request, call.context)

    return stream if handler.response_streaming else respond
