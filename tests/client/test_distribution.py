"""What is installed with the client, and with the server: wheels in environments of their own."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from functools import cache
from pathlib import Path
from shutil import which

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from registry_service import __version__
from tests.registry import RunningRegistry

ROOT = Path(__file__).resolve().parents[2]

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
ENVIRONMENTS = ("oldest", *PYTHONS)
"""The oldest supported version of each dependency, on the oldest Python here; the newest ones on each Python."""

DEPENDENCIES = {
    "click",
    "colorama",  # on Windows
    "filelock",
    "googleapis-common-protos",
    "grpcio",
    "modelreg",
    "platformdirs",
    "protobuf",
    "tqdm",
    "typing-extensions",
}

TWO_ENVIRONMENTS = ("oldest", "{}.{}".format(*sys.version_info))

IMPORT_EVERYTHING = """
import importlib, pkgutil
names = ["modelreg", "modelregistry"]
for name in names:
    module = importlib.import_module(name)
    inside = pkgutil.iter_modules(getattr(module, "__path__", []), name + ".")
    names += [found.name for found in inside if not found.name.endswith("__main__")]
print(*names, sep="\\n")
"""

CALL_THE_REGISTRY = """
import asyncio, sys
import modelreg

async def call():
    async with modelreg.aio.Registry(sys.argv[1]) as registry:
        return await registry.server_info(), [model async for model in registry.models()]

with modelreg.Registry(sys.argv[1]) as registry:
    print(registry.server_info().version)
    print((registry.server_info(), list(registry.models())) == asyncio.run(call()))
"""

NAMES_OF_WHAT_IS_INSTALLED = """
import importlib.metadata, importlib.util
print(*(found.metadata["Name"] for found in importlib.metadata.distributions()))
print(importlib.util.find_spec("registry_service"))
"""

SECONDS_TO_IMPORT = """
import time
begun = time.process_time()
from modelreg import Registry, aio
aio.Registry
print(time.process_time() - begun)
"""


def run(*command: str | Path, cwd: Path | None = None, **variables: str) -> str:
    """Return what a program prints, in an environment without this repository's packages."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MODELREG_", "PYTHON"))}
    environment |= variables
    result = subprocess.run(command, cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def pip(*arguments: str | Path, python: Path = Path(sys.executable)) -> str:
    return run(sys.executable, "-m", "pip", "--python", python, "--quiet", "--no-input", *arguments)


@cache
def interpreter(version: str) -> Path:
    """Return the Python of a version, on PATH or of pyenv or uv. The test is skipped where there is none."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    of_uv = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"), "uv", "python")
    this = [sys.executable] if version == "{}.{}".format(*sys.version_info) else []
    elsewhere = [*versions.glob(f"{version}*/bin/python"), *of_uv.glob(f"*-{version}.*/bin/python")]
    for place in filter(None, [*this, which(f"python{version}"), *map(str, elsewhere)]):
        # A shim of pyenv may be there without its Python, and Debian's Python without venv.
        command = [place, "-c", "import sys, venv; print('{}.{}'.format(*sys.version_info))"]
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if result.stdout.strip() == version:
            return Path(place)
    pytest.skip(f"needs Python {version}")


def oldest_interpreter() -> Path:
    # The oldest supported gRPC has wheels for these.
    for version in ("3.10", "3.11", "3.12", "3.13"):
        try:
            return interpreter(version)
        except pytest.skip.Exception:
            continue
    pytest.skip("needs Python 3.10, 3.11, 3.12 or 3.13")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels of the client and of the server, built without a network."""
    folder = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT / "client", ROOT)
    return {path.name.partition("-")[0]: path for path in folder.iterdir()}


def files_of(wheel: Path) -> set[str]:
    """Return the files of a wheel, without the folder of its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def metadata_of(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        [found] = [member for member in archive.namelist() if member.endswith(f".dist-info/{name}")]
        return archive.read(found)


def requirements_of(wheel: Path) -> list[Requirement]:
    lines = message_from_bytes(metadata_of(wheel, "METADATA")).get_all("Requires-Dist", [])
    return [requirement for requirement in map(Requirement, lines) if requirement.marker is None]


def test_the_clients_wheel_has_the_client_and_the_stubs_and_nothing_else(wheels: dict[str, Path]) -> None:
    files = files_of(wheels["modelreg"])
    assert {name.partition("/")[0] for name in files} == {"modelreg", "modelregistry"}
    assert {Path(name).suffix for name in files} == {".py", ".pyi", ".typed", ".json"}
    assert {"modelreg/py.typed", "modelregistry/py.typed", "modelregistry/service_config.json"} <= files
    stubs = {
        str(path.relative_to(ROOT / "generated")) for path in (ROOT / "generated" / "modelregistry").rglob("*.py*")
    }
    assert {name for name in stubs if "__pycache__" not in name} <= files


def test_the_clients_wheel_is_pure_python_with_a_license(wheels: dict[str, Path]) -> None:
    assert wheels["modelreg"].name.endswith("-py3-none-any.whl")
    assert metadata_of(wheels["modelreg"], "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def test_the_servers_wheel_takes_the_stubs_of_this_version_from_the_client(wheels: dict[str, Path]) -> None:
    assert {name.partition("/")[0] for name in files_of(wheels["modelreg_server"])} == {"registry_service"}
    version = message_from_bytes(metadata_of(wheels["modelreg"], "METADATA"))["Version"]
    [stubs] = [found for found in requirements_of(wheels["modelreg_server"]) if found.name == "modelreg"]
    assert str(stubs.specifier) == f">={version}", "an older client lacks the stubs of what changed since"


def test_an_installed_server_has_the_files_of_its_gateway(wheels: dict[str, Path], tmp_path: Path) -> None:
    for wheel in wheels.values():
        zipfile.ZipFile(wheel).extractall(tmp_path)
    script = """
import json, sys
sys.path.insert(0, sys.argv[1])
import modelregistry
from registry_service.embedded.envoy_config import gateway_dir
from registry_service.transport.http_routes import http_routes
routes = http_routes()
print(len(routes.bindings) > 50, json.loads(routes.openapi.read_bytes())["info"]["title"])
print(modelregistry.__file__, gateway_dir(), routes.openapi, routes.descriptor_set, sep="\\n")
"""
    read, *places = run(sys.executable, "-P", "-c", script, tmp_path, cwd=tmp_path).splitlines()
    assert read == "True Model Registry"
    assert [place for place in places if not Path(place).is_relative_to(tmp_path)] == []


def test_the_source_distribution_builds_the_same_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path, cwd=ROOT / "client")
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as sources:
        sources.extractall(tmp_path, filter="data")
    folder = tmp_path / archive.name.removesuffix(".tar.gz")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path / "dist", folder)
    [wheel] = (tmp_path / "dist").iterdir()
    assert wheel.read_bytes() == wheels["modelreg"].read_bytes()


@pytest.fixture(scope="module")
def pypi(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Packages from PyPI, or from the index that pip is set to. The test is skipped where it can't be reached."""
    folder = tmp_path_factory.mktemp("pypi")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries=1", "--timeout=10", f"--dest={folder}"]
    result = subprocess.run([*command, "filelock"], check=False, capture_output=True, text=True, timeout=120)
    if result.returncode != 0:
        pytest.skip(f"needs PyPI: {result.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def environment(pypi: None, wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the Python of an environment in which only the client's wheel was installed."""

    @cache
    def environment(name: str) -> Path:
        python = oldest_interpreter() if name == "oldest" else interpreter(name)
        folder = tmp_path_factory.mktemp(f"environment-{name}")
        run(python, "-m", "venv", "--without-pip", folder)
        python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        constraints = folder / "constraints.txt"
        bounds = requirements_of(wheels["modelreg"]) if name == "oldest" else []
        constraints.write_text("".join(f"{found.name}{oldest(found)}\n" for found in bounds), encoding="utf-8")
        pip("install", "--no-compile", "--constraint", constraints, wheels["modelreg"], python=python)
        return python

    return environment


def oldest(requirement: Requirement) -> str:
    """Return the specifier of the oldest version that a requirement allows."""
    [bound] = [bound.version for bound in requirement.specifier if bound.operator == ">="]
    return f"=={bound}"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_client_brings_nothing_of_the_server(environment: Callable[[str], Path], name: str) -> None:
    names, server = run(environment(name), "-I", "-c", NAMES_OF_WHAT_IS_INSTALLED).splitlines()
    installed = {canonicalize_name(found) for found in names.split()}
    assert "modelreg" in installed
    assert installed - DEPENDENCIES == set()
    assert server == "None"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_module_of_the_client_and_every_stub_is_imported_without_warnings(
    environment: Callable[[str], Path], name: str
) -> None:
    imported = set(run(environment(name), "-I", "-W", "error", "-c", IMPORT_EVERYTHING).split())
    assert {"modelreg.aio", "modelreg._sync.models", "modelreg._async.models"} <= imported
    protos = [path.relative_to(ROOT / "protos") for path in (ROOT / "protos" / "modelregistry").rglob("*.proto")]
    stubs = {".".join(path.with_name(f"{path.stem}{end}").parts) for path in protos for end in ("_pb2", "_pb2_grpc")}
    assert len(stubs) > 20
    assert stubs <= imported


def test_the_stubs_are_imported_without_warnings_where_protobuf_warns_of_their_age(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    python = environment("oldest")
    newer = ("protobuf==6.31.1", "googleapis-common-protos==1.70.0")
    pip("install", "--no-compile", "--no-deps", "--target", tmp_path, *newer, python=python)
    first = "import sys; sys.path.insert(0, sys.argv[1]); import google.protobuf; print(google.protobuf.__version__)"
    script = f"{first}\n{IMPORT_EVERYTHING}"
    version, *imported = run(python, "-I", "-W", "error", "-c", script, tmp_path).split()
    assert version == "6.31.1"
    assert "modelregistry.v1.model_pb2" in imported


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_client_calls_a_registry(environment: Callable[[str], Path], server: RunningRegistry, name: str) -> None:
    script = ("-I", "-W", "error", "-c", CALL_THE_REGISTRY, f"grpc://{server.address}")
    assert run(environment(name), *script).split() == [__version__, "True"]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_command_line_is_installed_under_both_names(
    environment: Callable[[str], Path], wheels: dict[str, Path], name: str
) -> None:
    python = environment(name)
    version = message_from_bytes(metadata_of(wheels["modelreg"], "METADATA"))["Version"]
    for command in ([python.parent / "mreg"], [python.parent / "modelreg"], [python, "-I", "-m", "modelreg"]):
        assert version in run(*command, "--version").split()


@pytest.mark.parametrize("name", TWO_ENVIRONMENTS)
def test_the_command_line_pushes_finds_and_pulls(
    environment: Callable[[str], Path], server: RunningRegistry, tmp_path: Path, name: str
) -> None:
    mreg = environment(name).parent / "mreg"
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 10_000)
    reference, url = f"from-{name.replace('.', '-')}:1.0", f"grpc://{server.address}"
    run(mreg, "push", folder, reference, "--alias", "production", "--metric", "f1=0.91", MODELREG_URL=url)
    found = run(mreg, "ls", "--format", "quiet", MODELREG_URL=url).split()
    assert server.client.resolve(reference).model.id in found
    run(mreg, "pull", reference.replace(":1.0", "@production"), "--to", tmp_path / "pulled", MODELREG_URL=url)
    assert (tmp_path / "pulled" / "weights.bin").read_bytes() == (folder / "weights.bin").read_bytes()


@pytest.mark.parametrize("name", TWO_ENVIRONMENTS)
def test_the_client_is_imported_in_less_than_300_milliseconds(environment: Callable[[str], Path], name: str) -> None:
    python = environment(name)
    # The best time of the processor: the first import compiles, and other programs take their share of a busy machine.
    assert min(float(run(python, "-I", "-c", SECONDS_TO_IMPORT)) for _ in range(3)) < 0.3
