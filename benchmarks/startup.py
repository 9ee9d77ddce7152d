"""Startup: the time from `model-registry up` to its first answer."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.results import Result
from tests.ports import free_port
from tests.products import COMMAND, Command, environment

_GOAL_SECONDS = 3.0


def results(folder: Path) -> Iterator[Result]:
    """Measure the first start in an empty folder, and later ones."""
    for name in ("cold", "warm"):
        seconds = _seconds_to_the_first_answer(folder)
        yield Result.of(
            f"start, {name}",
            seconds / _GOAL_SECONDS,
            f"`up` to its first answer over HTTP, to {_GOAL_SECONDS:g} s",
            at_most=1 if name == "warm" else None,
            seconds=seconds,
        )


def _seconds_to_the_first_answer(folder: Path) -> float:
    port = free_port()
    arguments = ["up", f"--data-dir={folder / 'start'}", f"--rest-port={port}", f"--grpc-port={free_port()}"]
    command = Command(arguments, environment(), folder / "start.log")
    started = time.perf_counter()
    command.start()
    try:
        while not _answers(port):
            if time.perf_counter() - started > 60:
                raise RuntimeError(f"{COMMAND} does not answer: {command.output()}")
            time.sleep(0.01)
        return time.perf_counter() - started
    finally:
        command.close()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"GET /models HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
