"""Parents, children and ancestors of models."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import (
    Connection,
    CursorResult,
    Table,
    func,
    select,
    text,
)

from registry_service.domain.access import Projects
from registry_service.domain.errors import (
    AncestryTooLargeError,
    ProvenanceCycleError,
)
from registry_service.domain.lineage import MAX_ANCESTRY_EDGES, LineageEdge, cycle_through
from registry_service.domain.models import GroupKey
from registry_service.domain.references import shown_version
from registry_service.storage.sql import tables

_models = cast("Table", tables.models)

_SHOWN_MODELS = 20
_EDGES_LOCK = 0x6D6F_6465_6C73  # "models"
_PARENTS = select(_models.c.id, _models.c.provenance["parent_model_ids"].label("parents"))
# OFFSET 0 makes Postgres look into ix_models_parents once for each id. Without it, Postgres overestimates the number of
# matching rows and reads the whole table for each id.
_CHILDREN_OF = """
    SELECT DISTINCT child.id, child.parents
    FROM unnest(CAST(:ids AS text[])) AS wanted (id)
    CROSS JOIN LATERAL (
        SELECT id, provenance -> 'parent_model_ids' AS parents FROM models
        WHERE (provenance -> 'parent_model_ids') ? wanted.id{condition}
        OFFSET 0
    ) AS child
    ORDER BY child.id
    LIMIT :limit
"""
_CHILDREN = text(_CHILDREN_OF.format(condition=""))
_CHILDREN_WITHIN = text(_CHILDREN_OF.format(condition=" AND project_id = ANY (CAST(:within AS text[]))"))
# Every edge on the paths up from a model, whose own edges are parameters. UNION drops the edges that were found before,
# so the recursion ends on a cycle, too. One edge beyond the limit shows that there are too many.
_ANCESTRY = text(f"""
    WITH RECURSIVE links (child, parent) AS (
        SELECT CAST(:id AS text) COLLATE "C", unnest(CAST(:parents AS text[])) COLLATE "C"
        UNION
        SELECT models.id, above.parent COLLATE "C"
        FROM links
        JOIN models ON models.id = links.parent AND links.parent <> :id
        CROSS JOIN LATERAL jsonb_array_elements_text(models.provenance -> 'parent_model_ids') AS above (parent)
    )
    SELECT child, parent FROM links LIMIT {MAX_ANCESTRY_EDGES + 1}
""")  # noqa: S608 - the number is ours


def parents(connection: Connection, ids: Sequence[str]) -> Sequence[LineageEdge]:
    """See `ModelRepository.parents`."""
    return _edges(connection.execute(_PARENTS.where(_models.c.id.in_(ids))))


def children(connection: Connection, ids: Sequence[str], limit: int, within: Projects) -> Sequence[LineageEdge]:
    """See `ModelRepository.children`."""
    values: dict[str, object] = {"ids": list(ids), "limit": limit}
    if within is None:
        return _edges(connection.execute(_CHILDREN, values))
    return _edges(connection.execute(_CHILDREN_WITHIN, values | {"within": list(within)}))


def check_new_parents(
    connection: Connection, model_id: str, parents: Sequence[str], before: Sequence[str] = ()
) -> None:
    """Check the parents of a model whose row is written. No other transaction adds an edge until this one ends.

    Removing edges closes no cycle, so most updates do not wait for one another here.

    Raises:
        ProvenanceCycleError: The model would be its own ancestor.
        AncestryTooLargeError: There are more edges to ancestors than the check visits.
    """
    if set(parents) <= set(before):
        return
    # Every transaction takes this lock after the lock of the row and before the lock of the end of the log.
    connection.execute(select(func.pg_advisory_xact_lock(_EDGES_LOCK)))
    check_ancestry(connection, model_id, parents)


def check_ancestry(connection: Connection, model_id: str, parents: Sequence[str]) -> None:
    """Raise the errors of `check_new_parents` without a lock: a concurrent transaction may still close a cycle."""
    if not parents:
        return
    found = connection.execute(_ANCESTRY, {"id": model_id, "parents": list(parents)}).all()
    edges: dict[str, list[str]] = {}
    for child, parent in found:
        edges.setdefault(child, []).append(parent)
    cycle = cycle_through(model_id, edges)
    if cycle:
        raise ProvenanceCycleError(cycle, _references(connection, cycle[:_SHOWN_MODELS]))
    if len(found) > MAX_ANCESTRY_EDGES:
        raise AncestryTooLargeError(MAX_ANCESTRY_EDGES)


def _references(connection: Connection, ids: Sequence[str]) -> Mapping[str, str]:
    key = (_models.c.name, _models.c.project_id, _models.c.project_name)
    found = connection.execute(select(_models.c.id, _models.c.version, *key).where(_models.c.id.in_(ids)))
    return {
        row.id: shown_version(
            GroupKey(name=row.name, project_id=row.project_id, project_name=row.project_name), row.version
        )
        for row in found
    }


def _edges(found: CursorResult[Any]) -> Sequence[LineageEdge]:
    return [LineageEdge(row.id, parent) for row in found for parent in row.parents or ()]
