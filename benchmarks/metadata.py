"""Metadata: each operation with several numbers of models and clients, compared with its bare equivalent."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelregistry.v1 import model_service_pb2
from sqlalchemy import Engine

from benchmarks.load import LIST_FILTER, LIST_ORDER, Load, Measured, run
from benchmarks.memory import PeakMemory
from benchmarks.models import lay_down
from benchmarks.results import Result
from tests.polling import eventually
from tests.ports import free_port
from tests.products import Product, environment

OPERATIONS = (
    "get",
    "resolve",
    "resolve with precisions",
    "first page",
    "deep page",
    "newest versions",
    "substring",
    "update",
    "register",
    "groups",
    "groups of a project",
    "groups of an owner",
    "promote",
    "alias history",
)
_GOALS = {"get": 0.6}
_TRIES = 3
"""Runs of an operation with a goal."""
_DEPTH = 500
_MIB = 2**20
_MEMORY_GOAL = 250.0


@dataclass
class Metadata:
    """The measurements on one product with an accessible database."""

    product: Product
    engine: Engine
    settings: dict[str, object]
    """Settings of a server on the same database, for the baseline."""
    seconds: float
    clients: Sequence[int]

    def __post_init__(self) -> None:
        self.p99: dict[str, dict[int, float]] = {}
        """Milliseconds with one client, by operation and number of models."""
        self._laid_down = 0

    def results(self, models: int) -> Iterator[Result]:
        """Measure every operation with this many models."""
        lay_down(self.engine, self._laid_down, models)
        self._laid_down = models
        token = self._page_token()
        with self._baseline(token) as baseline:
            for operation in OPERATIONS:
                for clients in self.clients:
                    yield self._compared(operation, models, clients, token, baseline)
        yield from self._rest(models)
        yield self.whole_list()

    def growth(self, small: int, large: int) -> Iterator[Result]:
        """Compare the slowest calls at two numbers of models."""
        for operation, points in self.p99.items():
            if small in points and large in points:
                yield Result.of(
                    f"{operation}, {large:,} models",
                    points[large] / points[small],
                    f"p99 with one client, to that at {small:,} models",
                    at_most=2,
                    p99_ms=points[large],
                    p99_ms_before=points[small],
                )

    def _compared(self, operation: str, models: int, clients: int, token: str, baseline: str) -> Result:
        def load(address: str) -> Load:
            return Load(
                operation=operation,
                address=address,
                clients=clients,
                seconds=self.seconds,
                models=models,
                page_token=token,
            )

        # In turns, so that disturbances affect both; the best of each, since both vary.
        tries = [
            (run(load(baseline)), run(load(self.product.grpc_address)))
            for _ in range(_TRIES if operation in _GOALS else 1)
        ]
        bare, ours = (max(found, key=_per_second) for found in zip(*tries, strict=True))
        if clients == 1:
            self.p99.setdefault(operation, {})[models] = ours.p99
        return Result.of(
            f"{operation}, {models:,} models, {clients} clients, gRPC",
            ours.per_second / bare.per_second,
            "calls per second, to the bare equivalent",
            at_least=_GOALS.get(operation),
            **_figures(ours),
            baseline_per_s=bare.per_second,
            baseline_p99_ms=bare.p99,
        )

    def _rest(self, models: int) -> Iterator[Result]:
        for operation, path in (("get", "GET /models/{id}"), ("substring", "GET /models?name=")):
            for clients in self.clients:
                grpc_load = Load(
                    operation=operation,
                    address=self.product.grpc_address,
                    clients=clients,
                    seconds=self.seconds,
                    models=models,
                )
                http_load = Load(
                    operation=operation,
                    address=f"127.0.0.1:{self.product.rest_port}",
                    clients=clients,
                    seconds=self.seconds,
                    models=models,
                    http=True,
                )
                over_grpc, over_http = run(grpc_load), run(http_load)
                yield Result.of(
                    f"{path}, {models:,} models, {clients} connections",
                    over_http.per_second / over_grpc.per_second,
                    "answers per second through Envoy, to those of the same over gRPC",
                    **_figures(over_http),
                    grpc_per_s=over_grpc.per_second,
                )

    def whole_list(self) -> Result:
        """Read the Intel-compatible list, which has all models, and measure the memory meanwhile."""
        with PeakMemory(self.product) as memory:
            started = time.perf_counter()
            size = _read_all(self.product.rest_port, "/models")
            seconds = time.perf_counter() - started
        peaks = {name: peak / _MIB for name, peak in memory.peaks().items()}
        return Result.of(
            f"GET /models, all {self._laid_down:,} of them: memory",
            max(peaks.values()) / _MEMORY_GOAL,
            f"largest peak of a process, to {_MEMORY_GOAL:g} MiB",
            at_most=1,
            answer_mib=size / _MIB,
            seconds=seconds,
            **{f"{name.split()[-1]}_mib": peak for name, peak in peaks.items()},
        )

    def _page_token(self) -> str:
        """Return the token of a deep page, or of the last one."""
        request = model_service_pb2.ListModelsRequest(filter=LIST_FILTER, order_by=LIST_ORDER, page_size=50)
        token = ""
        for _ in range(_DEPTH):
            request.page_token = token
            following = self.product.client.models.ListModels(request).next_page_token
            if not following:
                break
            token = following
        return token

    @contextmanager
    def _baseline(self, token: str) -> Iterator[str]:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.baseline", str(port), token],
            env=environment(**self.settings, grpc_port=port),
            cwd=Path(__file__).parents[1],
        )
        address = f"127.0.0.1:{port}"
        try:
            eventually(lambda: listens(port), 60, "the baseline")
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _per_second(found: Measured) -> float:
    return found.per_second


def _figures(found: Measured) -> dict[str, float]:
    return {
        "per_s": found.per_second,
        "p50_ms": found.p50,
        "p95_ms": found.p95,
        "p99_ms": found.p99,
        "errors": float(found.errors),
    }


def _read_all(port: int, path: str) -> int:
    """Get a path, and return the number of received bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", path)
    answer = connection.getresponse()
    size = sum(map(len, iter(lambda: answer.read(_MIB), b"")))
    connection.close()
    return size


def listens(port: int) -> bool:
    """Return whether a process listens on this port of the loopback interface."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
