"""Objects of the artifact store that no model refers to yet, or any more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import (
    Connection,
    Interval,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from typing_extensions import override

from registry_service.domain.ports import ObjectLedger
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql import tables
from registry_service.storage.sql.backup import BACKUP_LOCK

_objects = cast("Table", tables.unreferenced_objects)

# One statement, hence one snapshot: a key may move between the tables meanwhile.
_UNKNOWN = text("""
    SELECT key FROM unnest(CAST(:keys AS text[])) AS key
    WHERE NOT EXISTS (SELECT FROM models WHERE object_key = key)
        AND NOT EXISTS (SELECT FROM unreferenced_objects WHERE object_key = key)
        AND NOT EXISTS (SELECT FROM uploads WHERE key IN (object_key, tail_key))
""")
_IDLE = text("""
    SELECT key FROM unnest(CAST(:keys AS text[])) AS key
    WHERE NOT EXISTS (SELECT FROM unreferenced_objects WHERE object_key = key)
        AND NOT EXISTS (SELECT FROM uploads WHERE object_key = key AND state <> 'completed')
""")
# Statements are built once: building one takes nearly as long as everything else that Python does to send it.
_LATER = func.now() + bindparam("ttl", type_=Interval)
_OF_KEY = _objects.c.object_key == bindparam("key")
_LEASE = insert(_objects).values(object_key=bindparam("key"), due_time=_LATER)
# A claimed key is due at a random moment of the first day of 1970, which distinguishes one claim from another.
_IS_CLAIMED = _objects.c.due_time < func.to_timestamp(86_400)
_RENEW = update(_objects).where(_OF_KEY, ~_IS_CLAIMED).values(due_time=_LATER)
_RELEASE = delete(_objects).where(_OF_KEY, ~_IS_CLAIMED)
_CLAIM = (
    update(_objects)
    .where(_OF_KEY)
    .values(due_time=func.to_timestamp(func.random() * 86_399))
    .returning(_objects.c.due_time)
)
_FORGET = delete(_objects).where(_OF_KEY, _objects.c.due_time == bindparam("claim"))
_HAS = select(_objects.c.object_key).where(_OF_KEY)
_MARK_FOR_DELETION = (
    upsert(_objects)
    .values(object_key=bindparam("key"), due_time=func.now())
    .on_conflict_do_update(index_elements=[_objects.c.object_key], set_={"due_time": func.now()})
)


@dataclass(frozen=True, slots=True)
class SqlObjectLedger(ObjectLedger):
    """`domain.ports.ObjectLedger`. Its clock is the database's, which all replicas share."""

    connection: Connection
    disk: DiskReserve | None = None

    @override
    def lease(self, key: str, duration: timedelta) -> None:
        if self.disk is not None:
            self.disk.check()
        self.connection.execute(_LEASE, {"key": key, "ttl": duration})

    @override
    def renew(self, key: str, duration: timedelta) -> bool:
        return self.connection.execute(_RENEW, {"key": key, "ttl": duration}).rowcount == 1

    @override
    def release(self, key: str) -> bool:
        return self.connection.execute(_RELEASE, {"key": key}).rowcount == 1

    @override
    def mark_for_deletion(self, key: str) -> None:
        self.connection.execute(_MARK_FOR_DELETION, {"key": key})

    @override
    def claim(self, key: str) -> datetime | None:
        return self.connection.execute(_CLAIM, {"key": key}).scalar_one_or_none()

    @override
    def forget(self, key: str, claim: datetime) -> bool:
        return self.connection.execute(_FORGET, {"key": key, "claim": claim}).rowcount == 1

    @override
    def has(self, key: str) -> bool:
        return self.connection.execute(_HAS, {"key": key}).one_or_none() is not None

    @override
    def due(self, limit: int) -> Sequence[str]:
        statement = select(_objects.c.object_key).where(_objects.c.due_time <= func.now())
        return self.connection.execute(statement.order_by(_objects.c.due_time).limit(limit)).scalars().all()

    @override
    def may_delete(self) -> bool:
        return bool(self.connection.execute(select(func.pg_try_advisory_xact_lock_shared(BACKUP_LOCK))).scalar_one())

    @override
    def idle(self, keys: Sequence[str]) -> Sequence[str]:
        return self.connection.execute(_IDLE, {"keys": list(keys)}).scalars().all()

    @override
    def unknown(self, keys: Sequence[str]) -> Sequence[str]:
        return self.connection.execute(_UNKNOWN, {"keys": list(keys)}).scalars().all()
