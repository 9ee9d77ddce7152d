"""Filters (`registry_service.domain.filter`) as conditions of PostgreSQL.

The conditions fit the indexes of the table: trigram indexes serve `=`, LIKE and ILIKE on texts, and GIN indexes serve
`@>` and `?` on lists and JSON. Negations move down to the restrictions. Only negated restrictions, which no index
serves, are wrapped in `IS NOT TRUE`.

JSON columns may hold any JSON. No condition casts a JSON value, because one value of another type would fail the whole
query. Numbers compare as jsonb, which orders them as numeric, after a check of the type.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Text,
    and_,
    case,
    func,
    literal,
    literal_column,
    null,
    or_,
    select,
    true,
)
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from registry_service.domain.filter import And, Comparator, Field, Kind, Node, Not, Or, Pattern, Restriction, Value
from registry_service.domain.listing import SORT_PREFIX
from registry_service.domain.model_groups import TIED_BY_TIME
from registry_service.storage.sql import tables
from registry_service.storage.sql.ordering import SORTED_TEXTS, group_key, group_sort_expression, sort_expression

_ORDERS: Mapping[Comparator, Callable[[Any, Any], ColumnElement[bool]]] = {
    Comparator.EQUAL: operator.eq,
    Comparator.LESS: operator.lt,
    Comparator.LESS_EQUAL: operator.le,
    Comparator.GREATER: operator.gt,
    Comparator.GREATER_EQUAL: operator.ge,
}
# Stored paths that differ from those of the field.
_STORED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("precisions",): ("precision",),
    ("compat_precision",): ("documented_precision",),
    ("size_bytes",): ("size",),
    ("signature",): ("schema",),
    ("signature", "path"): ("schema", "file_name"),
    ("signature", "precisions"): ("schema", "precision"),
}
_EMPTY = ("null", '""', "[]", "{}")
_ELEMENT_NAMES: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("labels",): ("name",),
    ("provenance", "datasets"): ("name", "digest"),
    ("schema", "inputs"): ("name",),
    ("schema", "outputs"): ("name",),
    ("schema", "weights"): ("name",),
}


_models, _groups, _aliases = tables.models, tables.model_groups, tables.aliases
_verifications = tables.artifact_verifications

# Fields of a model that are not columns of its row.
_JOINED: Mapping[str, Callable[[FromClause], ColumnElement[Any]]] = {
    "model_group_id": lambda models: (
        select(_groups.c.id).where(group_key(_groups) == group_key(models)).correlate(models).scalar_subquery()
    ),
    "verify_time": lambda models: (
        select(_verifications.c.time)
        .where(
            _verifications.c.model_id == models.c.id,
            _verifications.c.object_key == models.c.object_key,
            _verifications.c.is_intact,
        )
        .correlate(models)
        .scalar_subquery()
    ),
    "aliases": lambda models: (
        select(func.array_agg(_aliases.c.alias, type_=ARRAY(Text)))
        .where(_aliases.c.model_id == models.c.id)
        .correlate(models)
        .scalar_subquery()
    ),
}


IndexHelp = Mapping[str, Callable[[FromClause, str], ColumnElement[bool]]]
"""By column: equality with a text in the form of an index."""


def _is_text(
    name: str, sort_key: Callable[[str, FromClause], ColumnElement[Any]]
) -> Callable[[FromClause, str], ColumnElement[bool]]:
    def is_text(table: FromClause, value: str) -> ColumnElement[bool]:
        # The index for orders needs one lookup, the trigram index many.
        has_prefix = sort_key(name, table) == value[:SORT_PREFIX]
        # A short text needs only the prefix. Postgres estimates fewer rows for two conditions than for one.
        return has_prefix if 0 < len(value) < SORT_PREFIX else and_(has_prefix, table.c[name] == value)

    return is_text


MODEL_INDEXES: IndexHelp = {
    **{name: _is_text(name, sort_expression) for name in SORTED_TEXTS},
    "model_group_id": lambda models, value: (
        group_key(models) == select(group_key(_groups)).where(_groups.c.id == value).scalar_subquery()
    ),
    "aliases": lambda models, value: models.c.id.in_(
        select(_aliases.c.model_id).where(_aliases.c.alias == value, _aliases.c.model_id.is_not(None))
    ),
}
GROUP_INDEXES: IndexHelp = {name: _is_text(name, group_sort_expression) for name in ("name", *TIED_BY_TIME)}
EVENT_INDEXES: IndexHelp = {
    "name": lambda events, value: func.text_digest(events.c.name) == func.text_digest(value),
}


def where(node: Node, table: FromClause, indexes: IndexHelp = MODEL_INDEXES) -> ColumnElement[bool]:
    """Translate a filter into the condition of a WHERE clause.

    Args:
        node: The result of `parse`.
        table: The table of models, model groups or events, or an alias of the table. Its columns have the names of the
            fields, except for `_STORED` and `_JOINED`. Precisions are text[]; other lists, maps and objects are JSONB.
        indexes: The indexes of the table.

    Returns:
        The condition. Every value of the filter is a bound parameter. For rows that do not match, the condition is
        false or NULL. To negate it, negate the filter instead.
    """
    return _condition(node, table, indexes, is_negated=False)


def is_of_one_group(node: Node | None) -> bool:
    """Tell whether a filter names one group by id, and matches only models of that group."""
    match node:
        case And(children):
            return any(map(is_of_one_group, children))
        case Restriction(Field(("model_group_id",)), Comparator.EQUAL, Pattern() as pattern):
            return pattern.literal is not None
    return False


def _condition(node: Node, table: FromClause, indexes: IndexHelp, *, is_negated: bool) -> ColumnElement[bool]:
    match node:
        case Not(child):
            return _condition(child, table, indexes, is_negated=not is_negated)
        case And(children) | Or(children):
            conditions = [_condition(child, table, indexes, is_negated=is_negated) for child in children]
            return and_(*conditions) if isinstance(node, And) is not is_negated else or_(*conditions)
        case Restriction(field, comparator, value):
            equals = indexes.get(field.path[0]) if comparator is Comparator.EQUAL else None
            if equals is not None and (text := _pattern(value).literal) is not None:
                matches = equals(table, text)
            else:
                stored = _stored(field)
                matches = _restriction(stored, comparator, value, _column(stored.path[0], table))
            return matches.is_not(true()) if is_negated else matches


def _column(name: str, table: FromClause) -> ColumnElement[Any]:
    return table.c[name] if name in table.c else _JOINED[name](table)


def _stored(field: Field) -> Field:
    """Return a field with the path under which it is stored."""
    for length in (2, 1):
        if path := _STORED.get(field.path[:length]):
            return replace(field, path=(*path, *field.path[length:]))
    return field


def _restriction(field: Field, comparator: Comparator, value: Value, column: ColumnElement[Any]) -> ColumnElement[bool]:
    if comparator is Comparator.PRESENT:
        return _is_present(field, column)
    if isinstance(column.type, sqltypes.ARRAY):
        return _array_has(column, _pattern(value))
    if not isinstance(column.type, sqltypes.JSON):
        return _scalar(column, comparator, value)
    match field.kind:
        case Kind.LIST:
            return _list_has(field, column, _pattern(value))
        case Kind.ELEMENT:
            return _element_is(field, column, comparator, _pattern(value))
        case _:
            return _json(field, column, comparator, value)


def _is_present(field: Field, column: ColumnElement[Any]) -> ColumnElement[bool]:
    if isinstance(column.type, sqltypes.ARRAY):
        return func.cardinality(column) > 0
    if isinstance(column.type, sqltypes.JSON):
        return _is_json_present(field, column)
    return column != literal("") if field.kind is Kind.TEXT else column.is_not(None)


def _is_json_present(field: Field, column: ColumnElement[Any]) -> ColumnElement[bool]:
    if field.kind is Kind.ELEMENT:
        return _any_element(_at(column, field.path[1:-1]), field.path[-1:], lambda text: text != literal(""))
    value = _at(column, field.path[1:])
    if field.is_key:
        return and_(_has_key(field, column), func.jsonb_typeof(value) != "null")
    return and_(*(value != literal_column(f"'{empty}'::jsonb") for empty in _EMPTY))


# ---- Columns of one value


def _scalar(column: ColumnElement[Any], comparator: Comparator, value: Value) -> ColumnElement[bool]:
    return _text(column, comparator, value) if isinstance(value, Pattern) else _ORDERS[comparator](column, value)


def _text(text: ColumnElement[Any], comparator: Comparator, pattern: Pattern) -> ColumnElement[bool]:
    if comparator is Comparator.CONTAINS:
        return text.ilike(f"%{_like(pattern)}%")
    if pattern.literal is None:
        return text.like(_like(pattern))
    if comparator is Comparator.EQUAL:
        return text == pattern.literal
    # Compare by code points, whatever the locale of the database.
    return _ORDERS[comparator](text.collate("C"), pattern.literal)


def _like(pattern: Pattern) -> str:
    """Return a pattern for LIKE, with a backslash before special characters."""
    escapes = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})
    return "%".join(part.translate(escapes) for part in pattern.parts)


# ---- Lists


def _array_has(column: ColumnElement[Any], pattern: Pattern) -> ColumnElement[bool]:
    if pattern.literal is not None:
        return column.bool_op("@>")(literal([pattern.literal], ARRAY(Text())))
    element = func.unnest(column).column_valued("element")
    return select(literal_column("1")).where(element.like(_like(pattern))).exists()


def _list_has(field: Field, column: ColumnElement[Any], pattern: Pattern) -> ColumnElement[bool]:
    names = _ELEMENT_NAMES.get(field.path, ())
    if pattern.literal is None:
        texts = _at(column, field.path[1:])
        return or_(
            _any_element(texts, (), lambda text: text.like(_like(pattern))),
            *(_any_element(texts, (name,), lambda text: text.like(_like(pattern))) for name in names),
        )
    elements: list[object] = [pattern.literal, *({name: pattern.literal} for name in names)]
    return or_(*(_contains(field.path, column, [element]) for element in elements))


def _element_is(
    field: Field, column: ColumnElement[Any], comparator: Comparator, pattern: Pattern
) -> ColumnElement[bool]:
    *path, name = field.path
    if comparator is Comparator.EQUAL and pattern.literal is not None:
        return _contains(path, column, [{name: pattern.literal}])
    return _any_element(_at(column, path[1:]), (name,), lambda text: _text(text, comparator, pattern))


def _any_element(
    elements: ColumnElement[Any],
    path: Sequence[str],
    is_match: Callable[[ColumnElement[str]], ColumnElement[bool]],
) -> ColumnElement[bool]:
    """Return the condition that an element of a JSON array has a matching text at a path."""
    # jsonb_array_elements fails for anything but an array. NULL yields no rows.
    array = case((func.jsonb_typeof(elements) == "array", elements), else_=null())
    element = func.jsonb_array_elements(array, type_=JSONB()).column_valued("element")
    value = _at(element, path)
    return select(literal_column("1")).where(_is(value, "string"), is_match(_as_text(value))).exists()


# ---- JSON


def _json(field: Field, column: ColumnElement[Any], comparator: Comparator, value: Value) -> ColumnElement[bool]:
    found = _at(column, field.path[1:])
    if comparator is Comparator.EQUAL and not (isinstance(value, Pattern) and value.literal is None):
        plain = _plain(value)
        # At the root, @> also matches an array that contains the value.
        return _contains(field.path, column, plain) if len(field.path) > 1 else found == literal(plain, JSONB())
    if comparator is Comparator.CONTAINS and field.kind is Kind.JSON:
        condition = _json_has(found, value)
    elif isinstance(value, Pattern):
        condition = and_(_is(found, "string"), _text(_as_text(found), comparator, value))
    else:
        condition = and_(_is(found, "number"), _ORDERS[comparator](found, literal(value, JSONB())))
    # An index on the column can find the key, so that condition comes first.
    return and_(_has_key(field, column), condition) if len(field.path) > 1 else condition


def _json_has(found: ColumnElement[Any], value: Value) -> ColumnElement[bool]:
    if not isinstance(value, Pattern):
        return found.bool_op("@>")(literal(value, JSONB()))
    is_inside = and_(_is(found, "string"), _text(_as_text(found), Comparator.CONTAINS, value))
    if value.literal is None:
        return is_inside
    return or_(
        is_inside,
        and_(_is(found, "array"), found.bool_op("?")(literal(value.literal, Text()))),
        func.jsonb_typeof(_at(found, (value.literal,))) != "null",
    )


def _contains(path: Sequence[str], column: ColumnElement[Any], value: object) -> ColumnElement[bool]:
    """Return the condition, one `@>`, that the column has a value at a path. The path begins with the column."""
    for key in reversed(path[1:]):
        value = {key: value}
    return column.bool_op("@>")(literal(value, JSONB()))


def _has_key(field: Field, column: ColumnElement[Any]) -> ColumnElement[bool]:
    return column.bool_op("?")(literal(field.path[1], Text()))


def _at(value: ColumnElement[Any], path: Sequence[str]) -> ColumnElement[Any]:
    """Return the value under keys; NULL if there is no object or no such key."""
    for key in path:
        value = value.op("->", return_type=JSONB())(literal(key, Text()))
    return value


def _as_text(value: ColumnElement[Any]) -> ColumnElement[str]:
    return value.op("#>>", return_type=Text())(literal_column("'{}'"))


def _is(value: ColumnElement[Any], kind: str) -> ColumnElement[bool]:
    return func.jsonb_typeof(value) == kind


def _pattern(value: Value) -> Pattern:
    if not isinstance(value, Pattern):
        raise TypeError(value)
    return value


def _plain(value: Value) -> object:
    return value.literal if isinstance(value, Pattern) else value
