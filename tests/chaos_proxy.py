"""A TCP proxy that cuts and delays connections at random, like a bad network between a server and its stores."""

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

_PIECE = 16 * 1024
_REFUSED = 0.05
"""The share of new connections that are refused."""
_DELAYED = 0.02
"""The share of pieces that are delayed."""


class ChaosProxy:
    """Forward TCP, and inject faults while `harm` is set. A context manager.

    Each connection's fate is drawn from `seed` and its number: after how many
    bytes it is cut, on which way, whether with a reset, and which pieces are
    held back for how long.

    Args:
        host: Of the server; a path for the Unix socket of one.
        port: Its port; None for a Unix socket.
        seed: Of the randomness.
        mean_bytes: Bytes that pass on a connection, on average, before it is cut.
    """

    def __init__(self, host: str, port: int | None, *, seed: int, mean_bytes: int) -> None:
        self._upstream = (host, port)
        self._seed = seed
        self._mean_bytes = mean_bytes
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        self.harm = threading.Event()
        """Whether connections are cut and delayed now."""
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.cuts = 0

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            remaining = list(self._open)
        for end in remaining:
            _shut(end)
        for thread in self._threads:
            thread.join()

    @property
    def open_connections(self) -> int:
        """Return the number of open connections."""
        with self._lock:
            return len(self._open) // 2

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            fate = random.Random(f"{self._seed} {number}")
            # Like a server that is starting.
            if self.harm.is_set() and fate.random() < _REFUSED:
                self._cut(client, reset=True)
                client.close()
                continue
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            self._run(self._serve, client, server, fate)

    def _serve(self, client: socket.socket, server: socket.socket, fate: random.Random) -> None:
        there, back = random.Random(fate.random()), random.Random(fate.random())
        asking = threading.Thread(target=self._pass, args=(client, server, there), daemon=True)
        asking.start()
        self._pass(server, client, back)
        asking.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _connect(self) -> socket.socket:
        host, port = self._upstream
        if port is not None:
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(host)
        return server

    def _pass(self, source: socket.socket, target: socket.socket, fate: random.Random) -> None:
        allowed = fate.expovariate(1 / self._mean_bytes)
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if self.harm.is_set():
                    if fate.random() < _DELAYED:
                        self._ended.wait(fate.uniform(0.05, 0.5))
                    allowed -= len(data)
                    if allowed < 0:
                        # Half a message may have passed, so the server may have done the request or not.
                        target.sendall(data[: fate.randrange(len(data) + 1)])
                        self._cut(source, target, reset=fate.random() < 0.5)
                        break
                target.sendall(data)
        _shut(source)
        _shut(target)

    def _cut(self, *ends: socket.socket, reset: bool) -> None:
        with self._lock:
            self.cuts += 1
        if reset:
            # Linger of zero makes the close a reset.
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
