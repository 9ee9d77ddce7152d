"""`domain.events.EventLog` on PostgreSQL: rows that a trigger numbers and chains."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from sqlalchemy import ColumnElement, Connection, Select, Table, Text, func, insert, select, true
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import JSONB

from registry_service.domain.caller import current_caller
from registry_service.domain.events import BrokenLink, Change, Event, LogHead
from registry_service.domain.filter import Node
from registry_service.storage.sql import rows, tables
from registry_service.storage.sql.filter_sql import where

_events = cast("Table", tables.audit_events)
_head = cast("Table", tables.audit_head)

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


@dataclass(frozen=True, slots=True)
class SqlEventLog:
    """`domain.events.EventLog`."""

    connection: Connection
    _recorded: list[dict[str, object]] = field(default_factory=list)

    def record(self, change: Change) -> None:
        """See the port."""
        caller = current_caller.get()
        self._recorded.append(
            {
                "actor": change.actor or caller.actor,
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

    def write(self) -> None:
        """Writes what was recorded, as the last thing before the commit.

        From here on, every other change waits for this transaction to end; and
        who waits for nothing else from here on cannot be part of a deadlock.
        """
        for values in self._recorded:
            self.connection.execute(insert(_events).inline(), values)
        self._recorded.clear()

    def head(self) -> LogHead:
        """See the port."""
        row = self.connection.execute(select(_head.c.sequence, _head.c.hash)).one()
        return LogHead(sequence=row.sequence, hash=row.hash)

    def after(self, sequence: int, *, limit: int, filter: Node | None = None) -> Sequence[Event]:  # noqa: A002 - AIP-160's name
        """See the port."""
        return self._found(
            select(_events).where(_events.c.sequence > sequence).order_by(_events.c.sequence), limit, filter
        )

    def before(self, sequence: int | None, *, limit: int, filter: Node | None = None) -> Sequence[Event]:  # noqa: A002 - AIP-160's name
        """See the port."""
        until = true() if sequence is None else _events.c.sequence < sequence
        return self._found(select(_events).where(until).order_by(_events.c.sequence.desc()), limit, filter)

    def _found(self, statement: Select[tuple[object, ...]], limit: int, node: Node | None) -> Sequence[Event]:
        if node is not None:
            statement = statement.where(where(node, _events))
        return [rows.event(row) for row in self.connection.execute(statement.limit(limit)).mappings()]

    def verify(self, after: LogHead, *, limit: int) -> tuple[LogHead, BrokenLink | None]:
        """See the port."""
        # With the head in one statement, hence in one snapshot: others may be writing.
        statement = (
            select(
                _head.c.sequence.label("head_sequence"),
                _head.c.hash.label("head_hash"),
                _events.c.sequence,
                _events.c.previous_hash,
                _events.c.hash,
                _HASHED.label("hashed"),
            )
            .select_from(_head.outerjoin(_events, _events.c.sequence > after.sequence))
            .order_by(_events.c.sequence)
            .limit(limit)
        )
        found = self.connection.execute(statement).all()
        good = after
        for row in found:
            if row.sequence is None:
                break
            expected = good.sequence + 1
            if row.sequence != expected:
                return good, BrokenLink(sequence=expected, description="is missing.")
            if row.previous_hash != good.hash:
                return good, BrokenLink(sequence=expected, description="does not follow the event before it.")
            if row.hash != hashlib.sha256(row.hashed.encode()).hexdigest():
                return good, BrokenLink(sequence=expected, description="is not as it was written.")
            good = LogHead(sequence=row.sequence, hash=row.hash)
        if len(found) < limit or good.sequence == after.sequence:
            head = LogHead(sequence=found[0].head_sequence, hash=found[0].head_hash)
            if head.sequence > good.sequence:
                return good, BrokenLink(sequence=good.sequence + 1, description="is missing.")
            if head != good:
                return good, BrokenLink(sequence=good.sequence, description="is not where the log was left.")
        return good, None
