"""Options and types that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import click

from modelreg.cli._output import note
from modelreg.cli._param_types import Time
from modelreg.cli._session import Session
from modelreg.cli._text import is_terminal

if TYPE_CHECKING:
    from modelreg import Listing

Item = TypeVar("Item")


def _remember_precision(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Let an error about several models that fit name the option."""
    del parameter
    if session := context.find_object(Session):
        session.remarks.takes_precision = True
    return value


precision_option = click.option(
    "--precision",
    multiple=True,
    callback=_remember_precision,
    metavar="PRECISION",
    help="Only a model with exactly these precisions, for example int8. Repeatable.",
)


def _remember_time(context: click.Context, parameter: click.Parameter, value: datetime | None) -> datetime | None:
    """Let an error about an alias that pointed to nothing name its history."""
    del parameter
    if value is not None and (session := context.find_object(Session)):
        session.remarks.asks_for_past = True
    return value


at_option = click.option("--at", type=Time(), callback=_remember_time, help="The alias as it was at a time (ISO 8601).")
reason_option = click.option("--reason", metavar="TEXT", default="", help="Why, for the history and the audit log.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would happen, and change nothing.")


def limited(items: Listing[Item], limit: int | None) -> Iterable[Item]:
    """Return the first items. None: all."""
    return items if limit is None else items.to_list(limit)


def ask_before(lines: Iterable[str], question: str = "Delete?") -> None:
    """Show what will be done, and ask whether to do it.

    Raises:
        Exit: No.
        UsageError: Nobody can be asked, as stdin is no terminal.
    """
    if not is_terminal(sys.stdin):
        raise click.UsageError("stdin is no terminal, so nobody can be asked: pass --yes.")
    for line in lines:
        note(line)
    if not click.confirm(question, err=True):
        note("Nothing was changed.")
        raise click.exceptions.Exit(1)
