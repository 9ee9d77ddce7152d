"""`domain.model_groups.ModelGroupRepository` on PostgreSQL. Triggers make the groups and count their models."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Subquery,
    Table,
    Text,
    bindparam,
    delete,
    func,
    literal,
    literal_column,
    select,
    text,
    true,
    update,
)
from typing_extensions import override

from registry_service.domain.errors import ModelGroupNotEmptyError, ModelGroupNotFoundError
from registry_service.domain.events import Change
from registry_service.domain.listing import SORT_PREFIX, SortValue
from registry_service.domain.model_groups import MUTABLE_FIELDS, GroupPage, GroupQuery, ModelGroup, ModelGroupRepository
from registry_service.domain.models import GroupKey
from registry_service.domain.vocabulary import Action, MetricGoal
from registry_service.storage.sql import ordering, tables
from registry_service.storage.sql.engine import PLANNED_ANEW
from registry_service.storage.sql.event_log import SqlEventLog
from registry_service.storage.sql.filter_sql import GROUP_INDEXES, where
from registry_service.storage.sql.ordering import group_key
from registry_service.storage.sql.paging import is_after

_groups = cast("Table", tables.model_groups)
_counts = cast("Table", tables.model_group_counts)
_models = cast("Table", tables.models)

_SHORT_TEXTS_BYTES = 1_000
"""An upper bound for the fields of a group other than long texts."""


# The columns of ix_models_group, in which the last row of a group is its latest release.
_NEWEST = (
    select(_models.c.id, _models.c.version)
    .where(group_key(_models) == group_key(_groups))
    .order_by(
        func.model_version_is_release(_models.c.version).desc(),
        func.model_version_key(_models.c.version).desc(),
        func.left(_models.c.version, literal_column(str(SORT_PREFIX)), type_=Text).collate("C").desc(),
        _models.c.create_time.desc(),
        _models.c.id.desc(),
    )
    .limit(1)
    .correlate(_groups)
    .lateral("newest")
)
_COUNT = func.coalesce(_counts.c.version_count, literal_column("0"))
_GROUP = select(
    _groups,
    _COUNT.label("version_count"),
    _NEWEST.c.id.label("latest_model_id"),
    _NEWEST.c.version.label("latest_version"),
).select_from(
    _groups.outerjoin(_counts, _counts.c.model_group_id == _groups.c.id).outerjoin(_NEWEST, true()),
)
_BY_ID = _groups.c.id == bindparam("group_id")
_ONE_GROUP = _GROUP.where(_BY_ID)
_LOCK = select(_groups.c.id).where(_BY_ID)
_LOCKED_TO_CHANGE = _LOCK.with_for_update(key_share=True)
_LOCKED_TO_DELETE = _LOCK.with_for_update()
_HAS_MODELS = select(
    select(literal_column("1")).select_from(_models).where(group_key(_models) == group_key(_groups)).exists()
).where(_BY_ID)
# The aliases of a group are those with its key.
_DELETE_MOVES = text("""
    DELETE FROM alias_moves USING aliases, model_groups AS groups
    WHERE alias_id = aliases.id AND groups.id = :group_id
        AND text_digest(aliases.name) = text_digest(groups.name)
        AND aliases.project_id IS NOT DISTINCT FROM groups.project_id
        AND aliases.project_name IS NOT DISTINCT FROM groups.project_name
""")
_DELETE_ALIASES = text("""
    DELETE FROM aliases USING model_groups AS groups
    WHERE groups.id = :group_id
        AND text_digest(aliases.name) = text_digest(groups.name)
        AND aliases.project_id IS NOT DISTINCT FROM groups.project_id
        AND aliases.project_name IS NOT DISTINCT FROM groups.project_name
""")


def _listed(*, show_empty: bool) -> Subquery:
    """Return the groups with their counts as a table. Postgres inlines the subquery."""
    counted = _groups.join(_counts, _counts.c.model_group_id == _groups.c.id, isouter=show_empty)
    # The count has an index of its own.
    count = _COUNT if show_empty else _counts.c.version_count
    return select(_groups, count.label("version_count")).select_from(counted).subquery("listed")


_ALL = _listed(show_empty=True)
_FILLED = _listed(show_empty=False)


@dataclass(frozen=True, slots=True)
class SqlModelGroupRepository(ModelGroupRepository):
    """`domain.model_groups.ModelGroupRepository`."""

    connection: Connection
    events: SqlEventLog

    @override
    def get(self, group_id: str) -> ModelGroup:
        row = self.connection.execute(_ONE_GROUP, {"group_id": group_id}).mappings().one_or_none()
        if row is None:
            raise ModelGroupNotFoundError(group_id)
        return _group(row)

    @override
    def list(self, query: GroupQuery) -> GroupPage:
        table = _ALL if query.show_empty else _FILLED
        descending = [field.descending for field in query.order]
        keys = [ordering.group_sort_expression(field.name, table) for field in query.order]

        def order(columns: Sequence[ColumnElement[Any]]) -> list[ColumnElement[Any]]:
            return [key.desc() if down else key.asc() for key, down in zip(columns, descending, strict=True)]

        texts = (table.c.name, table.c.project_id, table.c.project_name, table.c.description, table.c.owner)
        wanted = select(
            table.c.id.label("found_id"),
            _bytes((*texts, table.c.tags.cast(Text), table.c.metric_goals.cast(Text))).label("bytes"),
        )
        if query.filter is not None:
            wanted = wanted.where(where(query.filter, table, GROUP_INDEXES))
        if query.after is not None:
            wanted = wanted.where(is_after(keys, descending, _compared(query, keys)))
        # One group beyond the limit shows whether another page follows.
        candidates = wanted.order_by(*order(keys)).limit(query.limit + 1).subquery("candidates")
        # The database adds up the sizes, so it never returns more than a page.
        numbered = select(candidates, func.row_number().over().label("number")).subquery("numbered")
        sized = select(
            numbered.c.found_id,
            numbered.c.number,
            (func.sum(numbered.c.bytes).over(order_by=numbered.c.number) - numbered.c.bytes).label("bytes_before"),
            func.count().over().label("found"),
        ).subquery("sized")
        page = (
            _GROUP.add_columns(sized.c.found)
            .join(sized, sized.c.found_id == _groups.c.id)
            .where(sized.c.bytes_before < query.max_bytes)
            .order_by(sized.c.number)
            .limit(query.limit)
        )
        found = self.connection.execute(page.execution_options(**PLANNED_ANEW)).mappings().all()
        return GroupPage(groups=[_group(row) for row in found], more=bool(found) and found[0]["found"] > len(found))

    @override
    def update(self, group_id: str, change: Callable[[ModelGroup], ModelGroup]) -> ModelGroup:
        # A separate statement, so that the next one sees the changes of the transactions that the lock waited for.
        # This lock still lets models join the group.
        self.connection.execute(_LOCKED_TO_CHANGE, {"group_id": group_id})
        old = self.get(group_id)
        new = change(old)
        if new is old:
            return old
        values, before = _values(new), _values(old)
        changed = {name: value for name, value in values.items() if value != before[name]}
        self.connection.execute(update(_groups).where(_groups.c.id == group_id).values(changed))
        self._record(Action.MODEL_GROUP_UPDATED, new, before={name: before[name] for name in changed}, after=changed)
        return new

    @override
    def remove(self, group_id: str, check: Callable[[ModelGroup], None], *, validate_only: bool = False) -> ModelGroup:
        if not validate_only:
            # From here on, registrations into the group wait, and then create the group again.
            self.connection.execute(_LOCKED_TO_DELETE, {"group_id": group_id})
        group = self.get(group_id)
        check(group)
        if self.connection.execute(_HAS_MODELS, {"group_id": group_id}).scalar_one():
            raise ModelGroupNotEmptyError(group_id, group.key.name)
        if validate_only:
            return group
        for statement in (_DELETE_MOVES, _DELETE_ALIASES):
            self.connection.execute(statement, {"group_id": group_id})
        self.connection.execute(delete(_groups).where(_groups.c.id == group_id))
        self._record(Action.MODEL_GROUP_DELETED, group, before=_values(group))
        return group

    def _record(
        self,
        action: Action,
        group: ModelGroup,
        *,
        before: Mapping[str, object] | None = None,
        after: Mapping[str, object] | None = None,
    ) -> None:
        self.events.record(
            Change(
                action=action,
                group_key=group.key,
                model_id="",
                model_group_id=group.id,
                before=None if before is None else _event_values(before),
                after=None if after is None else _event_values(after),
            )
        )


def _bytes(texts: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    sizes = (func.coalesce(func.octet_length(found), 0) for found in texts)
    return cast("ColumnElement[int]", sum(sizes, start=literal(_SHORT_TEXTS_BYTES)))


def _compared(query: GroupQuery, keys: Sequence[ColumnElement[Any]]) -> Sequence[ColumnElement[Any]]:
    """Return the values that the keys of groups after `query.after` are compared with, cut like the keys."""
    values: list[SortValue] = [
        value[:SORT_PREFIX] if isinstance(value, str) and field.name != "id" else value
        for field, value in zip(query.order, query.after or (), strict=True)
    ]
    return [bindparam(None, value, type_=key.type) for key, value in zip(keys, values, strict=True)]


def _values(group: ModelGroup) -> dict[str, Any]:
    """Return the mutable fields of a group as columns."""
    values: dict[str, Any] = {name: getattr(group, name) for name in MUTABLE_FIELDS}
    values["tags"] = dict(group.tags)
    values["metric_goals"] = {metric: goal.value for metric, goal in group.metric_goals.items()}
    return values | {"update_time": group.update_time, "revision": group.revision}


def _event_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def _group(row: RowMapping) -> ModelGroup:
    return ModelGroup(
        id=row["id"],
        key=GroupKey(name=row["name"], project_id=row["project_id"], project_name=row["project_name"]),
        description=row["description"],
        owner=row["owner"],
        tags=row["tags"],
        metric_goals={metric: MetricGoal(goal) for metric, goal in row["metric_goals"].items()},
        create_time=row["create_time"],
        update_time=row["update_time"],
        revision=row["revision"],
        version_count=row["version_count"],
        latest_version=row["latest_version"] or "",
        latest_model_id=row["latest_model_id"] or "",
    )
