"""The product as its users run it: `model-registry` in processes of its own."""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2

from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress
from registry_service.storage.sql.schema import migrate
from tests.polling import eventually
from tests.ports import free_port
from tests.postgres_server import create_database, engine_of
from tests.s3_server import S3Server
from tests.stub_client import Client
from tests.temporary_folders import accessible_folder

COMMAND = [sys.executable, "-m", "registry_service"]
READY_SECONDS = 120


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of this process, with these settings instead of any of the registry's."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            (
                "PSQL_",
                "MINIO_",
                "SERVER_",
                "GRPC_",
                "MR_",
                "MIN_LOG",
                "ARTIFACT_",
                "GETI_",
                "AUTH_",
                "OIDC_",
                "SOURCE_",
                "OTEL_",
                "METRICS_",
                "GATEWAY_",
            )
        )
    }
    return inherited | {name.upper(): str(value) for name, value in settings.items()}


@dataclass
class Command:
    """A `model-registry` command that runs until it is stopped."""

    arguments: list[str]
    env: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *self.arguments],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and return the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        self.process = None
        return code

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.process = None

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def log_lines(self) -> list[dict[str, object]]:
        """Return the JSON lines of the log."""
        return [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]


@dataclass
class Product:
    """A running registry: the gRPC server and the REST gateway."""

    kind: str
    grpc_port: int
    rest_port: int
    """0 without a gateway."""
    server: Command
    gateway: Command | None
    """None if the server's process also runs the gateway (`up`), and without a gateway."""
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.grpc_address)

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def wait_until_ready(self) -> None:
        """Wait until gRPC's health service says SERVING and the gateway's /ready, if any, responds with 200."""

        def ready() -> bool:
            process = self.server.process
            if process is not None and process.poll() is not None:
                pytest.fail(f"the server ended with {process.returncode}:\n{self.server.output()[-4000:]}")
            # In this order: until the server starts, a request costs less CPU time than a channel.
            has_gateway = self.rest_port != 0
            return (not has_gateway or httpx.get(f"{self.rest_url}/ready").status_code == 200) and self.is_serving()

        eventually(ready, READY_SECONDS, "readiness")

    def is_serving(self) -> bool:
        """Tell whether gRPC's health service says SERVING."""
        with grpc.insecure_channel(self.grpc_address) as channel:
            answer = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )(health_pb2.HealthCheckRequest(), timeout=5)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def processes(self) -> list[psutil.Process]:
        """Return every process of the product."""
        roots = [
            psutil.Process(command.process.pid)
            for command in (self.server, self.gateway)
            if command is not None and command.process is not None
        ]
        return [process for root in roots for process in (root, *root.children(recursive=True))]

    def close(self) -> None:
        self.client.close()
        for command in (self.gateway, self.server):
            if command is not None:
                command.close()


@cache
def _migrated_cluster() -> Path:
    """Return a stopped Postgres cluster with a migrated database, which this process keeps until its end."""
    folders = ExitStack()
    atexit.register(folders.close)
    folder = folders.enter_context(accessible_folder())
    with EmbeddedPostgres(folder, durable=False) as address:
        engine = engine_of(address, address.database)
        migrate(engine)
        engine.dispose()
    return folder / "postgres"


@contextmanager
def running_up(folder: Path, start: Literal["first", "later"] = "later", /, **settings: object) -> Iterator[Product]:
    """Run `model-registry up`: everything embedded.

    Args:
        folder: Folder in which `up` keeps its data, below `data`.
        start: At the first start, `up` creates its cluster. At a later one, it finds a copy of a migrated cluster,
            which saves half a second of CPU time.
        settings: Settings in the environment of `up`.
    """
    cluster = folder / "data" / "postgres"
    if start == "later" and not cluster.exists():
        cluster.parent.mkdir(mode=0o700, exist_ok=True)
        # Not shutil.copytree, which does not keep the owner.
        subprocess.run(["cp", "-a", _migrated_cluster(), cluster], check=True)
    grpc_port, rest_port = free_port(), free_port()
    arguments = ["up", f"--data-dir={folder / 'data'}", f"--rest-port={rest_port}", f"--grpc-port={grpc_port}"]
    server = Command(arguments, environment(**settings), folder / "up.log")
    product = Product("embedded", grpc_port, rest_port, server, None)
    try:
        server.start()
        product.wait_until_ready()
        yield product
    finally:
        product.close()


def s3_settings(postgres: PostgresAddress, database: str, s3: S3Server, bucket: str) -> dict[str, object]:
    """Return the settings of a server on a Postgres and an S3."""
    return {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": database,
        "mr_user_name": postgres.user,
        "minio_hostname": s3.endpoint.host,
        "minio_server_port": s3.endpoint.port,
        "minio_access_key": s3.endpoint.access_key,
        "minio_secret_key": s3.endpoint.secret_key,
        "minio_bucket_name": bucket,
    }


@contextmanager
def running_server(folder: Path, settings: Mapping[str, object], arguments: tuple[str, ...] = ()) -> Iterator[Product]:
    """Run `model-registry serve` without a gateway, whose start takes half as much CPU time as the server's."""
    grpc_port = free_port()
    server = Command(["serve", *arguments], environment(**settings, grpc_port=grpc_port), folder / "serve.log")
    product = Product("s3", grpc_port, 0, server, None)
    try:
        server.start()
        product.wait_until_ready()
        yield product
    finally:
        product.close()


@contextmanager
def running_gateway(server: Product, folder: Path, settings: Mapping[str, object] | None = None) -> Iterator[Product]:
    """Run `model-registry gateway`, and return it with its server."""
    rest_port = free_port()
    env = environment(grpc_upstreams=server.grpc_address, server_port=rest_port, **(settings or {}))
    gateway = Command(["gateway"], env, folder / "gateway.log")
    product = replace(server, rest_port=rest_port, gateway=gateway)
    try:
        gateway.start()
        product.wait_until_ready()
        yield product
    finally:
        product.client.close()
        gateway.close()


@contextmanager
def running_serve(
    folder: Path,
    settings: Mapping[str, object],
    arguments: tuple[str, ...] = (),
    gateway: Mapping[str, object] | None = None,
) -> Iterator[Product]:
    """Run `model-registry serve` and `model-registry gateway`, each with its own settings."""
    with running_server(folder, settings, arguments) as server, running_gateway(server, folder, gateway) as product:
        yield product


@pytest.fixture(scope="session", params=["embedded", "s3"])
def product(request: pytest.FixtureRequest) -> Iterator[Product]:
    """The running product, once embedded and once on S3. All tests share it, so each uses its own model names."""
    with ExitStack() as stack:
        folder = stack.enter_context(accessible_folder())
        if request.param == "embedded":
            yield stack.enter_context(running_up(folder))
        else:
            postgres: PostgresAddress = request.getfixturevalue("postgres")
            s3: S3Server = request.getfixturevalue("s3_server")
            database: str = request.getfixturevalue("product_database")
            settings = s3_settings(postgres, database, s3, "product")
            yield stack.enter_context(running_serve(folder, settings))


@pytest.fixture(scope="session")
def product_database(postgres: PostgresAddress) -> str:
    """The name of an empty database for `product`, which the server migrates."""
    create_database(postgres, "product", "template1")
    return "product"


def grpcurl() -> str:
    """Return the path of grpcurl, from GRPCURL_BINARY or PATH. Skip the test without grpcurl."""
    found = os.environ.get("GRPCURL_BINARY") or shutil.which("grpcurl")
    if found is None:
        pytest.skip("needs grpcurl on PATH, or GRPCURL_BINARY")
    return found
