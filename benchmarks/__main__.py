"""`python -m benchmarks [--quick]` runs the suite and writes benchmarks/results."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

from benchmarks import endurance, results, startup
from benchmarks.client import Client
from benchmarks.metadata import Metadata
from benchmarks.results import Result
from benchmarks.transfers import MIB, Transfers
from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress
from registry_service.supervisor.runtime import keep_freed_memory
from tests.postgres_server import create_database, engine_of
from tests.products import Product, running_serve, running_up, s3_settings
from tests.s3_server import minio_binary, running_s3
from tests.temporary_folders import accessible_folder

_PARTS = ("startup", "transfers", "client", "metadata", "endurance")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The size of a suite."""

    title: str
    sizes_mib: tuple[int, ...]
    models: tuple[int, ...]
    client_models: int
    """Models that the client lists."""
    clients: tuple[int, ...]
    seconds: float
    """Duration of each load."""
    mixed_seconds: float


QUICK = Suite(
    title="Benchmarks, quick",
    sizes_mib=(64,),
    models=(1_000, 50_000),
    client_models=2_000,
    clients=(1, 8),
    seconds=1,
    mixed_seconds=15,
)
FULL = Suite(
    title="Benchmarks",
    sizes_mib=(64, 1024),
    models=(1_000, 100_000, 1_000_000),
    client_models=10_000,
    clients=(1, 8, 64),
    seconds=2,
    mixed_seconds=60,
)


class Bench:
    """One run of a suite in its own folder."""

    def __init__(self, suite: Suite, folder: Path, stack: ExitStack) -> None:
        self._suite = suite
        self._folder = folder
        self._stack = stack
        self.curves: dict[str, dict[int, float]] = {}

    def run(self, parts: set[str]) -> Iterator[Result]:
        """Measure the named parts."""
        if "startup" in parts:
            yield from startup.results(self._folder)
        if "transfers" in parts:
            yield from self._transfers()
        if "client" in parts:
            yield from self._client()
        if parts & {"metadata", "endurance"}:
            postgres = self._stack.enter_context(EmbeddedPostgres(self._folder / "database"))
            yield from self._metadata(postgres, parts)

    def _transfers(self) -> Iterator[Result]:
        with ExitStack() as stack:
            yield from self._transferred(stack.enter_context(running_up(self._new_folder("up"))), None)
        if minio_binary() is None:
            print("NO MinIO (MINIO_BINARY): transfers are measured embedded only.", file=sys.stderr)  # noqa: T201 - output for people
            return
        with ExitStack() as stack:
            s3 = stack.enter_context(running_s3(self._new_folder("s3")))
            address = stack.enter_context(EmbeddedPostgres(self._new_folder("transfers-database")))
            create_database(address, "transfers", "template1")
            settings = s3_settings(address, "transfers", s3, "transfers")
            product = stack.enter_context(running_serve(self._new_folder("serve"), settings))
            minio = Minio(
                f"{s3.endpoint.host}:{s3.endpoint.port}",
                access_key=s3.endpoint.access_key,
                secret_key=s3.endpoint.secret_key,
                secure=False,
            )
            minio.make_bucket("baseline")
            yield from self._transferred(product, minio)

    def _client(self) -> Iterator[Result]:
        with ExitStack() as stack:
            postgres = stack.enter_context(EmbeddedPostgres(self._new_folder("client-database")))
            create_database(postgres, "client", "template1")
            settings: dict[str, object] = {
                "psql_hostname": postgres.socket_dir,
                "psql_port": postgres.port,
                "psql_database": "client",
                "mr_user_name": postgres.user,
                "artifact_store": "local",
                "artifact_dir": self._new_folder("client-artifacts"),
            }
            product = stack.enter_context(running_serve(self._new_folder("client-serve"), settings))
            engine = engine_of(postgres, "client", statement_timeout_seconds=3600)
            stack.callback(engine.dispose)
            path = self._random_file(self._suite.sizes_mib[-1])
            yield from Client(product, path, self._new_folder("client"), engine, self._suite.client_models).results()

    def _transferred(self, product: Product, minio: Minio | None) -> Iterator[Result]:
        for size in self._suite.sizes_mib:
            yield from Transfers(product, self._random_file(size), self._folder, minio).results()

    def _random_file(self, size_mib: int) -> Path:
        path = self._folder / f"{size_mib}-mib"
        if not path.exists():
            with path.open("wb") as file:
                for _ in range(size_mib):
                    file.write(os.urandom(MIB))
        return path

    def _metadata(self, postgres: PostgresAddress, parts: set[str]) -> Iterator[Result]:
        create_database(postgres, "metadata", "template1")
        settings: dict[str, object] = {
            "psql_hostname": postgres.socket_dir,
            "psql_port": postgres.port,
            "psql_database": "metadata",
            "mr_user_name": postgres.user,
            "artifact_store": "local",
            "artifact_dir": self._folder / "artifacts",
        }
        # Inserting a million models takes minutes.
        engine = engine_of(postgres, "metadata", statement_timeout_seconds=3600)
        self._stack.callback(engine.dispose)
        product = self._stack.enter_context(running_serve(self._new_folder("metadata"), settings))
        suite = self._suite
        metadata = Metadata(product, engine, settings, suite.seconds, suite.clients)
        self.curves = metadata.p99
        counts = suite.models if "metadata" in parts else suite.models[:1]
        for count in counts:
            yield from metadata.results(count)
        yield from metadata.growth(suite.models[0], suite.models[-1])
        if "endurance" in parts:
            two = self._stack.enter_context(running_serve(self._new_folder("two"), settings, ("--workers", "2")))
            yield from endurance.workers(product, two, models=suite.models[0], seconds=suite.seconds)
            yield from endurance.mixed(product, models=suite.models[0], seconds=suite.mixed_seconds)

    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        folder.chmod(0o711)
        return folder


def main() -> None:
    """Run the suite."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="less of everything, in under four minutes")
    parser.add_argument("--only", action="append", choices=_PARTS)
    options = parser.parse_args()
    suite = QUICK if options.quick else FULL
    # As docs/performance.md advises clients. Otherwise results depend on earlier measurements: after freeing a large
    # block, malloc keeps more memory.
    keep_freed_memory()
    parts = set(options.only or _PARTS)
    started = time.monotonic()
    found: list[Result] = []
    with ExitStack() as stack:
        bench = Bench(suite, stack.enter_context(accessible_folder(on_disk=True)), stack)
        for result in bench.run(parts):
            found.append(result)
            print(result.line(), flush=True)  # noqa: T201 - output for people
        results.write(found, bench.curves, title=suite.title)
    missed = [result.name for result in found if not result.ok]
    print(f"{len(found)} results in {time.monotonic() - started:.0f} s, {len(missed)} goals missed")  # noqa: T201 - output for people


if __name__ == "__main__":
    main()
