"""Connections to the gRPC port: their limit, and which ones are closed for new ones."""

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import h2.connection
import pytest

from registry_service.transport.grpc.connections import connection_limit
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.streams import serving
from tests.stub_client import Client

LIMIT = 40


def idle_connections(port: int, count: int, stack: ExitStack) -> list[socket.socket]:
    """Open connections that send the HTTP/2 preface and nothing more."""
    ends = []
    for _ in range(count):
        end = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        beginning = h2.connection.H2Connection()
        beginning.initiate_connection()
        with suppress(OSError):  # the server may close it at once
            end.sendall(beginning.data_to_send())
        ends.append(end)
    return ends


def is_open(end: socket.socket) -> bool:
    """Return whether the server has left the connection open."""
    end.setblocking(False)
    try:
        while end.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


@pytest.mark.parametrize("beyond", [5, 200])
def test_idle_connections_are_closed_for_other_clients(registry: RunningRegistry, beyond: int) -> None:
    model = registry.client.register()
    with serving(registry, max_connections=LIMIT) as (server, first), ExitStack() as stack:
        assert first.get(model.id) == model
        ends = idle_connections(server.port, LIMIT + beyond, stack)
        eventually(lambda: sum(map(is_open, ends)) <= LIMIT * 3 // 4)
        # Half of the limit stays open: the server closes only as many as others need.
        assert sum(map(is_open, ends)) >= LIMIT // 2 - 2
        with closing(Client(first.address)) as other:
            assert eventually(lambda: other.get(model.id)) == model
        assert first.get(model.id) == model


def test_connections_below_the_limit_stay_open(registry: RunningRegistry) -> None:
    with serving(registry, max_connections=LIMIT) as (server, client), ExitStack() as stack:
        ends = idle_connections(server.port, LIMIT // 2, stack)
        model = client.register()
        assert client.get(model.id) == model
        assert all(map(is_open, ends))


@pytest.fixture
def _few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_few_files")
def test_half_of_few_open_files_is_reserved_for_other_uses() -> None:
    assert connection_limit(15_000) == 512
    assert connection_limit(100) == 100
