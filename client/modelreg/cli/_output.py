"""Results on stdout: tables for people, JSON and ids for programs."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import click

from modelreg.cli._text import is_terminal, printable, safe_json, shortened, styled, width_of

if TYPE_CHECKING:
    from modelreg._results import Result

Item = TypeVar("Item")

_ROWS_BEFORE_PRINTING = 1000
_GAP = "  "
_MAX_NAME_COLUMNS = 24


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column of a table for people."""

    title: str
    cell: Callable[[Item], str]
    """Returns the text of a cell. It is made printable."""
    plain: Callable[[Item], str] | None = None
    """The same for programs, where stdout is no terminal: numbers without units, times in UTC."""
    align_right: bool = False
    shrinks: bool = False
    """Whether the column becomes narrower where the terminal is not wide enough."""
    style: str = ""
    """A color of click."""
    optional: bool = False
    """Whether the column is left out where the terminal is not wide enough."""


class Output:
    """Prints results in one format.

    Args:
        kind: `human`, `json`, `jsonl` or `quiet`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.is_terminal = is_terminal(sys.stdout)
        self._make_robust()

    @property
    def is_json(self) -> bool:
        """Whether JSON is printed."""
        return self.kind in ("json", "jsonl")

    @property
    def is_human(self) -> bool:
        """Whether texts for people are printed."""
        return self.kind == "human"

    def _make_robust(self) -> None:
        """Let any text be written: programs read UTF-8, and names of files may be no text at all."""
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is None:
            return
        if self.is_terminal:
            reconfigure(errors="backslashreplace")
        else:
            reconfigure(encoding="utf-8", errors="surrogateescape")

    # ---- one result -------------------------------------------------------------

    def result(self, result: Result | dict[str, Any], *, human: Callable[[], object], quiet: str = "") -> None:
        """Print one result.

        Args:
            result: A result of the registry, or JSON data.
            human: Prints it for people.
            quiet: What the format `quiet` prints: an id or a path. Empty: nothing.
        """
        if self.is_json:
            self.json(document_of(result))
        elif self.kind == "quiet":
            self.quiet(quiet)
        else:
            human()

    def json(self, data: Any) -> None:
        """Print JSON: indented, or as one line."""
        self._write(_json(data, indent=2 if self.kind == "json" else None))

    def json_line(self, result: Result) -> None:
        """Print a result as a line of JSON, also in the format `json`: for a stream without an end."""
        self._write(_json(document_of(result), indent=None))

    def quiet(self, text: str) -> None:
        """Print an id or a path on a line of its own."""
        if text:
            self._write(printable(text) if self.is_terminal else text)

    def done(self, steps: Iterable[tuple[str, str]]) -> None:
        """Carry out steps, and print that they are done: those before a failure, too.

        Args:
            steps: Carries out a step each time, and gives what it is about, as an id, and a remark for people. Under
                `/v1`, the response of such a step is empty.
        """
        for subject, remark in steps:
            if self.is_human:
                note(remark)
            elif self.kind == "jsonl":
                self.json({})
            elif self.kind == "quiet":
                self.quiet(subject)
        if self.kind == "json":
            self.json({})

    # ---- lists ------------------------------------------------------------------

    def items(
        self,
        items: Iterable[Item],
        *,
        key: str,
        columns: Sequence[Column[Item]],
        quiet: Callable[[Item], str],
        paged: bool = True,
    ) -> int:
        """Print a list while it arrives, and return the number of items.

        Args:
            items: Results of the registry.
            key: The field of the response under `/v1` that has the items.
            columns: The columns for people.
            quiet: Returns what the format `quiet` prints of an item.
            paged: Whether the response under `/v1` has a page token.
        """
        count = itertools.count()
        counted = (item for item, _ in zip(items, count, strict=False))
        if self.kind == "json":
            self._json_list(counted, key, paged=paged)
        elif self.kind == "jsonl":
            for item in counted:
                self.json(document_of(item))  # type: ignore[arg-type]
        elif self.kind == "quiet":
            for item in counted:
                self.quiet(quiet(item))
        else:
            self.table(counted, columns)
        return next(count)

    def _json_list(self, items: Iterable[Any], key: str, *, paged: bool) -> None:
        """Print the response of a list, one item after the other: a list may be longer than the memory."""
        opening = separator = f'{{\n  "{key}": ['
        for item in items:
            text = _json(document_of(item), indent=2).replace("\n", "\n    ")
            self._write(f"{separator}\n    {text}", newline=False)
            separator = ","
        self._write(f"{opening}]" if separator == opening else "\n  ]", newline=False)
        self._write((',\n  "next_page_token": ""' if paged else "") + "\n}")

    def table(self, items: Iterable[Item], columns: Sequence[Column[Item]]) -> None:
        """Print a table on a terminal, else a line per item with tabs between its cells."""
        if not self.is_terminal:
            for item in items:
                self._write("\t".join(printable((column.plain or column.cell)(item)) for column in columns))
            return
        rows = ([printable(column.cell(item)) for column in columns] for item in items)
        rows_ahead = list(itertools.islice(rows, _ROWS_BEFORE_PRINTING))
        if not rows_ahead:
            return
        titles = [column.title.upper() for column in columns]
        widths = _widths(columns, [titles, *rows_ahead])
        self._write(_row(columns, titles, widths, header=True))
        for row in itertools.chain(rows_ahead, rows):
            self._write(_row(columns, row, widths))

    # ---- text -------------------------------------------------------------------

    def line(self, text: str = "") -> None:
        """Print a line for people. What comes from the registry must be made printable before."""
        self._write(text)

    def _write(self, text: str, *, newline: bool = True) -> None:
        if self.is_terminal:
            click.echo(text, nl=newline)
        else:
            # Not click's echo, which flushes after each line.
            sys.stdout.write(f"{text}\n" if newline else text)


def note(text: str) -> None:
    """Print a remark for people to stderr. If nobody reads it, that must not end what runs."""
    with contextlib.suppress(OSError):
        click.echo(printable(text), err=True)


def document_of(result: Result | dict[str, Any]) -> dict[str, Any]:
    """Return a result as the JSON of the API under `/v1`."""
    if isinstance(result, dict):
        return result
    from modelreg._results import message_of  # noqa: PLC0415
    from modelreg._wire.values import document  # noqa: PLC0415 - imports the stubs

    return document(message_of(result))


def _json(data: Any, *, indent: int | None) -> str:
    separators = None if indent else (",", ":")
    return safe_json(json.dumps(data, ensure_ascii=False, indent=indent, separators=separators))


def _widths(columns: Sequence[Column[Any]], rows: Sequence[Sequence[str]]) -> list[int]:
    widths = [max(width_of(row[index]) for row in rows) for index in range(len(columns))]
    for index in range(len(columns)):
        # A column without values says nothing.
        if not any(row[index] for row in rows[1:]):
            widths[index] = 0
    available = shutil.get_terminal_size().columns
    excess = sum(width + len(_GAP) for width in widths if width) - len(_GAP) - available
    for index, column in enumerate(columns):
        if excess > 0 and column.optional and widths[index]:
            excess -= widths[index] + len(_GAP)
            widths[index] = 0
    # The widest of the columns that may shrink gives way first.
    while excess > 0:
        shrinking = [index for index, column in enumerate(columns) if column.shrinks and widths[index] > 8]
        if not shrinking:
            break
        widest = max(shrinking, key=lambda index: widths[index])
        widths[widest] -= 1
        excess -= 1
    return widths


def _row(columns: Sequence[Column[Any]], cells: Sequence[str], widths: Sequence[int], *, header: bool = False) -> str:
    texts = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        if width == 0:
            continue
        text = shortened(cell, width) if column.shrinks else cell
        padding = " " * max(width - width_of(text), 0)
        color = styled(text, bold=True) if header else styled(text, fg=column.style) if column.style else text
        texts.append(padding + color if column.align_right else color + padding)
    return _GAP.join(texts).rstrip()


def print_blocks(output: Output, blocks: Iterable[tuple[str, Iterable[tuple[str, str]]]]) -> None:
    """Print titled blocks of names and values, with the values of all blocks in one column.

    Args:
        output: Where.
        blocks: Titles, and names with printable values. Empty values are left out, and blocks without rows.
    """
    found = [(title, [(printable(name), value) for name, value in rows if value]) for title, rows in blocks]
    found = [(title, rows) for title, rows in found if rows]
    # A long name, say of a metric, pushes its own value aside only.
    width = min(max((width_of(name) for _, rows in found for name, _ in rows), default=0), _MAX_NAME_COLUMNS)
    for index, (title, rows) in enumerate(found):
        if index:
            output.line()
        if title:
            output.line(styled(title, bold=True))
        for name, value in rows:
            output.line(f"  {styled(name, dim=True)}{' ' * max(width - width_of(name), 0)}  {value}")
