"""What all commands have in common: global options, lazy loading, errors, exit codes."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import click

from modelreg._version import __version__
from modelreg.cli._failures import Interrupted, ReaderGone, Terminated, closed_pipe, exit_code, report
from modelreg.cli._session import FORMATS, Session

P = ParamSpec("P")
Result = TypeVar("Result")

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@dataclass(frozen=True)
class Entry:
    """A command that is imported when it is needed."""

    name: str
    module: str
    """The module that has the command, as an attribute of its name."""
    short_help: str

    def load(self) -> click.Command:
        """Import the command."""
        command: click.Command = getattr(importlib.import_module(self.module), f"{self.name}_command")
        return command


# ---- global options -----------------------------------------------------------


class GlobalOption(click.Option):
    """An option that every command takes, at any place of the line. The last one counts."""


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    session = context.find_object(Session)
    if session is not None and parameter.name and value is not None:
        session.options[parameter.name] = value


def _global_option(*names: str, **attributes: Any) -> GlobalOption:
    return GlobalOption(list(names), expose_value=False, callback=_keep, default=None, **attributes)


def global_options() -> list[click.Parameter]:
    """Return new options for a command."""
    return [
        _global_option(
            "--format",
            type=click.Choice(FORMATS),
            help="How results are printed: for people (default), as the JSON of /v1, as a line of JSON per result, or "
            "only ids and paths.",
        ),
        _global_option(
            "--url",
            metavar="URL",
            help="The registry: grpc://host:port, grpcs:// (TLS), or http(s):// (the gateway). Default: MODELREG_URL, "
            "else the profile, else grpc://127.0.0.1:50051.",
        ),
        _global_option("--profile", metavar="NAME", help="The profile of `mreg login` to use."),
        _global_option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="How long a call may take, repetitions included. Default: 30. Transfers have no limit.",
        ),
        _global_option("--ca-file", metavar="FILE", help="PEM file with the certificate authorities to trust."),
        _global_option("--client-certificate", metavar="FILE", help="PEM file with the client's certificate chain."),
        _global_option("--client-key", metavar="FILE", help="PEM file with the client's private key."),
        _global_option(
            "--insecure", is_flag=True, flag_value=True, help="Allow to send the token without TLS to another machine."
        ),
        _global_option("--debug", is_flag=True, flag_value=True, help="Show tracebacks, and log what the client does."),
    ]


class _TakesGlobalOptions(click.Command):
    """A command with the global options, which only the help of the whole program describes."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        attributes.setdefault("context_settings", CONTEXT)
        attributes["params"] = [*(attributes.get("params") or ()), *global_options()]
        super().__init__(*args, **attributes)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_options(ctx, formatter, "Options", [found for found in _options(ctx) if not is_global(found)])
        shared = [found.opts[0] for found in _options(ctx) if is_global(found)]
        formatter.write_paragraph()
        formatter.write_text(f"Global options, which `mreg --help` describes: {', '.join(shared)}.")


def is_global(parameter: click.Parameter) -> bool:
    """Tell whether every command has the option."""
    return isinstance(parameter, GlobalOption)


def _options(context: click.Context) -> list[click.Option]:
    return [found for found in context.command.get_params(context) if isinstance(found, click.Option)]


def _write_options(
    context: click.Context, formatter: click.HelpFormatter, title: str, options: Sequence[click.Option]
) -> None:
    if records := [record for found in options if (record := found.get_help_record(context))]:
        with formatter.section(title):
            formatter.write_dl(records)


class Command(_TakesGlobalOptions):
    """A command of `mreg`. It may return an exit code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Of a filter without quotes, the shell makes several."""
        ctx.allow_extra_args = any(found.name == "filter_text" for found in self.params)
        extra = super().parse_args(ctx, args)
        if extra and not ctx.resilient_parsing:
            text = shlex.quote(" ".join([ctx.params["filter_text"], *extra]))
            ctx.fail(f"A filter is one argument. Quote it: {ctx.command_path} {text}")
        return extra

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and name it in the errors of its usage."""
        if session := ctx.find_object(Session):
            session.remarks.command = ctx.command_path
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


# What other tools call the commands.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "compare": ("diff",),
    "delete": ("rm",),
    "describe": ("show",),
    "download": ("pull",),
    "find": ("ls",),
    "get": ("pull", "show"),
    "info": ("show",),
    "list": ("ls",),
    "register": ("push",),
    "remove": ("rm",),
    "search": ("ls",),
    "set": ("edit", "promote"),
    "tag": ("edit", "promote"),
    "update": ("edit",),
    "upload": ("push",),
}


class Group(_TakesGlobalOptions, click.Group):
    """A group of commands of `mreg`, which its help lists first."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _TakesGlobalOptions.format_options(self, ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. Without any, print the help, as versions of click do in different ways."""
        if not args and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), color=ctx.color)
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command, and name similar ones if there is none."""
        if not ctx.resilient_parsing and args and not args[0].startswith("-") and not self.get_command(ctx, args[0]):
            names = self.list_commands(ctx)
            similar = [name for name in _SYNONYMS.get(args[0], ()) if name in names]
            similar = similar or difflib.get_close_matches(args[0], names, n=1)
            hint = f" Did you mean {' or '.join(similar)}?" if similar else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def with_session(
    function: Callable[Concatenate[Session, P], Result],
) -> Callable[P, Result]:
    """Pass the session as the first argument."""
    return click.make_pass_decorator(Session, ensure=True)(function)


# ---- the program ----------------------------------------------------------------


class MainGroup(Group):
    """The whole program: loads commands when they are needed, and turns errors into messages and exit codes."""

    def __init__(self, *, sections: Mapping[str, Sequence[Entry]], help: str) -> None:  # noqa: A002 - as in click
        super().__init__("mreg", help=help, params=[_version_option()])
        self._sections = sections
        self._entries = {entry.name: entry for entries in sections.values() for entry in entries}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The commands by name."""
        return self._entries

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and all options."""
        self.format_commands(ctx, formatter)
        options = _options(ctx)
        _write_options(ctx, formatter, "Options", [found for found in options if not is_global(found)])
        _write_options(ctx, formatter, "Global options, also after the command", [o for o in options if is_global(o)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments. `mreg help ls` is `mreg ls --help`."""
        if args[:1] == ["help"] and not ctx.resilient_parsing:
            args = [*args[1:], "--help"]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help."""
        del ctx
        return list(self._entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        entry = self._entries.get(cmd_name)
        return None if entry is None else entry.load()

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section, without importing them."""
        del ctx
        width = max(len(name) for name in self._entries)
        for title, entries in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(entry.name.ljust(width), entry.short_help) for entry in entries])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the command line, which prints the help and the version."""
        with _kept_from_click():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _kept_from_click():
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run the program and exit.

        Args:
            args: The arguments. Default: those of the process.
            prog_name: The name of the program in messages. Default: that of the process.
            extra: Arguments of `click.Context`.
        """
        _open_closed_streams()
        session = Session()
        # The messages of gRPC's core are for its developers: the client raises errors of its own.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        arguments = list(sys.argv[1:] if args is None else args)
        extra.pop("standalone_mode", None)
        signals = _Signals()
        try:
            with signals, session:
                code = super().main(arguments, prog_name, standalone_mode=False, obj=session, **extra)
        except (SystemExit, GeneratorExit):
            raise
        except BaseException as raised:  # noqa: BLE001 - every error becomes a message and an exit code
            error = signals.cause_of(raised)
            session.remarks.debug = bool(session.options.get("debug")) or "--debug" in arguments
            code = exit_code(error) if isinstance(error, ReaderGone) else report(error, session.remarks)
        try:
            sys.stdout.flush()
        except OSError as error:
            code = code if closed_pipe(error) else report(error, session.remarks)
        sys.exit(code if isinstance(code, int) else 0)


def _open_closed_streams() -> None:
    """Let a stream that was closed before the program began (`<&-`, `>&-`) be empty, or discard what is written."""
    # In this order, each gets the number of the stream that it stands for.
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - to the end of the process


@contextmanager
def _kept_from_click() -> Iterator[None]:
    """Keep from click the exceptions that it treats in its own way."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted from None
    except OSError as error:
        if closed_pipe(error):
            raise ReaderGone from None
        raise


class _Signals:
    """Lets SIGTERM end the program as Ctrl-C does: what runs is cleaned up, and can be resumed."""

    def __init__(self) -> None:
        self._noted: type[BaseException] | None = None
        self._before: dict[int, Any] = {}

    def cause_of(self, error: BaseException) -> BaseException:
        """Return why the program ends. Some code, for example Python's own that makes classes, wraps every error."""
        if self._noted is None or isinstance(error, (self._noted, Interrupted, ReaderGone)):
            return error
        return self._noted().with_traceback(error.__traceback__)

    def __enter__(self) -> None:
        try:
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._terminate)
            # Something else may be there: a shell that starts programs in the background ignores it for them.
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._interrupt)
        except ValueError:  # Not the main thread: a test.
            return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _terminate(self, number: int, frame: object) -> NoReturn:
        del number, frame
        self._noted = Terminated
        raise Terminated

    def _interrupt(self, number: int, frame: object) -> NoReturn:
        del number, frame
        self._noted = Interrupted
        raise KeyboardInterrupt


def _version_option() -> click.Option:
    def show(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        del parameter
        if value and not context.resilient_parsing:
            click.echo(f"mreg {__version__}")
            context.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show the version and exit."
    )
