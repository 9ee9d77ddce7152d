"""The Python client and the command line, compared with the generated stubs that a caller would use without them."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from modelreg import Registry
from sqlalchemy import Engine

from benchmarks.models import lay_down
from benchmarks.results import Result
from benchmarks.transfers import MIB, Removal, Transfers
from tests.products import Product

_ROUNDS = 5
_COMMAND_ROUNDS = 7
_IMPORT = "import time; begin = time.perf_counter(); from modelreg import Registry; print(time.perf_counter() - begin)"


class Client(Transfers):
    """Transfers and lists with the client, and with the stubs.

    Args:
        product: A server without other models.
        path: The file to transfer.
        folder: A folder for everything else.
        engine: The database of the server.
        models: The number of models to list.
    """

    def __init__(self, product: Product, path: Path, folder: Path, engine: Engine, models: int) -> None:
        super().__init__(product, path, folder, None)
        self._engine = engine
        self._models = models
        self._folder = folder
        self._url = f"grpc://{product.grpc_address}"
        self._registry: Registry

    def results(self) -> Iterator[Result]:
        """Measure everything."""
        with _environment(self._folder, self._url), Registry(self._url) as registry:
            self._registry = registry
            yield from self._transferred()
            yield self._found_in_the_cache()
            yield from self._started()
            yield self._listed()

    def _transferred(self) -> Iterator[Result]:
        push = self._typical({"copy": self._put_without_us, "stubs": self._upload, "client": self._push})
        remove = self._upload()
        pull = self._typical({"copy": self._get_without_us, "stubs": self._download, "client": self._pull})
        remove()
        size = f"{self.size // MIB} MiB"
        for name, seconds, beside in (
            ("push", push, "an upload without a checksum"),
            ("pull", pull, "a download with SHA-256 and fsync"),
        ):
            yield Result.of(
                f"{name}, {size}, client",
                seconds["stubs"] / seconds["client"],
                f"bytes per second, the client's to those of {beside} with the stubs",
                at_least=0.9,
                mib_per_s=self.size / MIB / seconds["client"],
                stubs_mib_per_s=self.size / MIB / seconds["stubs"],
                copy_mib_per_s=self.size / MIB / seconds["copy"],
            )

    def _push(self) -> Removal:
        model = self._registry.push(self._path, name="transfer", version=self._new_version())
        return self._removal_of(model.id)

    def _pull(self) -> Removal:
        self._registry.pull(self._model_id)
        return lambda: self._registry.cache.prune(max_bytes=0)

    def _get_without_us(self) -> Removal:
        return self._put_without_us()

    def _download(self) -> Removal:
        self._model_id = self._model_id or self._registry.model("transfer").id
        return super()._download()

    def _upload(self) -> Removal:
        remove = super()._upload()
        self._model_id = self._registry.model("transfer").id
        return remove

    def _found_in_the_cache(self) -> Result:
        model = self._registry.push(self._path, name="cached", version="1.0")
        self._registry.pull("cached:1.0")
        seconds = statistics.median(_seconds(lambda: self._registry.pull("cached:1.0"), 20))
        self._removal_of(model.id)()
        return Result.of(
            f"cached pull, {self.size // MIB} MiB, client",
            seconds / 0.05,
            "seconds to 50 ms, including the call that resolves the reference",
            at_most=1,
            milliseconds=seconds * 1000,
        )

    def _started(self) -> Iterator[Result]:
        imports = [float(_output(sys.executable, "-c", _IMPORT)) for _ in range(_COMMAND_ROUNDS)]
        yield Result.of(
            "from modelreg import Registry",
            statistics.median(imports) / 0.3,
            "seconds to 0.3 s, with gRPC and the stubs, without the start of Python",
            at_most=1,
            seconds=statistics.median(imports),
        )
        command = [sys.executable, "-m", "modelreg", "ls"]
        listing = statistics.median(_seconds(lambda: _output(*command), _COMMAND_ROUNDS))
        yield Result.of(
            "mreg ls", listing / 0.6, "seconds to 0.6 s, with the start of Python", at_most=1, seconds=listing
        )

    def _listed(self) -> Result:
        lay_down(self._engine, 0, self._models)

        def stubs() -> None:
            self._count = sum(1 for _ in self._product.client.iterate(page_size=1000))

        def client() -> None:
            if sum(1 for _ in self._registry.models()) != self._count:
                raise RuntimeError(f"not all of the {self._count} models came")

        seconds: dict[str, list[float]] = {"stubs": [], "client": []}
        for _ in range(_ROUNDS):
            seconds["stubs"] += _seconds(stubs, 1)
            seconds["client"] += _seconds(client, 1)
        typical = {name: statistics.median(found) for name, found in seconds.items()}
        return Result.of(
            f"iterate {self._models} models, client",
            typical["stubs"] / typical["client"],
            "models per second, as dataclasses of the client to messages of the stubs",
            at_least=0.8,
            seconds=typical["client"],
            stubs_seconds=typical["stubs"],
        )


def _seconds(operation: Callable[[], object], rounds: int) -> list[float]:
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        operation()
        found.append(time.perf_counter() - begin)
    return found


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def _environment(folder: Path, url: str) -> Iterator[None]:
    """Let this process and its children use one registry, and folders of their own."""
    variables: Mapping[str, str] = {
        "MODELREG_URL": url,
        "MODELREG_CACHE": str(folder / "cache"),
        "MODELREG_STATE": str(folder / "state"),
        "MODELREG_CONFIG": str(folder / "configuration"),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
