"""The example notebook works from its first cell to its last, and is committed without outputs."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from modelreg import Registry

NOTEBOOK: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "examples" / "first-model.ipynb").read_text(encoding="utf-8")
)


def run_cell(source: str, variables: dict[str, Any]) -> Any:
    """Run a cell as a notebook does: return the value of its last statement, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), variables)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), variables)


def test_every_cell_runs_in_order(url: str, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELREG_URL", url)
    variables: dict[str, Any] = {}
    shown = [run_cell("".join(cell["source"]), variables) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    version, _, model, metrics, found, comparison, promotion, moves, line, _ = shown
    assert version
    assert "first-model" in model._repr_html_()
    assert metrics == variables["second"].metrics
    assert [reference for reference, _ in found] == ["first-model:2.0", "first-model:1.0"]
    assert "metrics.error" in comparison._repr_html_()
    assert "2.0" in promotion._repr_html_()
    assert moves == [("rolled_back", "to try it"), ("set", "more samples"), ("set", "first release")]
    assert line.keys() == {"slope", "offset"}
    assert list(registry.models("name = first-model")) == []


def test_no_cell_has_outputs() -> None:
    cells = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] or cell["execution_count"] for cell in cells] == [None] * len(cells)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
