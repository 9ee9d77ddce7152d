"""Tokens."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Index,
    LargeBinary,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.storage.sql.tables.base import Base, OptionalTime, RequiredText, Time


class TokenRow(Base):
    """A token. Only the hash of its secret is stored (`domain.tokens`)."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(
        LargeBinary, comment="SHA-256 of the secret. The secret itself is not stored."
    )
    name: Mapped[str] = mapped_column(Text(collation="C"))
    role: Mapped[RequiredText]
    project_id: Mapped[str | None] = mapped_column(Text, comment="Project of the role; null for all projects.")
    create_time: Mapped[Time]
    expire_time: Mapped[OptionalTime]
    revoke_time: Mapped[OptionalTime]
    last_use_time: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True), comment="Accurate to about ten minutes."
    )

    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("role IN ('reader', 'writer', 'promoter', 'admin')", name="role"),
        CheckConstraint("project_id <> ''", name="project_id"),
        CheckConstraint("expire_time > create_time", name="expire_time"),
        Index("uq_tokens_digest", "digest", unique=True),
        Index("uq_tokens_name", "name", unique=True),
    )
