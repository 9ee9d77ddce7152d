"""The commands `pull`, `cat` and `verify`."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from datetime import datetime
from typing import IO, TYPE_CHECKING

import click

from modelreg.cli._failures import INTEGRITY
from modelreg.cli._frame import Command, with_session
from modelreg.cli._name_completion import complete_name
from modelreg.cli._options import at_option, precision_option
from modelreg.cli._progress import TransferProgress, progress_for
from modelreg.cli._text import is_terminal, printable, size, styled

if TYPE_CHECKING:
    from modelreg.cli._session import Session

_READ_BYTES = 1 << 20


@click.command("pull", cls=Command)
@click.argument("reference", metavar="REF", shell_complete=complete_name)
@click.option(
    "--to",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="The folder for the file, or for the files of a folder. Default: it stays in the cache, read-only.",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="PATTERN",
    help="Only these files of the artifact: `*` stops at `/`, `**` does not. Repeatable.",
)
@precision_option
@at_option
@click.option("--offline", is_flag=True, help="Take it from the cache, as the reference was last resolved.")
@click.option("--verify", is_flag=True, help="Hash again what is in the cache.")
@click.option("--overwrite", is_flag=True, help="Let FOLDER have files: those that are not in the model are deleted.")
@with_session
def pull_command(
    session: Session,
    *,
    reference: str,
    to: str | None,
    files: tuple[str, ...],
    precision: tuple[str, ...],
    at: datetime | None,
    offline: bool,
    verify: bool,
    overwrite: bool,
) -> None:
    """Download the artifact of a model, complete and verified.

    Prints the path. What the cache has is not downloaded again. A pull that was interrupted continues when it is
    repeated.
    """
    # The error about a pattern lists the files.
    session.remarks.hints["ARTIFACT_FILE_NOT_FOUND"] = ""
    session.remarks.hints["NOT_AN_ARCHIVE"] = "Leave `--file` out to get the artifact itself."
    with TransferProgress(session.output, reference) as progress:
        session.remarks.when_interrupted = lambda: (
            "Repeat the command to continue: what arrived is kept." if progress.has_begun else ""
        )
        path = session.registry.pull(
            reference,
            to=to,
            files=files or None,
            precision=precision,
            at=at,
            offline=offline,
            verify=verify,
            overwrite=overwrite,
            progress=progress,
        )
    output, text = session.output, os.fspath(path)
    output.result(
        {"path": text},
        human=lambda: output.line(printable(text) if output.is_terminal else text),
        quiet=text,
    )


@click.command("cat", cls=Command)
@click.argument("reference", metavar="REF", shell_complete=complete_name)
@click.argument("file", metavar="[FILE]", required=False)
@precision_option
@at_option
@with_session
def cat_command(
    session: Session, *, reference: str, file: str | None, precision: tuple[str, ...], at: datetime | None
) -> None:
    """Write a file of an artifact to stdout.

    Nothing else of the artifact is downloaded. FILE is the path of a file inside the artifact, for example
    labels.txt. Default: the artifact itself.
    """
    session.remarks.hints["ARTIFACT_FILE_NOT_FOUND"] = f"`mreg show {shlex.quote(reference)}` lists the files."
    with session.registry.open(reference, file=file, precision=precision, at=at) as source:
        if is_terminal(sys.stdout):
            _copy_to_terminal(source, file or reference)
        else:
            sys.stdout.flush()
            shutil.copyfileobj(source, sys.stdout.buffer, _READ_BYTES)
            sys.stdout.buffer.flush()


def _copy_to_terminal(source: IO[bytes], name: str) -> None:
    """Write a text, with its control characters escaped: they could change what the terminal does."""
    data = source.read(_READ_BYTES)
    if b"\0" in data:
        raise click.UsageError(f"{name} is no text. Redirect stdout to a file, or use `mreg pull --file`.")
    while data:
        # To the end of a line, so that no character is cut in two.
        data += source.readline()
        click.echo(printable(data.decode("utf-8", "backslashreplace"), lines=True), nl=False)
        data = source.read(_READ_BYTES)


@click.command("verify", cls=Command)
@click.argument("reference", metavar="REF", shell_complete=complete_name)
@precision_option
@with_session
def verify_command(session: Session, *, reference: str, precision: tuple[str, ...]) -> int:
    """Check the stored bytes of an artifact against its SHA-256.

    The registry reads them. Exits with 6 if they are damaged.
    """
    model = session.registry.model(reference, precision=precision)
    found = session.registry.verify(model, progress=progress_for(session.output, reference))
    output = session.output

    def human() -> None:
        name = printable(model.reference)
        if found.intact:
            output.line(f"{name} is {styled('intact', fg='green', bold=True)}: {size(found.actual_size_bytes)}")
            output.line(f"  {styled('sha256', dim=True)}  {printable(found.actual_sha256)}")
        else:
            output.line(f"{name} is {styled('damaged', fg='red', bold=True)}")
            registered = model.artifact
            output.line(f"  registered  {registered.size_bytes:,} bytes, sha256 {printable(registered.sha256)}")
            output.line(f"  stored      {found.actual_size_bytes:,} bytes, sha256 {printable(found.actual_sha256)}")

    output.result(found, human=human, quiet=model.id)
    return 0 if found.intact else INTEGRITY
