"""Aliases and their history."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.storage.sql.tables.base import Base, OptionalText, RequiredText, Time
from registry_service.storage.sql.tables.models import ModelRow


class AliasRow(Base):
    """An alias. The row of a deleted alias stays, for its history and for the lock of the next move."""

    __tablename__ = "aliases"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[RequiredText]
    project_id: Mapped[OptionalText]
    project_name: Mapped[OptionalText]
    alias: Mapped[str] = mapped_column(Text(collation="C"))
    model_id: Mapped[str | None] = mapped_column(
        ForeignKey(ModelRow.id), comment="The model that the alias points to; null if the alias is deleted."
    )
    revision: Mapped[int] = mapped_column(BigInteger, comment="Revision of the newest move; 0 before the first.")

    __table_args__ = (
        CheckConstraint("name <> ''", name="named"),
        CheckConstraint("alias ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' AND lower(alias) <> 'latest'", name="alias"),
        CheckConstraint("revision >= 0", name="revision"),
        Index(
            "uq_aliases_identity",
            text("text_digest(name)"),
            text("text_digest(project_id)"),
            text("text_digest(project_name)"),
            "alias",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_aliases_model_id", "model_id"),
        Index("ix_aliases_alias", "alias", "model_id"),
    )


class AliasMoveRow(Base):
    """A move of an alias. Rows are never changed or removed (`domain.aliases`)."""

    __tablename__ = "alias_moves"

    alias_id: Mapped[int] = mapped_column(ForeignKey(AliasRow.id), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[RequiredText]
    model_id: Mapped[str | None] = mapped_column(
        Text, comment="The target, which may have been deleted since; null if the move deleted the alias."
    )
    version: Mapped[str | None] = mapped_column(Text, comment="The target's version at the time of the move.")
    sha256: Mapped[str | None] = mapped_column(Text, comment="The target's SHA-256 at the time of the move.")
    previous: Mapped[int | None] = mapped_column(BigInteger, comment="Revision of the move that a rollback returns to.")
    time: Mapped[Time]
    actor: Mapped[RequiredText]
    reason: Mapped[RequiredText]
    request_id: Mapped[RequiredText]

    __table_args__ = (
        ForeignKeyConstraint(
            ["alias_id", "previous"],
            ["alias_moves.alias_id", "alias_moves.revision"],
            name="fk_alias_moves_previous",
        ),
        CheckConstraint("kind IN ('set', 'rolled_back', 'deleted')", name="kind"),
        CheckConstraint(
            "num_nulls(model_id, version, sha256) = CASE kind WHEN 'deleted' THEN 3 ELSE 0 END", name="target"
        ),
        CheckConstraint("previous < revision AND (previous IS NULL OR kind <> 'deleted')", name="previous"),
        CheckConstraint("revision > 0", name="revision"),
        # An alias has one target at each time.
        Index("uq_alias_moves_time", "alias_id", "time", unique=True),
        Index("ix_alias_moves_time", "time", "alias_id", "revision"),
    )
