"""Idempotency keys."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.storage.sql.tables.base import Base, OptionalText, OptionalTime, RequiredText, Time


class IdempotencyKeyRow(Base):
    """A call with an idempotency key, running or finished (`domain.idempotency`)."""

    __tablename__ = "idempotency_keys"

    id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True, comment="SHA-256 of caller, method and key.")
    method: Mapped[RequiredText]
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    attempt: Mapped[str] = mapped_column(
        Text(collation="C"), comment="The call that holds the key: it runs, or has responded."
    )
    lease_time: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), comment="When a call that has not responded is presumed dead."
    )
    expire_time: Mapped[Time]
    answer_time: Mapped[OptionalTime]
    answer: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="The response; null if it was too large, and the resource is read again."
    )
    resource_id: Mapped[OptionalText]
    project_id: Mapped[OptionalText]
    artifact_sha256: Mapped[OptionalText]

    __table_args__ = (
        CheckConstraint("octet_length(id) = 32", name="id"),
        CheckConstraint("octet_length(request_digest) = 32", name="request_digest"),
        CheckConstraint(
            "num_nulls(answer_time, resource_id, artifact_sha256) IN (0, 3)"
            " AND (answer_time IS NOT NULL OR num_nonnulls(answer, project_id) = 0)",
            name="answer",
        ),
        Index("ix_idempotency_keys_expire_time", "expire_time"),
        Index("ix_idempotency_keys_attempt", "attempt", postgresql_where=text("answer_time IS NULL")),
    )


class IdempotencyUsageRow(Base):
    """The number of idempotency keys that a caller has used."""

    __tablename__ = "idempotency_usage"

    caller_digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True, comment="SHA-256 of the caller.")
    window_end_time: Mapped[Time] = mapped_column(comment="When the count starts again.")
    key_count: Mapped[int] = mapped_column(Integer, comment="New keys in the window, without those of failed calls.")

    __table_args__ = (
        CheckConstraint("octet_length(caller_digest) = 32", name="caller_digest"),
        CheckConstraint("key_count >= 0", name="key_count"),
        Index("ix_idempotency_usage_window_end_time", "window_end_time"),
    )
