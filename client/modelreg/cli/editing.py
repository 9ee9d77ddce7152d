"""The command `edit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelreg.cli._frame import Command, with_session
from modelreg.cli._metadata_options import metadata_of, metadata_options, provenance_of
from modelreg.cli._name_completion import complete_name
from modelreg.cli._output import note

if TYPE_CHECKING:
    from modelreg.cli._session import Session

_LISTS = ("precision", "labels")
_UNSETTABLE = (
    "project_id",
    "project_name",
    *_LISTS,
    "target_device_type",
    "format",
    "origin",
    "category",
    "architecture",
    "description",
    "score",
    "overview",
    "optimization_capabilities",
)


@click.command("edit", cls=Command)
@click.argument("reference", metavar="REF", shell_complete=complete_name)
@click.option("--name", metavar="TEXT", help="Another name.")
@click.option("--version", metavar="TEXT", help="Another version.")
@click.option("--project-id", metavar="TEXT", help="Another project.")
@metadata_options
@click.option(
    "--unset",
    multiple=True,
    metavar="FIELD",
    help="Remove a field: metrics.NAME, tags.NAME, or one of " + ", ".join(_UNSETTABLE) + ". Repeatable.",
)
@with_session
def edit_command(
    session: Session,
    /,
    *,
    reference: str,
    name: str | None,
    version: str | None,
    project_id: str | None,
    unset: tuple[str, ...],
    **options: Any,
) -> None:
    """Change the metadata of a model.

    Either all changes are made, or none. Metrics, tags and hyperparameters are merged by name. Labels, precisions,
    parents and datasets are replaced.
    """
    changes = metadata_of(options)
    identity = {"name": name, "version": version, "project_id": project_id}
    changes.update({field: value for field, value in identity.items() if value is not None})
    for field in unset:
        _unset(changes, field)
    has_provenance = provenance_of(options, None) is not None
    if not (changes or has_provenance):
        raise click.UsageError("Nothing to change: pass at least one option.")
    before = session.registry.model(reference)
    provenance = provenance_of(options, before.provenance) if has_provenance else None
    # As it was read: a change by another client in between is refused.
    model = session.registry.update(before, provenance=provenance, **changes)
    if model.revision == before.revision:
        said = f"Nothing changed in {model.reference}."
    else:
        said = f"Changed {model.reference} to revision {model.revision}."
    session.output.result(model, human=lambda: note(said), quiet=model.id)


def _unset(changes: dict[str, Any], field: str) -> None:
    """Add the removal of a field to the changes."""
    table, _, key = field.partition(".")
    if table in ("metrics", "tags") and key:
        if changes.setdefault(table, {}).setdefault(key, None) is not None:
            raise click.UsageError(f"--unset {field}: it is set, too.")
    elif field in _UNSETTABLE:
        if field in changes:
            raise click.UsageError(f"--unset {field}: it is set, too.")
        changes[field] = () if field in _LISTS else None
    else:
        raise click.UsageError(f"--unset {field}: must be metrics.NAME, tags.NAME, or one of {', '.join(_UNSETTABLE)}.")
