"""Load: a number of clients in closed loops for some seconds, in a separate process.

`python -m benchmarks.load` reads the load as JSON from its input and prints the
latencies. A separate process takes no time from the measured ones.
"""

import contextlib
import functools
import hashlib
import json
import operator
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import grpc
from modelregistry.v1 import alias_service_pb2, model_group_service_pb2, model_pb2, model_service_pb2

from tests.stub_client import registration, spec

_SERVICE = "/modelregistry.v1.ModelService"


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load to run."""

    operation: str
    """One of OPERATIONS."""
    address: str
    """Host and port, separated by a colon."""
    clients: int
    seconds: float
    models: int
    """Number of the existing models, whose ids `model_id` returns."""
    page_token: str = ""
    """Token of the deep page."""
    http: bool = False


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The results of a load. Latencies are in milliseconds."""

    per_second: float
    p50: float
    p95: float
    p99: float
    errors: int


def model_id(number: int) -> str:
    """Return the id of an inserted model."""
    return f"benchmark-{number:010}"


def run(load: Load) -> Measured:
    """Run a load in a separate process, and wait for its results."""
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(load)),
        capture_output=True,
        text=True,
        timeout=load.seconds + 120,
        check=False,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"{load}: {answer.stderr[-2000:]}")
    return measured(json.loads(answer.stdout), load.seconds)


def measured(outcome: Mapping[str, Any], seconds: float) -> Measured:
    """Summarize latencies, given in seconds."""
    latencies: Sequence[float] = sorted(outcome["latencies"])
    if not latencies:
        raise RuntimeError(f"nothing was answered: {outcome['errors']} errors")

    def percentile(share: float) -> float:
        return latencies[min(int(len(latencies) * share), len(latencies) - 1)] * 1000

    return Measured(
        per_second=len(latencies) / seconds,
        p50=percentile(0.50),
        p95=percentile(0.95),
        p99=percentile(0.99),
        errors=outcome["errors"],
    )


class _Grpc:
    """A client with its own channel, like a service."""

    def __init__(self, load: Load) -> None:
        # Without its own subchannel pool, all channels of a process would share one connection.
        self._channel = grpc.insecure_channel(load.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._load = load
        self._dice = random.Random()  # noqa: S311 - chooses models

    def operation(self) -> Callable[[], object]:
        load = self._load
        match load.operation:
            case "get":
                call = self._unary("GetModel", model_pb2.Model)
                return lambda: call(model_service_pb2.GetModelRequest(model_id=self._any()))
            case (
                "first page"
                | "deep page"
                | "newest versions"
                | "substring"
                | "groups"
                | "groups of a project"
                | "groups of an owner"
                | "alias history"
            ):
                return self._list()
            case "resolve" | "resolve with precisions":
                return self._resolve()
            case "update":
                call = self._unary("UpdateModel", model_pb2.Model)
                return lambda: call(
                    model_service_pb2.UpdateModelRequest(
                        model=model_pb2.Model(id=self._any(), score=self._dice.random()),
                        update_mask={"paths": ["score"]},
                    )
                )
            case "register":
                stream = self._channel.stream_unary(
                    f"{_SERVICE}/RegisterModel",
                    request_serializer=model_service_pb2.RegisterModelRequest.SerializeToString,
                    response_deserializer=model_service_pb2.RegisterModelResponse.FromString,
                )
                data = bytes(range(256)) * 4
                return lambda: stream(registration(spec(name=f"new-{uuid.uuid4()}"), [data]))
            case "promote":
                call = self._method("AliasService/SetAlias", alias_service_pb2.SetAliasResponse)
                get = self._unary("GetModel", model_pb2.Model)
                requests = [model_service_pb2.GetModelRequest(model_id=self._any()) for _ in range(100)]
                models = cast("list[model_pb2.Model]", [get(request) for request in requests])
                targets = [(model.model_group_id, model.id) for model in models]

                def promote() -> object:
                    group_id, target_id = self._dice.choice(targets)
                    return call(
                        alias_service_pb2.SetAliasRequest(
                            model_group_id=group_id, alias=uuid.uuid4().hex, model_id=target_id
                        )
                    )

                return promote
            case other:
                raise ValueError(other)

    def _resolve(self) -> Callable[[], object]:
        call = self._unary("ResolveModel", model_service_pb2.ResolveModelResponse)
        if self._load.operation == "resolve with precisions":
            request = model_service_pb2.ResolveModelRequest(reference=DEEP_GROUP, precisions=[DEEP_PRECISION])
            return lambda: call(request)
        return lambda: call(
            # Only models without a project, since the baseline knows only these.
            model_service_pb2.ResolveModelRequest(reference=name(self._dice.randrange(1, self._load.models, 3)))
        )

    def _list(self) -> Callable[[], object]:
        match self._load.operation:
            case "groups" | "groups of a project" | "groups of an owner" as listed:
                groups = self._method(
                    "ModelGroupService/ListModelGroups", model_group_service_pb2.ListModelGroupsResponse
                )
                wanted, order = GROUP_LISTS[listed]
                page = model_group_service_pb2.ListModelGroupsRequest(filter=wanted, order_by=order, page_size=50)
                return lambda: groups(page)
            case "alias history":
                moves = self._method("AliasService/ListAliasMoves", alias_service_pb2.ListAliasMovesResponse)
                newest = alias_service_pb2.ListAliasMovesRequest(model_group_id="-", alias="-", page_size=50)
                return lambda: moves(newest)
            case _:
                models = self._unary("ListModels", model_service_pb2.ListModelsResponse)
                return lambda: models(self._listing())

    def _listing(self) -> model_service_pb2.ListModelsRequest:
        request = model_service_pb2.ListModelsRequest(page_size=50)
        match self._load.operation:
            case "newest versions":
                request.order_by = VERSION_ORDER
            case "substring":
                request.filter = f'name : "{substring(self._dice.randrange(self._load.models))}"'
            case paged:
                request.filter, request.order_by = LIST_FILTER, LIST_ORDER
                request.page_token = self._load.page_token if paged == "deep page" else ""
        return request

    def _unary(self, method: str, answer: Any) -> Callable[[Any], object]:
        return self._method(f"ModelService/{method}", answer)

    def _method(self, method: str, answer: Any) -> Callable[[Any], object]:
        return self._channel.unary_unary(
            f"/modelregistry.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )

    def _any(self) -> str:
        return model_id(self._dice.randrange(self._load.models))


class _Http:
    """A minimal client with one connection: GET of whole answers with a Content-Length or in chunks."""

    def __init__(self, load: Load) -> None:
        host, _, port = load.address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._load = load
        self._dice = random.Random()  # noqa: S311 - chooses models

    def operation(self) -> Callable[[], object]:
        load = self._load
        match load.operation:
            case "get":
                return lambda: self._get(f"/models/{model_id(self._dice.randrange(load.models))}")
            case "substring":
                return lambda: self._get(f"/models?name={substring(self._dice.randrange(load.models))}")
            case other:
                raise ValueError(other)

    def _get(self, path: str) -> None:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._more()
        head = answer[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(head.decode())
        if b"transfer-encoding: chunked" in head:
            while not answer.endswith(b"0\r\n\r\n"):
                answer += self._more()
            return
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        missing = length - (len(answer) - end - 4)
        while missing > 0:
            missing -= len(self._more())

    def _more(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("closed")
        return data


LIST_FILTER = 'format = "onnx"'
LIST_ORDER = "name"
VERSION_ORDER = "version desc"
GROUP_LISTS = {
    "groups": ("", LIST_ORDER),
    "groups of a project": ('project_id = "project-0"', ""),
    "groups of an owner": ('owner = "team-0"', ""),
}
"""Filter and order by operation."""
DEEP_GROUP = "net-of-many-versions"
DEEP_PRECISION = "int4"
"""A precision that only its oldest version has."""


def name(number: int) -> str:
    """Return the name of an inserted model."""
    return f"net-{number % 1_000_000:06}-{hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:6]}"


def substring(number: int) -> str:
    """Return six characters that only few names contain."""
    return f"{number:06}"


def _main() -> None:
    load = Load(**json.load(sys.stdin))
    latencies: list[list[float]] = [[] for _ in range(load.clients)]
    errors = [0] * load.clients
    barrier = threading.Barrier(load.clients)

    def client(number: int) -> None:
        operation = (_Http if load.http else _Grpc)(load).operation()
        with contextlib.suppress(grpc.RpcError):  # more calls may arrive at once than the limit allows
            operation()  # connects
        barrier.wait()
        until = time.perf_counter() + load.seconds
        while (started := time.perf_counter()) < until:
            try:
                operation()
            except (grpc.RpcError, OSError, RuntimeError):
                errors[number] += 1
            else:
                latencies[number].append(time.perf_counter() - started)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(load.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"latencies": functools.reduce(operator.iadd, latencies, []), "errors": sum(errors)}, sys.stdout)


if __name__ == "__main__":
    _main()
