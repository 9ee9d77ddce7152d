"""`domain.events.EventLog` on PostgreSQL: rows that a trigger numbers and chains."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, cast

import psycopg
from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Subquery,
    Table,
    Text,
    and_,
    case,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    union,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from registry_service.domain.access import Projects
from registry_service.domain.caller import current_caller
from registry_service.domain.errors import DataLossError
from registry_service.domain.events import REMOVALS, BrokenLink, Change, Event, EventLog, LogHead
from registry_service.domain.filter import Node
from registry_service.domain.listing import MAX_PAGE_BYTES
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql import rows, tables
from registry_service.storage.sql.engine import COMMITTING, PLANNED_ANEW
from registry_service.storage.sql.filter_sql import EVENT_INDEXES, where

logger = logging.getLogger(__name__)

_events = cast("Table", tables.audit_events)
_head = cast("Table", tables.audit_head)
# Maximum JSON to verify at once. A single event may be larger.
_VERIFIED_BYTES = 8 * 1024 * 1024

# The hashed JSON of an event, as Postgres serializes it. The trigger that computes the hashes has the same expression.
# A change of the trigger must not change the hashes of existing events. Older events have no group, so it is optional.
_HASHED: ColumnElement[str] = sql_cast(
    func.jsonb_build_array(
        _events.c.sequence,
        func.to_char(func.timezone("UTC", _events.c.time), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        *(
            _events.c[name]
            for name in (
                "actor",
                "request_id",
                "action",
                "project_id",
                "project_name",
                "name",
                "model_id",
                "alias",
                "reason",
                "before",
                "after",
                "previous_hash",
            )
        ),
        type_=JSONB(),
    ).op("||")(
        case(
            (_events.c.model_group_id.is_not(None), func.jsonb_build_array(_events.c.model_group_id, type_=JSONB())),
            else_=literal_column("'[]'::jsonb"),
        )
    ),
    Text,
)

_DIGEST = func.encode(func.sha256(func.convert_to(_HASHED, "UTF8")), "hex")
_TEXTS = (
    "actor",
    "request_id",
    "action",
    "project_id",
    "project_name",
    "name",
    "model_id",
    "alias",
    "reason",
    "previous_hash",
    "hash",
    "model_group_id",
)
_REQUIRED = ("time", *(name for name in _TEXTS if name not in {"project_id", "project_name", "model_group_id"}))
_FIRST_TIME, _LAST_TIME = text("'0001-01-02Z'::timestamptz"), text("'9999-12-31Z'::timestamptz")
_HASH_BYTES = 64
# The registry writes no larger text or JSON into an event. Larger values are not fetched.
_MOST_TEXT_BYTES = 64 * 1024
_MOST_JSON_BYTES = 64 * 1024 * 1024
# Classes of SQLSTATE: data exception, syntax or access rule (a missing column), limit exceeded, internal error.
_DAMAGED = frozenset({"22", "42", "54", "XX"})

# SQLSTATE of a missing column or table, and of an operator or expression that does not fit the type of a column.
_OTHER_SCHEMA = frozenset({"42703", "42P01", "42883", "42804"})

# The events of models that moved to another project, with the values from before the move. The group is not recorded.
_LEFT: Mapping[str, ColumnElement[Any]] = {
    "project_id": literal_column("before->>'project_id'", Text()),
    # NULL here means that the move did not change the value.
    "project_name": literal_column(
        "CASE WHEN before ? 'project_name' THEN before->>'project_name' ELSE project_name END", Text()
    ),
    "name": literal_column("coalesce(before->>'name', name)", Text()),
    "model_group_id": literal_column("NULL::text", Text()),
}
_departures = (
    select(*(_LEFT.get(column.name, column).label(column.name) for column in _events.c))
    .where(text(tables.IS_MOVE))
    .subquery("departures")
)

# Return the values that the trigger sets.
_INSERT = (
    insert(_events)
    .inline()
    .returning(_events.c.sequence, _events.c.time, _events.c.previous_hash, _events.c.hash, _events.c.model_group_id)
)


@dataclass(frozen=True, slots=True)
class SqlEventLog(EventLog):
    """`domain.events.EventLog`."""

    connection: Connection
    disk: DiskReserve | None = None
    """The disk of Postgres, if it is local. Removals are recorded even on a full disk."""
    written: list[Event] = field(default_factory=list)
    """The events that the log has after the commit."""
    _recorded: list[dict[str, object]] = field(default_factory=list)

    @override
    def record(self, change: Change) -> None:
        if self.disk is not None and change.action not in REMOVALS:
            self.disk.check()
        caller = current_caller.get()
        self._recorded.append(
            {
                "actor": caller.named(change.actor),
                "request_id": caller.request_id,
                "action": change.action.value,
                "project_id": change.group_key.project_id,
                "project_name": change.group_key.project_name,
                "name": change.group_key.name,
                "model_id": change.model_id,
                "model_group_id": change.model_group_id,
                "alias": change.alias,
                "reason": change.reason,
                "before": change.before,
                "after": change.after,
            }
        )

    def commit(self) -> None:
        """Write the recorded events and commit the transaction, in one message to Postgres.

        From the first event on, every other change waits until the transaction ends. So events come last: a transaction
        that waits for nothing afterwards cannot deadlock, and the commit does not wait for this process.
        """
        if not self._recorded:
            return
        added = _INSERT.values(self._recorded) if len(self._recorded) > 1 else _INSERT
        parameters = {} if len(self._recorded) > 1 else self._recorded[0]
        found = self.connection.execute(added, parameters, execution_options=COMMITTING).mappings()
        # The sequence numbers follow the order of the rows.
        for values, row in zip(self._recorded, sorted(found, key=itemgetter("sequence")), strict=True):
            self.written.append(rows.event({**values, **row}))
        self._recorded.clear()

    @override
    def head(self) -> LogHead:
        with _own_schema():
            row = self.connection.execute(select(_head.c.sequence, _head.c.hash)).one()
        return LogHead(sequence=row.sequence, hash=row.hash)

    @override
    def after(
        self,
        sequence: int,
        *,
        until: int | None = None,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,
        within: Projects = None,
    ) -> Sequence[Event]:
        selection = _Selection(first=sequence + 1, last=until, filter=filter, within=within)
        return self._found(selection, limit, max_bytes, newest_first=False)

    @override
    def before(
        self,
        sequence: int | None,
        *,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,
        within: Projects = None,
    ) -> Sequence[Event]:
        selection = _Selection(last=None if sequence is None else sequence - 1, filter=filter, within=within)
        return self._found(selection, limit, max_bytes, newest_first=True)

    def _found(self, selection: "_Selection", limit: int, max_bytes: int, *, newest_first: bool) -> Sequence[Event]:
        page = _sized(selection.condition(limit, newest_first=newest_first), limit, newest_first=newest_first)
        statement = select(*_readable(page)).where(page.c.bytes_before < max_bytes)
        statement = statement.order_by(_ordered(page, newest_first)).execution_options(**PLANNED_ANEW)
        with _own_schema():
            return [rows.stored_event(row) for row in self.connection.execute(statement).mappings()]

    @override
    def verify(self, after: LogHead, *, limit: int) -> tuple[LogHead, BrokenLink | None]:
        try:
            with self.connection.begin_nested():
                return self._verified(after, limit)
        except DBAPIError as error:
            diagnosis = error.orig.diag if isinstance(error.orig, psycopg.Error) else None
            if diagnosis is None or (diagnosis.sqlstate or "")[:2] not in _DAMAGED:
                raise
            if limit == 1:
                description = f"cannot be read: {diagnosis.message_primary}."
                return after, BrokenLink(sequence=after.sequence + 1, description=description)
        # One of the events is unreadable. Find it.
        good = after
        for _ in range(limit):
            reached, broken = self.verify(good, limit=1)
            if broken is not None or reached == good:
                return reached, broken
            good = reached
        return good, None

    def _verified(self, after: LogHead, limit: int) -> tuple[LogHead, BrokenLink | None]:
        every = _events.alias("every")
        batch = _sized(_events.c.sequence > after.sequence, limit, newest_first=False)
        last_of_batch = select(func.max(batch.c.sequence)).where(batch.c.bytes_before < _VERIFIED_BYTES)
        # One statement, hence one snapshot, with the head, because other transactions write concurrently.
        statement = (
            select(
                _head.c.sequence.label("head_sequence"),
                _short(_head.c.hash, _HASH_BYTES).label("head_hash"),
                select(func.min(every.c.sequence)).scalar_subquery().label("first"),
                select(func.max(every.c.sequence)).scalar_subquery().label("last"),
                _events.c.sequence,
                _short(_events.c.previous_hash, _HASH_BYTES).label("previous_hash"),
                _short(_events.c.hash, _HASH_BYTES).label("hash"),
                case((_is_event_sized(_events), _DIGEST)).label("digest"),
                _is_event_sized(_events).label("is_event_sized"),
            )
            .select_from(
                _head.outerjoin(
                    _events,
                    and_(_events.c.sequence > after.sequence, _events.c.sequence <= last_of_batch.scalar_subquery()),
                )
            )
            .order_by(_events.c.sequence)
        )
        found = self.connection.execute(statement).all()
        if not found:
            return after, BrokenLink(sequence=after.sequence + 1, description="cannot follow: the log has no head.")
        first, last = found[0].first, found[0].last
        if first is not None and first < 1:
            return after, BrokenLink(sequence=first, description="is before the first event.")
        good = after
        for row in found:
            if row.sequence is not None:
                wrong = _wrong(row, good)
                if wrong is not None:
                    return good, BrokenLink(sequence=good.sequence + 1, description=wrong)
                good = LogHead(sequence=row.sequence, hash=row.hash)
        if last is None or last <= good.sequence:
            return good, _broken_end(good, found[0].head_sequence, found[0].head_hash)
        return good, None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Selection:
    """The selection of a page of events (`domain.events.EventLog.after`)."""

    first: int | None = None
    last: int | None = None
    filter: Node | None
    within: Projects

    def condition(self, limit: int, *, newest_first: bool) -> ColumnElement[bool]:
        if self.filter is None and self.within is None:
            return self._matches(_events)
        # One search for each side of a move rather than one with OR: each uses its own indexes, and stops at the limit.
        found = (
            select(side.c.sequence).where(self._matches(side)).order_by(_ordered(side, newest_first)).limit(limit)
            for side in (_events, _departures)
        )
        return _events.c.sequence.in_(union(*found))

    def _matches(self, side: FromClause) -> ColumnElement[bool]:
        conditions: list[ColumnElement[bool]] = []
        if self.first is not None:
            conditions.append(side.c.sequence >= self.first)
        if self.last is not None:
            conditions.append(side.c.sequence <= self.last)
        if self.within is not None:
            conditions.append(side.c.project_id.in_(self.within))
        if self.filter is not None:
            conditions.append(where(self.filter, side, EVENT_INDEXES))
        return and_(true(), *conditions)


def _ordered(table: FromClause, newest_first: bool) -> ColumnElement[int]:
    return table.c.sequence.desc() if newest_first else table.c.sequence


@contextmanager
def _own_schema() -> Iterator[None]:
    """Raise `DataLossError` for an error that comes from changed tables of the log.

    Raises:
        DataLossError: A table or a column of the log is missing or has another type.
    """
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _OTHER_SCHEMA:
            raise
        logger.exception("the tables of the audit log are not as this program keeps them")
        raise DataLossError(
            "The audit log cannot be read, as its tables were changed; VerifyAuditLog says what is broken."
        ) from error


def _wrong(row: Row[Any], good: LogHead) -> str | None:
    """Return what is wrong with the event after a correct one."""
    if row.sequence != good.sequence + 1:
        return "is missing."
    if not row.is_event_sized:
        return "is larger than any event."
    if row.previous_hash != good.hash:
        return "does not follow the event before it."
    if row.hash is None or row.hash != row.digest:
        return "is not as it was written."
    return None


def _broken_end(good: LogHead, head_sequence: int | None, head_hash: str | None) -> BrokenLink | None:
    """Compare the last event with the recorded end of the log."""
    if head_sequence is not None and head_sequence > good.sequence:
        return BrokenLink(sequence=good.sequence + 1, description="is missing.")
    if (head_sequence, head_hash) == (good.sequence, good.hash):
        return None
    return BrokenLink(sequence=good.sequence, description="is not where the log was left.")


def _short(column: ColumnElement[str], most_bytes: int) -> ColumnElement[Any]:
    """Return a text, or NULL if it is longer than the registry writes, so that larger ones are not fetched."""
    return case((func.octet_length(column) <= most_bytes, column))


def _bytes_of(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the size of a JSON value in memory. The stored size would be the compressed one."""
    return func.coalesce(func.pg_column_size(column.op("||")(literal_column("'{}'::jsonb"))), 0)


def _is_event_sized(table: FromClause) -> ColumnElement[bool]:
    texts = [func.coalesce(func.octet_length(table.c[name]), 0) <= _MOST_TEXT_BYTES for name in _TEXTS]
    values = [_bytes_of(table.c[name]) <= _MOST_JSON_BYTES for name in ("before", "after")]
    return and_(*texts, *values)


def _readable(table: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of events, with NULL for values that no event has, and whether there are none."""
    is_time = table.c.time.between(_FIRST_TIME, _LAST_TIME)
    is_whole = and_(*(table.c[name].is_not(None) for name in _REQUIRED))
    return [
        table.c.sequence,
        case((is_time, table.c.time)).label("time"),
        *(_short(table.c[name], _MOST_TEXT_BYTES).label(name) for name in _TEXTS),
        *(
            case((_bytes_of(table.c[name]) <= _MOST_JSON_BYTES, sql_cast(table.c[name], Text))).label(name)
            for name in ("before", "after")
        ),
        func.coalesce(and_(is_time, is_whole, _is_event_sized(table)), literal_column("false")).label("is_readable"),
    ]


def _sized(wanted: ColumnElement[bool], limit: int, *, newest_first: bool) -> Subquery:
    """Return events with `bytes_before`, the size of the JSON of all previous ones.

    The database adds up the sizes, so it never returns more than a page.
    """
    candidates = (
        select(_events).where(wanted).order_by(_ordered(_events, newest_first)).limit(limit).subquery("candidates")
    )
    # Someone may have changed the column, so the actual size is a lower bound.
    size = func.greatest(
        candidates.c.json_bytes,
        *(func.coalesce(func.pg_column_size(candidates.c[name]), 0) for name in ("before", "after")),
    )
    so_far = func.sum(size).over(order_by=_ordered(candidates, newest_first))
    return select(candidates, (so_far - size).label("bytes_before")).subquery("sized")
