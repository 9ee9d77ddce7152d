"""Resumable uploads."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    Connection,
    Interval,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from typing_extensions import override

from registry_service.domain.artifact_store import Part
from registry_service.domain.errors import (
    OutOfRangeError,
    UploadNotActiveError,
    UploadNotFoundError,
    WriterDisplacedError,
)
from registry_service.domain.ports import UploadRepository
from registry_service.domain.uploads import Upload, UploadPage, UploadQuery, UploadState
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql import rows, tables
from registry_service.storage.sql.engine import PLANNED_ANEW
from registry_service.storage.sql.paging import is_after

_uploads = cast("Table", tables.uploads)
_parts = cast("Table", tables.upload_parts)

# Statements are built once, as in `objects`.
_LATER = func.now() + bindparam("ttl", type_=Interval)
_IS_EXPIRED = _uploads.c.expire_time <= func.now()
_IS_IN_EPOCH = and_(_uploads.c.id == bindparam("of"), _uploads.c.epoch == bindparam("of_epoch"))
_UPLOAD = select(_uploads).where(_uploads.c.id == bindparam("of"), ~_IS_EXPIRED)
_LOCKED_UPLOAD = _UPLOAD.with_for_update()
_EXPIRED_UPLOAD = select(_uploads).where(_uploads.c.id == bindparam("of"), _IS_EXPIRED).with_for_update()
_PARTS_OF_UPLOAD = select(_parts).where(_parts.c.upload_id == bindparam("of")).order_by(_parts.c.number)
_LOCK_UPLOAD = select(_uploads.c.id).where(_IS_IN_EPOCH).with_for_update()
_COMMIT_UPLOAD = (
    update(_uploads)
    .where(_IS_IN_EPOCH, _uploads.c.state == UploadState.ACTIVE.value)
    .values(
        committed_size=bindparam("committed_size"),
        handle=bindparam("handle"),
        tail_key=bindparam("tail_key"),
        expire_time=_LATER,
    )
    .returning(_uploads.c.expire_time)
)
_ADD_PART = insert(_parts)
_CHANGE_UPLOAD = (
    update(_uploads)
    .where(_IS_IN_EPOCH)
    .values(epoch=_uploads.c.epoch + 1, state=bindparam("state"), expire_time=_LATER)
    .returning(_uploads.c.epoch, _uploads.c.expire_time)
)
_COMPLETE_UPLOAD = (
    update(_uploads).where(_IS_IN_EPOCH).values(state=UploadState.COMPLETED.value, tail_key=None, handle=None)
)
_FORGET_PARTS = delete(_parts).where(_parts.c.upload_id == bindparam("of"))


@dataclass(frozen=True, slots=True)
class SqlUploadRepository(UploadRepository):
    """`domain.ports.UploadRepository`. Its clock is the database's, which all replicas share."""

    connection: Connection
    disk: DiskReserve | None = None

    @override
    def add(self, upload: Upload) -> None:
        if self.disk is not None:
            self.disk.check()
        self.connection.execute(
            insert(_uploads).values(
                id=upload.id,
                spec=rows.spec_values(upload.spec),
                state=upload.state.value,
                object_key=upload.object_key,
                committed_size=upload.committed_size,
                epoch=upload.epoch,
                create_time=upload.create_time,
                expire_time=upload.expire_time,
                creator=upload.creator,
            )
        )

    @override
    def get(self, upload_id: str) -> Upload:
        return self._get(upload_id, _UPLOAD)

    @override
    def list(self, query: UploadQuery) -> UploadPage:
        order = (_uploads.c.create_time, _uploads.c.id)
        wanted = select(_uploads, func.octet_length(_uploads.c.spec.cast(Text)).label("bytes")).where(
            _uploads.c.state != UploadState.COMPLETED.value, ~_IS_EXPIRED
        )
        if query.creator is not None:
            wanted = wanted.where(_uploads.c.creator == query.creator)
        if query.within is not None:
            wanted = wanted.where(_uploads.c.spec["fields"]["project_id"].astext.in_(query.within))
        if query.after is not None:
            bound = [bindparam(None, value, type_=key.type) for key, value in zip(order, query.after, strict=True)]
            wanted = wanted.where(is_after(order, [True, True], bound))
        # One upload beyond the limit shows whether another page follows.
        candidates = wanted.order_by(*(key.desc() for key in order)).limit(query.limit + 1).subquery("candidates")
        newest_first = (candidates.c.create_time.desc(), candidates.c.id.desc())
        # The database adds up the sizes, so it never returns more than a page.
        sized = select(
            candidates,
            (func.sum(candidates.c.bytes).over(order_by=newest_first) - candidates.c.bytes).label("bytes_before"),
            func.count().over().label("found"),
        ).subquery("sized")
        page = (
            select(sized)
            .where(sized.c.bytes_before < query.max_bytes)
            .order_by(sized.c.create_time.desc(), sized.c.id.desc())
            .limit(query.limit)
        )
        found = self.connection.execute(page.execution_options(**PLANNED_ANEW)).mappings().all()
        more = bool(found) and found[0]["found"] > len(found)
        return UploadPage(uploads=[rows.upload(row, ()) for row in found], more=more)

    @override
    def take_over(self, upload_id: str, *, offset: int, ttl: timedelta) -> Upload:
        upload = self._get(upload_id, _LOCKED_UPLOAD)
        if upload.state is not UploadState.ACTIVE:
            raise UploadNotActiveError(upload_id, upload.state.value)
        if offset != upload.committed_size:
            raise OutOfRangeError(
                f"The upload's committed size is {upload.committed_size}, so a write begins there, not at {offset}.",
                upload_id=upload_id,
                committed_size=str(upload.committed_size),
            )
        return self._change(upload, UploadState.ACTIVE, ttl)

    @override
    def commit(
        self,
        upload: Upload,
        *,
        committed_size: int,
        handle: str | None,
        part: Part | None,
        tail_key: str | None,
        ttl: timedelta,
    ) -> datetime:
        expire_time = self.connection.execute(
            _COMMIT_UPLOAD,
            {
                **_epoch(upload),
                "committed_size": committed_size,
                "handle": handle,
                "tail_key": tail_key,
                "ttl": ttl,
            },
        ).scalar_one_or_none()
        if expire_time is None:
            raise WriterDisplacedError(upload.id)
        if part is not None:
            self.connection.execute(_ADD_PART, {"upload_id": upload.id, **asdict(part)})
        return cast("datetime", expire_time)

    @override
    def lock_for_update(self, upload: Upload) -> None:
        if self.connection.execute(_LOCK_UPLOAD, _epoch(upload)).one_or_none() is None:
            raise WriterDisplacedError(upload.id)

    @override
    def begin_completion(self, upload_id: str, *, ttl: timedelta) -> Upload:
        upload = self._get(upload_id, _LOCKED_UPLOAD)
        if upload.state is UploadState.COMPLETED:
            return upload
        return self._change(upload, UploadState.COMPLETING, ttl)

    @override
    def complete(self, upload: Upload) -> None:
        if self.connection.execute(_COMPLETE_UPLOAD, _epoch(upload)).rowcount != 1:
            raise WriterDisplacedError(upload.id)
        self.connection.execute(_FORGET_PARTS, {"of": upload.id})

    @override
    def remove(self, upload_id: str, *, expired: bool = False) -> Upload:
        upload = self._get(upload_id, _EXPIRED_UPLOAD if expired else _LOCKED_UPLOAD)
        self.connection.execute(delete(_uploads).where(_uploads.c.id == upload_id))
        return upload

    @override
    def expired(self, limit: int) -> Sequence[str]:
        statement = select(_uploads.c.id).where(_IS_EXPIRED)
        return self.connection.execute(statement.order_by(_uploads.c.expire_time).limit(limit)).scalars().all()

    def _get(self, upload_id: str, statement: Select[Any]) -> Upload:
        row = self.connection.execute(statement, {"of": upload_id}).mappings().one_or_none()
        if row is None:
            raise UploadNotFoundError(upload_id)
        parts = self.connection.execute(_PARTS_OF_UPLOAD, {"of": upload_id}).mappings()
        return rows.upload(
            row,
            tuple(Part(number=p["number"], offset=p["offset"], size=p["size"], receipt=p["receipt"]) for p in parts),
        )

    def _change(self, upload: Upload, state: UploadState, ttl: timedelta) -> Upload:
        """Start a new epoch of a locked upload, in which the commits of earlier writers fail."""
        values = {**_epoch(upload), "state": state.value, "ttl": ttl}
        changed = self.connection.execute(_CHANGE_UPLOAD, values).one()
        return replace(upload, epoch=changed.epoch, state=state, expire_time=changed.expire_time)


def _epoch(upload: Upload) -> dict[str, object]:
    return {"of": upload.id, "of_epoch": upload.epoch}
