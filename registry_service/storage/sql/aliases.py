"""`domain.aliases.AliasRepository` on PostgreSQL. The clock is that of the database, which all replicas share."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    DateTime,
    RowMapping,
    Select,
    Table,
    and_,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from typing_extensions import override

from registry_service.domain.access import Projects
from registry_service.domain.aliases import (
    Alias,
    AliasMove,
    AliasPage,
    AliasRepository,
    AliasState,
    AliasTarget,
    MoveKey,
    MoveKind,
    MovePage,
    Remark,
)
from registry_service.domain.caller import current_caller
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.events import Change
from registry_service.domain.model_groups import GroupHandle
from registry_service.domain.models import GroupKey
from registry_service.domain.vocabulary import Action
from registry_service.storage.sql import ordering, tables
from registry_service.storage.sql.engine import PLANNED_ANEW
from registry_service.storage.sql.event_log import SqlEventLog
from registry_service.storage.sql.paging import is_after

_aliases = cast("Table", tables.aliases)
_moves = cast("Table", tables.alias_moves)
_older = _moves.alias("older")
_models = cast("Table", tables.models)
_groups = cast("Table", tables.model_groups)

_ACTIONS = {
    MoveKind.SET: Action.ALIAS_SET,
    MoveKind.ROLLED_BACK: Action.ALIAS_ROLLED_BACK,
    MoveKind.DELETED: Action.ALIAS_DELETED,
}
_MICROSECOND = timedelta(microseconds=1)
_SHORT_TEXTS_BYTES = 1_000
"""An upper bound for the other fields of an alias or a move."""

# The previous target of a move is the target of the move before.
_MOVE = select(
    _moves,
    _older.c.model_id.label("older_model_id"),
    _older.c.version.label("older_version"),
    _older.c.sha256.label("older_sha256"),
)
_WITH_OLDER = _moves.outerjoin(
    _older, and_(_older.c.alias_id == _moves.c.alias_id, _older.c.revision == _moves.c.revision - 1)
)
# The state of an alias: its newest move, with the current version of the model.
_STATE = _MOVE.add_columns(
    _aliases.c.id.label("key"),
    _aliases.c.name,
    _aliases.c.project_id,
    _aliases.c.project_name,
    _aliases.c.alias,
    _groups.c.id.label("model_group_id"),
    func.coalesce(_models.c.version, _moves.c.version).label("present_version"),
).select_from(
    _WITH_OLDER.join(_aliases, and_(_aliases.c.id == _moves.c.alias_id, _aliases.c.revision == _moves.c.revision))
    # The current target always exists. Other targets are irrelevant.
    .outerjoin(_models, _models.c.id == _aliases.c.model_id)
    .join(_groups, ordering.group_key(_groups) == ordering.group_key(_aliases))
)
_LISTED_MOVE = _MOVE.add_columns(
    _aliases.c.alias, _groups.c.id.label("model_group_id"), _moves.c.alias_id.label("key")
).select_from(
    _WITH_OLDER.join(_aliases, _aliases.c.id == _moves.c.alias_id).join(
        _groups, ordering.group_key(_groups) == ordering.group_key(_aliases)
    )
)
_MOVE_KEY = (_moves.c.time, _moves.c.alias_id, _moves.c.revision)


@dataclass(frozen=True, slots=True)
class SqlAliasRepository(AliasRepository):
    """`domain.aliases.AliasRepository`."""

    connection: Connection
    events: SqlEventLog

    @override
    def find(self, group: GroupHandle, alias: str) -> AliasState:
        row = self.connection.execute(_STATE.where(_is(group, alias))).mappings().one_or_none()
        return AliasState(key=None, group=group, alias=alias, head=None) if row is None else _state(row)

    @override
    def lock(self, group: GroupHandle, alias: str, *, add: bool = False) -> AliasState:
        key = self._lock(group, alias)
        if key is None and add:
            # Of two transactions that add the row, the second waits here, and then finds it.
            self.connection.execute(
                upsert(_aliases)
                .values(_key_values(group.key) | {"alias": alias, "revision": 0})
                .on_conflict_do_nothing()
            )
            key = self._lock(group, alias)
        # A separate statement sees the changes of the transactions that the lock waited for.
        state = self.find(group, alias)
        return AliasState(key=key, group=group, alias=alias, head=state.head)

    def _lock(self, group: GroupHandle, alias: str) -> int | None:
        statement = select(_aliases.c.id).where(_is(group, alias)).with_for_update()
        return self.connection.execute(statement).scalar_one_or_none()

    @override
    def lock_all_of(self, model_id: str) -> Sequence[AliasState]:
        statement = select(_aliases.c.id).where(_aliases.c.model_id == model_id).order_by(_aliases.c.id)
        keys = self.connection.execute(statement.with_for_update()).scalars().all()
        found = self.connection.execute(_STATE.where(_aliases.c.id.in_(keys)).order_by(_aliases.c.alias))
        return [_state(row) for row in found.mappings()]

    @override
    def move(
        self, state: AliasState, *, kind: MoveKind, target: AliasTarget | None, previous: int | None, remark: Remark
    ) -> AliasMove:
        caller = current_caller.get()
        time: ColumnElement[datetime] = func.clock_timestamp(type_=DateTime(timezone=True))
        revision = 1
        if state.head is not None:
            # The clock may go backwards.
            time = func.greatest(time, literal(state.head.time + _MICROSECOND, DateTime(timezone=True)))
            revision += state.head.revision
        values: dict[str, Any] = {
            "revision": revision,
            "kind": kind.value,
            "previous": previous,
            "actor": caller.actor,
            "reason": remark.reason,
            "request_id": caller.request_id,
        } | ({} if target is None else asdict(target))
        moved: datetime = self.connection.execute(
            insert(_moves).values(values | {"alias_id": state.key, "time": time}).returning(_moves.c.time)
        ).scalar_one()
        self.connection.execute(
            update(_aliases)
            .where(_aliases.c.id == state.key)
            .values(model_id=None if target is None else target.model_id, revision=revision)
        )
        pointed_to = target or state.target
        self.events.record(
            Change(
                action=_ACTIONS[kind],
                group_key=state.group.key,
                model_group_id=state.group.id,
                model_id="" if pointed_to is None else pointed_to.model_id,
                alias=state.alias,
                reason=remark.reason,
                before=None if state.target is None else asdict(state.target),
                after=None if target is None else asdict(target),
            )
        )
        return AliasMove(
            alias=state.alias,
            model_group_id=state.group.id,
            revision=revision,
            kind=kind,
            before=state.target,
            after=target,
            previous=previous,
            time=moved,
            actor=caller.actor,
            reason=remark.reason,
            request_id=caller.request_id,
        )

    @override
    def at(self, group: GroupHandle, alias: str, time: datetime) -> Alias | None:
        locked = select(_aliases.c.id).where(_is(group, alias)).with_for_update(read=True)
        key = self.connection.execute(locked).scalar_one_or_none()
        # Read the clock after the lock, so that later moves have later times.
        if self.connection.execute(
            select(literal(time, DateTime(timezone=True)) > func.clock_timestamp())
        ).scalar_one():
            raise InvalidArgumentError.of("at_time", "must not be in the future.")
        statement = (
            _MOVE.select_from(_WITH_OLDER)
            .where(_moves.c.alias_id == key, _moves.c.time <= time)
            .order_by(_moves.c.time.desc())
            .limit(1)
        )
        row = self.connection.execute(statement).mappings().one_or_none()
        head = None if row is None else _move(row, alias=alias, model_group_id=group.id)
        return AliasState(key=key, group=group, alias=alias, head=head).current

    @override
    def get_move(self, state: AliasState, revision: int) -> AliasMove:
        statement = _MOVE.select_from(_WITH_OLDER).where(_moves.c.alias_id == state.key, _moves.c.revision == revision)
        row = self.connection.execute(statement).mappings().one()
        return _move(row, alias=state.alias, model_group_id=state.group.id)

    @override
    def newest_move_to(self, state: AliasState, model_id: str) -> AliasMove | None:
        statement = (
            _MOVE.select_from(_WITH_OLDER)
            .where(_moves.c.alias_id == state.key, _moves.c.model_id == model_id)
            .order_by(_moves.c.revision.desc())
            .limit(1)
        )
        row = self.connection.execute(statement).mappings().one_or_none()
        return None if row is None else _move(row, alias=state.alias, model_group_id=state.group.id)

    @override
    def list(
        self, group: GroupHandle | None, *, after: int, limit: int, max_bytes: int, within: Projects = None
    ) -> AliasPage:
        texts = [_aliases.c.name, _aliases.c.project_id, _aliases.c.project_name, _models.c.version, _moves.c.reason]
        statement = _STATE.where(_aliases.c.model_id.is_not(None), _aliases.c.id > after)
        if group is not None:
            statement = statement.where(_in(group))
        if within is not None:
            statement = statement.where(_aliases.c.project_id.in_(within))
        rows, more = self._page(statement.order_by(_aliases.c.id), texts, limit, max_bytes)
        states = [(row["key"], _state(row).current) for row in rows]
        return AliasPage(aliases=[(key, alias) for key, alias in states if alias is not None], more=more)

    @override
    def moves(
        self,
        group: GroupHandle | None,
        alias: str | None,
        *,
        before: MoveKey | None,
        limit: int,
        max_bytes: int,
        within: Projects = None,
    ) -> MovePage:
        texts = [_moves.c.version, _older.c.version, _moves.c.reason, _moves.c.actor]
        statement = _LISTED_MOVE
        if group is not None and alias is not None:
            # Select by the id of the alias, so that the index returns its moves in order.
            key = self.connection.execute(select(_aliases.c.id).where(_is(group, alias))).scalar_one_or_none()
            statement = statement.where(_moves.c.alias_id == key)
        elif group is not None:
            statement = statement.where(_in(group))
        elif alias is not None:
            statement = statement.where(_aliases.c.alias == alias)
        if within is not None:
            statement = statement.where(_aliases.c.project_id.in_(within))
        if before is not None:
            bound = [literal(value, column.type) for value, column in zip(before, _MOVE_KEY, strict=True)]
            statement = statement.where(is_after(_MOVE_KEY, [True, True, True], bound))
        rows, more = self._page(statement.order_by(*(column.desc() for column in _MOVE_KEY)), texts, limit, max_bytes)
        return MovePage(
            moves=[
                (
                    (row["time"], row["key"], row["revision"]),
                    _move(row, alias=row["alias"], model_group_id=row["model_group_id"]),
                )
                for row in rows
            ],
            more=more,
        )

    def _page(
        self, ordered: Select[Any], texts: Sequence[ColumnElement[Any]], limit: int, max_bytes: int
    ) -> tuple[Sequence[RowMapping], bool]:
        """Return the rows of a page, and whether there are more. The long texts count toward the size."""
        size = sum((func.coalesce(func.octet_length(text), 0) for text in texts), start=literal(_SHORT_TEXTS_BYTES))
        # One row beyond the limit shows whether another page follows.
        candidates = ordered.add_columns(size.label("bytes")).limit(limit + 1).subquery("candidates")
        # The database adds up the sizes, so it never returns more than a page.
        numbered = select(candidates, func.row_number().over().label("number")).subquery("numbered")
        sized = select(
            numbered,
            func.sum(numbered.c.bytes).over(order_by=numbered.c.number).label("bytes_so_far"),
            func.count().over().label("found"),
        ).subquery("sized")
        page = select(sized).where(sized.c.bytes_so_far - sized.c.bytes < max_bytes).order_by(sized.c.number)
        page = page.limit(limit).execution_options(**PLANNED_ANEW)
        rows = self.connection.execute(page).mappings().all()
        return rows, bool(rows) and rows[0]["found"] > len(rows)

    @override
    def of_models(self, model_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        statement = select(_aliases.c.model_id, _aliases.c.alias).where(_aliases.c.model_id.in_(model_ids))
        names: dict[str, list[str]] = {}
        for model_id, alias in self.connection.execute(statement.order_by(_aliases.c.alias)):
            names.setdefault(model_id, []).append(alias)
        return names


def _key_values(key: GroupKey) -> dict[str, object]:
    return {"name": key.name, "project_id": key.project_id, "project_name": key.project_name}


def _in(group: GroupHandle) -> ColumnElement[bool]:
    return and_(
        *(
            func.text_digest(_aliases.c[name]).is_(None)
            if value is None
            else func.text_digest(_aliases.c[name]) == func.text_digest(value)
            for name, value in _key_values(group.key).items()
        )
    )


def _is(group: GroupHandle, alias: str) -> ColumnElement[bool]:
    return and_(_in(group), _aliases.c.alias == alias)


def _target(model_id: str | None, version: str, sha256: str) -> AliasTarget | None:
    return None if model_id is None else AliasTarget(model_id=model_id, version=version, sha256=sha256)


def _move(row: RowMapping, *, alias: str, model_group_id: str, version: str = "version") -> AliasMove:
    return AliasMove(
        alias=alias,
        model_group_id=model_group_id,
        kind=MoveKind(row["kind"]),
        before=_target(row["older_model_id"], row["older_version"], row["older_sha256"]),
        after=_target(row["model_id"], row[version], row["sha256"]),
        **{name: row[name] for name in ("revision", "previous", "time", "actor", "reason", "request_id")},
    )


def _state(row: RowMapping) -> AliasState:
    key = GroupKey(name=row["name"], project_id=row["project_id"], project_name=row["project_name"])
    group_id, alias = row["model_group_id"], row["alias"]
    return AliasState(
        key=row["key"],
        group=GroupHandle(id=group_id, key=key),
        alias=alias,
        head=_move(row, alias=alias, model_group_id=group_id, version="present_version"),
    )
