"""A TCP proxy that stops forwarding, like a cut network or a frozen host."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

_PIECE = 256 * 1024


class HangingProxy:
    """Forward TCP. While the proxy hangs, it accepts connections and holds every byte back. A context manager.

    Args:
        host: The host of the server, or the path of its Unix socket.
        port: The port of the server; None for a Unix socket.
    """

    def __init__(self, host: str, port: int | None) -> None:
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._passing = threading.Event()
        self._passing.set()
        self._last_words: bytes | None = None
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self.port = int(self._listener.getsockname()[1])
        self.has_hung = threading.Event()
        """Set once the proxy has hung."""

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.resume()
        with self._lock:
            for end in self._ends:
                _shut(end)

    def hang(self) -> None:
        """Stop forwarding."""
        self._passing.clear()
        self.has_hung.set()

    def hang_after(self, words: bytes) -> None:
        """Stop forwarding after a client has sent these bytes, which are still forwarded."""
        self._last_words = words

    def resume(self) -> None:
        """Forward what was held back, and go on."""
        self._last_words = None
        self._passing.set()

    def cut(self) -> None:
        """Close all connections. New ones are accepted."""
        with self._lock:
            for end in self._ends:
                _shut(end)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop forwarding within a block."""
        self.hang()
        try:
            yield
        finally:
            self.resume()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        self._passing.wait()
        host, port = self._upstream
        try:
            if port is None:
                server = socket.socket(socket.AF_UNIX)
                server.connect(host)
            else:
                server = socket.create_connection((host, port))
        except OSError:
            client.close()
            return
        with self._lock:
            self._ends |= {client, server}
        answering = self._run(self._pass, server, client, False)
        self._pass(client, server, True)
        answering.join()
        with self._lock:
            self._ends -= {client, server}
        client.close()
        server.close()

    def _pass(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                self._passing.wait()
                target.sendall(data)
                words = self._last_words
                if from_client and words is not None and words in data:
                    self._last_words = None
                    self.hang()
        self._passing.wait()
        _shut(source)
        _shut(target)

    def _run(self, target: object, *args: object) -> threading.Thread:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        thread.start()
        return thread


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
