"""Clients that stop reading starve nobody."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

import grpc
import httpx
import pytest
from modelregistry.v1 import artifact_service_pb2

from registry_service.config import Settings
from tests.client import Client, refused
from tests.products import Product
from tests.waiting import eventually

MIB = 1024 * 1024
PLACES = int(Settings.model_fields["max_streams"].default)


@contextmanager
def stalled_grpc_download(product: Product, model_id: str) -> Iterator[None]:
    """A download whose client takes the first message and no more, on a connection of its own."""
    with closing(Client(product.grpc_address)) as client:
        call = client.artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest(model_id=model_id))
        next(iter(call))
        yield
        call.cancel()


@contextmanager
def stalled_http_download(product: Product, model_id: str) -> Iterator[None]:
    """A download whose client takes the headers and no more."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        connection.connect(("127.0.0.1", product.rest_port))
        connection.sendall(f"GET /models/{model_id}/files HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
        assert connection.recv(64).startswith(b"HTTP/1.1 200")
        yield


@pytest.mark.parametrize("stall", [stalled_grpc_download, stalled_http_download], ids=["grpc", "http"])
def test_with_as_many_stalled_downloads_as_may_be_reads_answer_in_time(
    product: Product, stall: Callable[[Product, str], AbstractContextManager[None]]
) -> None:
    client = product.client
    model = client.register(bytes(32 * MIB), name=f"stalled-{uuid.uuid4()}")
    with ExitStack() as stack:
        for _ in range(PLACES):
            stack.enter_context(stall(product, model.id))

        def no_place_is_left() -> bool:
            with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS"):
                client.download(model.id)
            return True

        eventually(no_place_is_left, what="the last place to be taken")
        seconds = []
        with httpx.Client(base_url=product.rest_url, trust_env=False) as http:
            for _ in range(50):
                started = time.monotonic()
                assert client.get(model.id) == model
                assert http.get(f"/models/{model.id}").status_code == 200
                seconds.append(time.monotonic() - started)
    assert sorted(seconds)[-3] < 0.5

    def places_are_free_again() -> bool:
        return len(client.download(model.id)) == 32 * MIB

    eventually(places_are_free_again, what="a place for another download")
    client.delete(model.id)
