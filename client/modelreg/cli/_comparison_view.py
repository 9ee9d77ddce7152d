"""Comparisons for people."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from modelreg.cli._output import Output
from modelreg.cli._text import number, printable, size, styled, width_of

if TYPE_CHECKING:
    from modelreg import Comparison
    from modelreg.comparisons import FileComparison, FileVersion, MetricComparison

Styled = tuple[str, str]
"""A text and its color; the color is empty for none."""
Row = tuple[str, list[Styled]]
"""The name of a row, and a cell for each model."""

PARENTS = "provenance.parent_model_ids"
_OBJECTS = ("provenance.datasets.", "signature.inputs.", "signature.outputs.", "signature.weights.")
_IDENTITY = ("name", "version")
"""Fields that name the models. They are the titles of the columns, and no difference."""
_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow"), "unknown": ("?", "yellow")}
_SAME = ("=", "")


def differs(comparison: Comparison) -> bool:
    """Tell whether models differ in what can be equal."""
    return (
        any(not field.equal and field.path not in _IDENTITY for field in comparison.fields)
        or any(not metric.equal for metric in comparison.metrics)
        or (comparison.labels is not None and not comparison.labels.equal)
        or (comparison.artifacts is not None and not comparison.artifacts.equal)
    )


def show_comparison(output: Output, comparison: Comparison, parents: Mapping[str, str]) -> None:
    """Print how models differ: side by side on a terminal, else a line per value with tabs between its cells.

    Args:
        output: Where.
        comparison: The comparison.
        parents: References of parents, by id, as far as they are known.
    """
    names = _names(comparison)
    fields = _field_rows(comparison, parents)
    others = [
        ("Metrics", [(metric.name, _metric_cells(metric)) for metric in comparison.metrics]),
        ("Labels", _label_rows(comparison)),
        ("Files", _file_rows(comparison)),
    ]
    if not output.is_terminal:
        output.line("\t".join(["", "", *names]))
        for title, rows in [("Field", fields), *others]:
            for name, cells in rows:
                output.line("\t".join([title.lower(), printable(name), *(text for text, _ in cells)]))
        return
    shown = [(title, rows) for title, rows in [*_by_message(fields), *others] if rows]
    table = _Table([name for _, rows in shown for name, _ in rows], names, [c for _, rows in shown for _, c in rows])
    table.print(output, "", [(name, "bold") for name in names])
    for title, rows in shown:
        if title:
            output.line()
            output.line(styled(title, bold=True))
        for name, cells in rows:
            table.print(output, printable(name), cells)
    _show_rest(output, comparison)


def _by_message(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Return rows of fields in sections: those of the model itself, of its tags, of its provenance, and so on."""
    sections: dict[str, list[Row]] = {"": []}
    for path, cells in rows:
        message, _, rest = path.partition(".")
        name = rest or path
        sections.setdefault(message.capitalize() if rest else "", []).append((name, cells))
    return list(sections.items())


def _show_rest(output: Output, comparison: Comparison) -> None:
    if not differs(comparison):
        output.line("No differences in metadata, metrics, labels and files.")
    artifacts = comparison.artifacts
    if artifacts is not None:
        for found in artifacts.artifacts:
            if found.problem:
                output.line(f"{styled('Note:', bold=True)} {printable(f'{found.file_name}: {found.problem}')}")
    if comparison.truncated or (artifacts is not None and artifacts.truncated):
        output.line(f"{styled('Note:', bold=True)} There is more than is shown.")


def _names(comparison: Comparison) -> list[str]:
    """Return a short name for each model, different from the others."""
    models = comparison.models
    same_name = len({model.name for model in models}) == 1
    names = [model.version if same_name else f"{model.name}:{model.version}" for model in models]
    if len(set(names)) < len(names):
        names = [f"{name} ({model.model_id[:8]})" for name, model in zip(names, models, strict=True)]
    return [printable(name) for name in names]


def _value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return printable(", ".join(value))
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _field_rows(comparison: Comparison, parents: Mapping[str, str]) -> list[Row]:
    return [
        (field.path, [(_field(field.path, value, parents), _color(value, field.values[0])) for value in field.values])
        for field in comparison.fields
        if field.path not in _IDENTITY
    ]


def _field(path: str, value: Any, parents: Mapping[str, str]) -> str:
    """Return the value of a field. Datasets and tensors are objects by name; several of one name are a list."""
    if path == PARENTS and isinstance(value, list):
        return _value([parents.get(model_id, model_id) for model_id in value])
    if path.startswith(_OBJECTS) and value is not None:
        return printable("; ".join(map(_object, value if isinstance(value, list) else [value])))
    return _value(value)


def _object(value: Any) -> str:
    """Return a dataset as its URI and digest, and a tensor as its type and shape."""
    if isinstance(value, dict) and "element_type" in value:
        shape = value.get("shape")
        return f"{value['element_type']}{'' if shape is None else f' [{_value(list(map(str, shape)))}]'}"
    if isinstance(value, dict) and "uri" in value:
        return " ".join(text for text in (value["uri"], value.get("digest")) if text) or str(value.get("name", ""))
    return _value(value)


def _color(value: Any, first: Any) -> str:
    """Return the color of a value beside that of the first model."""
    if value == first or value is None:
        return ""
    return "green" if first is None else "yellow"


def _metric_cells(metric: MetricComparison) -> list[Styled]:
    first = metric.values[0]
    cells = []
    for index, (value, delta) in enumerate(zip(metric.values, metric.deltas, strict=True)):
        if value is None:
            cells.append(("", ""))
        elif index == 0 or not delta:
            cells.append((number(value), _color(value, first)))
        else:
            relative = f", {delta / abs(first):+.1%}" if first else ""
            # Whether more is better is not known here.
            cells.append((f"{number(value)} ({delta:+.4g}{relative})", "yellow"))
    return cells


def _label_rows(comparison: Comparison) -> list[Row]:
    labels = comparison.labels
    if labels is None or labels.equal:
        return []
    rows: list[tuple[str, Sequence[Sequence[Any]], Sequence[str]]] = [("only here", labels.only, ("red", "green"))]
    if len(labels.only) > 2:
        rows = [("only here", labels.only, ()), ("missing here", labels.missing, ())]
    return [
        (name, [(", ".join(map(_value, found)), color) for found, color in zip_longest(lists, colors, fillvalue="")])
        for name, lists, colors in rows
        if any(lists)
    ]


def _file_rows(comparison: Comparison) -> list[Row]:
    artifacts = comparison.artifacts
    if artifacts is None:
        return []
    rows = [(file.path, _file_cells(file)) for file in artifacts.files]
    if not rows:
        whole = [(f"{size(found.size_bytes)}, sha256 {found.sha256[:12]}", "") for found in artifacts.artifacts]
        if not artifacts.equal:
            whole = [
                whole[0],
                *(
                    (text, "" if found.sha256 == artifacts.artifacts[0].sha256 else "yellow")
                    for (text, _), found in zip(whole[1:], artifacts.artifacts[1:], strict=True)
                ),
            ]
        rows = [("the artifact", whole)]
    return rows


def _file_cells(file: FileComparison) -> list[Styled]:
    first = file.versions[0]
    return [
        # What neither has is no difference between the two.
        ("", "") if not (version.present or first.present) else _file_cell(version, index)
        for index, version in enumerate(file.versions)
    ]


def _file_cell(version: FileVersion, index: int) -> Styled:
    mark, color = ("", "") if index == 0 else _MARKS.get(version.change, _SAME)
    if not version.present:
        return (f"{mark} absent".strip(), color) if mark else ("", "")
    digest = version.digest.partition(":")[2][:12]
    return f"{mark} {size(version.size_bytes)}  {digest}".strip(), color


class _Table:
    """Names on the left, and one column per model, whose cells are wrapped where the terminal is not wide enough.

    Args:
        names: What is on the left of all rows.
        titles: The titles of the columns.
        rows: The cells of all rows.
    """

    def __init__(self, names: Iterable[str], titles: Sequence[str], rows: Iterable[Sequence[Styled]]) -> None:
        terminal = shutil.get_terminal_size().columns
        widest_name = max((width_of(printable(name)) for name in names), default=0)
        self._left = min(widest_name, max(terminal // 3, 12))
        needed = max((width_of(text) for cells in [[(title, "") for title in titles], *rows] for text, _ in cells))
        available = (terminal - self._left - 2) // len(titles) - 2
        self._width = max(min(needed, available), 8)

    def print(self, output: Output, name: str, cells: Sequence[Styled]) -> None:
        """Print a row."""
        columns = [(_wrapped(name, self._left), "dim")]
        columns += [(_wrapped(text, self._width), style) for text, style in cells]
        for index in range(max(len(lines) for lines, _ in columns)):
            texts = []
            for position, (lines, style) in enumerate(columns):
                text = lines[index] if index < len(lines) else ""
                padding = " " * ((self._width if position else self._left) - width_of(text))
                texts.append(_colored(text, style) + padding)
            output.line(f"  {'  '.join(texts)}".rstrip())


def _colored(text: str, style: str) -> str:
    if not text or not style:
        return text
    return (
        styled(text, bold=True)
        if style == "bold"
        else styled(text, dim=True)
        if style == "dim"
        else styled(text, fg=style)
    )


def _wrapped(text: str, width: int) -> list[str]:
    if width_of(text) <= width:
        return [text]
    # Wide characters take two columns.
    columns = width if text.isascii() else max(width // 2, 4)
    return textwrap.wrap(text, columns, break_on_hyphens=False) or [""]
