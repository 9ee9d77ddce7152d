"""The audit log."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    FetchedValue,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.storage.sql.tables.base import Base, OptionalJsonObject, OptionalText, RequiredText, Time

IS_MOVE = "action = 'model.updated' AND before ? 'project_id'"
"""The condition of an event that moved a model to another project. `before` of an update has the changed fields."""


class AuditEventRow(Base):
    """An event. Rows are never changed or removed. A trigger sets their numbers and hashes (`domain.events`)."""

    __tablename__ = "audit_events"

    sequence: Mapped[int] = mapped_column(BigInteger, FetchedValue(), primary_key=True, autoincrement=False)
    time: Mapped[Time]
    actor: Mapped[RequiredText]
    request_id: Mapped[RequiredText]
    action: Mapped[RequiredText]
    project_id: Mapped[OptionalText]
    project_name: Mapped[OptionalText]
    name: Mapped[RequiredText]
    model_id: Mapped[RequiredText]
    alias: Mapped[RequiredText]
    reason: Mapped[RequiredText]
    before: Mapped[OptionalJsonObject]
    after: Mapped[OptionalJsonObject]
    previous_hash: Mapped[RequiredText]
    hash: Mapped[RequiredText]
    model_group_id: Mapped[str | None] = mapped_column(
        Text, comment="Null for events of tokens, and for events from before model groups existed."
    )
    json_bytes: Mapped[int] = mapped_column(
        Integer,
        Computed("COALESCE(octet_length(before::text), 0) + COALESCE(octet_length(after::text), 0)", persisted=True),
        comment="Size of the event as JSON, which limits a page.",
    )

    __table_args__ = (
        Index("ix_audit_events_model_id", "model_id", "sequence"),
        Index("ix_audit_events_name", text("text_digest(name)"), "sequence"),
        Index("ix_audit_events_time", "time"),
        Index("ix_audit_events_moves", "sequence", postgresql_where=text(IS_MOVE)),
    )


class AuditHeadRow(Base):
    """The single row with the end of the log. A transaction that adds an event locks the row until it ends."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, server_default=text("1"))
    sequence: Mapped[int] = mapped_column(BigInteger)
    time: Mapped[Time]
    hash: Mapped[RequiredText]

    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)
