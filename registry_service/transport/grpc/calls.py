"""What surrounds every call: its id, its log line, its limits, and the mapping of its errors."""

import logging
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import grpc
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError
from modelregistry.geti.v1 import geti_service_pb2
from modelregistry.v1 import artifact_service_pb2, audit_service_pb2, model_service_pb2, upload_service_pb2

from registry_service import logs
from registry_service.domain.access import EVERYTHING, Grant, Role
from registry_service.domain.caller import AccessRecheck, Caller, current_caller
from registry_service.domain.errors import (
    AccessDeniedError,
    CallCancelledError,
    InvalidArgumentError,
    RegistryError,
    ServerStoppingError,
)
from registry_service.transport.grpc.admission import OPEN, Admission, is_gone
from registry_service.transport.grpc.chunks import ChunkDeserializer
from registry_service.transport.grpc.client_watch import ClientWatch
from registry_service.transport.grpc.conditions import http_status_of
from registry_service.transport.grpc.errors import InternalError, call_status, error_status, status_code
from registry_service.transport.grpc.limits import ConcurrencyLimit
from registry_service.transport.grpc.peers import client_address

logger = logging.getLogger("registry_service.calls")

# A message of one byte that no protobuf parser takes: an unfinished tag.
POISON = b"\xff"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_MAX_ACTOR_LENGTH = 256
_PACKAGE = "/modelregistry.v1."
_COMPAT = "/modelregistry.compat.v1.CompatService"
_GETI = "/modelregistry.geti.v1.GetiService"
# Unary, but they read a whole artifact or the whole log, or wait for another server.
_LONG_UNARY = {
    f"{_PACKAGE}AuditService/VerifyAuditLog",
    f"{_PACKAGE}UploadService/CompleteUpload",
    f"{_GETI}/ListProjects",
    f"{_GETI}/GetProject",
    f"{_COMPAT}/ListProjects",
    f"{_COMPAT}/GetProject",
    f"{_COMPAT}/ImportModels",
}
# They last for ever, so they have places of their own.
_WATCHES = {f"{_PACKAGE}AuditService/WatchAuditEvents"}
# Streams whose last message says what went wrong, as over HTTP a stream that fails ends like any other: what makes that
# message, without its error, of the message before it.
_ERRORS_IN_STREAM: Mapping[str, Callable[[Any], Any]] = {
    f"{_PACKAGE}AuditService/WatchAuditEvents": lambda last: audit_service_pb2.WatchAuditEventsResponse(
        resume_token=last.resume_token
    ),
    f"{_GETI}/ImportModels": lambda _: geti_service_pb2.ImportModelsResponse(),
    f"{_PACKAGE}ArtifactService/VerifyArtifact": lambda _: artifact_service_pb2.VerifyArtifactResponse(),
}
_HTTP_BODY_STREAMS = {
    f"{_PACKAGE}ArtifactService/DownloadArtifactContent",
    f"{_PACKAGE}ArtifactService/DownloadArtifactFileContent",
    f"{_COMPAT}/DownloadModelFiles",
    f"{_COMPAT}/ListModels",
}

# Streams of bytes, each with the field that holds them.
_CHUNKS_IN = {
    f"{_PACKAGE}ModelService/RegisterModel": model_service_pb2.RegisterModelRequest.CHUNK_FIELD_NUMBER,
    f"{_PACKAGE}UploadService/WriteUpload": upload_service_pb2.WriteUploadRequest.DATA_FIELD_NUMBER,
    f"{_COMPAT}/RegisterModel": httpbody_pb2.HttpBody.DATA_FIELD_NUMBER,
}
_CHUNKS_OUT = _HTTP_BODY_STREAMS | {
    f"{_PACKAGE}ArtifactService/DownloadArtifact",
    f"{_PACKAGE}ArtifactService/DownloadArtifactFile",
}

# The documented API's answers mostly fit in one message: it asks for a place by itself where one doesn't.
_BRIEF_STREAMS = {f"{_COMPAT}/ListModels"}
# Beside those that only take a place among the short calls: they may keep a connection to Postgres for seconds.
_LISTS = {
    f"{_PACKAGE}ModelService/ListModels",
    f"{_PACKAGE}ModelGroupService/ListModelGroups",
    f"{_PACKAGE}AliasService/ListAliasMoves",
    f"{_PACKAGE}AuditService/ListAuditEvents",
    f"{_COMPAT}/ListModels",
}
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

_EXPECTED = {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}

Refusal = Callable[[RegistryError, grpc.ServicerContext], Any]
"""Makes the message that a call is refused with, for services whose errors are answers."""


class MethodObserver(Protocol):
    """Is told of the calls of one method, by many threads. Never raises."""

    received: Callable[[int], None]
    """Is told the size of each message that came, in bytes."""
    sent: Callable[[int], None]
    """Is told the size of each message that was sent, in bytes."""

    def begin(self, metadata: Callable[[], Iterable[tuple[str, str | bytes]]]) -> Callable[[str, float], None]:
        """Is told of a call that begins; what it returns is told its status, by name, and seconds when it has ended."""


class CallObserver(Protocol):
    """Looks on at all calls."""

    def method(self, name: str) -> MethodObserver | None:
        """Returns who looks on at a method (`/package.Service/Method`) that is served; None for nobody."""


@dataclass(slots=True)
class _Call:
    method: str
    request_id: str
    context: grpc.ServicerContext
    observer: MethodObserver | None = None
    started: float = field(default_factory=time.monotonic)
    waiting_since: float | None = None
    """Since when it waits for its client, None while it works."""
    actor: str = ""
    """Who makes it, where that is known."""
    caller: str = ""
    """Whose share of the limits it takes: the actor's where that is certain, else the client's address."""
    limits: list[tuple[ConcurrencyLimit, float]] = field(default_factory=list)
    """The limits of short calls that it has a place of, each with the time since when."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        self.waiting_since = time.monotonic()
        try:
            yield
        finally:
            self.waiting_since = None

    def enter(self, limit: ConcurrencyLimit) -> None:
        """Takes a place among the short calls (ResourceExhaustedError, CallCancelledError)."""
        limit.acquire(self.caller, self.context)
        self.limits.append((limit, time.monotonic()))

    def leave(self) -> None:
        """Gives its places among the short calls back, if it has any."""
        while self.limits:
            limit, since = self.limits.pop()
            limit.release(self.caller, time.monotonic() - since)


_current_call: ContextVar[_Call] = ContextVar("current_call")


def current_method() -> str:
    """Return the path of the RPC that the running code serves."""
    return _current_call.get().method


def expect_client(context: grpc.ServicerContext) -> None:
    """Raises CallCancelledError when the client has gone.

    grpcio may hand a stream that was cut off over as one that was ended: it hears
    of the missing message a moment before it hears of the cancellation. So whoever
    takes the end of a stream for «that is all» has to ask here before he acts on
    it, as late as he can: what lies between, a few milliseconds of writing and of
    Postgres, is a thousand times what grpcio needs.
    """
    if not context.is_active() or context.time_remaining() <= 0:
        raise CallCancelledError


class StreamLimit:
    """Bounds long calls: how many there are, and how long one may wait for its client.

    Each holds a thread, so without it clients that stall could take them all.
    """

    def __init__(self, limit: ConcurrencyLimit, *, idle_seconds: float) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._by_id: dict[int, _Call] = {}
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._cancel_idle, name="stream-watch", daemon=True)
        self._watch.start()

    @contextmanager
    def slot(self, call: _Call) -> Iterator[None]:
        """Holds one of the places (`TooManyStreamsError` when all are taken, and stay so)."""
        self._limit.acquire(call.caller, call.context)
        begun = time.monotonic()
        self._by_id[id(call)] = call
        try:
            yield
        finally:
            del self._by_id[id(call)]
            self._limit.release(call.caller, time.monotonic() - begun)

    @property
    def in_use(self) -> int:
        """Places that are taken."""
        return self._limit.running

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return self._limit.waiting

    def hold(self) -> AbstractContextManager[None]:
        """Holds one of the places for the call at hand, which began as a short one."""
        call = _current_call.get()
        call.leave()
        return self.slot(call)

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()
        self._watch.join()

    def _cancel_idle(self) -> None:
        while not self._stopped.wait(min(1.0, self._idle_seconds / 4)):
            oldest = time.monotonic() - self._idle_seconds
            # A copy in one step, as calls come and go meanwhile.
            for call in self._by_id.copy().values():
                if call.waiting_since is None or call.waiting_since >= oldest:
                    continue
                logger.warning(
                    "cancelled: its client moved nothing for %s s",
                    self._idle_seconds,
                    extra={"method": call.method, "call_request_id": call.request_id},
                )
                call.context.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of all calls, each for a kind of them."""

    short_calls: ConcurrencyLimit
    lists: ConcurrencyLimit
    """Of those short calls that may keep Postgres busy for long."""
    streams: StreamLimit
    watches: StreamLimit
    """Calls that last for ever."""
    reflection: StreamLimit

    @property
    def waiting(self) -> int:
        """Calls that wait for a place of any kind."""
        return self.short_calls.waiting + self.lists.waiting + self.streams.waiting

    def held(self, call: _Call, *, is_long: bool) -> AbstractContextManager[None]:
        """Holds the places that a call needs; those that are open need none, as they are answered at once."""
        method = call.method
        if method in OPEN:
            return nullcontext()
        if not is_long:
            return self._held_shortly(call)
        if method in _WATCHES:
            return self.watches.slot(call)
        return (self.reflection if method == _REFLECTION else self.streams).slot(call)

    @contextmanager
    def _held_shortly(self, call: _Call) -> Iterator[None]:
        try:
            if call.method in _LISTS:
                call.enter(self.lists)
            call.enter(self.short_calls)
            yield
        finally:
            call.leave()


class Drain:
    """Ends the calls that would not end by themselves when the server stops."""

    def __init__(self) -> None:
        self._begun = threading.Event()
        self._waiting: set[threading.Event] = set()
        self._lock = threading.Lock()

    def begin(self) -> None:
        """From now on `check` raises; sets every event, as who waits for one has to check."""
        self._begun.set()
        with self._lock:
            for event in self._waiting:
                event.set()

    @contextmanager
    def wakes(self, event: threading.Event) -> Iterator[None]:
        """Has the event set by `begin`, until the end of the block."""
        with self._lock:
            self._waiting.add(event)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(event)

    def check(self) -> None:
        """Raises ServerStoppingError once the server stops."""
        if self._begun.is_set():
            raise ServerStoppingError


class CallInterceptor(grpc.ServerInterceptor):
    """Wraps every method.

    `limits` bounds the calls. `admission` lets callers in; None lets in everybody. `refusals` are
    by the full names of services.
    """

    def __init__(
        self,
        *,
        client_watch: ClientWatch,
        limits: Limits,
        admission: Admission | None = None,
        refusals: Mapping[str, Refusal] | None = None,
        observer: CallObserver | None = None,
    ) -> None:
        self._client_watch = client_watch
        self._limits = limits
        self._admission = admission
        self._refusals = refusals or {}
        self._observer = observer
        # By method: what was served, and what it became.
        self._wrapped: dict[str, tuple[grpc.RpcMethodHandler[Any, Any], grpc.RpcMethodHandler[Any, Any]]] = {}

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """See grpc.ServerInterceptor."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        # Asked for every call, with the same handler each time.
        method = handler_call_details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = handler, self._wrap(method, handler)
        return known[1]

    def _wrap(self, method: str, handler: "grpc.RpcMethodHandler[Any, Any]") -> "grpc.RpcMethodHandler[Any, Any]":
        streaming = handler.request_streaming or handler.response_streaming
        long = (streaming and method not in _BRIEF_STREAMS) or method in _LONG_UNARY
        has_long_place = long and method not in OPEN
        behaviour = _behaviour(handler)
        observer = None if self._observer is None else self._observer.method(method)
        serializer, deserializer = _codec(method, handler, observer)
        refuse = self._refusals.get(method.split("/")[1])

        def taken(context: grpc.ServicerContext) -> AbstractContextManager[None]:
            """What waits for an answer to be taken; who has a place among the streams is watched there."""
            watch = self._client_watch
            return nullcontext() if has_long_place else watch.waiting(method, context, watch.idle_seconds)

        def readable(call: _Call, requests: Iterator[Any]) -> Any:
            return _marked(call, requests) if handler.request_streaming else self._message(call, requests)

        def run(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            call = _Call(method, _request_id(context), context, observer=observer)
            with self._surroundings(call, refuse) as refusal:
                if refusal is not None:
                    return refusal
                request = readable(call, requests)
                with self._limits.held(call, is_long=long):
                    return behaviour(request, context)

        def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            call = _Call(method, _request_id(context), context, observer=observer)
            last: Any = None
            recheck = AccessRecheck()
            with self._surroundings(call, refuse) as refusal:
                if refusal is not None:
                    with self._client_watch.waiting(method, context, self._client_watch.idle_seconds):
                        yield refusal
                    return
                request = readable(call, requests)
                try:
                    with self._limits.held(call, is_long=long):
                        for response in behaviour(request, context):
                            call.leave()
                            with call.waiting(), taken(context):
                                yield response
                            last = response
                            recheck()
                except Exception as error:
                    if last is not None:
                        with call.waiting(), taken(context):
                            yield from _last_words(call, last, error)
                    raise

        return _handler(stream if handler.response_streaming else run, handler, serializer, deserializer)

    def _message(self, call: _Call, requests: Iterator[Any]) -> Any:
        """Waits for the one message of a call.

        grpcio would do so itself, for as long as the connection lasts, and before anybody can cancel the call. So all
        methods are served as if their requests were streams, which on the wire is the same. Callers that are refused
        are refused before, so that nobody holds a thread who may not call.
        """
        # Not by `waiting`: this is on the way of every call.
        self._client_watch.expect_message(call.method, call.context)
        try:
            request = next(requests, None)
        finally:
            self._client_watch.end_message(call.context)
        if request is None:
            raise _MessageMissing
        return _readable(request)

    def _admitted(self, call: _Call, *, answers: bool) -> RegistryError | None:
        """Sets the caller; raises what the call is refused with, or returns it where it `answers` that itself."""
        if self._admission is None:
            current_caller.set(
                Caller(
                    actor=_actor(call.context),
                    request_id=call.request_id,
                    access=EVERYTHING,
                    grants=(Grant(Role.ADMIN),),
                    is_gone=partial(is_gone, call.context),
                )
            )
            call.caller = client_address(call.context)
            return None
        # Whatever runs before it is known who calls may touch nothing.
        current_caller.set(Caller(request_id=call.request_id, is_authenticated=True))
        try:
            caller = self._admission.admit(call.method, call.context, call.request_id)
        except RegistryError as error:
            if isinstance(error, AccessDeniedError):
                call.actor = error.actor
            if not answers:
                raise
            return error
        current_caller.set(caller)
        call.actor = caller.actor
        # No address looks like it.
        call.caller = f"actor {caller.actor}"
        return None

    @contextmanager
    def _surroundings(self, call: _Call, refuse: Refusal | None) -> Iterator[Any]:
        """Surrounds a call; gives the message that it is refused with, where its service answers that itself."""
        token = logs.request_id.set(call.request_id)
        _current_call.set(call)
        context = call.context
        code = grpc.StatusCode.OK
        ended = None if call.observer is None else call.observer.begin(context.invocation_metadata)
        try:
            context.set_trailing_metadata((("x-request-id", call.request_id),))
            error = self._admitted(call, answers=refuse is not None)
            if error is not None and refuse is not None:
                code = status_code(error)
                yield refuse(error, context)
            else:
                yield None
        except GeneratorExit:
            code = grpc.StatusCode.CANCELLED
            raise
        except _MessageMissing:
            # As grpcio, and gRPC's list of status codes, say it.
            code = grpc.StatusCode.UNIMPLEMENTED
            context.abort(code, f"{call.method} requires exactly one request message.")
        except RegistryError as error:
            status = call_status(error, call.request_id, http_status_of(error, context))
            code = status.code
            context.abort_with_status(status)
        except Exception as error:
            if not context.is_active():
                # The client is gone; what broke off is its stream.
                code = grpc.StatusCode.CANCELLED
                raise
            logger.exception("unexpected error", extra={"method": call.method})
            status = call_status(_known(error, call), call.request_id)
            code = status.code
            context.abort_with_status(status)
            raise AssertionError("unreachable") from error
        finally:
            seconds = time.monotonic() - call.started
            # Probes come by the second, and strangers as often as they like: what goes well there is no news.
            if call.method not in OPEN or code not in _EXPECTED:
                logger.info(
                    "call",
                    extra={
                        "log": "access",
                        "method": call.method,
                        "code": code.name,
                        "duration_ms": round(seconds * 1000, 3),
                        "peer": context.peer(),
                        "actor": call.actor,
                    },
                )
            if ended is not None:
                ended(code.name, seconds)
            # A generator may be closed in another context than the one it began in.
            with suppress(ValueError):
                logs.request_id.reset(token)


def _last_words(call: _Call, last: Any, error: Exception) -> Iterator[Any]:
    """Yields what a stream that fails has to end with, after the message before it."""
    if call.method in _HTTP_BODY_STREAMS:
        # Envoy would end the body as if it were complete; a message
        # that it cannot parse makes it break the connection instead.
        yield POISON
    elif call.method in _ERRORS_IN_STREAM and call.context.is_active():
        message = _ERRORS_IN_STREAM[call.method](last)
        message.error.CopyFrom(error_status(_known(error, call), call.request_id))
        yield message


def _known(error: Exception, call: _Call) -> RegistryError:
    """Returns an error that clients may see."""
    if isinstance(error, RegistryError):
        return error
    return InternalError(
        f"Internal error. The log of the server has the details under the request id {call.request_id}."
    )


def _behaviour(handler: "grpc.RpcMethodHandler[Any, Any]") -> Any:
    # Exactly one is there.
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def _handler(
    behaviour: Callable[..., Any],
    handler: "grpc.RpcMethodHandler[Any, Any]",
    serializer: Callable[[Any], bytes] | None,
    deserializer: Callable[[bytes], Any] | None,
) -> "grpc.RpcMethodHandler[Any, Any]":
    """Makes what answers as another handler does, and takes a stream of requests."""
    make: Any = (
        grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    )
    return make(  # type: ignore[no-any-return]
        behaviour, request_deserializer=deserializer, response_serializer=serializer
    )


def _codec(
    method: str, handler: "grpc.RpcMethodHandler[Any, Any]", observer: MethodObserver | None
) -> tuple[Callable[[Any], bytes] | None, Callable[[bytes], Any] | None]:
    """Returns what makes bytes of a method's responses, and requests of bytes."""
    serializer = handler.response_serializer
    if method in _CHUNKS_OUT:
        serializer = _PassBytes(serializer)
    deserializer = handler.request_deserializer
    if deserializer is not None:
        if method in _CHUNKS_IN:
            deserializer = ChunkDeserializer(deserializer, _CHUNKS_IN[method])
        deserializer = _OrUnreadable(deserializer)
    if observer is not None:
        serializer = _told_size_after(serializer, observer.sent)
        deserializer = _told_size_before(deserializer, observer.received)
    return serializer, deserializer


class _PassBytes:
    """Serializes messages, and lets through as it is what is serialized already, or poison."""

    def __init__(self, serializer: Callable[[Any], bytes] | None) -> None:
        self._serializer = serializer

    def __call__(self, message: Any) -> bytes:
        if isinstance(message, bytes) or self._serializer is None:
            return bytes(message)
        return self._serializer(message)


def _told_size_after(serializer: Callable[[Any], bytes] | None, tell: Callable[[int], None]) -> Callable[[Any], bytes]:
    def serialize(message: Any) -> bytes:
        data: bytes = message if serializer is None else serializer(message)
        tell(len(data))
        return data

    return serialize


def _told_size_before(
    deserializer: Callable[[bytes], Any] | None, tell: Callable[[int], None]
) -> Callable[[bytes], Any]:
    def deserialize(data: bytes) -> Any:
        tell(len(data))
        return data if deserializer is None else deserializer(data)

    return deserialize


class _MessageMissing(Exception):  # noqa: N818 - no error of ours
    """A call ended without its one message."""


class _Unreadable:
    """Stands for a message that is none of its type."""


class _OrUnreadable:
    """Parses messages; of what is none, grpcio would say INTERNAL, as if the fault were ours, and log a traceback."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse

    def __call__(self, message: bytes) -> Any:
        try:
            return self._parse(message)
        except DecodeError:
            return _Unreadable()


def _readable(request: Any) -> Any:
    """Returns a request, InvalidArgumentError where it is none."""
    if isinstance(request, _Unreadable):
        raise InvalidArgumentError.of("request", "could not be decoded.")
    return request


def _marked(call: _Call, requests: Iterator[Any]) -> Iterator[Any]:
    """Hands requests on, noting when the call waits for the next one."""
    while True:
        with call.waiting():
            try:
                request = next(requests)
            except StopIteration:
                return
        yield _readable(request)


def _request_id(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    # No secret, so not from the system: to ask that gives up the GIL.
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


def _actor(context: grpc.ServicerContext) -> str:
    """Who the caller says they are; what cannot be a name counts as nothing, as it is only a claim."""
    for key, value in context.invocation_metadata():
        if key == "x-actor" and isinstance(value, str) and len(value) <= _MAX_ACTOR_LENGTH and value.isprintable():
            return value
    return ""
