"""What listings are ordered by, in the form of the indexes."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    FromClause,
    LargeBinary,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
)
from sqlalchemy.dialects.postgresql import JSONB

from registry_service.domain.listing import METRICS, SORT_PREFIX, OrderField
from registry_service.domain.model_groups import TIED_BY_TIME
from registry_service.storage.sql.tables import models

SORTED_TEXTS = ("name", "version")
"""Texts with an index for orders."""

INDEXED_ORDERS = ("id", "name", "version", "score", "create_time", "update_time")
"""Orders that an index serves. For any other field, Postgres sorts all models that the filter matches."""
_ARTIFACT_COLUMNS = {
    "artifact.file_name": "file_name",
    "artifact.media_type": "media_type",
    "artifact.size_bytes": "size",
    "artifact.sha256": "sha256",
}


def group_key(table: FromClause) -> ColumnElement[bytes]:
    """Return the key of the group of a row, in the form that the indexes of groups and of models have."""
    return func.model_group_key(table.c.name, table.c.project_id, table.c.project_name)


def group_sort_expression(name: str, table: FromClause) -> ColumnElement[Any]:
    """Return the expression that an order of model groups compares. An absent text counts as an empty one."""
    column = table.c[name]
    if name in TIED_BY_TIME:
        return _sorted_text(column)
    return sort_expression(name, table) if name in SORTED_TEXTS else column


def _sorted_text(column: ColumnElement[Any]) -> ColumnElement[str]:
    prefix = func.left(column, literal_column(str(SORT_PREFIX)))
    return func.coalesce(prefix, literal_column("''"), type_=Text).collate("C")


def sort_expression(name: str, table: FromClause = models) -> ColumnElement[Any]:
    """Return the expression that orders by a field. Each, except the version, has an index that ends with the id."""
    if name in SORTED_TEXTS:
        return func.left(table.c[name], literal_column(str(SORT_PREFIX)), type_=Text).collate("C")
    if name == "score":
        return func.coalesce(table.c.score, literal_column("'-Infinity'::double precision"), type_=Double)
    return table.c[name]


def sort_expressions(field: OrderField, table: FromClause = models) -> Sequence[ColumnElement[Any]]:
    """Return the expressions that order by a field. Each of INDEXED_ORDERS has an index that ends with the id.

    A version has two expressions: its key, in which 1.0 and v1.0.0 are equal, and its text. In the index, the time of
    registration follows these and precedes the id.
    """
    if field.name == "version":
        return (func.model_version_key(table.c.version, type_=LargeBinary), sort_expression(field.name, table))
    if field.name in INDEXED_ORDERS:
        return (sort_expression(field.name, table),)
    lowest: ColumnElement[float] = literal_column("'-Infinity'::double precision")
    if field.name == METRICS:
        value = table.c.metrics.op("->", return_type=JSONB())(literal(field.key, Text()))
        # The cast would fail for anything but a number.
        number = case((func.jsonb_typeof(value) == "number", cast(value, Double)), else_=lowest)
        return (number,)
    column = table.c[_ARTIFACT_COLUMNS.get(field.name, field.name)]
    if not isinstance(column.type, Text):
        return (column,)
    return (_sorted_text(column),)
