"""Lineages for people."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from modelreg.cli._output import Column, Output, note
from modelreg.cli._text import age, printable, styled

if TYPE_CHECKING:
    from modelreg import Lineage, LineageNode, Model

_COLUMNS: tuple[Column[LineageNode], ...] = (
    Column("depth", lambda node: str(node.depth)),
    Column("model", lambda node: node.model.reference if node.model else ""),
    Column("id", lambda node: node.model_id),
)


def show_lineage(output: Output, model: Model, lineage: Lineage, *, descendants: bool) -> None:
    """Print a lineage as a tree on a terminal, else as a list."""
    if not output.is_terminal:
        output.table(lineage.nodes, _COLUMNS)
    else:
        _show_tree(output, model, lineage, descendants=descendants)
    if not lineage.nodes:
        relation = "descendants" if descendants else "ancestors"
        note(f"{printable(model.reference)} has no {relation}.")
    elif lineage.truncated:
        note("The lineage is larger than what is shown.")


def _show_tree(output: Output, model: Model, lineage: Lineage, *, descendants: bool) -> None:
    texts = {node.model_id: _text(node.model_id, node.model) for node in lineage.nodes}
    children = defaultdict(list)
    for edge in lineage.edges:
        upper, lower = edge.child_model_id, edge.parent_model_id
        if descendants:
            upper, lower = lower, upper
        children[upper].append(lower)
    output.line(_text(model.id, model))
    shown = {model.id}
    # Not recursive: a lineage has up to 100 steps, and each line is printed as it is found.
    stack = [(child, "", index == 0) for index, child in enumerate(reversed(children[model.id]))]
    while stack:
        model_id, indent, is_last = stack.pop()
        again = model_id in shown and bool(children[model_id])
        remark = styled("  (see above)", dim=True) if again else ""
        output.line(f"{indent}{'└─ ' if is_last else '├─ '}{texts.get(model_id, printable(model_id))}{remark}")
        if not again:
            shown.add(model_id)
            deeper = indent + ("   " if is_last else "│  ")
            stack += [(child, deeper, index == 0) for index, child in enumerate(reversed(children[model_id]))]


def _text(model_id: str, model: Model | None) -> str:
    if model is None:
        return styled(printable(f"{model_id} (not in the registry, or not visible to you)"), dim=True)
    details = [", ".join(model.precisions), age(model.create_time), *(f"@{alias}" for alias in model.aliases)]
    reference = styled(printable(model.reference), fg="cyan")
    return f"{reference}  {styled(printable('  '.join(text for text in details if text)), dim=True)}"
