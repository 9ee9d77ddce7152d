"""CompatService as a gRPC service: what the gateway is told when something fails."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from modelregistry.compat.v1 import compat_service_pb2 as pb

from registry_service.domain.errors import ArtifactStoreUnavailableError, DatabaseUnavailableError, RegistryError
from registry_service.domain.models import Model
from registry_service.services.models import ModelService
from registry_service.storage.artifacts.local import LocalArtifactStore
from registry_service.transport.grpc.interceptors.errors import BROKEN_MESSAGE
from tests.client import Client
from tests.registry import RunningRegistry, StartRegistry

MODEL_ID = "a-model-of-this-test"


def stream(client: Client, method: str, request: Any, **headers: str) -> tuple[dict[str, Any], Iterator[bytes]]:
    """Calls a method with a streaming answer: its headers, and its messages as they are."""
    call = client.channel.unary_stream(
        f"/modelregistry.compat.v1.CompatService/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=bytes,
    )(request, metadata=tuple(headers.items()), timeout=20)
    return dict(call.initial_metadata()), call


def until_it_breaks(messages: Iterator[bytes]) -> list[bytes]:
    """Returns the messages of a call that ends with an error."""
    received: list[bytes] = []
    try:
        for message in messages:
            received.append(message)  # noqa: PERF402 - extend() would drop those before the error
    except grpc.RpcError:
        return received
    return pytest.fail("it ended as if all were well")


def raising(error: Exception) -> Callable[..., Any]:
    def method(*_: object, **__: object) -> None:
        raise error

    return method


@pytest.mark.parametrize("error", [DatabaseUnavailableError(), ArtifactStoreUnavailableError(), ValueError("secret")])
def test_what_goes_wrong_before_the_first_message_is_a_status(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(ModelService, "get", raising(error))
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    headers, messages = stream(registry.client, "DownloadModelFiles", request)
    body = HttpBody.FromString(b"".join(messages))
    is_known = isinstance(error, RegistryError)
    assert headers["x-http-status"] == ("503" if is_known else "500")
    assert body.content_type == "text/plain; charset=utf-8"
    assert b"secret" not in body.data


def test_a_list_that_breaks_off_poisons_its_stream(registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.client.register(id=MODEL_ID)
    pages = ModelService.find

    def failing(self: ModelService, node: Any) -> Iterator[Sequence[Model]]:
        yield from pages(self, node)
        yield from pages(self, node)
        raise DatabaseUnavailableError

    monkeypatch.setattr(ModelService, "find", failing)
    headers, messages = stream(registry.client, "ListModels", pb.ListModelsRequest())
    assert headers["x-http-status"] == "200"
    received = until_it_breaks(messages)
    assert len(received) == 3
    assert received[-1] == BROKEN_MESSAGE


def test_a_download_that_breaks_off_poisons_its_stream(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.client.register(bytes(3_000_000), id=MODEL_ID)
    read = LocalArtifactStore.read

    def failing(self: LocalArtifactStore, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        # Of a whole artifact, one piece is held back.
        yield from islice(read(self, key, offset, length), 2)
        raise ArtifactStoreUnavailableError

    monkeypatch.setattr(LocalArtifactStore, "read", failing)
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    _, messages = stream(registry.client, "DownloadModelFiles", request)
    received = until_it_breaks(messages)
    assert received[-1] == BROKEN_MESSAGE


def test_short_lists_need_no_place_among_the_streams(start_registry: StartRegistry) -> None:
    registry = start_registry(max_streams=1)
    registry.client.register(bytes(8_000_000), id=MODEL_ID)
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    _, download = stream(registry.client, "DownloadModelFiles", request)
    next(iter(download))  # it now stalls, and holds the only place
    _, messages = stream(registry.client, "ListModels", pb.ListModelsRequest())
    assert HttpBody.FromString(b"".join(messages)).data.startswith(b'[{"id":"a-model-of-this-test"')


def test_the_artifact_of_any_model_is_a_zip_here(registry: RunningRegistry) -> None:
    registry.client.register(b"weights", id=MODEL_ID, artifact={"file_name": "weights.onnx"})
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    for referer, content_type in (("http://host/docs", "application/octet-stream"), ("", "application/zip")):
        _, messages = stream(registry.client, "DownloadModelFiles", request, referer=referer)
        assert HttpBody.FromString(next(iter(messages))).content_type == content_type
