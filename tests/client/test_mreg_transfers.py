"""Pushing, pulling, reading and verifying with `mreg`."""

import hashlib
import os
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO

import pytest
from modelreg import PermissionDenied, Registry
from modelreg.cli._output import Output
from modelreg.cli._progress import INTERVAL_SECONDS, ProgressLines, progress_for
from modelreg.folders import plan_folder

from tests.client.mreg import Mreg
from tests.hanging_proxy import HangingProxy
from tests.polling import eventually
from tests.registry import RunningRegistry
from tests.stub_client import zip_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, and with what is not pushed."""
    root = tmp_path / "vad"
    for path, text in {
        "model.xml": "<net/>",
        "weights/model.bin": "1" * 2000,
        "train.log": "…",
        ".mregignore": "*.log",
        ".git/config": "secret",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    (root / "empty").mkdir()
    return root


def test_push_registers_a_file_with_its_metadata(mreg: Mreg, name: str, tmp_path: Path) -> None:
    file = tmp_path / "vad.onnx"
    file.write_bytes(b"weights")

    pushed = mreg(
        "push", str(file), f"acme/{name}:6.2.3", "--metric", "f1=0.91", "--tag", "team=audio", "--precision", "int8",
        "--model-format", "onnx", "--training-run", "run 7", "--alias", "production", "--alias", "canary",
    )  # fmt: skip

    digest = hashlib.sha256(b"weights").hexdigest()
    assert pushed.code == 0, pushed.err
    assert pushed.out.startswith(f"Registered acme/{name}:6.2.3  @production  @canary\n")
    assert digest in pushed.out
    model = mreg("show", f"acme/{name}@canary", "--format", "json").json
    assert (model["project_id"], model["format"], model["metrics"]) == ("acme", "onnx", {"f1": 0.91})
    assert (model["artifact"]["file_name"], model["artifact"]["sha256"]) == ("vad.onnx", digest)
    assert model["provenance"]["training_run"] == "run 7"


def test_push_records_the_commit_of_the_working_directory(
    mreg: Mreg, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vad.onnx").write_bytes(b"weights")
    for command in (
        ["init", "--quiet"],
        ["remote", "add", "origin", "https://user:secret@git.example/vad.git"],
        ["-c", "user.name=a", "-c", "user.email=a@b.example", "commit", "--quiet", "--allow-empty", "-m", "Begin"],
    ):
        subprocess.run(["git", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()

    pushed = mreg("push", "vad.onnx", f"{name}:1", "--git", "--seed", "7", "--format", "json").json

    provenance = pushed["provenance"]
    assert (provenance["source_commit"], provenance["seed"]) == (commit, "7")
    assert provenance["source_repository"] == "https://git.example/vad.git"
    assert provenance["environment"] == {"git_dirty": "false"}


def test_a_push_with_a_wrong_alias_registers_nothing(mreg: Mreg, name: str, tmp_path: Path) -> None:
    file = tmp_path / "vad.onnx"
    file.write_bytes(b"weights")

    for word, message in [
        ("no alias", "must be 1 to 128 characters"),
        ("latest", "no alias can have this name"),
        ("other@production", "Write --alias production."),
    ]:
        ended = mreg("push", str(file), f"{name}:1", "--alias", "canary", "--alias", word)
        assert (ended.code, message in ended.err) == (2, True)
    assert mreg("show", name).code == 3


def test_a_push_whose_alias_fails_says_that_the_model_is_registered(
    mreg: Mreg, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "vad.onnx"
    file.write_bytes(b"weights")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionDenied("You may not set aliases.")

    monkeypatch.setattr(Registry, "promote", refuse)
    ended = mreg("push", str(file), f"{name}:1", "--alias", "production")

    assert ended.code == 4
    model = mreg("show", f"{name}:1", "--format", "json").json
    assert f"The model is registered: {name}:1, {model['id']}\n" in ended.err


def test_push_reads_stdin(mreg: Mreg, name: str) -> None:
    pushed = mreg.process("push", "-", f"{name}:1", "--file-name", "vad.onnx", "--format", "json", given=b"weights")

    assert pushed.json["artifact"]["file_name"] == "vad.onnx"
    assert mreg.process("cat", f"{name}:1").out == "weights"


def test_push_warns_of_a_name_that_looks_like_a_reference(mreg: Mreg, name: str) -> None:
    pushed = mreg.process("push", "-", f"{name}%3A3:1", "--format", "quiet", given=b"weights")

    assert (pushed.code, f"Warning: The name '{name}:3' is not a reference" in pushed.err) == (0, True)


def test_push_of_what_exists_is_a_conflict_or_returns_it(mreg: Mreg, name: str, tmp_path: Path) -> None:
    file = tmp_path / "vad.onnx"
    file.write_bytes(b"weights")
    first = mreg("push", str(file), f"{name}:1", "--format", "quiet").out

    again = mreg("push", str(file), f"{name}:1")
    assert (again.code, "--if-exists return" in again.err) == (5, True)
    assert mreg("push", str(file), f"{name}:1", "--if-exists", "return", "--format", "quiet").out == first
    file.write_bytes(b"others")
    others = mreg("push", str(file), f"{name}:1", "--if-exists", "return")
    assert (others.code, "exists with other bytes" in others.err, "--if-exists" in others.err) == (5, True, False)


def test_push_tells_that_the_metadata_of_what_exists_stays(mreg: Mreg, name: str, tmp_path: Path) -> None:
    file = tmp_path / "vad.bin"
    file.write_bytes(b"weights")
    command = ("push", str(file), f"{name}:1", "--if-exists", "return", "--metric", "f1=0.5", "--seed", "7")

    assert mreg(*command).err == ""
    assert mreg(*command).err == ""
    other = mreg(*command, "--metric", "auc=0.9", "--tag", "team=audio", "--score", "0.1", "--seed", "8")
    assert other.err == (
        "The model keeps its metadata, which differs in score, metrics.auc, tags.team, provenance.seed. "
        "`mreg edit` changes it.\n"
    )
    assert mreg("show", name, "--format", "json").json["metrics"] == {"f1": 0.5}


def test_a_dry_run_of_a_folder_shows_what_would_be_pushed_and_why_not(mreg: Mreg, name: str, folder: Path) -> None:
    planned = mreg("push", str(folder), f"{name}:1", "--dry-run")
    document = mreg("push", str(folder), f"{name}:1", "--dry-run", "--format", "json").json
    pushed = mreg("push", str(folder), f"{name}:1", "--format", "json").json

    lines = [" ".join(line.split()) for line in planned.out.splitlines()]
    assert "+ 6 B model.xml" in lines
    assert "+ 2.0 kB weights/model.bin" in lines
    assert "- train.log (left out by .mregignore)" in lines
    assert "- .git/ (never pushed)" in lines
    assert "empty/ has no files" in planned.err
    assert document["artifact"]["sha256"] == pushed["artifact"]["sha256"]
    assert document["artifact"]["size_bytes"] == pushed["artifact"]["size_bytes"]
    assert document["artifact"]["file_name"] == pushed["artifact"]["file_name"]
    assert document["artifact"]["kind"] == pushed["artifact"]["kind"] == "KIND_FOLDER"
    assert [file["path"] for file in document["files"]] == [file.path for file in plan_folder(folder).files]


def test_a_dry_run_needs_no_registry(name: str, folder: Path) -> None:
    nowhere = Mreg("grpc://127.0.0.1:1")
    file = folder / "model.xml"

    planned = nowhere("push", str(file), f"{name}:1", "--dry-run", "--format", "quiet")

    assert planned.out.strip() == hashlib.sha256(file.read_bytes()).hexdigest()


def test_push_says_what_is_wrong_with_its_arguments(mreg: Mreg, name: str, tmp_path: Path) -> None:
    for arguments, code, message in [
        ([str(tmp_path / "none"), f"{name}:1"], 2, "does not exist"),
        ([__file__, name], 2, "names no version"),
        ([__file__, f"{name}@production"], 2, "names no version"),
        ([os.devnull, f"{name}:1"], 2, "PATH: "),
        (["-", f"{name}:1", "--dry-run"], 2, "stdin can be read only once"),
        ([__file__, f"{name}:1", "--hyperparameter", "a=" + "[" * 100_000], 2, "nested too deeply"),
        ([__file__, f"{name}:1", "--seed", "9" * 30], 2, "seed: "),
    ]:
        ended = mreg("push", *arguments)
        assert ended.code == code
        assert message in ended.err
        assert "Traceback" not in ended.err


def test_an_interrupted_push_goes_on_when_it_is_repeated(
    mreg: Mreg, server: RunningRegistry, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "vad.onnx"
    file.write_bytes(random.Random(1).randbytes(40_000_000))
    end = file.read_bytes()[20_000_000:20_000_016]
    host, _, port = server.address.rpartition(":")
    with HangingProxy(host, int(port)) as proxy:
        proxy.hang_after(end)
        slow = Mreg(f"grpc://127.0.0.1:{proxy.port}")
        with slow.started("push", str(file), f"{name}:1") as process:
            assert process.stderr is not None
            assert proxy.has_hung.wait(60)
            process.send_signal(signal.SIGINT)
            said = process.stderr.read().decode()
            code = process.wait(30)
        proxy.resume()
        listed = [row for row in mreg("uploads", "ls").rows if row[1] == f"{name}:1"]
        again = slow("push", str(file), f"{name}:1")

    assert code == 130
    assert said == "mreg: interrupted\nRepeat the command to continue: what was sent is kept.\n"
    assert [row[2] for row in listed] == ["vad.onnx"]
    assert again.code == 0
    assert not [row for row in mreg("uploads", "ls").rows if row[1] == f"{name}:1"]


def test_uploads_are_cancelled(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    upload = server.client.create_upload(name=name)

    assert [row[0] for row in mreg("uploads", "ls").rows] == [upload.id]
    assert mreg("uploads", "ls", "--format", "json").json["uploads"][0]["id"] == upload.id
    assert mreg("uploads", "cancel", upload.id).err == f"Cancelled {upload.id}.\n"
    again = mreg("uploads", "cancel", upload.id)
    assert (again.code, "`mreg uploads ls`" in again.err) == (3, True)
    assert mreg("uploads", "ls").err == "There are no uploads.\n"


def test_pull_prints_the_path_of_a_verified_file(
    mreg: Mreg, server: RunningRegistry, name: str, tmp_path: Path
) -> None:
    server.client.register(b"weights", name=name, version="1", artifact={"file_name": "vad.onnx"})

    whole = mreg("pull", name, "--file", "*.onnx")
    assert (whole.code, "Leave `--file` out" in whole.err) == (5, True)
    cached, quiet = mreg("pull", name).out, mreg("pull", name, "--format", "quiet").out
    copied = mreg("pull", f"{name}:1", "--to", str(tmp_path / "to"), "--format", "json").json

    assert cached == quiet
    assert Path(cached.strip()).read_bytes() == b"weights"
    assert Path(copied["path"]) == tmp_path / "to" / "vad.onnx"
    assert (tmp_path / "to" / "vad.onnx").read_bytes() == b"weights"


def test_pull_works_offline_after_it_worked_once(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(b"weights", name=name, version="1")

    before = mreg("pull", name, "--offline")
    assert (before.code, "Pull it once" in before.err) == (3, True)
    online = mreg("pull", name).out
    assert mreg("pull", name, "--offline").out == online


def test_some_files_of_a_folder_are_pulled(mreg: Mreg, name: str, folder: Path, tmp_path: Path) -> None:
    mreg("push", str(folder), f"{name}:1")

    whole = Path(mreg("pull", name).out.strip())
    mreg("pull", name, "--to", str(tmp_path / "to"), "--file", "**/*.bin")
    none = mreg("pull", name, "--file", "*.txt")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    refused = mreg("pull", name, "--to", str(tmp_path / "used"))
    replaced = mreg("pull", name, "--to", str(tmp_path / "used"), "--overwrite")

    assert sorted(path.name for path in whole.rglob("*") if path.is_file()) == ["model.bin", "model.xml"]
    assert [path.relative_to(tmp_path / "to") for path in (tmp_path / "to").rglob("*.*")] == [Path("weights/model.bin")]
    assert none.code == 3
    assert none.err.startswith("mreg: --file: '*.txt' matches no file of ")
    assert "It has 'model.xml', 'weights/model.bin'." in none.err
    assert "mreg " not in none.err.partition("\n")[2]
    assert refused.code == 1
    assert refused.err == (
        f"mreg: {tmp_path / 'used'}: The folder has files, and is not this model. Name a new folder. --overwrite would "
        "delete what the model does not have.\n"
    )
    assert mreg("pull", name, "--to", str(tmp_path / "whole")).code == 0
    assert mreg("pull", name, "--to", str(tmp_path / "whole")).code == 0
    assert replaced.code == 0
    assert not (tmp_path / "used" / "file").exists()
    assert mreg("show", name).out.count("weights/model.bin") == 1


def test_cat_writes_the_bytes_of_a_file(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    data = random.Random(1).randbytes(300_000)
    server.client.register(zip_of({"data.bin": data, "labels.txt": b"cat\n\x1b[31mdog\n"}), name=name, version="1")
    with mreg.started("cat", name, "data.bin") as process:
        assert process.stdout is not None
        assert process.stdout.read() == data
        assert process.wait(30) == 0

    assert mreg.process("cat", name, "labels.txt").out == "cat\n\x1b[31mdog\n"
    assert mreg.terminal("cat", name, "labels.txt").out == "cat\n\\x1b[31mdog\n"
    binary = mreg.terminal("cat", name, "data.bin")
    assert (binary.code, "Redirect stdout to a file" in binary.out) == (2, True)
    missing = mreg("cat", name, "none.txt")
    assert (missing.code, f"`mreg show {name}` lists the files." in missing.err) == (3, True)


def test_verify_tells_damage_by_its_exit_code(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(b"intact" * 100, name=name, version="1")
    sound = mreg("verify", name)
    document = mreg("verify", name, "--format", "json").json
    (stored,) = [path for path in server.objects() if path.read_bytes() == b"intact" * 100]
    stored.chmod(0o600)
    stored.write_bytes(b"broken" * 100)
    damaged = mreg("verify", name)

    assert (sound.code, f"{name}:1 is intact" in sound.out) == (0, True)
    assert document["intact"] is True
    assert (damaged.code, f"{name}:1 is damaged" in damaged.out) == (6, True)
    assert hashlib.sha256(b"broken" * 100).hexdigest() in damaged.out
    assert mreg("pull", name).code == 6


def test_the_cache_is_shown_and_pruned(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(b"weights", name=name, version="1")
    path = mreg("pull", name).out.strip()

    (row,) = mreg("cache", "usage").rows
    document = mreg("cache", "usage", "--format", "json").json
    assert (row[0], row[2], row[4]) == ("7", "file", path)
    assert [entry["path"] for entry in document["entries"]] == [path]
    assert document["size_bytes"] == "7"
    assert path.startswith(mreg("cache", "dir").out.strip() + os.sep)
    assert mreg("cache", "prune", "--max-bytes", "many").code == 2
    assert mreg("cache", "prune", "--max-bytes", "0").err == "Deleted 1 entry: 7 B.\n"
    assert mreg("cache", "usage").out == ""


def test_a_terminal_shows_a_bar_and_a_pipe_does_not(mreg: Mreg, name: str) -> None:
    read, write = os.pipe()
    done = threading.Event()
    with (
        os.fdopen(read, "rb") as stdin,
        os.fdopen(write, "wb") as pipe,
        mreg.on_terminal("push", "-", f"{name}:1", stdin=stdin) as terminal,
    ):
        feeder = threading.Thread(target=_feed, args=(pipe, done))
        feeder.start()
        eventually(lambda: "B/s" in terminal.shown(), what="a bar")
        done.set()
        feeder.join()
        ended = terminal.ended()

    assert ended.code == 0
    assert f"{name}:1" in ended.out
    assert mreg.process("push", "-", f"{name}:2", given=b"weights").err == ""


def _feed(pipe: IO[bytes], done: threading.Event) -> None:
    """Write as long as the bar is not there: it comes after half a second."""
    with pipe:
        while not done.wait(0.05):
            pipe.write(bytes(256 * 1024))
            pipe.flush()


def test_elsewhere_a_line_tells_of_progress_every_30_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = ProgressLines("vad:1", clock=lambda: now)
    for now in range(0, 91, 5):
        lines(now * 10_000_000, 10_000_000_000)

    assert capsys.readouterr().err.splitlines() == [
        "vad:1: 300.0 MB of 10.0 GB (3%), 10.0 MB/s, about 16 min left",
        "vad:1: 600.0 MB of 10.0 GB (6%), 10.0 MB/s, about 16 min left",
        "vad:1: 900.0 MB of 10.0 GB (9%), 10.0 MB/s, about 15 min left",
    ]
    assert INTERVAL_SECONDS == 30
    assert isinstance(progress_for(Output("human"), "vad:1"), ProgressLines)
    assert progress_for(Output("quiet"), "vad:1") is False


def test_a_transfer_of_unknown_size_tells_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter([0.0, 0.0, 31.0])
    lines = ProgressLines("-", clock=lambda: next(times))
    lines(0, None)
    lines(62_000_000, None)

    assert capsys.readouterr().err == "-: 62.0 MB, 2.0 MB/s\n"
