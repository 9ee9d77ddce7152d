"""Options and types that several commands share."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelreg.cli._output import note
from modelreg.cli._text import is_terminal

Item = TypeVar("Item")


if TYPE_CHECKING:
    _TimeType = click.ParamType[datetime]
else:
    # It is no generic class in click 8.1.
    _TimeType = click.ParamType


class Time(_TimeType):
    """A time in ISO 8601. Without a zone, it is in that of this machine."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware time."""
        if isinstance(value, datetime):
            return value
        text = str(value).strip()
        try:
            # Python 3.10 does not read the Z of UTC.
            return datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in "Zz" and text else text).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{value!r} is not a time. Write 2026-11-30, 2026-11-30T14:43 or 2026-11-30T14:43:34Z.", param, ctx
            )


precision_option = click.option(
    "--precision",
    multiple=True,
    metavar="PRECISION",
    help="Only a model with exactly these precisions, for example int8. Can be repeated.",
)
at_option = click.option("--at", type=Time(), metavar="TIME", help="The alias as it was at a time (ISO 8601).")
reason_option = click.option("--reason", metavar="TEXT", default="", help="Why, for the history and the audit log.")


def limited(items: Iterable[Item], limit: int | None) -> Iterable[Item]:
    """Return the first items. None: all."""
    return items if limit is None else itertools.islice(items, limit)


def ask_before(lines: Iterable[str], question: str = "Delete?") -> None:
    """Show what will be done, and ask whether to do it.

    Raises:
        Abort: No.
        UsageError: Nobody can be asked, as stdin is no terminal.
    """
    if not is_terminal(sys.stdin):
        raise click.UsageError("stdin is no terminal, so nobody can be asked: pass --yes.")
    for line in lines:
        note(line)
    click.confirm(question, abort=True, err=True)
