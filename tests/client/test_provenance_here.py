"""Provenance.here: what git and the interpreter tell, in whatever working directory."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
from modelreg import Provenance, Registry
from modelreg._git import without_credentials

from tests.client.folder_trees import write_tree


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "protocol.file.allow=always"]
    run = subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which is the working directory."""
    for variable in [found for found in os.environ if found.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    folder = write_tree(tmp_path / "work", {"train.py": b"1", "sub/a": b"1"})
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "First")
    monkeypatch.chdir(folder)
    return folder


class TestGit:
    def test_tells_the_commit_and_the_remote_without_credentials(self, repository: Path) -> None:
        git(repository, "remote", "add", "origin", "https://user:secret@git.example/vision.git?private_token=secret")
        found = Provenance.here()
        assert found.source_commit == git(repository, "rev-parse", "HEAD")
        assert found.source_repository == "https://git.example/vision.git"
        assert found.environment["git_dirty"] == "false"
        assert "secret" not in repr(found)

    def test_tells_whether_tracked_files_were_changed(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_tree(repository, {"model.onnx": b"untracked"})
        assert Provenance.here().environment["git_dirty"] == "false"
        write_tree(repository, {"train.py": b"2"})
        assert Provenance.here().environment["git_dirty"] == "true"
        git(repository, "config", "diff.relative", "true")
        monkeypatch.chdir(repository / "sub")
        assert Provenance.here().environment["git_dirty"] == "true"

    def test_prefers_origin_and_takes_another_remote_without_it(self, repository: Path) -> None:
        assert Provenance.here().source_repository == ""
        git(repository, "remote", "add", "fork", "git@git.example:fork.git")
        assert Provenance.here().source_repository == "git@git.example:fork.git"
        git(repository, "remote", "add", "origin", "ssh://git@git.example:2222/vision.git")
        assert Provenance.here().source_repository == "ssh://git@git.example:2222/vision.git"

    def test_tells_of_the_submodule_in_a_submodule(
        self, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        git(repository, "clone", "-q", str(repository), str(tmp_path / "outer"))
        git(tmp_path / "outer", "submodule", "add", "-q", str(repository), "inner")
        inner = tmp_path / "outer" / "inner"
        git(inner, "commit", "-q", "--allow-empty", "-m", "Second")
        git(inner, "remote", "set-url", "origin", "https://git.example/inner.git")
        monkeypatch.chdir(inner)
        found = Provenance.here()
        assert found.source_commit == git(inner, "rev-parse", "HEAD") != git(repository, "rev-parse", "HEAD")
        assert found.source_repository == "https://git.example/inner.git"

    def test_tells_less_without_a_commit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        git(tmp_path, "init", "-q")
        found = Provenance.here()
        assert (found.source_commit, "git_dirty" in found.environment) == ("", False)

    def test_tells_nothing_outside_of_a_repository(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        found = Provenance.here()
        assert (found.source_repository, found.source_commit) == ("", "")
        assert "git_dirty" not in found.environment

    @pytest.mark.usefixtures("repository")
    def test_tells_nothing_where_it_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert Provenance.here().source_commit == ""

    def test_tells_nothing_in_a_folder_that_was_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert Provenance.here().source_commit == ""
        assert Provenance.here().environment["python"] == platform.python_version()

    @pytest.mark.parametrize(
        "script", ["exec sleep 60", "echo no commit", "exit 128", "printf '\\377\\0'", "kill -9 $$"]
    )
    def test_may_hang_or_fail_in_any_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        program = write_tree(tmp_path / "bin", {"git": f"#!/bin/sh\n{script}\n"}) / "git"
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr("modelreg._git._TIMEOUT_SECONDS", 0.2)
        start = time.monotonic()
        found = Provenance.here()
        assert (found.source_repository, found.source_commit) == ("", "")
        assert time.monotonic() - start < 10

    def test_starts_no_program_that_the_repository_names(self, repository: Path, tmp_path: Path) -> None:
        program = write_tree(tmp_path / "bin", {"evil": f"#!/bin/sh\ntouch {tmp_path}/started\n"}) / "evil"
        program.chmod(0o755)
        for key in ("core.fsmonitor", "diff.external", "diff.evil.command", "diff.evil.textconv", "core.pager"):
            git(repository, "config", key, str(program))
        write_tree(repository, {".gitattributes": "* diff=evil\n", "train.py": b"2"})
        assert Provenance.here().environment["git_dirty"] == "true"
        assert not (tmp_path / "started").exists()

    def test_is_not_taken_from_the_working_directory(self, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (write_tree(repository, {"git": "#!/bin/sh\ntouch started\n"}) / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f".{os.pathsep}{os.environ['PATH']}")
        Provenance.here()
        assert not (repository / "started").exists()


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://token@git.example/a.git", "https://git.example/a.git"),
        ("https://user:p@ss@git.example:8443/a.git#secret", "https://git.example:8443/a.git"),
        ("ssh://git:secret@git.example/a.git", "ssh://git@git.example/a.git"),
        ("ssh://git@[fe80::1]:22/a.git", "ssh://git@[fe80::1]:22/a.git"),
        ("git@git.example:team/a.git", "git@git.example:team/a.git"),
        ("git.example:team/a.git", "git.example:team/a.git"),
        ("git://git.example/a.git", "git://git.example/a.git"),
        ("/home/me/a.git", ""),
        ("../a.git", ""),
        ("C:\\Users\\me\\a.git", ""),
        ("file:///home/me/a.git", ""),
        ("ext::sh -c secret", ""),
        ("https://[broken/a.git", ""),
        ("https://git.example/a b\n", ""),
        ("https://user:secret@/a.git", ""),
        ("", ""),
    ],
)
def test_the_url_of_a_remote_has_no_credentials_and_is_none_of_this_machine(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


class TestEnvironment:
    def test_has_the_interpreter_and_the_installed_packages(self) -> None:
        environment = Provenance.here().environment
        assert environment["python"] == platform.python_version()
        assert environment["platform"]
        assert environment["packages.pytest"] == pytest.__version__
        assert environment["packages.protobuf"]
        assert [key for key in environment if key.startswith("packages.")] == sorted(
            key for key in environment if key.startswith("packages.")
        )

    def test_has_no_more_packages_than_fit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(700):
            name = f"{number:04}_{'x' * 190}"
            write_tree(tmp_path, {f"p{number}-1.dist-info/METADATA": f"Name: {name}\nVersion: 1.0.{number}\n"})
        write_tree(tmp_path, {"broken-1.dist-info/METADATA": "", "nothing-1.dist-info/other": ""})
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        environment = Provenance.here().environment
        packages = {key: value for key, value in environment.items() if key.startswith("packages.")}
        assert packages[f"packages.0000-{'x' * 190}"] == "1.0.0"
        assert sum(len(key) + len(value) for key, value in packages.items()) <= 128 * 1024
        assert int(environment["packages_omitted"]) >= 700 - len(packages)
        assert max(len(key) for key in packages) <= 256

    def test_is_added_to(self) -> None:
        environment = Provenance.here(environment={"python": "other", "cuda": "12.4"}).environment
        assert (environment["python"], environment["cuda"]) == ("other", "12.4")
        assert "packages.pytest" in environment


def test_the_fields_of_the_caller_win(repository: Path) -> None:
    found = Provenance.here(parents=["vad:1"], seed=7, source_commit="v1.0", training_run="run-7", framework="torch")
    assert found.source_commit == "v1.0"
    assert (found.parents, found.seed, found.training_run, found.framework) == (["vad:1"], 7, "run-7", "torch")
    with pytest.raises(TypeError):
        Provenance.here(sead=7)  # type: ignore[call-arg]


def test_the_registry_takes_and_returns_it(registry: Registry, name: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    here = Provenance.here(seed=7)
    model = registry.push(tmp_path / "model.bin", name=name, version="1", provenance=here)
    assert registry.model(model.id).provenance == here
