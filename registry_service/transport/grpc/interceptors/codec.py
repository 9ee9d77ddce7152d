"""Read and write messages: chunks without protobuf's copies, and an error for a request that cannot be decoded."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError

from registry_service.domain.errors import InvalidArgumentError
from registry_service.methods import Method
from registry_service.transport.grpc.chunks import ChunkDeserializer
from registry_service.transport.grpc.interceptors.telemetry import MethodObserver

_Deserialize = Callable[[bytes], Any]
_Serialize = Callable[[Any], bytes]


def codec_of(
    method: Method, handler: "grpc.RpcMethodHandler[Any, Any]", observer: MethodObserver | None
) -> tuple[_Deserialize | None, _Serialize | None]:
    """Return how requests are read and responses are written; `observer` receives their sizes.

    A request that cannot be decoded arrives as an object that `decoded` refuses.
    """
    deserialize: _Deserialize | None = handler.request_deserializer
    if deserialize is not None:
        if method.chunk_field:
            deserialize = ChunkDeserializer(deserialize, _field_number(method))
        deserialize = _or_undecodable(deserialize)
    serialize: _Serialize | None = handler.response_serializer
    if serialize is not None and method.sends_chunks:
        serialize = _unless_bytes(serialize)
    if observer is not None:
        deserialize = _observed_deserializer(deserialize or bytes, observer.received)
        serialize = _observed_serializer(serialize or bytes, observer.sent)
    return deserialize, serialize


def decoded(request: Any) -> Any:
    """Return a request that could be decoded.

    Raises:
        InvalidArgumentError: It could not.
    """
    if isinstance(request, _Undecodable):
        raise InvalidArgumentError.of("request", "could not be decoded.")
    return request


class _Undecodable:
    """Stands for a request that could not be decoded."""


def _or_undecodable(parse: _Deserialize) -> _Deserialize:
    # An exception here would make grpcio answer INTERNAL, as if the server were at fault, and log a traceback.
    def deserialize(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError:
            return _Undecodable()

    return deserialize


def _unless_bytes(serialize_message: _Serialize) -> _Serialize:
    def serialize(message: Any) -> bytes:
        return message if isinstance(message, bytes) else serialize_message(message)

    return serialize


def _observed_deserializer(parse: _Deserialize, observe: Callable[[int], None]) -> _Deserialize:
    def deserialize(data: bytes) -> Any:
        observe(len(data))
        return parse(data)

    return deserialize


def _observed_serializer(serialize_message: _Serialize, observe: Callable[[int], None]) -> _Serialize:
    def serialize(message: Any) -> bytes:
        data = serialize_message(message)
        observe(len(data))
        return data

    return serialize


def _field_number(method: Method) -> int:
    service, name = method.path[1:].split("/")
    found = descriptor_pool.Default().FindServiceByName(service).FindMethodByName(name)
    number: int = found.input_type.fields_by_name[method.chunk_field].number
    return number
