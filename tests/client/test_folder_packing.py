"""Packing a folder: what is in it, its bytes, and files that change meanwhile."""

import os
import random
import shutil
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from modelreg.errors import InvalidArgument, SourceChanged
from modelreg.folders import FolderPlan, plan_folder

from tests.client.folder_trees import contents, packed, write_tree

MIB = 1 << 20


def paths(plan: FolderPlan) -> list[str]:
    return [file.path for file in plan.files]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> FolderPlan:
    """A folder with large and small files."""
    content = random.Random(2).randbytes(2 * MIB + 17)
    tree = {"large": content, "small": b"0123456789", "sub/ü": b"", "zlarge": content[::-1]}
    return plan_folder(write_tree(tmp_path_factory.mktemp("bytes") / "m", tree))


class TestFiles:
    def test_are_in_the_order_of_their_bytes_in_utf8(self, tmp_path: Path) -> None:
        # By characters of UTF-16, U+10000 would come before U+FFFD; by path segments, a/b before a.txt.
        names = ["a.txt", "a/b", "a0", "é", "\ufffd", "\U00010000", "B"]
        plan = plan_folder(write_tree(tmp_path / "m", dict.fromkeys(names, b"")))
        assert paths(plan) == ["B", "a.txt", "a/b", "a0", "é", "\ufffd", "\U00010000"]

    def test_are_read_back_by_zipfile(self, tmp_path: Path) -> None:
        tree = {"model.xml": b"<net/>", "weights/1.bin": random.Random(1).randbytes(3 * MIB), "empty": b""}
        assert contents(packed(write_tree(tmp_path / "m", tree))) == tree

    def test_that_are_left_out_are_named(self, tmp_path: Path) -> None:
        tree = {
            "model.bin": b"1",
            ".git/config": b"",
            "src/__pycache__/a.pyc": b"",
            ".ipynb_checkpoints/n.ipynb": b"",
            "src/.DS_Store": b"",
            "src/logs/1.log": b"",
            "src/keep.log": b"",
            "scratch/x": b"",
            ".mregignore": b"*.log\n!keep.log\n/scratch/\n",
        }
        plan = plan_folder(write_tree(tmp_path / "m", tree), ignore=["nothing"])
        assert paths(plan) == ["model.bin", "src/keep.log"]
        assert plan.skipped == (
            ".git/",
            ".ipynb_checkpoints/",
            ".mregignore",
            "scratch/",
            "src/.DS_Store",
            "src/__pycache__/",
            "src/logs/1.log",
        )

    def test_of_git_are_left_out_whatever_the_rules_include(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {".mregignore": "*\n!*/\n!config\n", ".git/config": b"", "config": b""})
        assert paths(plan_folder(folder, ignore=["!.git", "!.git/config"])) == ["config"]

    def test_are_left_out_by_the_rules_of_the_caller_last(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {".mregignore": "!*.txt\n", "a.txt": b"", "b.bin": b""})
        assert paths(plan_folder(folder, ignore=["*.txt"])) == ["b.bin"]

    def test_in_folders_without_files_cause_a_warning(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"a": b"", "notes/old/": b"", "logs/1.log": b"", ".mregignore": "*.log"})
        plan = plan_folder(folder)
        assert plan.warnings == ("logs/ has no files and is left out.", "notes/ has no files and is left out.")
        assert contents(packed(plan)) == {"a": b""}


class TestLinks:
    def test_to_files_and_folders_inside_are_followed(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"v1/model.bin": b"1"})
        (folder / "latest").symlink_to("v1", target_is_directory=True)
        (folder / "model.bin").symlink_to(folder / "v1" / "model.bin")
        assert contents(packed(folder)) == dict.fromkeys(["latest/model.bin", "model.bin", "v1/model.bin"], b"1")

    @pytest.mark.parametrize(
        ("target", "problem"),
        [
            ("../outside", "is a link out of the folder"),
            ("..", "is a link out of the folder"),
            ("missing", "is a link to a file that does not exist"),
            ("link", "is a link that cannot be followed"),
            (".git/config", "is a link into .git"),
            ("sub/.git", "is a link into .git"),
            (".", "which it is in: a loop"),
        ],
    )
    def test_that_cannot_be_followed_are_refused(self, tmp_path: Path, target: str, problem: str) -> None:
        write_tree(tmp_path, {"outside": b"secret"})
        folder = write_tree(tmp_path / "m", {"a": b"", ".git/config": b"secret", "sub/.git/config": b"secret"})
        (folder / "link").symlink_to(target)
        with pytest.raises(InvalidArgument, match=problem) as raised:
            plan_folder(folder)
        assert [violation.field for violation in raised.value.violations] == ["link"]
        assert paths(plan_folder(folder, ignore=["link"])) == ["a"]

    def test_that_lead_in_a_circle_over_several_folders_are_refused(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"a/x": b"", "b/x": b""})
        (folder / "a" / "to_b").symlink_to("../b", target_is_directory=True)
        (folder / "b" / "to_a").symlink_to("../a", target_is_directory=True)
        with pytest.raises(InvalidArgument, match="a loop"):
            plan_folder(folder)

    def test_as_the_folder_itself_are_followed(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"a": b"1"})
        (tmp_path / "link").symlink_to(folder, target_is_directory=True)
        assert packed(tmp_path / "link") == packed(folder)


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("aux", "is the name of a device"),
            ("com1.txt", "is the name of a device"),
            ("LPT².bin", "is the name of a device"),
            ("a:b", "which Windows forbids"),
            ("what?", "which Windows forbids"),
            ("a\\b", "which Windows forbids"),
            ("dot.", "ends in a dot or a space"),
            ("space ", "ends in a dot or a space"),
            ("line\nbreak", "has control characters"),
        ],
    )
    def test_are_names_that_windows_cannot_have(self, tmp_path: Path, name: str, problem: str) -> None:
        with pytest.raises(InvalidArgument, match=problem):
            plan_folder(write_tree(tmp_path / "m", {f"sub/{name}": b""}))

    @pytest.mark.parametrize(
        "names", [("A", "a"), ("é", "e\u0301"), ("straße", "STRASSE"), ("A/x", "a/y"), ("A/x", "a")]
    )
    def test_are_names_that_other_platforms_cannot_tell_apart(self, tmp_path: Path, names: tuple[str, str]) -> None:
        with pytest.raises(InvalidArgument, match="the same file"):
            plan_folder(write_tree(tmp_path / "m", dict.fromkeys(names, b"")))

    def test_are_names_that_are_not_unicode(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"a": b""})
        try:
            (folder / os.fsdecode(b"\xff")).write_bytes(b"")
        except OSError:
            pytest.skip("the file system has Unicode names only")
        with pytest.raises(InvalidArgument, match="not valid Unicode"):
            plan_folder(folder)

    def test_are_sockets_and_pipes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_tree(tmp_path / "m", {"a": b""})
        os.mkfifo(folder / "pipe")
        monkeypatch.chdir(folder)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            with pytest.raises(InvalidArgument, match="neither a file") as raised:
                plan_folder(folder)
        assert [violation.field for violation in raised.value.violations] == ["pipe", "socket"]

    def test_are_folders_that_are_too_deep_to_walk(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"/".join("d" * 490) + "/f": b"x"})
        with pytest.raises(InvalidArgument, match="too many folders in one another"):
            plan_folder(folder)

    def test_are_folders_without_files(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="has no files to push"):
            plan_folder(write_tree(tmp_path / "m", {"sub/": b""}))

    def test_are_listed_together_up_to_ten(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {f"{number}?": b"" for number in range(12)})
        with pytest.raises(InvalidArgument, match="There are 2 more such problems") as raised:
            plan_folder(folder)
        assert len(raised.value.violations) == 10

    def test_are_links_that_lead_to_ever_more_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_tree(tmp_path / "m", {f"{number:02}/": b"" for number in range(30)})
        for number in range(29):
            for link in ("a", "b"):
                (folder / f"{number:02}" / link).symlink_to(f"../{number + 1:02}", target_is_directory=True)
        monkeypatch.setattr("modelreg.folders._MAX_ENTRIES", 1000)
        with pytest.raises(InvalidArgument, match="more than 1000 files and folders"):
            plan_folder(folder)

    def test_are_paths_that_are_not_folders(self, tmp_path: Path) -> None:
        write_tree(tmp_path, {"file": b""})
        with pytest.raises(NotADirectoryError):
            plan_folder(tmp_path / "file")
        with pytest.raises(FileNotFoundError):
            plan_folder(tmp_path / "missing")


class TestBytes:
    def test_are_the_same_from_every_start(self, plan: FolderPlan) -> None:
        whole = packed(plan)
        edges = {0, len(whole), len(whole) - 1, len(whole) - 22} | set(range(0, 3 * MIB, 700_001))
        edges |= {whole.index(b"PK\x03\x04", start) for start in (0, 2 * MIB + 18)}
        for start in sorted(edges | {edge + 1 for edge in edges}):
            with plan.open(start) as reader:
                assert reader.read(len(whole)) == whole[start:]

    def test_are_the_same_for_every_size_of_read(self, plan: FolderPlan) -> None:
        whole = packed(plan)
        for size in (1009, 65_536, MIB + 1):
            with plan.open() as reader:
                assert b"".join(iter(partial(reader.read, size), b"")) == whole

    def test_are_the_same_after_seeking_back_and_forth(self, plan: FolderPlan) -> None:
        whole, random_numbers = packed(plan), random.Random(3)
        with plan.open() as reader:
            for _ in range(50):
                start, size = random_numbers.randrange(len(whole)), random_numbers.randrange(100_000)
                assert reader.seek(start) == start
                assert reader.read(size) == whole[start : start + size]
                assert reader.tell() == min(start + size, len(whole))

    def test_depend_on_paths_and_contents_only(self, plan: FolderPlan, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        for file in reversed(plan.files):
            write_tree(copy, {file.path: Path(file.source).read_bytes()})
            os.utime(copy / file.path, (1, 1))
            (copy / file.path).chmod(0o755)
        assert packed(copy) == packed(plan)

    @pytest.mark.parametrize("program", [["unzip", "-tqq"], ["bsdtar", "-tf"], ["7z", "t"]], ids=lambda words: words[0])
    def test_are_read_by_other_programs(self, plan: FolderPlan, tmp_path: Path, program: list[str]) -> None:
        if shutil.which(program[0]) is None:
            pytest.skip(f"{program[0]} is not installed")
        (tmp_path / "m.zip").write_bytes(packed(plan))
        subprocess.run([*program, tmp_path / "m.zip"], check=True, capture_output=True)


def _touched(file: Path) -> None:
    os.utime(file, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns + 1))


def _appended(file: Path) -> None:
    with file.open("ab") as opened:
        opened.write(b"x")


def _replaced(file: Path) -> None:
    status = file.stat()
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    copy.replace(file)


def _fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _rewritten_in_secret(file: Path) -> None:
    status = file.stat()
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"?")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = [_touched, _appended, lambda file: os.truncate(file, 3), _replaced, Path.unlink, _fifo]


class TestChanges:
    @pytest.mark.parametrize("size", [10, 2 * MIB], ids=["small", "large"])
    @pytest.mark.parametrize("change", CHANGES)
    def test_before_a_file_is_read_are_noticed(self, tmp_path: Path, change: Callable[[Path], None], size: int) -> None:
        folder = write_tree(tmp_path / "m", {"a": b"", "b": bytes(size)})
        plan = plan_folder(folder)
        change(folder / "b")
        with plan.open() as reader, pytest.raises(SourceChanged, match="was changed") as raised:
            reader.read(plan.size_bytes)
        assert raised.value.metadata == {"path": "b"}

    @pytest.mark.parametrize("change", [_touched, _appended, lambda file: os.truncate(file, 3), _rewritten_in_secret])
    def test_while_a_large_file_is_read_are_noticed(self, tmp_path: Path, change: Callable[[Path], None]) -> None:
        folder = write_tree(tmp_path / "m", {"a": bytes(4 * MIB), "b": b""})
        plan = plan_folder(folder)
        with plan.open() as reader:
            reader.read(MIB)
            change(folder / "a")
            with pytest.raises(SourceChanged):
                reader.read(plan.size_bytes)

    def test_of_a_small_file_between_two_readers_are_noticed(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"a": b"first", "b": b""})
        plan = plan_folder(folder)
        packed(plan)
        _rewritten_in_secret(folder / "a")
        with plan.open() as reader, pytest.raises(SourceChanged):
            reader.read(plan.size_bytes)

    def test_change_the_fingerprint(self, tmp_path: Path) -> None:
        folder = write_tree(tmp_path / "m", {"a": b"1", "b": b"2"})
        before = plan_folder(folder).fingerprint
        assert plan_folder(folder).fingerprint == before
        _touched(folder / "b")
        assert plan_folder(folder).fingerprint != before


def test_checksums_of_large_files_are_computed_before_the_first_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelreg.folders._LARGE_FILE_BYTES", 3 * MIB)
    plan = plan_folder(write_tree(tmp_path / "m", {"large": bytes(4 * MIB), "small": bytes(2 * MIB)}))
    plan.prepare()
    assert [plan._packed.known_checksum(index) is not None for index in range(2)] == [True, False]
    assert contents(packed(plan)) == {"large": bytes(4 * MIB), "small": bytes(2 * MIB)}
