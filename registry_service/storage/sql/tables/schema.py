"""The compatibility of the schema with programs."""

from sqlalchemy import (
    CheckConstraint,
    Integer,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.storage.sql.tables.base import Base


class SchemaCompatibilityRow(Base):
    """The single row that says which programs the schema serves (`storage.sql.schema`)."""

    __tablename__ = "schema_compatibility"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, server_default=text("1"))
    oldest_revision: Mapped[str] = mapped_column(
        Text, comment="Newest migration of the oldest program that works with this schema."
    )

    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)
