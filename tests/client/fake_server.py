"""A gRPC server that answers as a test says, for what no real registry does on demand."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from modelreg._wire.methods import Method

Context = grpc.ServicerContext
Answer: TypeAlias = "Message | Status | Iterable[Message | Status] | Callable[[Any, Context], Any]"
"""A response; a status to fail with; for a stream, both in a row; or a function that returns one of these."""


@dataclass(frozen=True)
class Call:
    """A call that arrived."""

    path: str
    request: Any
    metadata: dict[str, str]
    seconds: float
    """The time until its deadline."""
    peer: str
    """The address of the client's connection."""


class FakeServer:
    """A server on loopback. A context manager."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.port = 0
        self._answers: dict[str, deque[Answer]] = {}
        self._methods: dict[str, Method[Any, Any]] = {}
        self._streams: set[str] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def answer(self, method: Method[Any, Any], *answers: Answer, stream: bool = False) -> None:
        """Set the answers of the next calls of a method. The last one is that of all further calls, too."""
        self._methods[method.full_path] = method
        self._answers[method.full_path] = deque(answers)
        if stream:
            self._streams.add(method.full_path)

    def requests(self, method: Method[Any, Any]) -> list[Any]:
        return [call.request for call in self.calls if call.path == method.full_path]

    def start(self) -> None:
        """Start, on the same port as before."""
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def stop(self) -> None:
        """Stop, and end all calls."""
        self._server.stop(0).wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def handler(self, path: str) -> "grpc.RpcMethodHandler[Any, Any] | None":
        method = self._methods.get(path)
        if method is None:
            return None
        codecs = {
            "request_deserializer": method.request.FromString,
            "response_serializer": lambda message: message.SerializeToString(),
        }
        if path in self._streams:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._stream(path, request, context), **codecs
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._unary(path, request, context), **codecs
        )

    def _next(self, path: str, request: Any, context: Context) -> Any:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        with self._lock:
            self.calls.append(Call(path, request, metadata, context.time_remaining(), context.peer()))
            answers = self._answers[path]
            answer: Any = answers[0] if len(answers) == 1 else answers.popleft()
        return answer(request, context) if callable(answer) else answer

    def _unary(self, path: str, request: Any, context: Context) -> Message:
        answer: Message = self._next(path, request, context)
        if isinstance(answer, Status):
            context.abort_with_status(rpc_status.to_status(answer))
        return answer

    def _stream(self, path: str, request: Any, context: Context) -> Iterator[Message]:
        answer = self._next(path, request, context)
        for message in [answer] if isinstance(answer, Message) else answer:
            if isinstance(message, Status):
                context.abort_with_status(rpc_status.to_status(message))
            yield message


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        return self._server.handler(handler_call_details.method)


def refusal(
    code: grpc.StatusCode,
    reason: str = "",
    message: str = "refused",
    *,
    retry_seconds: float | None = None,
    metadata: dict[str, str] | None = None,
    details: Iterable[Message] = (),
) -> Status:
    """Return the status of an error, as a registry makes it."""
    found: list[Message] = [
        error_details_pb2.ErrorInfo(reason=reason, domain="modelregistry", metadata=metadata),
        error_details_pb2.RequestInfo(request_id="request-1"),
    ]
    if retry_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(retry_seconds * 1000))
        found.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = Status(code=code.value[0], message=message)
    for detail in [*found, *details] if reason else list(details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status
