"""Plans of the statements that the program sends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event


@contextmanager
def sent_to(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that the block sends, with their parameters."""
    sent: list[tuple[str, Any]] = []

    def catch(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> None:
        sent.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", catch)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", catch)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node of a plan, and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def assert_few_rows(connection: Connection, statement: str, parameters: Any, *, at_most: int) -> None:
    """Run a statement again: no node of its plan yields, or drops, more rows than this in all its loops."""
    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    for node in nodes(plan[0]["Plan"]):
        for rows in ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck"):
            assert node.get(rows, 0) * node["Actual Loops"] <= at_most, (node, parameters, statement)
