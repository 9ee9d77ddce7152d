"""Uploads, and objects of the artifact store without a model."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.storage.sql.tables.base import Base, JsonObject, OptionalText, RequiredText, Time


class UnreferencedObjectRow(Base):
    """An object of the artifact store that no model refers to. Deleted when due (`domain.ports.ObjectLedger`)."""

    __tablename__ = "unreferenced_objects"

    object_key: Mapped[str] = mapped_column(Text, primary_key=True)
    due_time: Mapped[Time]

    __table_args__ = (Index("ix_unreferenced_objects_due_time", "due_time"),)


class UploadRow(Base):
    """A resumable upload."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    spec: Mapped[JsonObject]
    state: Mapped[RequiredText]
    object_key: Mapped[RequiredText]
    handle: Mapped[OptionalText]
    tail_key: Mapped[OptionalText]
    committed_size: Mapped[int] = mapped_column(BigInteger, comment="Committed bytes.")
    epoch: Mapped[int] = mapped_column(BigInteger, comment="Number of writers so far. Only the newest may commit.")
    create_time: Mapped[Time]
    expire_time: Mapped[Time]
    creator: Mapped[str] = mapped_column(Text, server_default="", comment="The actor that created the upload.")

    __table_args__ = (
        CheckConstraint("state IN ('active', 'completing', 'completed')", name="state"),
        CheckConstraint("committed_size >= 0", name="committed_size"),
        Index("ix_uploads_expire_time", "expire_time"),
        Index("uq_uploads_object_key", "object_key", unique=True),
        # A page of a listing is one range of the first index, or of the second if it has all callers.
        Index("ix_uploads_creator", "creator", "create_time", "id", postgresql_where=text("state <> 'completed'")),
        Index("ix_uploads_create_time", "create_time", "id", postgresql_where=text("state <> 'completed'")),
    )


class UploadPartRow(Base):
    """A committed part of an upload."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey(UploadRow.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, comment="Offset in the artifact, in bytes.")
    size: Mapped[int] = mapped_column(BigInteger, comment="Size in bytes.")
    receipt: Mapped[str] = mapped_column(Text, comment="Receipt of the artifact store for the part.")
