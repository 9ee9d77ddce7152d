"""The commands `ls`, `show`, `versions` and `rm`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from modelreg.cli._frame import Command, with_session
from modelreg.cli._model_view import MAX_FILES, MODEL_COLUMNS, VERSION_COLUMNS, show_model
from modelreg.cli._name_completion import complete_name
from modelreg.cli._options import ask_before, at_option, limited, precision_option
from modelreg.cli._output import note
from modelreg.cli._text import size

if TYPE_CHECKING:
    from modelreg import ArtifactFile, Model
    from modelreg.cli._session import Session


@click.command("ls", cls=Command)
@click.argument("filter_text", metavar="[FILTER]", default="")
@click.option("--order-by", metavar="FIELDS", default="", help="For example 'metrics.f1 desc, create_time'.")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="The maximum number of models.")
@with_session
def ls_command(session: Session, filter_text: str, order_by: str, limit: int | None) -> None:
    """List models.

    The newest come first. FILTER chooses them, for example 'format = onnx AND metrics.f1 > 0.9'. Default: all.
    """
    session.remarks.filter_text = filter_text
    models = session.registry.models(filter_text, order_by=order_by)
    found = session.output.items(
        limited(models, limit), key="models", columns=MODEL_COLUMNS, quiet=lambda model: model.id
    )
    if not found and session.output.is_human:
        note("No models match the filter." if filter_text else "The registry has no models that you may see.")


@click.command("show", cls=Command)
@click.argument("reference", metavar="REF", shell_complete=complete_name)
@precision_option
@at_option
@with_session
def show_command(session: Session, reference: str, precision: tuple[str, ...], at: datetime | None) -> None:
    """Show a model.

    Metadata, artifact, files, metrics, tags, inputs and outputs, provenance.
    """
    model = session.registry.model(reference, precision=precision, at=at)
    session.output.result(
        model,
        human=lambda: show_model(session.output, model, _parents(session, model), _files(session, model)),
        quiet=model.id,
    )


def _files(session: Session, model: Model) -> list[ArtifactFile]:
    """Return the first files of an artifact that has several, one more than are shown."""
    if model.artifact.kind != "folder" and model.artifact.media_type != "application/zip":
        return []
    from modelreg.errors import RegistryError  # noqa: PLC0415 - as all of the library, not before it is used

    try:
        return session.registry.files(model).to_list(MAX_FILES + 1)
    except RegistryError:
        # A damaged archive must not hide the model.
        return []


def _parents(session: Session, model: Model) -> dict[str, str]:
    """Return the references of the parents of a model, by id, as far as the caller may read them."""
    if not model.provenance.parents:
        return {}
    nodes = session.registry.lineage(model, max_depth=1).nodes
    return {node.model_id: node.model.reference for node in nodes if node.model}


@click.command("versions", cls=Command)
@click.argument("name", metavar="NAME", shell_complete=complete_name)
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="The maximum number of versions.")
@with_session
def versions_command(session: Session, name: str, limit: int | None) -> None:
    """List the versions of a model, the latest first.

    NAME is the name of a model, also after PROJECT/.
    """
    versions = session.registry.versions(name)
    session.output.items(limited(versions, limit), key="models", columns=VERSION_COLUMNS, quiet=lambda model: model.id)


@click.command("rm", cls=Command)
@click.argument("references", metavar="REF...", nargs=-1, required=True, shell_complete=complete_name)
@precision_option
@click.option("--force", is_flag=True, help="Delete the aliases that point to the model, too.")
@click.option("--missing-ok", is_flag=True, help="Let models that do not exist count as deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Required where stdin is no terminal.")
@with_session
def rm_command(
    session: Session,
    *,
    references: tuple[str, ...],
    precision: tuple[str, ...],
    force: bool,
    missing_ok: bool,
    yes: bool,
) -> None:
    """Delete models and their artifacts.

    A reference without a version means the latest version only.
    """
    models = _found(session, references, precision, missing_ok)
    if models and not yes:
        ask_before([f"{model.reference}  {size(model.artifact.size_bytes)}  {model.id}" for model in models])
    session.output.done(_deleted(session, models, force=force, missing_ok=missing_ok))


def _deleted(session: Session, models: list[Model], *, force: bool, missing_ok: bool) -> Iterator[tuple[str, str]]:
    for model in models:
        # As the model was when it was shown: its etag refuses a later state.
        session.registry.delete(model, force=force, missing_ok=missing_ok)
        yield model.id, f"Deleted {model.reference}."


def _found(session: Session, references: tuple[str, ...], precision: tuple[str, ...], missing_ok: bool) -> list[Model]:
    from modelreg.errors import NotFound  # noqa: PLC0415 - as all of the library, not before it is used

    models = []
    for reference in references:
        try:
            models.append(session.registry.model(reference, precision=precision))
        except NotFound:
            if not missing_ok:
                raise
    return models
