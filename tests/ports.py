"""Free TCP ports, each of them given to one caller of a test run only."""

import itertools
import os
import random
import socket
from collections.abc import Iterator

_FIRST, _END = 10_000, 32_000
"""Below the ports that Linux hands out by itself: nothing else takes a port before the server that it is for starts."""


def _ports_of_this_worker() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(_FIRST + worker, _END, workers)
    # Two runs on one machine seldom meet.
    start = random.randrange(len(ports))
    return itertools.cycle((*ports[start:], *ports[:start]))


_ports = _ports_of_this_worker()


def free_port() -> int:
    """Return a port of loopback that nothing listens on, another one with each call."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
