"""A TCP proxy that cuts a connection at a given byte, or loses the response to a given request."""

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_PIECE = 64 * 1024


class CuttingProxy:
    """Forward TCP, and cut what it is told to, once for each time that it is told. A context manager.

    A cut is a reset of both ends, so what was on the way is lost.

    Args:
        port: The port of the server on loopback. May be changed: new connections go to the new one.
    """

    def __init__(self, port: int) -> None:
        self.upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._request_bytes: int | None = None
        self._response_bytes: int | None = None
        self._stalls = False
        self._words: bytes | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.ended = threading.Event()
        self.cuts = 0
        self.connections = 0

    def cut_requests_after(self, count: int) -> None:
        """Cut the next connection after `count` bytes of its client."""
        self._request_bytes = count

    def cut_responses_after(self, count: int) -> None:
        """Cut the next connection after `count` bytes of its server."""
        self._response_bytes = count

    def stall_requests_after(self, count: int) -> None:
        """Forward nothing more of the next connection after `count` bytes of its client, and leave it open."""
        self._request_bytes = count
        self._stalls = True

    def lose_response_to(self, words: bytes) -> None:
        """Cut the connection when the server responds after the client has sent these words."""
        self._words = words

    def cut_now(self) -> None:
        """Cut all connections."""
        with self._lock:
            remaining, self._open = list(self._open), set()
        self.cuts += len(remaining) // 2
        for end in remaining:
            _reset(end)

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.ended.set()
        self.cut_now()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                try:
                    server = socket.create_connection(("127.0.0.1", self.upstream))
                except OSError:
                    _reset(client)
                    continue
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                with self._lock:
                    self._open |= {client, server}
                connection = _Connection(
                    self, client, server, self._request_bytes, self._response_bytes, stalls=self._stalls
                )
                self._request_bytes = self._response_bytes = None
                self._stalls = False
                self._run(connection.pass_requests)
                self._run(connection.pass_responses)

    def _run(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def take_words(self, data: bytes) -> bool:
        """Return whether the words are in data. They count once."""
        with self._lock:
            if self._words is None or self._words not in data:
                return False
            self._words = None
            return True


class _Connection:
    """A connection from a client, and the one to the server."""

    def __init__(
        self,
        proxy: CuttingProxy,
        client: socket.socket,
        server: socket.socket,
        request_bytes: int | None,
        response_bytes: int | None,
        *,
        stalls: bool,
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._request_bytes = request_bytes
        self._response_bytes = response_bytes
        self._stalls = stalls
        self._loses_response = threading.Event()

    def pass_requests(self) -> None:
        left = self._request_bytes
        with suppress(OSError):
            while data := self._client.recv(_PIECE):
                if left is not None and len(data) > left:
                    self._server.sendall(data[:left])
                    if not self._stalls:
                        self._cut()
                        return
                    self._proxy.cuts += 1
                    self._proxy.ended.wait()
                left = None if left is None else left - len(data)
                if self._proxy.take_words(data):
                    self._loses_response.set()
                self._server.sendall(data)
        self._close()

    def pass_responses(self) -> None:
        left = self._response_bytes
        with suppress(OSError):
            while data := self._server.recv(_PIECE):
                if left is not None and len(data) > left:
                    self._client.sendall(data[:left])
                    self._cut()
                    return
                left = None if left is None else left - len(data)
                # Acknowledgements of HTTP/2 are smaller than any response.
                if self._loses_response.is_set() and len(data) > 100:
                    self._cut()
                    return
                self._client.sendall(data)
        self._close()

    def _cut(self) -> None:
        self._proxy.cuts += 1
        _reset(self._client)
        _reset(self._server)

    def _close(self) -> None:
        for end in (self._client, self._server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        # A linger of zero seconds makes the close a reset.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Wakes the thread that reads it.
        end.shutdown(socket.SHUT_RD)
        end.close()
