"""What all commands of `mreg` have in common: help, global options, exit codes, errors."""

import contextlib
import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import click
import modelreg
import pytest
from click.testing import CliRunner
from modelreg import errors
from modelreg.cli import main
from modelreg.cli._failures import Remarks, Terminated, exit_code, report
from modelreg.cli._frame import Group, is_global
from modelreg.cli._text import printable, safe_json, shortened, size, width_of

from tests.client.mreg import COMMAND, Mreg
from tests.polling import eventually
from tests.registry import RunningRegistry


def _commands(prefix: str, group: click.Group) -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        found.append((f"{prefix} {name}", command))
        if isinstance(command, click.Group):
            found += _commands(f"{prefix} {name}", command)
    return found


COMMANDS = _commands("mreg", main)


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    for name, entry in main.entries.items():
        command = entry.load()
        assert command.name == name
        assert entry.short_help == (command.help or "").partition("\n")[0]


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_help_and_takes_the_global_options(name: str, command: click.Command) -> None:
    assert command.help
    assert [parameter.name for parameter in command.params if is_global(parameter)] == [
        "format",
        "url",
        "profile",
        "timeout",
        "ca_file",
        "client_certificate",
        "client_key",
        "insecure",
        "debug",
    ]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"


def test_the_help_lists_all_commands_and_imports_none(mreg: Mreg) -> None:
    program = (
        "import sys\nfrom modelreg.cli import main\ntry:\n    main(['--help'])\n"
        "except SystemExit:\n    print(sorted({'grpc', 'google.protobuf', 'tqdm', 'asyncio'} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    for name in main.entries:
        assert f"  {name} " in shown
    assert shown.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [[], ["alias"], ["cache"]])
def test_a_group_without_a_command_shows_its_help(mreg: Mreg, arguments: list[str]) -> None:
    ended = mreg.process(*arguments)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out == mreg.process(*arguments, "--help").out


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_the_first_line_of_help_is_short(name: str, command: click.Command) -> None:
    """It stands in the list of commands, which cuts what is longer."""
    assert command.get_short_help_str(limit=75).endswith(".")
    assert not command.get_short_help_str(limit=75).endswith("...")


def test_help_is_a_command_too(mreg: Mreg) -> None:
    assert mreg.process("help").out == mreg.process("--help").out
    assert mreg.process("help", "alias", "ls").out == mreg.process("alias", "ls", "--help").out


def test_a_letter_has_one_meaning_in_all_commands() -> None:
    meanings: dict[str, set[str]] = {}
    for _, command in COMMANDS:
        for parameter in command.params:
            for short in (text for text in parameter.opts if len(text) == 2):
                meanings.setdefault(short, set()).update(text for text in parameter.opts if len(text) > 2)

    assert {short: len(names) for short, names in meanings.items()} == dict.fromkeys(meanings, 1)
    assert meanings["-n"] == {"--limit"}


def test_the_version_is_that_of_the_package(mreg: Mreg) -> None:
    assert mreg.process("--version").out == f"mreg {modelreg.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "json", "alias", "ls", "{}"],
        ["alias", "--format", "json", "ls", "{}"],
        ["alias", "ls", "{}", "--format", "json"],
        ["--format", "quiet", "alias", "ls", "--format=json", "{}"],
    ],
)
def test_a_global_option_may_stand_anywhere(
    mreg: Mreg, server: RunningRegistry, name: str, arguments: list[str]
) -> None:
    server.client.register(name=name)

    assert mreg(*(argument.format(name) for argument in arguments)).json == {"aliases": [], "next_page_token": ""}


def test_a_wrong_command_line_is_a_usage_error(mreg: Mreg) -> None:
    for arguments, hint in [
        (["lss"], "Did you mean ls?"),
        (["delete"], "Did you mean rm?"),
        (["get"], "Did you mean pull or show?"),
        (["alias", "delete"], "Did you mean rm?"),
        (["show"], "`mreg show --help` shows what is right."),
        (["ls", "--limit", "no"], "'no' is not a valid integer"),
        (["ls", "--frmat", "json"], "--format"),
        (["help", "lss"], "Did you mean ls?"),
        (["ls", "--format", "xml"], "'human', 'json', 'jsonl', 'quiet'"),
    ]:
        ended = mreg(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert hint in ended.err


def test_every_error_has_the_documented_exit_code() -> None:
    documented = {
        errors.InvalidArgument: 2,
        errors.Ambiguous: 2,
        errors.NotFound: 3,
        errors.NotCached: 3,
        errors.Unauthenticated: 4,
        errors.PermissionDenied: 4,
        errors.AlreadyExists: 5,
        errors.Conflict: 5,
        errors.PreconditionFailed: 5,
        errors.SourceChanged: 5,
        errors.IntegrityError: 6,
        errors.Quarantined: 7,
        errors.RateLimited: 75,
        errors.Unavailable: 75,
        errors.ConnectionFailed: 75,
        errors.DeadlineExceeded: 75,
        errors.Unsupported: 1,
        errors.InternalError: 1,
    }
    kinds = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.RegistryError) and value is not errors.RegistryError
    }

    assert kinds == set(documented)
    assert {kind: exit_code(kind("wrong")) for kind in kinds} == documented
    for other, code in [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (Terminated(), 143),
        (OSError(28, "No space left on device"), 1),
        (ZeroDivisionError(), 1),
    ]:
        assert exit_code(other) == code


def test_an_error_says_what_is_wrong_and_what_to_do_next(mreg: Mreg) -> None:
    ended = mreg("show", "no.such.model")

    wrong, hint, request = ended.err.splitlines()
    assert (ended.code, ended.out) == (3, "")
    assert wrong == "mreg: There is no model group 'no.such.model' (reference 'no.such.model')."
    assert hint == "`mreg ls` lists the models that you may see."
    assert request.startswith("Request id: ")


def test_an_error_in_a_filter_is_pointed_at(mreg: Mreg) -> None:
    ended = mreg("ls", "metrics.f1 > > 3")

    assert ended.code == 2
    assert "  metrics.f1 > > 3\n               ^\n" in ended.err
    assert "^" not in mreg("ls", "metrics.f1 > 3", "--order-by", "no_field").err


def test_an_unexpected_error_is_no_traceback_unless_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 // 0
    codes = [report(caught.value, Remarks()), report(caught.value, Remarks(debug=True))]

    short, _, long = capsys.readouterr().err.partition("Traceback")
    assert codes == [1, 1]
    assert short == (
        "mreg: internal error: ZeroDivisionError: integer division or modulo by zero\n"
        "Run the command again with `--debug`, and report what it shows.\n"
    )
    assert "test_mreg_frame.py" in long


def test_a_registry_that_does_not_answer_is_a_temporary_error() -> None:
    ended = Mreg("grpc://127.0.0.1:1").process("ls", "--timeout", "0.2")

    assert ended.code == 75
    assert ended.err.startswith("mreg: No connection to grpc://127.0.0.1:1")
    assert "is kept" not in Mreg("grpc://127.0.0.1:1").process("push", __file__, "vad:1", "--timeout", "0.2").err
    assert "is kept" not in Mreg("grpc://127.0.0.1:1").process("pull", "vad:1", "--timeout", "0.2").err
    assert "Check that the registry runs" in ended.err
    assert "Traceback" not in ended.err


def test_what_to_do_without_a_registry_is_said_where_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.ConnectionFailed("No connection to grpc://127.0.0.1:50051: refused.", hint="Check it.")
    report(error, Remarks(is_default_url=True))
    report(error, Remarks())

    unnamed, named = capsys.readouterr().err.splitlines()[1::2]
    assert "`model-registry up`" in unnamed
    assert "`mreg login URL`" in unnamed
    assert named == "Check it."


def test_a_conflict_on_this_machine_is_not_blamed_on_others() -> None:
    local = errors.Conflict("Another watch uses the file. Name another file for each watch.")

    assert _reported(local, Remarks()) == f"mreg: {local.message}\n"


def test_errors_speak_of_options_and_not_of_requests(mreg: Mreg, tmp_path: Path) -> None:
    late = errors.DeadlineExceeded("Deadline Exceeded.")
    (tmp_path / "m.onnx").write_bytes(b"weights")
    refused = mreg("push", str(tmp_path / "m.onnx"), "vad:1", "--metric", "f1=nan")

    assert _reported(late, Remarks(timeout=0.001)).startswith("mreg: The registry did not answer within 0.001 s.\n")
    assert refused.code == 2
    assert refused.err.startswith("mreg: metrics.f1: ")
    assert "`mreg push --help` shows what is right." in refused.err


def _reported(error: Exception, remarks: Remarks) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        report(error, remarks)
    return shown.getvalue()


def test_a_connection_that_can_never_succeed_is_no_temporary_error() -> None:
    unknown = Mreg("grpcs://no-such-host.invalid")("ls")
    missing = Mreg("grpcs://127.0.0.1:1")("ls", "--ca-file", "/nowhere/ca.pem")

    assert (unknown.code, "The name of the host is unknown." in unknown.err) == (1, True)
    assert (missing.code, "--ca-file: /nowhere/ca.pem cannot be read" in missing.err) == (2, True)


def test_hints_name_options_instead_of_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    hint = "Pass ca_file, client_certificate and client_key, or insecure=True, --insecure or MODELREG_INSECURE=1."
    report(errors.ConnectionFailed("No connection.", hint=hint), Remarks())

    expected = "Pass --ca-file, --client-certificate and --client-key, or --insecure or MODELREG_INSECURE=1."
    assert capsys.readouterr().err == f"mreg: No connection.\n{expected}\n"


def test_a_closed_pipe_is_no_error(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    for version in range(3):
        server.client.register(name=name, version=str(version), description="x" * 60_000)
    with mreg.started("versions", name, "--format", "jsonl") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()

        assert process.stderr.read() == b""
        assert process.wait(30) == 0


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["ls", "--help"], []])
def test_help_into_a_closed_pipe_is_no_error(mreg: Mreg, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout, mreg.started(*arguments, stdout=stdout) as process:
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["push", "-", "closed:1", "--file-name", "x"], 2, "is empty. A model needs"),
        (["login", "--token-stdin"], 2, "stdin"),
        (["edit", "closed:1", "--description-file", "-"], 3, "There is no model"),
    ],
)
def test_a_closed_stdin_is_an_empty_one(mreg: Mreg, arguments: list[str], code: int, said: str) -> None:
    command = shlex.join([*COMMAND, *arguments])
    ended = subprocess.run(
        ["sh", "-c", f"{command} <&-"], env=mreg.environment(), capture_output=True, text=True, check=False, timeout=60
    )

    assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
    assert said in ended.stderr


NOT_UTF8 = "a\udcff"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", NOT_UTF8],
        ["ls", NOT_UTF8],
        ["versions", NOT_UTF8],
        ["pull", NOT_UTF8],
        ["log", NOT_UTF8],
        ["watch", NOT_UTF8],
        ["cat", NOT_UTF8],
        ["rm", NOT_UTF8, "--yes"],
        ["diff", NOT_UTF8, "b"],
        ["ls", "--url", NOT_UTF8],
        ["push", __file__, f"x{NOT_UTF8}:1"],
        ["push", __file__, "x:1", "--training-run", NOT_UTF8],
        ["push", __file__, "x:1", "--dataset", f"a={NOT_UTF8}"],
        ["push", __file__, "x:1", "--tag", f"a={NOT_UTF8}"],
        ["push", __file__, "x:1", "--file-name", NOT_UTF8],
    ],
)
def test_text_that_is_not_utf8_is_a_usage_error(arguments: list[str], mreg: Mreg) -> None:
    url = () if "--url" in arguments else ("--url", mreg.url)
    ended = CliRunner().invoke(main, [*arguments, *url], prog_name="mreg")

    assert ended.exit_code == 2, ended.stderr
    assert "udcff" in ended.stderr or "not UTF-8" in ended.stderr
    assert "internal error" not in ended.stderr


def test_a_signal_counts_whatever_it_made_fail(mreg: Mreg, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    @click.argument("number", type=int)
    def command(number: int) -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            # As Python 3.11 does where it makes a class.
            raise RuntimeError("Error calling __set_name__") from error

    monkeypatch.setattr("modelreg.cli._frame.Entry.load", lambda _: command)
    ends = [mreg_without_url(str(int(number))) for number in (signal.SIGTERM, signal.SIGINT)]

    assert ends == [(143, "mreg: terminated\n"), (130, "mreg: interrupted\n")]


def mreg_without_url(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["ls", *arguments], prog_name="mreg")
    return result.exit_code, result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_with_their_code(
    mreg: Mreg, server: RunningRegistry, name: str, number: signal.Signals, code: int
) -> None:
    with mreg.started("watch", "--from-beginning") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        server.client.register(name=name)
        while name.encode() not in process.stdout.readline():
            pass

        process.send_signal(number)

        assert process.wait(30) == code
        assert process.stderr.read() == (b"mreg: interrupted\n" if code == 130 else b"mreg: terminated\n")


def test_ctrl_c_on_a_terminal_leaves_the_prompt_on_a_line_of_its_own(
    mreg: Mreg, server: RunningRegistry, name: str
) -> None:
    server.client.register(name=name)
    with mreg.on_terminal("watch", f"name = {name}", "--from-beginning", variables={"NO_COLOR": "1"}) as terminal:
        eventually(lambda: f"model registered  {name}:1" in terminal.shown(), what="an event")
        terminal.type("\x03")
        ended = terminal.ended()

    assert ended.code == 130
    assert ended.out.startswith(f"Watching {mreg.url}. Ctrl-C stops.\n")
    assert ended.out.endswith("^C\nmreg: interrupted\n")


def test_a_terminal_gets_colors_unless_they_are_unwanted(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    server.client.register(name=name)

    assert "\x1b[1mMODEL" in mreg.terminal("ls", f"name = {name}").out
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = mreg.terminal("ls", f"name = {name}", variables=variables).out
        assert plain.startswith("MODEL")
        assert "\x1b" not in plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vad", "vad"),
        ("日本 é 🎉", "日本 é 🎉"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb", r"a\u202eb"),
        ("\u2066\u200f\u2028\ufeff", r"\u2066\u200f\u2028\ufeff"),
    ],
)
def test_text_that_could_mislead_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_has_no_character_that_misleads_a_terminal() -> None:
    assert safe_json('{"a": "\u202e\x7f\x9b"}') == r'{"a": "\u202e\u007f\u009b"}'


def test_wide_characters_count_as_two_columns() -> None:
    assert width_of("日本") == 4
    assert width_of("e\u0301") == 1
    assert shortened("日本語モデル", 7) == "日本語…"
    assert shortened("short", 7) == "short"


def test_sizes_read_as_people_write_them() -> None:
    assert [size(number) for number in (0, 999, 1000, 999_949, 999_950, 1_234_567, 10**10, 10**18)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "1.2 MB",
        "10.0 GB",
        "1000.0 PB",
    ]


def test_a_list_starts_fast(mreg: Mreg, server: RunningRegistry, name: str) -> None:
    """What takes the time is imports, so that is what is counted: the machine of a test may be busy."""
    server.client.register(name=name)
    program = (
        "import sys\nfrom modelreg.cli import main\ntry:\n    main(['ls'])\n"
        "except SystemExit:\n    print(sorted({'tqdm', 'keyring', 'modelreg._async', 'modelreg.aio'} "
        "& set(sys.modules)), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=mreg.environment(), capture_output=True, text=True, check=True
    )

    assert name in ended.stdout
    assert ended.stderr == "[]\n"


def test_groups_are_groups_of_mreg() -> None:
    assert all(isinstance(command, Group) for _, command in COMMANDS if isinstance(command, click.Group))


def test_the_module_runs_as_the_command(tmp_path: Path) -> None:
    ended = subprocess.run([*COMMAND, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert ended.stdout.startswith("Usage: mreg ")


@pytest.mark.parametrize("command", ["ls", "groups", "log", "watch"])
def test_a_filter_without_quotes_is_told(mreg: Mreg, command: str) -> None:
    ended = mreg(command, "name", "=", "foo*")

    assert (ended.code, f"Quote it: mreg {command} 'name = foo*'" in ended.err) == (2, True)
    assert "unexpected extra argument" in mreg("whoami", "name").err
