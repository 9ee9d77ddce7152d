"""`domain.idempotency.IdempotencyKeys` on PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from sqlalchemy import Connection, Table, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from registry_service.domain.errors import IdempotencyKeyReusedError, IdempotentCallRunningError
from registry_service.domain.idempotency import (
    KEPT_FOR,
    MAX_ANSWER_BYTES,
    KeptAnswer,
    KeyedCall,
    current_keyed_call,
)
from registry_service.storage.sql import tables

_keys = cast("Table", tables.idempotency_keys)
# Which calls are under way may be forgotten in a crash of Postgres, which ends them.
_NOT_AWAITED = text("SET LOCAL synchronous_commit = off")


@dataclass(frozen=True, slots=True)
class SqlIdempotencyKeys:
    """`domain.idempotency.IdempotencyKeys`."""

    connection: Connection

    def begin(self, call: KeyedCall, *, lease: timedelta) -> KeptAnswer | None:
        """See the port."""
        self.connection.execute(_NOT_AWAITED)
        now = func.clock_timestamp()
        values = {
            "request_digest": call.digest,
            "attempt": call.attempt,
            "lease_time": now + lease,
            "expire_time": now + KEPT_FOR,
        }
        statement = upsert(_keys).values(id=call.id, method=call.method, **values)
        is_over = _keys.c.expire_time <= now
        is_given_up = and_(_keys.c.answer_time.is_(None), _keys.c.lease_time <= now)
        nothing = dict.fromkeys(("answer_time", "answer", "resource_id", "project_id", "artifact_sha256"))
        statement = statement.on_conflict_do_update(
            index_elements=[_keys.c.id],
            set_={**{name: statement.excluded[name] for name in values}, **nothing},
            where=or_(is_over, is_given_up),
        )
        if self.connection.execute(statement.returning(_keys.c.id)).one_or_none() is not None:
            return None
        found = self.connection.execute(select(_keys).where(_keys.c.id == call.id)).one_or_none()
        if found is None:
            # It has ended in between, and changed nothing.
            raise IdempotentCallRunningError(call.key)
        if found.request_digest != call.digest:
            raise IdempotencyKeyReusedError(call.key)
        if found.answer_time is None:
            raise IdempotentCallRunningError(call.key)
        return KeptAnswer(
            answer=found.answer,
            resource_id=found.resource_id,
            project_id=found.project_id,
            artifact_sha256=found.artifact_sha256,
        )

    def keep(self, result: object, *, resource_id: str, project_id: str | None, artifact_sha256: str = "") -> None:
        """See the port."""
        call = current_keyed_call.get()
        if call is None:
            return
        answer = call.encode(result)
        statement = (
            update(_keys)
            .where(_keys.c.id == call.id, _keys.c.attempt == call.attempt, _keys.c.answer_time.is_(None))
            .values(
                answer_time=func.clock_timestamp(),
                expire_time=func.clock_timestamp() + KEPT_FOR,
                answer=None if resource_id and len(answer) > MAX_ANSWER_BYTES else answer,
                resource_id=resource_id,
                project_id=project_id,
                artifact_sha256=artifact_sha256,
            )
        )
        if self.connection.execute(statement).rowcount == 0:
            raise IdempotentCallRunningError(call.key)
        call.is_kept = True

    def renew(self, attempts: Sequence[str], *, lease: timedelta) -> None:
        """See the port."""
        self.connection.execute(_NOT_AWAITED)
        # One that is locked is being answered.
        running = (
            select(_keys.c.id)
            .where(_keys.c.attempt.in_(attempts), _keys.c.answer_time.is_(None))
            .with_for_update(skip_locked=True)
        )
        self.connection.execute(
            update(_keys).where(_keys.c.id.in_(running)).values(lease_time=func.clock_timestamp() + lease)
        )

    def forget(self, call: KeyedCall) -> None:
        """See the port."""
        self.connection.execute(_NOT_AWAITED)
        self.connection.execute(
            delete(_keys).where(_keys.c.id == call.id, _keys.c.attempt == call.attempt, _keys.c.answer_time.is_(None))
        )

    def remove_expired(self, limit: int) -> int:
        """See the port."""
        expired = (
            select(_keys.c.id)
            .where(_keys.c.expire_time <= func.clock_timestamp())
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self.connection.execute(delete(_keys).where(_keys.c.id.in_(expired))).rowcount
