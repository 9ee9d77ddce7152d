"""The commands `groups` and `group`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Literal, cast

import click

from modelreg.cli._frame import Command, Group, with_session
from modelreg.cli._metadata_options import text_of
from modelreg.cli._model_view import print_description
from modelreg.cli._name_completion import complete_group
from modelreg.cli._options import ask_before, limited
from modelreg.cli._output import Column, Output, note, print_blocks
from modelreg.cli._param_types import Assignment
from modelreg.cli._text import age, printable, styled, utc, when

if TYPE_CHECKING:
    from modelreg import ModelGroup
    from modelreg.cli._session import Session

    Goal = Literal["maximize", "minimize"]

_GOALS = ("maximize", "minimize")
_MAPS = ("metric_goals", "tags")


def _name(group: ModelGroup) -> str:
    from modelreg.references import format_reference  # noqa: PLC0415 - as all of the library, not before it is used

    return format_reference(group.name, project=group.project_id or group.project_name)


def _goals(group: ModelGroup) -> str:
    return ", ".join(f"{name} {goal}" for name, goal in sorted(group.metric_goals.items()))


_COLUMNS: Sequence[Column[ModelGroup]] = (
    Column("name", _name, shrinks=True, style="cyan"),
    Column("latest", lambda group: group.latest_version, shrinks=True),
    Column("versions", lambda group: str(group.version_count), align_right=True),
    Column("updated", lambda group: age(group.update_time), lambda group: utc(group.update_time)),
    Column("owner", lambda group: group.owner, shrinks=True),
    Column("goals", _goals, shrinks=True),
    Column("id", lambda group: group.id, optional=True),
)


@click.command("groups", cls=Command)
@click.argument("filter_text", metavar="[FILTER]", default="")
@click.option("--order-by", metavar="FIELDS", default="", help="For example 'name'.")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="The maximum number of model groups.")
@click.option("-a", "--all", "show_empty", is_flag=True, help="List the groups without models, too.")
@with_session
def groups_command(session: Session, *, filter_text: str, order_by: str, limit: int | None, show_empty: bool) -> None:
    """List model groups: the names, each with its latest version.

    The newest come first. FILTER chooses them, for example 'name = v*' or 'tags.team = audio'. Default: all.
    """
    session.remarks.filter_text = filter_text
    session.remarks.hints["INVALID_FILTER"] = "Example of a filter: 'name = v* AND tags.team = audio'."
    groups = session.registry.groups(filter_text, order_by=order_by, show_empty=show_empty)
    found = session.output.items(
        limited(groups, limit), key="model_groups", columns=_COLUMNS, quiet=lambda group: group.id
    )
    if not found and session.output.is_human:
        note("No model groups match the filter." if filter_text else "The registry has no models that you may see.")


@click.group("group", cls=Group)
def group_command() -> None:
    """Show, change and delete what all versions of a model have in common."""


@group_command.command("show")
@click.argument("name", metavar="NAME", shell_complete=complete_group)
@with_session
def show_group(session: Session, name: str) -> None:
    """Show a model group.

    NAME is the name of a model, also after PROJECT/, or the id of the group. `mreg versions` lists its models.
    """
    group = session.registry.group(name)
    session.output.result(group, human=lambda: _show(session.output, group), quiet=group.id)


def _show(output: Output, group: ModelGroup) -> None:
    time = when if output.is_terminal else utc
    output.line(styled(printable(_name(group)), bold=True, fg="cyan"))
    facts = [
        ("id", printable(group.id)),
        ("project", " ".join(printable(text) for text in (group.project_name, group.project_id) if text)),
        ("owner", printable(group.owner)),
        ("versions", str(group.version_count)),
        ("latest", printable(group.latest_version)),
        ("created", time(group.create_time)),
        ("updated", time(group.update_time)),
    ]
    tags = [(name, printable(value)) for name, value in group.tags.items()]
    print_blocks(output, [("", facts), ("Metric goals", group.metric_goals.items()), ("Tags", tags)])
    print_description(output, group.description)


@group_command.command("rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_group)
@click.option("--missing-ok", is_flag=True, help="Let model groups that do not exist count as deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Required where stdin is no terminal.")
@with_session
def delete_groups(session: Session, *, names: tuple[str, ...], missing_ok: bool, yes: bool) -> None:
    """Delete model groups that have no models.

    Deletes their aliases and the history of them, too. `mreg groups --all` lists the groups without models.
    """
    groups = _found(session, names, missing_ok)
    if groups and not yes:
        ask_before([f"{_name(group)}  {group.version_count} versions  {group.id}" for group in groups])
    session.output.done(_deleted(session, groups, missing_ok=missing_ok))


def _deleted(session: Session, groups: list[ModelGroup], *, missing_ok: bool) -> Iterator[tuple[str, str]]:
    for group in groups:
        # As the group was when it was shown: its etag refuses a later state.
        session.registry.delete_group(group, missing_ok=missing_ok)
        yield group.id, f"Deleted the model group {_name(group)}."


def _found(session: Session, names: tuple[str, ...], missing_ok: bool) -> list[ModelGroup]:
    from modelreg.errors import NotFound  # noqa: PLC0415 - as all of the library, not before it is used

    groups = []
    for name in names:
        try:
            groups.append(session.registry.group(name))
        except NotFound:
            if not missing_ok:
                raise
    return groups


@group_command.command("edit")
@click.argument("name", metavar="NAME", shell_complete=complete_group)
@click.option("--description", metavar="TEXT", help="A description in Markdown.")
@click.option(
    "--description-file", type=click.File(encoding="utf-8"), metavar="FILE", help="The same from a file; - is stdin."
)
@click.option("--owner", metavar="TEXT", help="The person or the team that is responsible.")
@click.option(
    "--metric-goal",
    type=Assignment(),
    multiple=True,
    help="Which values of a metric are better: f1=maximize or loss=minimize. Repeatable.",
)
@click.option("--tag", type=Assignment(), multiple=True, help="A tag, for example team=audio. Repeatable.")
@click.option(
    "--unset", multiple=True, metavar="FIELD", help="Remove a field: metric_goals.NAME or tags.NAME. Repeatable."
)
@with_session
def edit_group(
    session: Session,
    *,
    name: str,
    description: str | None,
    description_file: IO[str] | None,
    owner: str | None,
    metric_goal: tuple[tuple[str, str], ...],
    tag: tuple[tuple[str, str], ...],
    unset: tuple[str, ...],
) -> None:
    """Change the fields of a model group.

    Either all changes are made, or none. Goals and tags are merged by name. An empty text removes a description or an
    owner.
    """
    if description_file is not None:
        if description is not None:
            raise click.UsageError("--description and --description-file give the same field: pass one of them.")
        description = text_of(description_file)
    changes: dict[str, dict[str, str | None]] = {"metric_goals": dict(metric_goal), "tags": dict(tag)}
    for metric, goal in metric_goal:
        if goal not in _GOALS:
            raise click.UsageError(f"--metric-goal {metric}={goal}: must be {metric}=maximize or {metric}=minimize.")
    for field in unset:
        _unset(changes, field)
    if description is None and owner is None and not any(changes.values()):
        raise click.UsageError("Nothing to change: pass at least one option.")
    before = session.registry.group(name)
    # As it was read: a change by another client in between is refused.
    group = session.registry.update_group(
        before,
        description=description,
        owner=owner,
        tags=changes["tags"],
        metric_goals=cast("dict[str, Goal | None]", changes["metric_goals"]),
    )
    said = f"Nothing changed in {_name(group)}." if group.etag == before.etag else f"Changed {_name(group)}."
    session.output.result(group, human=lambda: note(said), quiet=group.id)


def _unset(changes: dict[str, dict[str, str | None]], field: str) -> None:
    """Add the removal of an entry to the changes."""
    table, _, key = field.partition(".")
    if table not in _MAPS or not key:
        raise click.UsageError(f"--unset {field}: must be metric_goals.NAME or tags.NAME.")
    if changes[table].setdefault(key, None) is not None:
        raise click.UsageError(f"--unset {field}: it is set, too.")
