"""moto's imitation of S3. One signal closes its port, and another opens it again.

moto keeps its objects in memory and loses them when the process ends. This process imitates a server that was
stopped and kept its objects: SIGUSR1 closes the port and cuts every connection, SIGUSR2 listens again, and SIGTERM
ends the process.

    python tests/moto_server.py PORT [CERTIFICATE KEY]
"""

import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app  # type: ignore[attr-defined]
from werkzeug.serving import ThreadedWSGIServer


class _Server(ThreadedWSGIServer):
    """A server that can cut its connections."""

    daemon_threads = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def close(self) -> None:
        """Close the port and every connection."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def main(port: int, *certificate: str) -> None:
    signals = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    app = DomainDispatcherApplication(create_backend_app)
    server: _Server | None = None
    received: int = signal.SIGUSR2
    while received != signal.SIGTERM:
        if received == signal.SIGUSR2 and server is None:
            server = _Server("127.0.0.1", port, app, MotoRequestHandler, ssl_context=certificate or None)
        elif received == signal.SIGUSR1 and server is not None:
            server.close()
            server = None
        received = signal.sigwait(signals)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
