"""The commands `promote`, `rollback` and `alias`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from modelreg.cli._failures import CONFLICT
from modelreg.cli._frame import Command, Group, with_session
from modelreg.cli._name_completion import complete_name
from modelreg.cli._options import ask_before, dry_run_option, reason_option
from modelreg.cli._output import Column, note
from modelreg.cli._param_types import Duration, NumberAssignment
from modelreg.cli._text import age, printable, styled, utc

if TYPE_CHECKING:
    from modelreg import Alias, AliasMove, AliasTarget, Conflict, Model, Promotion
    from modelreg.cli._session import Session

_MAX_OTHER_ALIASES = 10


@click.command("promote", cls=Command)
@click.argument("reference", metavar="MODEL", shell_complete=complete_name)
@click.argument("alias", metavar="ALIAS")
@reason_option
@click.option(
    "--expect", metavar="REF", help="The model that the alias must point to now; '' means none. Default: whatever."
)
@click.option("--require-verified", is_flag=True, help="The registry must find the stored bytes intact.")
@click.option(
    "--max-verification-age",
    type=Duration(),
    help="How old a stored verification may be for that. Default: verify now.",
)
@click.option("--min-metric", type=NumberAssignment(), multiple=True, help="The least value of a metric. Repeatable.")
@click.option("--max-metric", type=NumberAssignment(), multiple=True, help="The largest value of a metric. Repeatable.")
@click.option("--same-inputs", is_flag=True, help="The inputs must be those of the present target.")
@click.option("--same-outputs", is_flag=True, help="The outputs must be those of the present target.")
@click.option("--same-labels", is_flag=True, help="The labels must be those of the present target.")
@dry_run_option
@with_session
def promote_command(
    session: Session,
    *,
    reference: str,
    alias: str,
    reason: str,
    expect: str | None,
    require_verified: bool,
    max_verification_age: timedelta | None,
    min_metric: tuple[tuple[str, float], ...],
    max_metric: tuple[tuple[str, float], ...],
    same_inputs: bool,
    same_outputs: bool,
    same_labels: bool,
    dry_run: bool,
) -> int:
    """Point an alias to a model.

    ALIAS is a word such as production. It is created if there is none. Nothing changes unless the model meets all
    requirements.
    """
    from modelreg.aliases import Bound, Requirements  # noqa: PLC0415 - as all of the library, not before it is used
    from modelreg.errors import Conflict  # noqa: PLC0415

    if ":" in alias and "@" not in alias:
        word = "production" if set(reference) & set(":/") else reference
        raise click.UsageError(
            f"ALIAS: {alias} names a version. The model comes first, then the alias: mreg promote {alias} {word}"
        )
    lowest, highest = dict(min_metric), dict(max_metric)
    requirements = Requirements(
        verified=require_verified or max_verification_age is not None,
        max_verification_age=max_verification_age,
        metrics={name: Bound(min=lowest.get(name), max=highest.get(name)) for name in {**lowest, **highest}},
        same_inputs=same_inputs,
        same_outputs=same_outputs,
        same_labels=same_labels,
    )
    model = session.registry.model(reference)
    name = model.reference.rpartition(":")[0]
    expected = session.registry.model(expect) if expect else expect
    try:
        promotion = session.registry.promote(
            alias,
            model,
            reason=reason,
            expect=expected,
            require=None if requirements == Requirements() else requirements,
            validate_only=dry_run,
        )
    except Conflict as error:
        if error.reason != "ALIAS_CHANGED" or expected is None:
            raise
        raise _unexpected(session, error, f"{name}@{alias.rpartition('@')[2]}", expected) from error
    code = _print_promotion(session, promotion, name, dry_run=dry_run)
    if session.output.is_human and promotion.before is None and promotion.changed:
        _note_new_alias(session, promotion, name, dry_run=dry_run)
    return code


def _unexpected(session: Session, error: Conflict, alias: str, expected: Model | str) -> Conflict:
    """Return an error that says in references where an alias points instead of where `--expect` says."""
    now = _reference(session, error.metadata.get("model_id", ""))
    wanted = expected if isinstance(expected, str) else expected.reference
    if now == wanted and not isinstance(expected, str):
        # They differ in their precisions.
        now, wanted = f"{now} {error.metadata['model_id']}", f"{wanted} {expected.id}"
    session.remarks.hints[error.reason] = (
        f"Look at `mreg alias history {shlex.quote(alias)}`, then decide whether to promote all the same."
    )
    return type(error)(
        f"{alias} points to {now}, not to {wanted}." if wanted else f"{alias} exists, and points to {now}.",
        reason=error.reason,
        request_id=error.request_id,
        metadata=error.metadata,
    )


def _reference(session: Session, model_id: str) -> str:
    """Return the reference of a model, or its id where it cannot be read."""
    from modelreg.errors import RegistryError  # noqa: PLC0415 - as all of the library, not before it is used

    try:
        return session.registry.model(model_id).reference if model_id else "no model"
    except RegistryError:
        return f"the model {model_id}"


def _note_new_alias(session: Session, promotion: Promotion, name: str, *, dry_run: bool) -> None:
    """Tell that an alias is new, and which others there are: its name may be a slip."""
    from modelreg.errors import RegistryError  # noqa: PLC0415 - as all of the library, not before it is used

    word = promotion.alias.alias
    try:
        aliases = session.registry.aliases(promotion.alias.model_group_id).to_list(_MAX_OTHER_ALIASES + 1)
    except RegistryError:
        aliases = []  # It is done, and must not look like a failure.
    others = [found.alias for found in aliases if found.alias != word][:_MAX_OTHER_ALIASES]
    text = f"{'Would create' if dry_run else 'Created'} the alias {word}"
    note(f"{text}; {name} also has {', '.join(others)}." if others else f"{text}.")


@click.command("rollback", cls=Command)
@click.argument("alias", metavar="NAME@ALIAS", shell_complete=complete_name)
@click.option(
    "--to", metavar="REF", help="An earlier target. Default: the previous one; each rollback goes further back."
)
@reason_option
@dry_run_option
@with_session
def rollback_command(session: Session, alias: str, to: str | None, reason: str, dry_run: bool) -> int:
    """Point an alias to its previous target, or to an earlier one."""
    promotion = session.registry.rollback(alias, to=to, reason=reason, validate_only=dry_run)
    return _print_promotion(session, promotion, alias.rpartition("@")[0], dry_run=dry_run)


def _print_promotion(session: Session, promotion: Promotion, name: str, *, dry_run: bool) -> int:
    """Print what was done, and return the exit code."""
    failed = [check for check in promotion.checks if not check.passed]

    def human() -> None:
        reference = printable(f"{name}@{promotion.alias.alias}")
        before, after = _version(promotion.before), printable(promotion.alias.version)
        if failed:
            text = f"{reference} stays at {before}: {after} does not meet the requirements"
        elif not promotion.changed:
            text = f"{reference} points to {after} already"
        else:
            moved = f"{styled(reference, bold=True)}  {before} → {styled(after, fg='green')}"
            text = f"Would move {moved}" if dry_run else moved
        session.output.line(text)
        for check in promotion.checks:
            mark = styled("passed", fg="green") if check.passed else styled("failed", fg="red")
            session.output.line(f"  {mark}  {printable(f'{check.requirement}  {check.description}'.rstrip())}")

    session.output.result(promotion, human=human, quiet=promotion.alias.model_id)
    return CONFLICT if failed else 0


def _version(target: AliasTarget | None) -> str:
    return "nothing" if target is None else printable(target.version)


# ---- mreg alias --------------------------------------------------------------------


@click.group("alias", cls=Group)
def alias_command() -> None:
    """List aliases, delete them, and show their history."""


def _alias_columns(names: dict[str, str]) -> Sequence[Column[Alias]]:
    return (
        Column(
            "alias", lambda alias: f"{names.get(alias.model_group_id, '')}@{alias.alias}", shrinks=True, style="green"
        ),
        Column("version", lambda alias: alias.version, shrinks=True, style="cyan"),
        Column("moved", lambda alias: age(alias.update_time), lambda alias: utc(alias.update_time)),
        Column("by", lambda alias: alias.actor, shrinks=True),
        Column("reason", lambda alias: alias.reason, shrinks=True),
        Column("model id", lambda alias: alias.model_id, optional=True),
    )


@alias_command.command("ls")
@click.argument("name", metavar="[NAME]", default="", shell_complete=complete_name)
@with_session
def list_aliases(session: Session, name: str) -> None:
    """List the aliases of a model, or of all models."""
    aliases = session.registry.aliases(name)
    names: dict[str, str] = {}
    if session.output.is_human:
        names = _group_names(session, aliases) if not name else {alias.model_group_id: name for alias in aliases}
    session.output.items(aliases, key="aliases", columns=_alias_columns(names), quiet=lambda alias: alias.model_id)


def _group_names(session: Session, aliases: Iterable[Alias]) -> dict[str, str]:
    """Return the references of the model groups that aliases belong to, by id."""
    from modelreg.references import format_reference  # noqa: PLC0415

    wanted = {alias.model_group_id for alias in aliases}
    if not wanted:
        return {}
    return {
        group.id: format_reference(group.name, project=group.project_id or group.project_name)
        for group in session.registry.groups()
        if group.id in wanted
    }


@alias_command.command("rm")
@click.argument("alias", metavar="NAME@ALIAS", shell_complete=complete_name)
@reason_option
@click.option("--missing-ok", is_flag=True, help="Let an alias that does not exist count as deleted.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask. Required where stdin is no terminal.")
@with_session
def delete_alias(session: Session, alias: str, reason: str, missing_ok: bool, yes: bool) -> None:
    """Delete an alias.

    Its history stays, and continues if the alias is set again.
    """
    if not yes:
        ask_before([alias])
    session.registry.delete_alias(alias, reason=reason, missing_ok=missing_ok)
    session.output.done([(alias, f"Deleted {alias}.")])


_MOVE_COLUMNS: Sequence[Column[AliasMove]] = (
    Column("moved", lambda move: age(move.move_time), lambda move: utc(move.move_time)),
    Column("alias", lambda move: move.alias, style="green"),
    Column("what", lambda move: move.kind.replace("_", " "), lambda move: move.kind),
    Column("from", lambda move: move.before.version if move.before else "", shrinks=True),
    Column("to", lambda move: move.after.version if move.after else "", shrinks=True, style="cyan"),
    Column("by", lambda move: move.actor, shrinks=True),
    Column("reason", lambda move: move.reason, shrinks=True),
    Column("request id", lambda move: move.request_id, optional=True),
)


@alias_command.command("history")
@click.argument("alias", metavar="NAME[@ALIAS]", shell_complete=complete_name)
@with_session
def show_history(session: Session, alias: str) -> None:
    """Show the moves of an alias, the newest first.

    NAME without an alias means all aliases of the model. A deleted alias keeps its history.
    """
    session.output.items(
        session.registry.history(alias),
        key="alias_moves",
        columns=_MOVE_COLUMNS,
        quiet=lambda move: move.after.model_id if move.after else "",
    )
