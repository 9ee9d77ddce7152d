"""The commands `log` and `watch`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modelreg.cli._failures import INTEGRITY
from modelreg.cli._frame import Command, with_session
from modelreg.cli._options import limited
from modelreg.cli._output import Column, note
from modelreg.cli._text import age, is_terminal, local, printable, styled, utc

if TYPE_CHECKING:
    from modelreg import Event
    from modelreg.cli._session import Session


_ALWAYS_CHANGED = {"revision", "update_time"}


def _subject(event: Event) -> str:
    """Return what changed: `vad@production`, `vad:6.2.3`, or `vad` and the model's id if the event has no version."""
    if not event.name:
        return ""
    if event.alias:
        return f"{event.name}@{event.alias}"
    version = _version(event.after) or _version(event.before)
    return f"{event.name}:{version}" if version else f"{event.name} {event.model_id}".rstrip()


def _version(state: Any) -> str:
    found = state.get("version", "") if isinstance(state, dict) else ""
    return found if isinstance(found, str) else ""


def _change(event: Event) -> str:
    """Return the change in a few words: `6.2.2 → 6.2.3`, or the fields that changed."""
    if event.damaged:
        return "the stored event was altered"
    before, after = _version(event.before), _version(event.after)
    if event.alias:
        return f"{before or 'nothing'} → {after or 'nothing'}"
    if event.action == "model_updated":
        return ", ".join(sorted({*(event.before or {}), *(event.after or {})} - _ALWAYS_CHANGED))
    return ""


_COLUMNS: Sequence[Column[Event]] = (
    Column("#", lambda event: str(event.sequence), align_right=True),
    Column("when", lambda event: age(event.event_time), lambda event: utc(event.event_time)),
    Column("action", lambda event: event.action.replace("_", " "), lambda event: event.action, style="yellow"),
    Column("what", _subject, shrinks=True, style="cyan"),
    Column("change", _change, shrinks=True),
    Column("by", lambda event: event.actor, shrinks=True),
    Column("reason", lambda event: event.reason, shrinks=True),
    Column("request id", lambda event: event.request_id, optional=True),
)


@click.command("log", cls=Command)
@click.argument("filter_text", metavar="[FILTER]", default="")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="The maximum number of events.")
@click.option("--verify", is_flag=True, help="Check instead that no event was altered or removed. Exits with 6 if so.")
@with_session
def log_command(session: Session, *, filter_text: str, limit: int | None, verify: bool) -> int:
    """Show the audit log, the newest event first.

    FILTER chooses events, for example 'name = vad AND action = ACTION_ALIAS_*'. Default: all.
    """
    _remember_filter(session, filter_text)
    if verify:
        return _verify(session, filter_text)
    session.output.items(
        limited(session.registry.log(filter_text), limit),
        key="audit_events",
        columns=_COLUMNS,
        quiet=lambda event: str(event.sequence),
    )
    return 0


def _remember_filter(session: Session, filter_text: str) -> None:
    session.remarks.filter_text = filter_text
    session.remarks.hints["INVALID_FILTER"] = "Example of a filter: 'name = vad AND action = ACTION_ALIAS_*'."


def _verify(session: Session, filter_text: str) -> int:
    if filter_text:
        raise click.UsageError("--verify checks the whole log, without a filter.")
    found = session.registry.verify_log()

    def human() -> None:
        if found.valid:
            session.output.line(f"All {found.checked_count:,} events are {styled('as they were written', fg='green')}.")
            session.output.line(f"The last one is {found.head.sequence} with the hash {printable(found.head.hash)}.")
        else:
            problem = printable(found.problem or "it is missing, or it was altered")
            session.output.line(f"{styled('Damaged:', fg='red', bold=True)} event {found.broken_sequence}: {problem}")

    session.output.result(found, human=human, quiet=found.head.hash)
    return 0 if found.valid else INTEGRITY


@click.command("watch", cls=Command)
@click.argument("filter_text", metavar="[FILTER]", default="")
@click.option(
    "--resume-file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Where the position is kept: after a restart, the watch goes on with the next event.",
)
@click.option("--from-beginning", is_flag=True, help="Start with the first event of the log.")
@with_session
def watch_command(session: Session, *, filter_text: str, resume_file: str | None, from_beginning: bool) -> None:
    """Print changes as they happen.

    Until Ctrl-C, across restarts of the registry. FILTER chooses events, for example 'name = vad AND action =
    ACTION_ALIAS_*'. Default: all. The formats json and jsonl print a line per event.
    """
    _remember_filter(session, filter_text)
    output = session.output
    if output.is_human and is_terminal(sys.stderr):
        note(f"Watching {session.registry.url}. Ctrl-C stops.")
    for event in session.registry.watch(filter_text, resume_file=resume_file, from_beginning=from_beginning):
        if output.is_json:
            output.json_line(event)
        elif output.is_human:
            output.line(_line(event) if output.is_terminal else _plain_line(event))
        else:
            output.quiet(str(event.sequence))
        # Before the position is kept, so that no event is lost.
        sys.stdout.flush()


def _line(event: Event) -> str:
    action = styled(event.action.replace("_", " "), fg="yellow")
    reason = f'"{event.reason}"' if event.reason else ""
    rest = "  ".join(printable(text) for text in (_change(event), event.actor, reason) if text)
    time, subject = styled(local(event.event_time), dim=True), styled(printable(_subject(event)), fg="cyan")
    return f"{time}  {action}  {subject}  {rest}"


def _plain_line(event: Event) -> str:
    return "\t".join(printable((column.plain or column.cell)(event)) for column in _COLUMNS)
