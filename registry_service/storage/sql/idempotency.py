"""`domain.idempotency.IdempotencyKeys` on PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, text, update
from typing_extensions import override

from registry_service.domain.errors import (
    IdempotencyKeyReusedError,
    IdempotentCallRunningError,
    TooManyIdempotencyKeysError,
)
from registry_service.domain.idempotency import (
    KEPT_FOR,
    MAX_ANSWER_BYTES,
    MAX_KEYS_PER_CALLER,
    IdempotencyKeys,
    KeptAnswer,
    KeyedCall,
    current_keyed_call,
)
from registry_service.storage.sql import tables

_keys = cast("Table", tables.idempotency_keys)
_usage = cast("Table", tables.idempotency_usage)
# A crash of Postgres ends the running calls and may lose their rows, so the commit does not wait for the disk.
_NOT_AWAITED = text("SET LOCAL synchronous_commit = off")
# Every write with a key sends these. As text, SQLAlchemy does not compile them each time.
_BEGIN = text("""
    WITH not_awaited AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
    begun AS (
        INSERT INTO idempotency_keys AS known (id, method, request_digest, attempt, lease_time, expire_time)
        SELECT :id, :method, :request_digest, :attempt, clock_timestamp() + :lease, clock_timestamp() + :kept_for
        FROM not_awaited
        ON CONFLICT (id) DO UPDATE SET
            request_digest = EXCLUDED.request_digest,
            attempt = EXCLUDED.attempt,
            lease_time = EXCLUDED.lease_time,
            expire_time = EXCLUDED.expire_time,
            answer_time = NULL,
            answer = NULL,
            resource_id = NULL,
            project_id = NULL,
            artifact_sha256 = NULL
        WHERE known.expire_time <= clock_timestamp()
            OR (known.answer_time IS NULL AND known.lease_time <= clock_timestamp())
        RETURNING id
    ),
    counted AS (
        INSERT INTO idempotency_usage AS used (caller_digest, window_end_time, key_count)
        SELECT :caller_digest, clock_timestamp() + :kept_for, 1 FROM begun
        ON CONFLICT (caller_digest) DO UPDATE SET
            window_end_time = CASE
                WHEN used.window_end_time <= clock_timestamp() THEN EXCLUDED.window_end_time
                ELSE used.window_end_time
            END,
            key_count = CASE WHEN used.window_end_time <= clock_timestamp() THEN 1 ELSE used.key_count + 1 END
        WHERE used.window_end_time <= clock_timestamp() OR used.key_count < :max_keys
        RETURNING caller_digest
    )
    SELECT EXISTS (SELECT FROM begun) AS is_begun, EXISTS (SELECT FROM counted) AS is_counted
""")
_FORGET = text("""
    WITH forgotten AS (
        DELETE FROM idempotency_keys WHERE id = :id AND attempt = :attempt AND answer_time IS NULL RETURNING id
    )
    UPDATE idempotency_usage SET key_count = key_count - 1
    WHERE caller_digest = :caller_digest AND key_count > 0 AND EXISTS (SELECT FROM forgotten)
""")
_KEEP = text("""
    UPDATE idempotency_keys SET
        answer_time = clock_timestamp(),
        expire_time = clock_timestamp() + :kept_for,
        answer = :answer,
        resource_id = :resource_id,
        project_id = :project_id,
        artifact_sha256 = :artifact_sha256
    WHERE id = :id AND attempt = :attempt AND answer_time IS NULL
    RETURNING true
""")


@dataclass(frozen=True, slots=True)
class SqlIdempotencyKeys(IdempotencyKeys):
    """`domain.idempotency.IdempotencyKeys`."""

    connection: Connection

    @override
    def begin(self, call: KeyedCall, *, lease: timedelta) -> KeptAnswer | None:
        values = {
            "id": call.id,
            "method": call.method,
            "request_digest": call.digest,
            "attempt": call.attempt,
            "lease": lease,
            "kept_for": KEPT_FOR,
            "caller_digest": call.caller_digest,
            "max_keys": MAX_KEYS_PER_CALLER,
        }
        outcome = self.connection.execute(_BEGIN, values).one()
        if outcome.is_counted:
            return None
        if outcome.is_begun:
            # The end of this transaction releases the key.
            raise TooManyIdempotencyKeysError(MAX_KEYS_PER_CALLER, self._seconds_until_more(call))
        found = self.connection.execute(select(_keys).where(_keys.c.id == call.id)).one_or_none()
        if found is None:
            # The other call has ended without a change.
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

    @override
    def keep(self, result: object, *, resource_id: str, project_id: str | None, artifact_sha256: str = "") -> None:
        call = current_keyed_call.get()
        if call is None:
            return
        answer = call.encode(result)
        values = {
            "id": call.id,
            "attempt": call.attempt,
            "kept_for": KEPT_FOR,
            "answer": None if resource_id and len(answer) > MAX_ANSWER_BYTES else answer,
            "resource_id": resource_id,
            "project_id": project_id,
            "artifact_sha256": artifact_sha256,
        }
        if self.connection.execute(_KEEP, values).one_or_none() is None:
            raise IdempotentCallRunningError(call.key)
        call.is_kept = True

    @override
    def renew(self, attempts: Sequence[str], *, lease: timedelta) -> None:
        self.connection.execute(_NOT_AWAITED)
        # A locked row belongs to a call that is committing.
        running = (
            select(_keys.c.id)
            .where(_keys.c.attempt.in_(attempts), _keys.c.answer_time.is_(None))
            .with_for_update(skip_locked=True)
        )
        self.connection.execute(
            update(_keys).where(_keys.c.id.in_(running)).values(lease_time=func.clock_timestamp() + lease)
        )

    @override
    def forget(self, call: KeyedCall) -> None:
        self.connection.execute(_NOT_AWAITED)
        self.connection.execute(_FORGET, {"id": call.id, "attempt": call.attempt, "caller_digest": call.caller_digest})

    @override
    def remove_expired(self, limit: int) -> int:
        self._remove_ended(_usage, _usage.c.caller_digest, _usage.c.window_end_time, limit)
        return self._remove_ended(_keys, _keys.c.id, _keys.c.expire_time, limit)

    def _remove_ended(
        self, table: Table, key: ColumnElement[bytes], end_time: ColumnElement[datetime], limit: int
    ) -> int:
        ended = select(key).where(end_time <= func.clock_timestamp()).limit(limit).with_for_update(skip_locked=True)
        return self.connection.execute(delete(table).where(key.in_(ended))).rowcount

    def _seconds_until_more(self, call: KeyedCall) -> float:
        """Return the seconds until the caller may use new keys again."""
        remaining = func.extract("epoch", _usage.c.window_end_time - func.clock_timestamp())
        found = self.connection.execute(select(remaining).where(_usage.c.caller_digest == call.caller_digest))
        return max(float(found.scalar_one()), 1.0)
