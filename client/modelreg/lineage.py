"""Ancestors and descendants of models."""

from __future__ import annotations

from dataclasses import dataclass

from modelreg._results import Result, html_table
from modelreg.models import Model


@dataclass(frozen=True, kw_only=True)
class LineageNode(Result):
    """A model of a lineage."""

    model_id: str
    depth: int
    """Number of steps from the model whose lineage this is; 1 for a parent or a child."""
    model: Model | None = None
    """None if the registry has no such model, or if the caller may not read it."""

    def _row(self) -> dict[str, str]:
        row = {"depth": str(self.depth), "reference": self.model_id}
        return row if self.model is None else row | self.model._row()  # noqa: SLF001 - of the base class of both


@dataclass(frozen=True, kw_only=True)
class LineageEdge(Result):
    """One step of a lineage."""

    child_model_id: str
    parent_model_id: str


@dataclass(frozen=True, kw_only=True)
class Lineage(Result):
    """The ancestors or the descendants of a model, without the model itself."""

    nodes: tuple[LineageNode, ...]
    """By depth, then by id."""
    edges: tuple[LineageEdge, ...]
    truncated: bool = False
    """Whether the lineage is larger: deeper than was asked for, or of more than 10,000 models."""

    def _repr_html_(self) -> str:
        return html_table(self.nodes, "Lineage, which goes on" if self.truncated else "Lineage")
