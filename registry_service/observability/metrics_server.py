"""Serve `GET /metrics`.

prometheus_client's own server is not enough: it starts a thread for each connection,
without a limit on their number, and waits for slow clients without a timeout.
"""

import ipaddress
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

_MAX_CONNECTIONS = 16
_MAX_HEAD_BYTES = 8 * 1024
_SECONDS = 10.0
"""How long a client may take to send its request, and again to receive the response."""


class MetricsPortTakenError(OSError):
    """The port is in use, or the address is not one of this machine. The message names both."""


class MetricsServer:
    """A small HTTP server on its own port. A context manager: listens on entry, stops on exit.

    Args:
        registry: The metrics to serve.
        address: IP address to listen on.
        port: Port to listen on; 0 for a free one, which the attribute `port` then names.
    """

    def __init__(self, registry: CollectorRegistry, address: str, port: int) -> None:
        self._registry = registry
        self._address = address.strip("[]")
        self.port = port
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        """Start to listen.

        Raises:
            MetricsPortTakenError: The port is in use, or the address is not one of this machine.
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
    """A server with a limit on its connections, of which a scraper needs one at a time."""

    daemon_threads = True
    # The stop does not wait for slow scrapers.
    block_on_close = False
    # With the default of 5, a scraper waits a second while other clients connect.
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # The start of each connection, in order.
        self._since: OrderedDict[socket.socket, float] = OrderedDict()
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        """Bind the socket without the base class's DNS look-up of this host's name."""
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve the connection in a new thread; close the oldest connection if there are too many."""
        with self._lock:
            self._since[request] = time.monotonic()
            while len(self._since) > _MAX_CONNECTIONS:
                _hang_up(self._since.popitem(last=False)[0])
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve the connection, and forget it at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._since.pop(request, None)

    def service_actions(self) -> None:
        """Close connections that have lasted too long; called twice a second."""
        oldest = time.monotonic() - 2 * _SECONDS
        with self._lock:
            for request in [request for request, since in self._since.items() if since < oldest]:
                del self._since[request]
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about a scraper that disconnects."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _hang_up(connection: socket.socket) -> None:
    """Shut a connection down, so that the thread that serves it wakes up and closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS
    """Timeout in seconds of each read of the request, and of each write of the response."""

    def setup(self) -> None:
        """Read the request's head, of limited size; scrapers send no body."""
        super().setup()
        self.rfile = BytesIO(_head(self.connection))

    def log_message(self, *args: Any) -> None:
        """Log nothing about scrapes."""


def _only_metrics(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The metrics are at /metrics.\n"]
        return application(environ, start_response)

    return answer


def _head(connection: socket.socket) -> bytes:
    """Return a request up to its blank line; empty if the head exceeds the limits of size or time."""
    head = b""
    deadline = time.monotonic() + _SECONDS
    while b"\r\n\r\n" not in head:
        piece = connection.recv(_MAX_HEAD_BYTES)
        head += piece
        if not piece or len(head) > _MAX_HEAD_BYTES or time.monotonic() > deadline:
            return b""
    return head
