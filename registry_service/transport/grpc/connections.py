"""Bounds the connections to the gRPC port, and closes the idlest when they get too many.

grpcio closes what comes beyond `grpc.max_allowed_incoming_connections` at once,
and what is idle for minutes. Neither makes room for the next client while others
hold all connections, so a thread does: it shuts sockets down that have moved
nothing for the longest time, those of the address with the most connections first.
"""

import logging
import resource
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25
_OPEN_FILES = Path("/proc/self/fd")
# Shares of the limit: from the one on connections are closed, down to the other.
_CROWDED, _ROOMY = 0.75, 0.5
# Where struct tcp_info of linux/tcp.h has tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds.
_LAST_SENT, _LAST_RECEIVED, _TCP_INFO_BYTES = 44, 52, 56


def connection_limit(most: int) -> int:
    """Return how many connections the process may accept.

    Args:
        most: The limit that is wished for.

    Returns:
        `most`, or less where the limit of open files is low: the connections to
        Postgres and S3, files and logs need some, too.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return most
    return min(most, files - max(min(512, files // 2), files // 8))


@dataclass(frozen=True, slots=True)
class _Connection:
    fd: int
    address: str
    peer: tuple[object, ...]
    idle_ms: int


class ConnectionGuard:
    """Closes the idlest connections to a port while there are more than three quarters of the limit.

    Args:
        limit: Most connections that grpcio accepts.
        look_seconds: Time between two looks.
    """

    def __init__(self, *, limit: int, look_seconds: float = _LOOK_SECONDS) -> None:
        self._limit = limit
        self._look_seconds = look_seconds
        self._port = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection-guard", daemon=True)
        self.closed = 0
        """Connections that were closed to make room."""

    def start(self, port: int) -> None:
        """Begins to look at the connections to a port; does nothing on systems without /proc."""
        self._port = port
        if _OPEN_FILES.is_dir():
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._look_seconds):
            with suppress(OSError):
                # Cheap, and never less than the connections.
                if sum(1 for _ in _OPEN_FILES.iterdir()) > self._limit * _CROWDED:
                    self._make_room()

    def _make_room(self) -> None:
        connections = list(self._connections())
        if len(connections) <= self._limit * _CROWDED:
            return
        of_address = Counter(connection.address for connection in connections)
        idlest = sorted(connections, key=lambda found: (of_address[found.address], found.idle_ms), reverse=True)
        closed = sum(map(_shut_down, idlest[: len(connections) - int(self._limit * _ROOMY)]))
        self.closed += closed
        logger.warning("closed %d idle connections of %d: %d may be open", closed, len(connections), self._limit)

    def _connections(self) -> Iterator[_Connection]:
        for path in list(_OPEN_FILES.iterdir()):
            # It may have been closed since.
            with suppress(OSError):
                if str(path.readlink()).startswith("socket:"):
                    found = _connection(int(path.name), self._port)
                    if found is not None:
                        yield found


def _connection(fd: int, port: int) -> _Connection | None:
    """Describe a socket; None where it is no connection to the port."""
    # grpcio's own descriptor: a duplicate would keep its registration with epoll after grpcio closed it.
    connection = socket.socket(fileno=fd)
    try:
        if connection.family not in {socket.AF_INET, socket.AF_INET6} or connection.getsockname()[1] != port:
            return None
        peer = connection.getpeername()
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    finally:
        connection.detach()
    (sent_ms,), (received_ms,) = (
        struct.unpack_from("=I", info, _LAST_SENT),
        struct.unpack_from("=I", info, _LAST_RECEIVED),
    )
    return _Connection(fd, str(peer[0]), peer, min(sent_ms, received_ms))


def _shut_down(found: _Connection) -> bool:
    """Shut a connection down, unless its descriptor is another's by now; grpcio then closes it."""
    connection = socket.socket(fileno=found.fd)
    try:
        if connection.getpeername() != found.peer:
            return False
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    finally:
        connection.detach()
    return True
