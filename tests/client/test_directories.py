"""Where the client keeps its files."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
from modelreg import InvalidArgument, directories
from modelreg._files import make_private_directory, write_private_file

DIRECTORIES = pytest.mark.parametrize(
    ("find", "variable", "xdg"),
    [
        (directories.configuration_directory, "MODELREG_CONFIG", "XDG_CONFIG_HOME"),
        (directories.state_directory, "MODELREG_STATE", "XDG_STATE_HOME"),
        (directories.cache_directory, "MODELREG_CACHE", "XDG_CACHE_HOME"),
    ],
)
Find = Callable[[dict[str, str]], Path]


@DIRECTORIES
def test_a_variable_of_each_directory_comes_first(find: Find, variable: str, xdg: str, tmp_path: Path) -> None:
    assert find({variable: str(tmp_path / "own"), xdg: "/elsewhere"}) == tmp_path / "own"


@DIRECTORIES
def test_a_variable_may_be_relative_or_name_the_home_directory(find: Find, variable: str, xdg: str) -> None:
    assert find({variable: "here"}) == Path.cwd() / "here"
    assert find({variable: "~/there"}) == Path.home() / "there"
    with pytest.raises(InvalidArgument, match=f"{variable}: ~nobody-has-this-name/x"):
        find({variable: "~nobody-has-this-name/x"})


@DIRECTORIES
def test_the_variables_of_xdg_hold_on_every_platform(find: Find, variable: str, xdg: str, tmp_path: Path) -> None:
    assert find({xdg: str(tmp_path)}) == tmp_path / "modelreg"


@DIRECTORIES
@pytest.mark.parametrize("ignored", ["", "relative"])
def test_the_place_of_the_platform_is_the_default(
    find: Find, variable: str, xdg: str, ignored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(xdg)
    found = find({variable: "", xdg: ignored})
    assert found.is_absolute()
    assert found.is_relative_to(Path.home())
    assert "modelreg" in found.parts


@DIRECTORIES
def test_a_user_without_a_home_directory_is_told_the_variable(
    find: Find, variable: str, xdg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("config", "state", "cache"):
        monkeypatch.setattr(platformdirs, f"user_{kind}_path", lambda *_, **__: Path("~/.x"))
    monkeypatch.setattr(directories, "platformdirs", platformdirs)
    with pytest.raises(InvalidArgument, match=f"no home directory. Set {variable}"):
        find({})


def test_private_files_are_for_this_user_only(tmp_path: Path) -> None:
    directory = tmp_path / "a/b"
    make_private_directory(directory)
    write_private_file(directory / "secret", b"1")
    write_private_file(directory / "secret", b"2")
    assert (directory / "secret").read_bytes() == b"2"
    assert [path.name for path in directory.iterdir()] == ["secret"]
    if os.name != "nt":
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "secret").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    with pytest.raises(OSError, match="folder"):
        write_private_file(tmp_path / "folder", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_file_behind_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    write_private_file(tmp_path / "link", b"2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"2"
