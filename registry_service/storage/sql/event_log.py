"""`domain.events.EventLog` on PostgreSQL: rows that a trigger numbers and chains."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import ColumnElement, Connection, Row, Subquery, Table, Text, and_, func, insert, select, true
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB

from registry_service.domain.caller import current_caller
from registry_service.domain.events import REMOVALS, BrokenLink, Change, Event, LogHead
from registry_service.domain.filter import Node
from registry_service.domain.listing import MAX_PAGE_BYTES
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql import rows, tables
from registry_service.storage.sql.engine import COMMITTING, PLANNED_ANEW
from registry_service.storage.sql.filter_sql import EVENT_INDEXES, where

_events = cast("Table", tables.audit_events)
_head = cast("Table", tables.audit_head)
# Most JSON that is checked at once, but for one event.
_VERIFIED_BYTES = 8 * 1024 * 1024

# What an event's hash is of, as JSON in Postgres' own spelling. The trigger that makes
# the hashes has it too; whoever changes the trigger must not change what is checked.
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
    ),
    Text,
)

# What the trigger adds comes back.
_INSERT = (
    insert(_events).inline().returning(_events.c.sequence, _events.c.time, _events.c.previous_hash, _events.c.hash)
)


@dataclass(frozen=True, slots=True)
class SqlEventLog:
    """`domain.events.EventLog`."""

    connection: Connection
    disk: DiskReserve | None = None
    """Of Postgres, where it is on this machine; what only removes something is recorded without space, too."""
    written: list[Event] = field(default_factory=list)
    """Events that will be in the log once the transaction is committed."""
    _recorded: list[dict[str, object]] = field(default_factory=list)

    def record(self, change: Change) -> None:
        """See the port."""
        if self.disk is not None and change.action not in REMOVALS:
            self.disk.check()
        caller = current_caller.get()
        self._recorded.append(
            {
                "actor": caller.named(change.actor),
                "request_id": caller.request_id,
                "action": change.action.value,
                "project_id": change.lineage.project_id,
                "project_name": change.lineage.project_name,
                "name": change.lineage.name,
                "model_id": change.model_id,
                "alias": change.alias,
                "reason": change.reason,
                "before": change.before,
                "after": change.after,
            }
        )

    def commit(self) -> None:
        """Write what was recorded and commit the transaction, in one message to Postgres.

        Every other change waits from the first event on until the transaction ends.
        So events come last, as who waits for nothing else from then on cannot be part
        of a deadlock, and the commit does not wait for this process.
        """
        if not self._recorded:
            return
        added = _INSERT.values(self._recorded) if len(self._recorded) > 1 else _INSERT
        parameters = {} if len(self._recorded) > 1 else self._recorded[0]
        found = self.connection.execute(added, parameters, execution_options=COMMITTING).mappings()
        # The numbers are in the order of the rows.
        for values, row in zip(self._recorded, sorted(found, key=itemgetter("sequence")), strict=True):
            self.written.append(rows.event({**values, **row}))
        self._recorded.clear()

    def head(self) -> LogHead:
        """See the port."""
        row = self.connection.execute(select(_head.c.sequence, _head.c.hash)).one()
        return LogHead(sequence=row.sequence, hash=row.hash)

    def after(
        self,
        sequence: int,
        *,
        until: int | None = None,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,  # noqa: A002 - AIP-160's name
    ) -> Sequence[Event]:
        """See the port."""
        wanted = _events.c.sequence > sequence
        if until is not None:
            wanted = and_(wanted, _events.c.sequence <= until)
        return self._found(wanted, filter, limit, max_bytes, newest_first=False)

    def before(
        self,
        sequence: int | None,
        *,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,  # noqa: A002 - AIP-160's name
    ) -> Sequence[Event]:
        """See the port."""
        wanted = true() if sequence is None else _events.c.sequence < sequence
        return self._found(wanted, filter, limit, max_bytes, newest_first=True)

    def _found(
        self, wanted: ColumnElement[bool], node: Node | None, limit: int, max_bytes: int, *, newest_first: bool
    ) -> Sequence[Event]:
        if node is not None:
            wanted = and_(wanted, where(node, _events, EVENT_INDEXES))
        page = _sized(wanted, limit, newest_first=newest_first)
        order = page.c.sequence.desc() if newest_first else page.c.sequence
        statement = select(page).where(page.c.bytes_before < max_bytes).order_by(order)
        statement = statement.execution_options(**PLANNED_ANEW)
        return [rows.event(row) for row in self.connection.execute(statement).mappings()]

    def verify(self, after: LogHead, *, limit: int) -> tuple[LogHead, BrokenLink | None]:
        """See the port."""
        every = _events.alias("every")
        batch = _sized(_events.c.sequence > after.sequence, limit, newest_first=False)
        last_of_batch = select(func.max(batch.c.sequence)).where(batch.c.bytes_before < _VERIFIED_BYTES)
        # With the head in one statement, hence in one snapshot: others may be writing.
        statement = (
            select(
                _head.c.sequence.label("head_sequence"),
                _head.c.hash.label("head_hash"),
                select(func.min(every.c.sequence)).scalar_subquery().label("first"),
                select(func.max(every.c.sequence)).scalar_subquery().label("last"),
                _events.c.sequence,
                _events.c.previous_hash,
                _events.c.hash,
                _HASHED.label("hashed"),
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
            return good, _broken_end(good, LogHead(sequence=found[0].head_sequence, hash=found[0].head_hash))
        return good, None


def _wrong(row: Row[Any], good: LogHead) -> str | None:
    """Tells what is wrong with the event that ought to follow a good one."""
    if row.sequence != good.sequence + 1:
        return "is missing."
    if row.previous_hash != good.hash:
        return "does not follow the event before it."
    if row.hash != hashlib.sha256(row.hashed.encode()).hexdigest():
        return "is not as it was written."
    return None


def _broken_end(good: LogHead, head: LogHead) -> BrokenLink | None:
    """Compares the last event with where the log was left."""
    if head.sequence > good.sequence:
        return BrokenLink(sequence=good.sequence + 1, description="is missing.")
    return None if head == good else BrokenLink(sequence=good.sequence, description="is not where the log was left.")


def _sized(wanted: ColumnElement[bool], limit: int, *, newest_first: bool) -> Subquery:
    """Returns events with `bytes_before`, how much JSON those before each have.

    The database adds them up, so that no more than a page ever gets here.
    """

    def order(key: ColumnElement[int]) -> ColumnElement[int]:
        return key.desc() if newest_first else key

    candidates = select(_events).where(wanted).order_by(order(_events.c.sequence)).limit(limit).subquery("candidates")
    so_far = func.sum(candidates.c.json_bytes).over(order_by=order(candidates.c.sequence))
    return select(candidates, (so_far - candidates.c.json_bytes).label("bytes_before")).subquery("sized")
