"""Statements that return a model as one column of JSON."""

from itertools import chain
from typing import Any, cast

from sqlalchemy import (
    JSON,
    ColumnElement,
    Table,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from registry_service.storage.sql import ordering, tables
from registry_service.storage.sql.fast_lookup import Lookup

_models = cast("Table", tables.models)
_groups = cast("Table", tables.model_groups)
_aliases = cast("Table", tables.aliases)

_SIGNATURE: tuple[ColumnElement[Any], ...] = (literal_column("'schema'"), _models.c.schema)
# Warnings need the signature, but not the tensors.
_LISTED_SIGNATURE: tuple[ColumnElement[Any], ...] = (
    literal_column("'listed_signature'"),
    _models.c.schema.op("-")(literal_column("'{inputs,outputs,weights,metadata,opsets}'::text[]")),
)
_VERIFY_TIME = """
    SELECT verified.time FROM artifact_verifications AS verified
    WHERE verified.model_id = models.id AND verified.object_key = models.object_key AND verified.is_intact
"""


def _model_json(*signature: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a model as one column of JSON, which psycopg and SQLAlchemy parse faster than 36 columns.

    `signature` is the key and the value that replace the column `schema`.
    """
    return func.json_build_object(
        *chain.from_iterable(
            (literal_column(f"'{column.name}'"), column) for column in _models.c if column.name != "schema"
        ),
        *signature,
        literal_column("'model_group_id'"),
        select(_groups.c.id)
        .where(ordering.group_key(_groups) == ordering.group_key(_models))
        .correlate(_models)
        .scalar_subquery(),
        literal_column("'aliases'"),
        select(func.array_agg(aggregate_order_by(_aliases.c.alias, _aliases.c.alias)))
        .where(_aliases.c.model_id == _models.c.id)
        .correlate(_models)
        .scalar_subquery(),
        literal_column("'verify_time'"),
        literal_column(f"({_VERIFY_TIME})"),
        type_=JSON,
    )


LISTED = _model_json(*_LISTED_SIGNATURE)
"""The column of a listing, without the signature."""
FULL = _model_json(*_SIGNATURE)
"""The column of a listing, with the signature."""
# The id of the group, the aliases and the verification are one index lookup each, which costs less than a statement of
# its own. The row is a separate value because Postgres serializes a row of a table faster than a row of a subquery.
_ONE_MODEL = f"""
    SELECT json_build_object(
        'row', to_json(models),
        'model_group_id', (
            SELECT groups.id FROM model_groups AS groups
            WHERE model_group_key(groups.name, groups.project_id, groups.project_name)
                = model_group_key(models.name, models.project_id, models.project_name)
        ),
        'aliases', ARRAY(SELECT alias FROM aliases WHERE aliases.model_id = models.id ORDER BY alias),
        'verify_time', ({_VERIFY_TIME})
    )
    FROM models WHERE models.id = :id {{lock}}
"""  # noqa: S608 - constants only
MODEL = Lookup(text(_ONE_MODEL.format(lock="")))
LOCKED_MODEL = Lookup(text(_ONE_MODEL.format(lock="FOR UPDATE OF models")))
SHARE_LOCKED_MODEL = Lookup(text(_ONE_MODEL.format(lock="FOR SHARE OF models")))
