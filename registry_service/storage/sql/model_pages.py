"""Pages of a listing of models."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    LargeBinary,
    Table,
    Text,
    bindparam,
    func,
    select,
    union_all,
)
from sqlalchemy import cast as sql_cast

from registry_service.domain.listing import MAX_ORDER_FIELDS, ListQuery, Page, SortValue
from registry_service.storage.sql import ordering, rows, tables
from registry_service.storage.sql.engine import PLANNED_ANEW
from registry_service.storage.sql.filter_sql import is_of_one_group, where
from registry_service.storage.sql.model_json import FULL, LISTED
from registry_service.storage.sql.paging import is_after

_models = cast("Table", tables.models)

# The columns of a subquery that a listing is ordered by. A version has two, and parse_order adds create_time and id.
_KEYS = [f"key_{number}" for number in range(MAX_ORDER_FIELDS + 3)]
_IS_RELEASE = func.model_version_is_release(_models.c.version)


def page(connection: Connection, query: ListQuery) -> Page:
    """See `ModelRepository.list`."""
    keys = _sort_keys(query)
    descending = [field.descending for field in query.order for _ in ordering.sort_expressions(field)]

    def order(table: FromClause) -> list[ColumnElement[Any]]:
        labelled = [table.c[_KEYS[i]] for i in range(len(keys))]
        return [key.desc() if down else key.asc() for key, down in zip(labelled, descending, strict=True)]

    # One model beyond the limit shows whether another page follows. The subquery has only the columns that find the
    # page, because SQLAlchemy copies the columns of a subquery for each statement.
    wanted = select(
        _models.c.id.label("found_id"),
        _models.c.metadata_bytes,
        _models.c.file_name,
        _models.c.schema,
        *(_models.c[name] for name in tables.UNCOUNTED_TEXTS),
        *(key.label(name) for key, name in zip(keys, _KEYS, strict=False)),
    )
    if query.filter is not None:
        wanted = wanted.where(where(query.filter, _models))
    if query.after is not None:
        wanted = wanted.where(is_after(keys, descending, _compared(query, keys)))
    sorted_keys = [key.desc() if down else key.asc() for key, down in zip(keys, descending, strict=True)]
    if query.order[0].name == "version" and is_of_one_group(query.filter):
        # ix_models_group has the releases of the group in order, and separately its pre-releases.
        each = [wanted.where(_IS_RELEASE.is_(is_one)).order_by(*sorted_keys) for is_one in (True, False)]
        both = union_all(*(part.limit(query.limit + 1) for part in each)).subquery("both")
        ordered = select(both).order_by(*order(both))
    else:
        ordered = wanted.order_by(*sorted_keys)
    candidates = ordered.limit(query.limit + 1).subquery("candidates")
    # The database adds up the sizes, so it never returns more than a page.
    size = listed_bytes(candidates)
    if query.with_signature:
        size += func.coalesce(func.octet_length(sql_cast(candidates.c.schema, Text)), 0)
    sized = select(
        candidates.c.found_id,
        *(candidates.c[name] for name in _KEYS[: len(keys)]),
        (func.sum(size).over(order_by=order(candidates)) - size).label("bytes_before"),
        func.count().over().label("found"),
    ).subquery("sized")
    page = (
        select(FULL if query.with_signature else LISTED, sized.c.found)
        .join_from(sized, _models, _models.c.id == sized.c.found_id)
        .where(sized.c.bytes_before < query.max_bytes)
        .order_by(*order(sized))
        .limit(query.limit)
    )
    found = connection.execute(page.execution_options(**PLANNED_ANEW)).all()
    return Page(models=[rows.model(row) for row, _ in found], more=bool(found) and found[0].found > len(found))


def listed_bytes(table: FromClause) -> ColumnElement[int]:
    """Return the size of a model in a list: metadata, further texts, and warnings, each of which names the file."""
    schema = table.c.schema
    problems = schema["problems"]
    file_name = func.coalesce(schema["file_name"].astext, table.c.file_name)
    warnings = func.octet_length(problems.astext) + func.jsonb_array_length(problems) * func.octet_length(file_name)
    size = table.c.metadata_bytes + func.coalesce(warnings, 0)
    for name in tables.UNCOUNTED_TEXTS:
        size += func.coalesce(func.octet_length(table.c[name]), 0)
    return cast("ColumnElement[int]", size)


def _sort_keys(query: ListQuery) -> list[ColumnElement[Any]]:
    return [key for field in query.order for key in ordering.sort_expressions(field)]


def _compared(query: ListQuery, keys: Sequence[ColumnElement[Any]]) -> Sequence[ColumnElement[Any]]:
    """Return the values that the keys of models after `query.after` are compared with."""
    values: list[SortValue] = []
    for field, value in zip(query.order, query.after or (), strict=True):
        values += [value] * len(ordering.sort_expressions(field))
    compared: list[ColumnElement[Any]] = []
    for key, value in zip(keys, values, strict=True):
        # Only the database can compute the key of a version.
        is_version = isinstance(key.type, LargeBinary)
        bound: ColumnElement[Any] = bindparam(None, value, type_=Text() if is_version else key.type)
        compared.append(func.model_version_key(bound, type_=LargeBinary) if is_version else bound)
    return compared
