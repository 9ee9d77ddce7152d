"""The protos and their stubs serve others than this repository's own build."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from packaging.requirements import Requirement
from packaging.version import Version

from registry_service.transport.http_routes import bindings, http_routes

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "protos" / "modelregistry").rglob("*.proto"))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what a fresh clone has of the protos, and nothing that a build made."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    for name in ("buf.yaml", "buf.gen.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugins that buf.gen.yaml names; the test is skipped where one is missing."""
    folder = tmp_path_factory.mktemp("plugins")
    for name in ("protoc-gen-go", "protoc-gen-go-grpc"):
        found = os.environ.get(f"{name.upper().replace('-', '_')}_BINARY") or shutil.which(name)
        if found is None:
            pytest.skip(f"needs {name} on PATH")
        (folder / name).symlink_to(Path(found).resolve())
    return folder


def test_plain_protoc_builds_the_protos_of_a_fresh_clone(clone: Path) -> None:
    names = [str(path.relative_to(ROOT / "protos")) for path in FILES]
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=protos", f"--python_out={clone}", *names]
    subprocess.run(command, cwd=clone, check=True)


def test_buf_builds_the_protos_of_a_fresh_clone(clone: Path) -> None:
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", "--output", clone / "image.binpb"], cwd=clone, check=True)


def test_buf_generates_stubs_of_a_fresh_clone_without_a_network(clone: Path, plugins: Path) -> None:
    buf = Path(sys.executable).with_name("buf")
    nowhere = "http://127.0.0.1:9"
    environment = {"PATH": str(plugins), "HOME": str(clone), "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
    subprocess.run([buf, "generate"], cwd=clone, env=environment, check=True)
    made = {str(path.relative_to(clone / "gen" / "go")) for path in (clone / "gen" / "go").rglob("*.pb.go")}
    assert {str(path.relative_to(ROOT / "protos").with_suffix(".pb.go")) for path in FILES} <= made


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT / "protos")) for path in FILES])
def test_every_file_names_its_package_in_other_languages(name: str, tmp_path: Path) -> None:
    file = described(name, tmp_path)
    parts = file.package.split(".")[1:]
    folder = "/".join(("modelregistry", *parts))
    assert name.rpartition("/")[0] == folder
    alias = "".join(("modelregistry", *parts) if parts == ["v1"] else parts)
    assert file.options.go_package == f"github.com/modelregistry/modelregistry/gen/go/{folder};{alias}"
    assert file.options.java_package == ".".join(("com.modelregistry", *parts))
    assert file.options.csharp_namespace == ".".join(("ModelRegistry", *(part.capitalize() for part in parts)))


def test_methods_that_are_get_over_http_have_no_side_effects_and_changes_have() -> None:
    levels: dict[str, set[int]] = {verb: set() for verb in ("GET", "HEAD", "PUT", "PATCH", "DELETE")}
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(http_routes().descriptor_set.read_bytes())
    for method in (m for file in descriptors.file for service in file.service for m in service.method):
        for verb, _ in bindings(method):
            levels.setdefault(verb, set()).add(method.options.idempotency_level)
    reads = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    assert levels["GET"] == levels["HEAD"] == {reads}
    for verb in ("PUT", "PATCH", "DELETE"):
        assert reads not in levels[verb], verb


def test_stubs_run_on_the_oldest_versions_that_pip_may_choose() -> None:
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])}
    stubs = (ROOT / "generated" / "modelregistry" / "v1" / "model_service_pb2.py").read_text(encoding="utf-8")
    services = (ROOT / "generated" / "modelregistry" / "v1" / "model_service_pb2_grpc.py").read_text(encoding="utf-8")
    protobuf = re.search(r"^# Protobuf Python Version: (\S+)$", stubs, re.MULTILINE)
    grpc = re.search(r"^GRPC_GENERATED_VERSION = '(\S+)'$", services, re.MULTILINE)
    assert protobuf is not None
    assert grpc is not None
    for name, generated in (("protobuf", protobuf[1]), ("grpcio", grpc[1])):
        oldest = [Version(bound.version) for bound in bounds[name] if bound.operator == ">="]
        assert oldest == [Version(generated)], f"{name}: stubs refuse to run on anything older than {generated}"


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT / "protos")) for path in FILES])
def test_no_java_outer_class_has_the_name_of_a_message(name: str, tmp_path: Path) -> None:
    file = described(name, tmp_path)
    assert file.options.java_multiple_files
    inside = {m.name for m in file.message_type} | {e.name for e in file.enum_type} | {s.name for s in file.service}
    assert file.options.java_outer_classname not in {"", *inside}


def described(name: str, folder: Path) -> descriptor_pb2.FileDescriptorProto:
    """Returns the descriptor of a file."""
    output = folder / "file.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=protos", f"--descriptor_set_out={output}", name]
    subprocess.run(command, cwd=ROOT, check=True)
    [file] = descriptor_pb2.FileDescriptorSet.FromString(output.read_bytes()).file
    return file
