"""Answers `GET /metrics`."""

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
"""How long a client may take for its request, and again for its answer."""


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
    # With the usual five, a scraper waits for a second while others connect.
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Since when each is served, the oldest first.
        self._since: OrderedDict[socket.socket, float] = OrderedDict()
        self._lock = threading.Lock()

    def server_bind(self) -> None:
        """Without the look-up of our own name that the base class makes."""
        socket_address = self.server_address
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(socket_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serves it in a thread of its own; where there are too many, the oldest connection is closed."""
        with self._lock:
            self._since[request] = time.monotonic()
            while len(self._since) > _MAX_CONNECTIONS:
                _hang_up(self._since.popitem(last=False)[0])
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Frees its place at the end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._since.pop(request, None)

    def service_actions(self) -> None:
        """Closes connections that last for too long; called twice a second."""
        oldest = time.monotonic() - 2 * _SECONDS
        with self._lock:
            for request in [request for request, since in self._since.items() if since < oldest]:
                del self._since[request]
                _hang_up(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that breaks off is no news."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _hang_up(connection: socket.socket) -> None:
    """Ends a connection under the thread that serves it, which then closes it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = _SECONDS
    """Seconds that a client may take for each piece of its request, and for taking the answer."""

    def setup(self) -> None:
        """Reads the request's head, of bounded size; a body is none of a scraper's."""
        super().setup()
        self.rfile = BytesIO(_head(self.connection))

    def log_message(self, *args: Any) -> None:
        """Scrapes are no news."""


def _only_metrics(application: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"The metrics are at /metrics.\n"]
        return application(environ, start_response)

    return answer


def _head(connection: socket.socket) -> bytes:
    """Returns a request up to its blank line; nothing where that does not come within the bounds."""
    head = b""
    deadline = time.monotonic() + _SECONDS
    while b"\r\n\r\n" not in head:
        piece = connection.recv(_MAX_HEAD_BYTES)
        head += piece
        if not piece or len(head) > _MAX_HEAD_BYTES or time.monotonic() > deadline:
            return b""
    return head
