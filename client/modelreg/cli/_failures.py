"""From errors to messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import click

from modelreg import errors
from modelreg.cli._text import is_terminal, printable, styled

FAILURE, USAGE, NOT_FOUND, ACCESS, CONFLICT, INTEGRITY, QUARANTINED = 1, 2, 3, 4, 5, 6, 7
TEMPORARY, INTERRUPTED, TERMINATED = 75, 130, 143


class Terminated(BaseException):
    """SIGTERM arrived."""


class Interrupted(BaseException):
    """Ctrl-C was pressed. Not the exception of Python, for which click prints a line of its own."""


class ReaderGone(BaseException):
    """Nobody reads stdout any more. Not the exception of Python, with which click ends the program itself."""


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error."""
    if isinstance(error, errors.ConnectionFailed) and error.is_permanent:
        return FAILURE
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)


def closed_pipe(error: BaseException) -> bool:
    """Tell whether an error says that the reader of stdout is gone, and then write nothing more to it."""
    # Windows says EINVAL of a closed pipe.
    is_closed = isinstance(error, BrokenPipeError) or (
        os.name == "nt" and isinstance(error, OSError) and error.errno == errno.EINVAL and error.filename is None
    )
    if is_closed:
        with contextlib.suppress(OSError, ValueError):  # No file: a test.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


# The first class that fits counts.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.Quarantined, QUARANTINED),
    (errors.IntegrityError, INTEGRITY),
    (errors.NotFound, NOT_FOUND),
    (errors.NotCached, NOT_FOUND),
    (errors.Unauthenticated, ACCESS),
    (errors.PermissionDenied, ACCESS),
    (errors.AlreadyExists, CONFLICT),
    (errors.Conflict, CONFLICT),
    (errors.PreconditionFailed, CONFLICT),
    (errors.SourceChanged, CONFLICT),
    (errors.Ambiguous, USAGE),
    (errors.InvalidArgument, USAGE),
    (errors.RateLimited, TEMPORARY),
    (errors.Unavailable, TEMPORARY),
    (errors.DeadlineExceeded, TEMPORARY),
    (errors.RegistryError, FAILURE),
    (click.UsageError, USAGE),
    (click.Abort, INTERRUPTED),
    (Interrupted, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
    (Terminated, TERMINATED),
    (ReaderGone, 0),
)

_UNFINISHED = (TEMPORARY, INTERRUPTED, TERMINATED)
_MAX_POINTED = 100
_ARGUMENTS = re.compile(
    r"\b(ca_file|client_certificate|client_key|max_bytes|(?:insecure|force|offline|overwrite|missing_ok)(?==True))(?:=True)?\b"
)  # Arguments of the library that begin its messages, as they are called here.
_SUBJECTS = {"source": "PATH", "files": "--file", "to": "--to", "at": "--at"}
_SUBJECT = re.compile(rf"^({'|'.join(_SUBJECTS)})(?=: )")

# Where the fields of a model are in the requests that create and change it.
_IN_REQUEST = re.compile(r"(upload\.)?(spec\.)?((model|model_group|artifact)\.)?")

_WHOAMI = "`mreg whoami` shows what you may do."
# What to do next on the command line, where the library's hint speaks Python.
_HINTS_BY_REASON = {
    "MODEL_ALREADY_EXISTS": "Choose another name or version.",
    "MODEL_IN_USE": "Move or delete the aliases first, or pass `--force`.",
    "MODEL_HAS_ALIASES": "Move or delete the aliases first: `mreg promote`, `mreg alias rm`.",
    "NO_PREVIOUS_TARGET": "Name the target with `--to`, or point the alias to any version with `mreg promote`.",
    "NEVER_A_TARGET": "`mreg promote` points the alias to it.",
    "TARGET_GONE": "`mreg alias history` lists the earlier targets.",
    "PRECISION_MISMATCH": "Name the precisions of the model with `--precision`, or leave the option out.",
    "REFERENCE_NOT_FOUND": "`mreg ls` lists the models that you may see.",
    "AMBIGUOUS_REFERENCE": "Name one of them, by its id or its project.",
    "ACCESS_DENIED": _WHOAMI,
    "ROLE_MISSING": _WHOAMI,
    "PROJECT_DENIED": _WHOAMI,
    "ALIAS_NOT_FOUND": "`mreg alias ls` lists the aliases.",
    "MODEL_GROUP_NOT_FOUND": "`mreg groups` lists the model groups that you may see.",
    "MODEL_GROUP_NOT_EMPTY": "Delete its models first. `mreg versions` lists them, `mreg rm` deletes them.",
    "PROVENANCE_CYCLE": "Leave out the parents that were made from this model. `mreg lineage` shows them.",
    "UPLOAD_NOT_FOUND": "`mreg uploads ls` lists the uploads.",
    "ARTIFACT_FILE_NOT_FOUND": "`mreg show` lists the files of an artifact.",
    "NOT_AN_ARCHIVE": "Leave the file out to get the artifact itself.",
    "ETAG_MISMATCH": "Another client changed the model at the same time. Look at it, then try again.",
    "ALIAS_CHANGED": "Another client moved the alias at the same time. Look at it with `mreg alias history`, then try "
    "again.",
}
_AMBIGUOUS_WITH_PRECISION = "Name one of them, by its id or its project, or with `--precision`."
_NOTHING_HERE = (
    "Start a registry on this machine with `model-registry up`, or with `make run` in a checkout. Or name another one "
    "with `mreg login URL`, MODELREG_URL or --url."
)
_HINTS_BY_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (errors.NotFound, "`mreg ls` lists the models that you may see."),
    (errors.Unauthenticated, "Sign in with `mreg login`, or set MODELREG_TOKEN."),
    (errors.Quarantined, "Ask the operator of the registry why it is quarantined."),
    (errors.PermissionDenied, _WHOAMI),
    (errors.AlreadyExists, "Choose another name or version."),
    (errors.Conflict, "Another client was first. Look at the present state, then try again."),
    (errors.SourceChanged, "Push it again once nothing writes to it."),
    (errors.IntegrityError, "Try again. If it stays so, tell the operator of the registry."),
    (errors.RateLimited, "Try again later."),
    (errors.DeadlineExceeded, "Try again, or allow more with `--timeout`."),
    (errors.Unavailable, "Try again later."),
    (errors.InternalError, "Tell the operator of the registry the request id."),
)


@dataclass
class Remarks:
    """What a command knows of its errors."""

    when_interrupted: Callable[[], str] = str
    """Returns what to tell the user if the command is interrupted now, or fails for a time. Empty: nothing."""
    done: str = ""
    """What to tell the user if the command does not end well from now on: what it has done."""
    filter_text: str = ""
    """The filter of the command, which errors point into."""
    hints: dict[str, str] = field(default_factory=dict)
    """What to do next, by the reason of an error, where this command has another answer than most. Empty: nothing."""
    takes_precision: bool = False
    """Whether `--precision` of the command chooses one of several models."""
    asks_for_past: bool = False
    """Whether the command asks for an alias as it was, with `--at`."""
    is_default_url: bool = False
    """Whether the registry is the one of this machine that is used where none is named."""
    command: str = "mreg"
    """The command, for example `mreg alias ls`."""
    timeout: float = 30
    """Seconds that a call may take."""
    debug: bool = False
    """Whether tracebacks are shown."""


def report(error: BaseException, remarks: Remarks) -> int:
    """Print an error to stderr: what is wrong, what to do next, the request id. Return the exit code."""
    if remarks.debug:
        _line(printable("".join(traceback.format_exception(error)).rstrip("\n"), lines=True))
    message, hint = _texts(error, remarks)
    code = exit_code(error)
    hints = [hint, remarks.done, remarks.when_interrupted() if code in _UNFINISHED else ""]
    if isinstance(error, Interrupted) and is_terminal(sys.stderr):
        _line("")  # After the ^C.
    _line(f"{styled('mreg:', fg='red', bold=True, err=True)} {printable(message)}")
    for name, description in _details(error):
        # The message often has the first of them, and more of it.
        if description[:80] not in message:
            _line(f"  {printable(f'{_short(name)}: {description}' if name else description)}")
    for text in _pointer(error, remarks.filter_text):
        _line(f"  {text}")
    for text in hints:
        if text:
            _line(printable(text))
    if isinstance(error, errors.RegistryError) and error.request_id:
        _line(f"Request id: {printable(error.request_id)}")
    return code


def _pointer(error: BaseException, text: str) -> list[str]:
    """Return a filter, and below it a mark at the position of the error."""
    position = None
    if isinstance(error, errors.InvalidArgument) and any(found.field == "filter" for found in error.violations):
        position = error.position
    # Where escapes or wide characters move what is below, there is no mark.
    if position is None or not text or len(text) > _MAX_POINTED or not (text.isascii() and text.isprintable()):
        return []
    return [text, f"{' ' * (position - 1)}^"]


def _line(text: str) -> None:
    with contextlib.suppress(OSError):  # stderr is closed: nothing can be said.
        click.echo(text, err=True)


def _texts(error: BaseException, remarks: Remarks) -> tuple[str, str]:
    """Return what is wrong, and what to do next."""
    if isinstance(error, errors.RegistryError):
        message, hint = _message(error, remarks), _hint(error, remarks)
        # What the server says is not about arguments of the library.
        return message if error.request_id else _with_options(message), _with_options(hint)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "mreg"
        return error.format_message(), f"`{command} --help` shows what is right."
    if message := _plain_message(error):
        return message, ""
    return (
        f"internal error: {type(error).__name__}: {error}",
        "Run the command again with `--debug`, and report what it shows.",
    )


def _message(error: errors.RegistryError, remarks: Remarks) -> str:
    """Return what is wrong, in words of the command line where the server speaks of its requests."""
    text = error.message
    if isinstance(error, errors.DeadlineExceeded) and not error.request_id:
        return f"The registry did not answer within {remarks.timeout:g} s."
    if error.reason == "TARGET_GONE":
        return text.replace("in to_model_id", "with `--to`")
    if isinstance(error, errors.InvalidArgument):
        for found in error.violations:
            text = text.replace(f"{found.field}: ", f"{_short(found.field)}: ")
    return text


def _short(name: str) -> str:
    """Return the path of a field without where it is in a request: `metrics.f1` of `upload.spec.model.metrics.f1`."""
    return "--at" if name == "at" else _IN_REQUEST.sub("", name, count=1) or name


def _hint(error: errors.RegistryError, remarks: Remarks) -> str:
    """Return what to do next on the command line."""
    if error.reason and error.reason in remarks.hints:
        return remarks.hints[error.reason]
    if error.reason in ("REFERENCE_NOT_FOUND", "ALIAS_NOT_FOUND") and (
        hint := _hint_about_reference(error.metadata, remarks)
    ):
        return hint
    if isinstance(error, errors.ConnectionFailed) and not error.is_permanent and remarks.is_default_url:
        return _NOTHING_HERE
    if isinstance(error, errors.Ambiguous) and remarks.takes_precision:
        return _AMBIGUOUS_WITH_PRECISION
    hint = _HINTS_BY_REASON.get(error.reason) or error.hint
    if not hint and isinstance(error, errors.InvalidArgument) and error.request_id:
        hint = f"`{remarks.command} --help` shows what is right."
    if not hint and isinstance(error, errors.Conflict) and not error.request_id:
        return ""  # Something on this machine, of which the message says all.
    return hint or next((text for kind, text in _HINTS_BY_CLASS if isinstance(error, kind)), "")


def _hint_about_reference(metadata: Mapping[str, str], remarks: Remarks) -> str:
    """Return which command lists what the part of a reference could be that names nothing."""
    from modelreg.references import group_reference  # noqa: PLC0415 - as all of the library

    part = metadata.get("part", "alias")
    if not (group := group_reference(metadata)):
        return ""
    name = shlex.quote(group)
    if part == "alias" and remarks.asks_for_past:
        return f"`mreg alias history {name}` shows when the aliases pointed where."
    return {
        "version": f"`mreg versions {name}` lists the versions.",
        "precisions": f"`mreg versions {name}` lists the versions with their precisions.",
        "alias": f"`mreg alias ls {name}` lists the aliases.",
    }.get(part, "")


def _with_options(text: str) -> str:
    """Return a text of the library, which names arguments of Python, with the options of the command line."""
    text = _SUBJECT.sub(lambda found: _SUBJECTS[found[1]], text)
    text = _ARGUMENTS.sub(lambda found: f"--{found[1].replace('_', '-')}", text)
    # Of a message that names both.
    return re.sub(r"(--[a-z-]+), \1\b", r"\1", text)


def _plain_message(error: BaseException) -> str:
    """Return what is wrong, if there is nothing to do about it; empty for an unexpected error."""
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, (Interrupted, KeyboardInterrupt, click.Abort)):
        return "interrupted"
    if isinstance(error, Terminated):
        return "terminated"
    if isinstance(error, UnicodeEncodeError) and error.encoding.lower() != "utf-8":
        return (
            f"{error.object}: this name cannot be written in the encoding {error.encoding} of the locale. Set "
            "LC_ALL=C.UTF-8, or another locale with UTF-8."
        )
    if isinstance(error, OSError):
        text = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return _with_options(text if text.endswith(".") else f"{text}.")
    return ""


def _details(error: BaseException) -> list[tuple[str, str]]:
    """Return fields and descriptions."""
    if isinstance(error, errors.Ambiguous):
        return [("", candidate) for candidate in error.candidates]
    if isinstance(error, errors.InvalidArgument):
        return [(found.field, found.description) for found in error.violations]
    if isinstance(error, errors.PreconditionFailed):
        return [(found.field, found.description) for found in error.checks]
    return []
