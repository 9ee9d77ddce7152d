"""A registry inside the test's process: a real gRPC server on a real Postgres and a folder."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from registry_service.domain.caller import acting_as_registry
from registry_service.embedded.postgres import PostgresAddress
from registry_service.settings import Settings, load
from registry_service.wiring import Registry, build_server, open_registry
from tests.stub_client import Client
from tests.transaction_checks import no_store_in_transactions


@dataclass
class RunningRegistry:
    """A registry, with its client, its parts, and its stores."""

    client: Client
    parts: Registry
    engine: Engine
    artifact_dir: Path
    address: str
    """Host and port of its server."""

    def objects(self) -> list[Path]:
        """Return every file of the artifact store, finished or not."""
        return sorted(path for path in self.artifact_dir.rglob("*") if path.is_file())

    def count(self, table: str) -> int:
        with self.engine.connect() as connection:
            number: int = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            return number

    def execute(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))


StartRegistry = Callable[..., RunningRegistry]


@contextmanager
def running_registry(
    postgres: PostgresAddress, database_name: str, engine: Engine, artifact_dir: Path, /, **settings: Any
) -> Iterator[RunningRegistry]:
    """Run a registry with settings, which may replace the folder, on a database and a folder."""
    values = {
        "psql_hostname": str(postgres.socket_dir),
        "psql_port": postgres.port,
        "psql_database": database_name,
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": artifact_dir,
        "grpc_port": 1,  # replaced below
        "shutdown_grace_seconds": 5,
        # The tests have one caller.
        "caller_share": 1,
        "gc_interval_seconds": 3600,
    } | settings
    # The setting refuses port 0 (any free port), as no user would mean it.
    loaded = load(Settings, **values).model_copy(update={"grpc_port": 0})
    with ExitStack() as stack:
        parts = stack.enter_context(open_registry(loaded))
        server = build_server(parts, loaded)
        server.start()
        stack.callback(server.stop)
        client = Client(f"127.0.0.1:{server.port}")
        stack.callback(client.close)
        yield RunningRegistry(client, parts, engine, artifact_dir, f"127.0.0.1:{server.port}")


@pytest.fixture
def start_registry(
    postgres: PostgresAddress, database_name: str, engine: Engine, tmp_path: Path
) -> Iterator[StartRegistry]:
    """A function that starts a registry with settings: `start_registry(max_streams=2)`."""
    with no_store_in_transactions(), ExitStack() as stack:

        def start(**settings: Any) -> RunningRegistry:
            return stack.enter_context(
                running_registry(postgres, database_name, engine, tmp_path / "artifacts", **settings)
            )

        yield start


@pytest.fixture(autouse=True)
def _acting_as_registry() -> Iterator[None]:
    """Let a test use the registry's parts without a client. A thread that the test starts must set its own caller."""
    with acting_as_registry():
        yield


@pytest.fixture
def registry(start_registry: StartRegistry) -> RunningRegistry:
    """A registry with default settings."""
    return start_registry()


@pytest.fixture
def client(registry: RunningRegistry) -> Client:
    """A client of `registry`."""
    return registry.client
