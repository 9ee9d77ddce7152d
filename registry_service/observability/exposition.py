"""Answers `GET /metrics`."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_MAX_CONNECTIONS = 16


class MetricsPortTakenError(OSError):
    """Nobody can listen there; the message names it."""


class MetricsServer:
    """A small HTTP server on a port of its own. A context manager: listens on entry, ends on exit.

    Args:
        registry: What is told.
        address: IP address to listen on.
        port: Port to listen on; 0 for any, which `port` then is.
    """

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        self._registry = registry
        self._address = address.strip("[]")
        self.port = port
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        """Listens.

        Raises:
            MetricsPortTakenError: Somebody else does, or the address is none of this machine's.
        """
        try:
            kind = _Server6 if ipaddress.ip_address(self._address).version == 6 else _Server
            server = kind((self._address, self.port), _Handler)
        except (OSError, ValueError) as error:
            raise MetricsPortTakenError(f"cannot listen for metrics on {self._address}:{self.port}: {error}") from error
        server.set_app(_only_metrics(make_wsgi_app(self._registry)))
        self.port = server.server_port
        threading.Thread(target=server.serve_forever, name="metrics-server", daemon=True).start()
        self._server = server
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    """With a bound on its threads, as a scraper needs one at a time."""

    daemon_threads = True
    # Slow scrapers are not waited for at the end.
    block_on_close = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._places = threading.BoundedSemaphore(_MAX_CONNECTIONS)

    def server_bind(self) -> None:
        """Without the look-up of our own name that the base class makes."""
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves it in a thread of its own, or hangs up where there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Frees its place at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that breaks off is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds that a client may take for each piece of its request, and for taking the answer."""

    def log_message(self, *args: Any) -> None:
        """Scrapes are no news."""


def _only_metrics(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The metrics are at /metrics.\n"]
        return application(environ, start_response)

    return answer
