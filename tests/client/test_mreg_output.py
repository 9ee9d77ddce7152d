"""What `mreg` writes where: encodings, hostile names, full disks, completion."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from modelreg._wire import methods
from modelreg.cli import main
from modelregistry.v1 import model_pb2, model_service_pb2

from tests.client.fake_server import FakeServer, refusal
from tests.client.mreg import COMMAND, Mreg
from tests.registry import RunningRegistry

HOSTILE = "vad\x1b]0;owned\x07\x1b[2J\u202egnp.exe\x9b31m\n\tend"


@pytest.fixture(scope="module")
def hostile() -> Iterator[Mreg]:
    """The command line with a server that tries to take over the terminal."""
    model = model_pb2.Model(
        id=HOSTILE,
        name=HOSTILE,
        version=HOSTILE,
        format=HOSTILE,
        creator=HOSTILE,
        description=HOSTILE,
        tags={HOSTILE: HOSTILE},
        metrics={HOSTILE: 1},
        aliases=[HOSTILE],
        warnings=[HOSTILE],
        precisions=[HOSTILE],
        artifact=model_pb2.Artifact(file_name=HOSTILE, media_type=HOSTILE, sha256=HOSTILE),
        provenance=model_pb2.Provenance(source_repository=HOSTILE, environment={HOSTILE: HOSTILE}),
        signature=model_pb2.ModelSignature(
            format=HOSTILE, producer=HOSTILE, inputs=[model_pb2.Tensor(name=HOSTILE, element_type=HOSTILE)]
        ),
    )
    model.labels.append(HOSTILE)
    with FakeServer() as server:
        server.answer(methods.LIST_MODELS, model_service_pb2.ListModelsResponse(models=[model]))
        server.answer(methods.RESOLVE_MODEL, model_service_pb2.ResolveModelResponse(model=model))
        away = refusal(grpc.StatusCode.UNAVAILABLE, HOSTILE, HOSTILE, retry_seconds=0)
        server.answer(methods.WHO_AM_I, away, refusal(grpc.StatusCode.INVALID_ARGUMENT, HOSTILE, HOSTILE))
        yield Mreg(server.url)


@pytest.mark.parametrize("arguments", [["ls"], ["show", "vad"]], ids=" ".join)
@pytest.mark.parametrize("kind", ["human", "json", "jsonl", "quiet"])
def test_names_of_a_hostile_server_do_not_reach_the_terminal(hostile: Mreg, arguments: list[str], kind: str) -> None:
    shown = hostile.terminal(*arguments, "--format", kind, columns=2000)

    assert shown.code == 0
    # Colors are our own.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)
    assert "\x1b[31m" not in shown.out
    if kind != "quiet":
        assert "u202egnp.exe" in plain


def test_tracebacks_and_logs_of_a_hostile_server_do_not_reach_the_terminal(hostile: Mreg) -> None:
    shown = hostile.terminal("whoami", "--debug", columns=2000)

    assert shown.code == 2
    assert "trying again" in shown.out
    assert "Traceback" in shown.out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.out)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", plain)


def test_json_keeps_what_it_escapes(hostile: Mreg) -> None:
    assert hostile("show", "vad", "--format", "json").json["name"] == HOSTILE


def test_a_name_of_a_hostile_server_stays_on_its_line(hostile: Mreg) -> None:
    assert len(hostile("ls").out.splitlines()) == 1
    assert len(hostile("ls", "--format", "jsonl").out.splitlines()) == 1


@pytest.mark.parametrize(
    "variables", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_programs_get_utf_8_in_every_locale(
    mreg: Mreg, server: RunningRegistry, name: str, variables: dict[str, str]
) -> None:
    server.client.register(name=f"{name}-日本", version="é")

    ended = mreg.process("ls", name, variables=variables)
    assert f"{name}-日本:é\t" in ended.out


def test_a_file_name_that_the_locale_cannot_write_is_explained(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(b"weights", name=name, artifact={"file_name": "日本.onnx"})

    ended = mreg.process("pull", name, variables={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})

    assert ended.code == 1
    assert "日本.onnx: this name cannot be written in the encoding ascii" in ended.err
    assert "LC_ALL=C.UTF-8" in ended.err


def test_a_terminal_without_unicode_gets_escapes(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(name=f"{name}-日本", version="1")
    variables = {"PYTHONIOENCODING": "latin-1", "NO_COLOR": "1"}

    assert f"{name}-\\u65e5\\u672c:1" in mreg.terminal("ls", name, variables=variables, columns=200).out


def test_a_path_that_is_no_text_is_printed_as_its_bytes(
    mreg: Mreg, server: RunningRegistry, name: str, tmp_path: Path
) -> None:
    server.client.register(b"weights", name=name, artifact={"file_name": "vad.onnx"})
    folder = os.fsencode(tmp_path / "to") + b"-\xff"
    printed = subprocess.run(
        [*COMMAND, "pull", name, "--to", folder], env=mreg.environment(), capture_output=True, check=True
    ).stdout

    assert printed == folder + b"/vad.onnx\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(name=name)
    with Path("/dev/full").open("wb") as full, mreg.started("ls", stdout=full) as process:
        assert process.stderr is not None
        assert b"No space left on device" in process.stderr.read()
        assert process.wait(30) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(mreg: Mreg, closed: str) -> None:
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "ls"],
        env=mreg.environment(),
        capture_output=True,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_script_for_each_shell(mreg: Mreg, shell: str) -> None:
    script = mreg("completion", shell).out

    assert "_MREG_COMPLETE=" + f"{shell}_complete" in script
    assert mreg("completion", "tcsh").code == 2


def _completed(folder: Path, words: str, url: str) -> set[str]:
    """Return what bash offers at the end of a line."""
    program = folder / "mreg"
    program.write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = """
        eval "$(mreg completion bash)"
        COMP_WORDS=($0)
        [[ $0 == *" " ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _mreg_completion mreg
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    completed = subprocess.run(
        ["bash", "--norc", "-c", script, words],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "MODELREG_URL": url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stderr == ""
    return set(completed.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mreg prom", {"promote"}),
        ("mreg alias ", {"ls", "rm", "history"}),
        ("mreg show --fo", {"--format"}),
        ("mreg ls --format j", {"json", "jsonl"}),
        ("mreg show va", set()),
    ],
)
def test_bash_completes_commands_options_and_values_without_a_registry(
    tmp_path: Path, words: str, expected: set[str]
) -> None:
    assert _completed(tmp_path, words, "grpc://127.0.0.1:1") == expected


def test_bash_completes_names_of_models(mreg: Mreg, server: RunningRegistry, name: str, tmp_path: Path) -> None:
    for found in (f"{name}-a", f"{name}-b", f"{name}-b;rm"):
        server.client.register(name=found)

    assert _completed(tmp_path, f"mreg show {name}-", mreg.url) == {f"{name}-a", f"{name}-b"}
    assert _completed(tmp_path, f"mreg promote --url {mreg.url} {name}-b", "grpc://127.0.0.1:1") == {f"{name}-b"}
    assert _completed(tmp_path, f"mreg show {name}%", mreg.url) == set()
    mreg("rm", f"{name}-a", "--yes")
    assert _completed(tmp_path, f"mreg show {name}-", mreg.url) == {f"{name}-b"}
    assert _completed(tmp_path, f"mreg group rm {name}-", mreg.url) == {f"{name}-a", f"{name}-b"}


def test_the_root_completes_every_command() -> None:
    assert list(main.entries) == main.list_commands(main.make_context("mreg", ["ls"], resilient_parsing=True))
