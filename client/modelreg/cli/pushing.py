"""The command `push`."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from modelreg.cli._frame import Command, with_session
from modelreg.cli._metadata_options import metadata_of, metadata_options, provenance_of
from modelreg.cli._output import Output, note
from modelreg.cli._progress import progress_for
from modelreg.cli._text import printable, size, styled

if TYPE_CHECKING:
    from modelreg import Model, Provenance
    from modelreg.cli._session import Session
    from modelreg.folders import FolderPlan

_READ_BYTES = 1 << 20


@click.command("push", cls=Command)
@click.argument("path", metavar="PATH", type=click.Path(exists=True, allow_dash=True))
@click.argument("reference", metavar="NAME:VERSION")
@click.option("--alias", metavar="WORD", multiple=True, help="Point an alias to the model afterwards. Repeatable.")
@click.option("--dry-run", is_flag=True, help="Show what would be pushed, and its SHA-256. Asks no registry.")
@click.option(
    "--if-exists",
    type=click.Choice(["error", "return"]),
    default="error",
    help="Whether a model that exists is an error (default), or is returned if its bytes are the same.",
)
@click.option("--file-name", metavar="NAME", help="The file name of the artifact. Default: that of PATH.")
@click.option("--media-type", metavar="TYPE", help="The media type of the artifact. Default: by the file name.")
@click.option("--git", is_flag=True, help="Record the commit of the working directory, and the remote it came from.")
@metadata_options
@with_session
def push_command(
    session: Session,
    /,
    *,
    path: str,
    reference: str,
    alias: tuple[str, ...],
    dry_run: bool,
    if_exists: str,
    file_name: str | None,
    media_type: str | None,
    git: bool,
    **options: Any,
) -> None:
    """Push a file or a folder, and register it as a model.

    PATH - is stdin. NAME:VERSION may stand after a project's id: PROJECT/NAME:VERSION. A push that was interrupted
    continues when it is repeated.
    """
    name, version, project_id = _identity(reference)
    metadata = metadata_of(options)
    if project_id:
        metadata["project_id"] = project_id
    provenance = provenance_of(options, _checkout() if git else None)
    _check_aliases(alias, name)
    if dry_run:
        _show_plan(session.output, path, f"{name}:{version}", file_name)
        return
    session.remarks.when_interrupted = lambda: _kept(path)
    session.remarks.hints["MODEL_ALREADY_EXISTS"] = (
        "Choose another version."
        if if_exists == "return"
        else "Choose another version. `--if-exists return` accepts a model that has the same bytes."
    )
    model = session.registry.push(
        sys.stdin.buffer if path == "-" else path,
        name=name,
        version=version,
        provenance=provenance,
        if_exists=cast(Literal["error", "return"], if_exists),
        file_name=file_name,
        media_type=media_type,
        progress=progress_for(session.output, reference),
        **metadata,
    )
    # Whatever comes now, this is done.
    session.remarks.when_interrupted = str
    session.remarks.done = f"The model is registered: {model.reference}, {model.id}"
    if not model.created and (fields := _differing(session, model, metadata, provenance)):
        note(f"The model keeps its metadata, which differs in {', '.join(fields)}. `mreg edit` changes it.")
    for word in alias:
        session.registry.promote(word, model)
    session.output.result(model, human=lambda: _show_pushed(session.output, model, alias), quiet=model.id)


def _identity(reference: str) -> tuple[str, str, str | None]:
    """Return name, version and project of a reference that names a version."""
    from modelreg.references import parse_reference  # noqa: PLC0415 - as all of the library, not before it is used

    parsed = parse_reference(reference)
    if parsed.version is None:
        raise click.UsageError(f"{reference!r} names no version: write NAME:VERSION, for example vad:6.2.3.")
    return parsed.name, parsed.version, parsed.project


def _check_aliases(words: tuple[str, ...], name: str) -> None:
    """Check aliases before anything is sent.

    Raises:
        UsageError: A text is no alias, or is one of another model.
    """
    from modelreg.errors import InvalidArgument  # noqa: PLC0415 - as all of the library, not before it is used
    from modelreg.references import parse_reference  # noqa: PLC0415

    for word in words:
        try:
            parsed = parse_reference(word if "@" in word else f"_@{word}")
        except InvalidArgument:
            parsed = None
        if parsed is None or (parsed.alias is None and parsed.version is not None):
            raise click.UsageError(
                f"--alias {word!r}: must be 1 to 128 characters of A-Z a-z 0-9 . _ -, the first a letter or a digit."
            )
        if parsed.alias is None:
            raise click.UsageError(
                "--alias latest: no alias can have this name, which always means the latest version."
            )
        if "@" in word and parsed.name != name:
            raise click.UsageError(f"--alias {word!r}: is an alias of another model. Write --alias {parsed.alias}.")


def _kept(path: str) -> str:
    """Return what to tell the user if the push ends early: whether it can be continued."""
    from modelreg._pushes.upload_records import is_upload_kept  # noqa: PLC0415 - as all of the library

    return "Repeat the command to continue: what was sent is kept." if path != "-" and is_upload_kept(path) else ""


def _differing(session: Session, model: Model, metadata: dict[str, Any], provenance: Provenance | None) -> list[str]:
    """Return the fields that the command gives other values than an existing model has."""
    fields = []
    for name, value in metadata.items():
        if name in ("metrics", "tags"):
            before = getattr(model, name)
            fields += [f"{name}.{key}" for key, entry in value.items() if before.get(key) != entry]
        elif name == "labels":
            fields += [name] if list(value) != list(model.labels) else []
        # What identifies the model is the same.
        elif name not in ("precision", "project_id") and value != getattr(model, name):
            fields.append(name)
    if provenance is not None:
        given = dataclasses.replace(
            provenance, parents=tuple(session.registry.model(parent).id for parent in provenance.parents)
        )
        fields += [
            f"provenance.{field.name}"
            for field in dataclasses.fields(given)
            if (value := getattr(given, field.name)) and value != getattr(model.provenance, field.name)
        ]
    return fields


def _checkout() -> Provenance:
    """Return the provenance that git tells. Not the environment: that of `mreg` need not be that of the training."""
    from modelreg.provenance import Provenance  # noqa: PLC0415

    found = Provenance.here()
    if not found.source_commit:
        note("Warning: the working directory is not in a git repository with a commit.")
    environment = {name: value for name, value in found.environment.items() if name == "git_dirty"}
    return Provenance(
        source_repository=found.source_repository, source_commit=found.source_commit, environment=environment
    )


def _show_pushed(output: Output, model: Model, aliases: tuple[str, ...]) -> None:
    words = "".join(f"  {styled(f'@{printable(word)}', fg='green')}" for word in aliases)
    verb = "Registered" if model.created else "Exists already:"
    output.line(f"{verb} {styled(printable(model.reference), bold=True, fg='cyan')}{words}")
    output.line(f"  {styled('id', dim=True)}      {printable(model.id)}")
    output.line(f"  {styled('size', dim=True)}    {size(model.artifact.size_bytes)}")
    output.line(f"  {styled('sha256', dim=True)}  {printable(model.artifact.sha256)}")
    for warning in model.warnings:
        note(f"Warning: {warning}")


# ---- dry runs ------------------------------------------------------------------------


def _show_plan(output: Output, path: str, reference: str, file_name: str | None) -> None:
    """Print what a push would send."""
    if path == "-":
        raise click.UsageError("--dry-run needs a file or a folder: stdin can be read only once.")
    if Path(path).is_dir():
        from modelreg.folders import plan_folder  # noqa: PLC0415

        plan = plan_folder(path)
        with plan.open() as packed:
            digest = _sha256(packed)
        name = file_name or f"{plan.root.name}.zip"
        skipped = [{"path": found, "reason": _reason(found)} for found in plan.skipped]
        files = [{"path": file.path, "size_bytes": str(file.size_bytes)} for file in plan.files]
        kind, total, warnings = "KIND_FOLDER", plan.size_bytes, list(plan.warnings)
    else:
        with Path(path).open("rb") as file:
            digest, total = _sha256(file), os.fstat(file.fileno()).st_size
        name, skipped, warnings, plan, kind = file_name or Path(path).name, [], [], None, "KIND_FILE"
        files = [{"path": name, "size_bytes": str(total)}]
    artifact = {"file_name": name, "size_bytes": str(total), "sha256": digest, "kind": kind}
    document = {"artifact": artifact, "files": files, "skipped": skipped, "warnings": warnings}

    def human() -> None:
        output.line(f"Would register {styled(printable(reference), bold=True, fg='cyan')}")
        if plan is not None:
            _show_files(output, plan, skipped)
        output.line(f"  {styled('artifact', dim=True)}  {printable(name)}, {size(total)} ({total:,} bytes)")
        output.line(f"  {styled('sha256', dim=True)}    {digest}")
        for warning in warnings:
            note(f"Warning: {warning}")

    output.result(document, human=human, quiet=digest)


def _show_files(output: Output, plan: FolderPlan, skipped: list[dict[str, str]]) -> None:
    width = max(len(size(file.size_bytes)) for file in plan.files)
    for file in plan.files:
        output.line(f"  {styled('+', fg='green')} {size(file.size_bytes).rjust(width)}  {printable(file.path)}")
    for found in skipped:
        text = f"{' ' * width}  {printable(found['path'])}  ({found['reason']})"
        output.line(f"  {styled('-', fg='red')} {styled(text, dim=True)}")


def _reason(path: str) -> str:
    from modelreg.folders import ALWAYS_IGNORED  # noqa: PLC0415

    is_always = path.rstrip("/").rpartition("/")[2] in ALWAYS_IGNORED
    return "never pushed" if is_always else "left out by .mregignore"


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while data := file.read(_READ_BYTES):
        digest.update(data)
    return digest.hexdigest()
