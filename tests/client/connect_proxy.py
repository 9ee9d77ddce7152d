"""An HTTP proxy that takes CONNECT. Every host is this machine for it, as if it knew names that the client does not."""

import re
import socket
import threading
from contextlib import suppress
from typing import Self


class ConnectProxy:
    """A proxy. A context manager.

    Args:
        status: The status with which it responds. It forwards only with 200.
    """

    def __init__(self, status: str = "200 OK") -> None:
        self._status = status
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[str] = []
        """The request of each connection, with its headers."""

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._sockets:
            _shut(end)
        for thread in self._threads:
            thread.join()
        for end in self._sockets:
            end.close()

    def _run(self, function: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=function, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                if not (byte := client.recv(1)):
                    return
                head += byte
            self.requests.append(head.decode())
            client.sendall(f"HTTP/1.1 {self._status}\r\n\r\n".encode())
            found = re.match(rb"CONNECT \S+:(\d+) ", head)
            if found is None or not self._status.startswith("200"):
                _shut(client)
                return
            server = socket.create_connection(("127.0.0.1", int(found[1])))
            self._sockets.append(server)
            self._run(_forward, server, client)
            _forward(client, server)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
