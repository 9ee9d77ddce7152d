"""Limit the connections to the gRPC port, and close the idlest before the limit is reached.

grpcio closes connections beyond `grpc.max_allowed_incoming_connections` at once, and idle ones after minutes. Neither
makes room for the next client while others hold all connections. A thread here does: it shuts down the sockets that
have been idle for the longest time, beginning with the address that has the most connections.
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

_CHECK_SECONDS = 0.25
_OPEN_FILES = Path("/proc/self/fd")
# Shares of the limit: connections are closed above the first, down to the second.
_CLOSE_ABOVE, _CLOSE_DOWN_TO = 0.75, 0.5
# Offsets of tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds, in struct tcp_info (linux/tcp.h).
_LAST_SENT, _LAST_RECEIVED, _TCP_INFO_BYTES = 44, 52, 56


def connection_limit(most: int) -> int:
    """Return how many connections the process may accept.

    Args:
        most: The desired limit.

    Returns:
        `most`, or less if the limit of open files is low: connections to Postgres and S3, files and logs need
        descriptors, too.
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
        check_seconds: Time between two looks.
    """

    def __init__(self, *, limit: int, check_seconds: float = _CHECK_SECONDS) -> None:
        self._limit = limit
        self._check_seconds = check_seconds
        self._port = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connection-guard", daemon=True)
        self.closed = 0
        """Number of connections closed so far."""

    def start(self, port: int) -> None:
        """Start to watch the connections to a port. Does nothing on systems without /proc."""
        self._port = port
        if _OPEN_FILES.is_dir():
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._check_seconds):
            with suppress(OSError):
                # Cheap to count, and at least as many as the connections.
                if sum(1 for _ in _OPEN_FILES.iterdir()) > self._limit * _CLOSE_ABOVE:
                    self._make_room()

    def _make_room(self) -> None:
        connections = list(self._connections())
        if len(connections) <= self._limit * _CLOSE_ABOVE:
            return
        of_address = Counter(connection.address for connection in connections)
        idlest = sorted(connections, key=lambda found: (of_address[found.address], found.idle_ms), reverse=True)
        closed = sum(map(_shut_down, idlest[: len(connections) - int(self._limit * _CLOSE_DOWN_TO)]))
        self.closed += closed
        logger.warning("closed %d idle connections of %d: %d may be open", closed, len(connections), self._limit)

    def _connections(self) -> Iterator[_Connection]:
        for path in list(_OPEN_FILES.iterdir()):
            # The descriptor may have been closed since.
            with suppress(OSError):
                if str(path.readlink()).startswith("socket:"):
                    found = _connection(int(path.name), self._port)
                    if found is not None:
                        yield found


def _connection(fd: int, port: int) -> _Connection | None:
    """Return the connection of a descriptor; None if it is not a connection to the port."""
    # Not a duplicate: that would stay registered with epoll after grpcio closed its own descriptor.
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
    """Shut a connection down, so that grpcio closes it, unless its descriptor has been reused."""
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
