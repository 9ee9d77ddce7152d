"""The port of the metrics under clients that are slow, many, or send too much."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from registry_service.observability.metrics_server import MetricsServer


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    registry = CollectorRegistry()
    Counter("seen", "Something that is counted.", registry=registry)
    with MetricsServer(registry, "127.0.0.1", 0) as server:
        yield server


def connection(server: MetricsServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def scrape(server: MetricsServer) -> str:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=5, trust_env=False)
    assert answer.status_code == 200
    return answer.text


def test_a_scraper_is_answered_while_silent_clients_hold_connections(server: MetricsServer) -> None:
    with ExitStack() as stack:
        for beginning in (b"", b"GET /metrics HTTP/1.1\r\nA: "):
            for _ in range(20):
                stack.enter_context(connection(server)).sendall(beginning)
            assert "seen_total" in scrape(server)


def test_a_head_without_bounds_is_not_read_to_its_end(server: MetricsServer) -> None:
    with connection(server) as client:
        with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
            client.sendall(b"A: xxxxxxxx\r\n" * 1_000_000)
        assert "seen_total" in scrape(server)


def test_a_request_in_pieces_is_answered(server: MetricsServer) -> None:
    with connection(server) as client:
        for piece in (b"GET /met", b"rics HTTP/1.1\r\nHost: a\r\n", b"\r\n"):
            client.sendall(piece)
        assert client.recv(65_536).startswith(b"HTTP/1.0 200")
