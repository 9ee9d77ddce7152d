"""Requests beyond all bounds, on the ports of the real product: refused, and others are served afterwards."""

import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from modelregistry.v1 import model_service_pb2

from tests.folders import passable_folder
from tests.products import Product, running_up
from tests.waiting import eventually

GET_MODEL = "/modelregistry.v1.ModelService/GetModel"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with passable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def product(folder: Path) -> Iterator[Product]:
    with running_up(folder) as product:
        yield product


@pytest.fixture(params=["rest", "grpc"])
def port(request: pytest.FixtureRequest, product: Product) -> int:
    """A port that is attacked."""
    return product.rest_port if request.param == "rest" else product.grpc_port


@pytest.fixture(autouse=True)
def _unharmed(product: Product) -> Iterator[None]:
    """After each attack no process has ended, and memory, threads and files are within bounds."""
    processes = {process.pid for process in product.processes() if process.name() in {"envoy", "python"}}
    yield
    expect_served(product)
    assert processes <= {process.pid for process in product.processes()}
    assert "unexpected error" not in product.server.output()
    assert "Traceback" not in product.server.output()

    def files_are_closed() -> bool:
        return sum(process.num_fds() for process in product.processes()) < 1_000

    eventually(files_are_closed, what="the end of the attack's connections")


def expect_served(product: Product) -> None:
    """Others read, by REST and by gRPC, on connections of their own."""
    name = f"served-{uuid.uuid4()}"
    model = product.client.register(name=name)
    answer = httpx.get(f"{product.rest_url}/v1/models/{model.id}", timeout=20, verify=False, trust_env=False)
    assert answer.json()["model"]["name"] == name
    with grpc.insecure_channel(product.grpc_address) as channel:
        call: Any = channel.unary_unary(GET_MODEL, model_service_pb2.GetModelRequest.SerializeToString)
        assert call(model_service_pb2.GetModelRequest(id=model.id), timeout=20)
    product.client.delete(model.id)


@contextmanager
def connections(port: int, count: int, beginning: bytes = b"") -> Iterator[list[socket.socket]]:
    """Opens connections which then say no more."""
    with ExitStack() as stack:
        ends = []
        for _ in range(count):
            end = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            with suppress(OSError):  # it may be closed at once
                end.sendall(beginning)
            ends.append(end)
        yield ends


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /health HTTP/1.1\r\nHost: x\r\n" + "a: " + "x" * 70_000 + "\r\n\r\n", b"431"),
        ("GET /health HTTP/1.1\r\nHost: x\r\n" + "".join(f"a{n}: x\r\n" for n in range(2_000)) + "\r\n", b"431"),
        ("GET /" + "x" * 70_000 + " HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
    ],
    ids=["long header", "many headers", "long address"],
)
def test_too_much_before_the_body_is_refused(product: Product, head: str, status: bytes) -> None:
    with connections(product.rest_port, 1, head.encode()) as (end,):
        assert end.recv(1_000)[9:12] == status


def test_metadata_without_bounds_is_refused_by_grpc(product: Product, port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(GET_MODEL)
        with pytest.raises(grpc.RpcError):
            call(b"", metadata=(("a", "x" * 500_000),), timeout=20)
