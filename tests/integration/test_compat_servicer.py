"""CompatService as a gRPC service: the errors that it returns to the gateway."""

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
from tests.registry import RunningRegistry, StartRegistry
from tests.stub_client import Client

MODEL_ID = "a-model-of-this-test"


def stream(client: Client, method: str, request: Any, **headers: str) -> tuple[dict[str, Any], Iterator[bytes]]:
    """Call a streaming method, and return its initial metadata and its raw messages."""
    call = client.channel.unary_stream(
        f"/modelregistry.compat.v1.CompatService/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=bytes,
    )(request, metadata=tuple(headers.items()), timeout=20)
    return dict(call.initial_metadata()), call


def until_it_breaks(messages: Iterator[bytes]) -> list[bytes]:
    """Return the messages of a call that ends with an error."""
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
def test_an_error_before_the_first_message_is_an_http_status(
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


def test_a_failing_list_ends_with_a_malformed_message(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_failing_download_ends_with_a_malformed_message(
    registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.client.register(bytes(3_000_000), id=MODEL_ID)
    read = LocalArtifactStore.read

    def failing(self: LocalArtifactStore, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        # The last chunk of a whole artifact is sent only after its hash is verified.
        yield from islice(read(self, key, offset, length), 2)
        raise ArtifactStoreUnavailableError

    monkeypatch.setattr(LocalArtifactStore, "read", failing)
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    _, messages = stream(registry.client, "DownloadModelFiles", request)
    received = until_it_breaks(messages)
    assert received[-1] == BROKEN_MESSAGE


def test_short_lists_do_not_count_as_streams(start_registry: StartRegistry) -> None:
    registry = start_registry(max_streams=1)
    registry.client.register(bytes(8_000_000), id=MODEL_ID)
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    _, download = stream(registry.client, "DownloadModelFiles", request)
    next(iter(download))  # it now stalls, and uses the only stream
    _, messages = stream(registry.client, "ListModels", pb.ListModelsRequest())
    assert HttpBody.FromString(b"".join(messages)).data.startswith(b'[{"id":"a-model-of-this-test"')


def test_every_model_has_a_zip_as_artifact(registry: RunningRegistry) -> None:
    registry.client.register(b"weights", id=MODEL_ID, artifact={"file_name": "weights.onnx"})
    request = pb.DownloadModelFilesRequest(id=MODEL_ID)
    for referer, content_type in (("http://host/docs", "application/octet-stream"), ("", "application/zip")):
        _, messages = stream(registry.client, "DownloadModelFiles", request, referer=referer)
        assert HttpBody.FromString(next(iter(messages))).content_type == content_type


def test_precisions_are_found_as_stored_and_as_shown(registry: RunningRegistry) -> None:
    registry.client.register(id=MODEL_ID, precisions=["bf16"])
    for precision in ("bf16", "fp16"):
        path = {"x-envoy-original-path": f"/models?precision={precision}"}
        _, messages = stream(registry.client, "ListModels", pb.ListModelsRequest(), **path)
        assert HttpBody.FromString(b"".join(messages)).data.startswith(b'[{"id":"a-model-of-this-test"')
