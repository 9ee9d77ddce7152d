"""Model groups."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.domain.listing import SORT_PREFIX
from registry_service.domain.model_groups import TIED_BY_TIME
from registry_service.storage.sql.tables.base import GROUP_KEY, Base, OptionalText, RequiredText


class ModelGroupRow(Base):
    """A model group. A trigger creates the row with the first model."""

    __tablename__ = "model_groups"

    id: Mapped[str] = mapped_column(
        Text(collation="C"), primary_key=True, server_default=text("(gen_random_uuid())::text")
    )
    name: Mapped[RequiredText]
    project_id: Mapped[OptionalText]
    project_name: Mapped[OptionalText]
    description: Mapped[str] = mapped_column(Text, server_default=text("''"))
    owner: Mapped[str] = mapped_column(Text, server_default=text("''"))
    tags: Mapped[dict[str, object]] = mapped_column(JSONB, server_default=text("'{}'"))
    metric_goals: Mapped[dict[str, object]] = mapped_column(
        JSONB, server_default=text("'{}'"), comment="Maximize or minimize, by metric."
    )
    create_time: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    update_time: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))

    __table_args__ = (
        CheckConstraint("name <> ''", name="named"),
        CheckConstraint("jsonb_typeof(tags) = 'object' AND jsonb_typeof(metric_goals) = 'object'", name="maps"),
        CheckConstraint("revision > 0", name="revision"),
        Index("uq_model_groups_identity", text(GROUP_KEY), unique=True),
        Index("ix_model_groups_name", text(f'("left"(name, {SORT_PREFIX})) COLLATE "C"'), "id"),
        Index("ix_model_groups_create_time", "create_time", "id"),
        Index("ix_model_groups_update_time", "update_time", "id"),
        Index(
            "ix_model_groups_text",
            *(text(f"{column} gin_trgm_ops") for column in ("name", "project_id", "project_name")),
            postgresql_using="gin",
        ),
        Index("ix_model_groups_tags", "tags", postgresql_using="gin"),
        *(
            Index(f"ix_model_groups_{column}", text(f"text_digest({column})"), text("text_digest(name)"), "id")
            for column in ("project_id", "project_name")
        ),
        # Each serves a filter by the field in the default order, and the order by the field.
        *(
            Index(
                f"ix_model_groups_by_{column}",
                text(f'COALESCE("left"({column}, {SORT_PREFIX}), \'\'::text) COLLATE "C"'),
                "create_time",
                "id",
            )
            for column in TIED_BY_TIME
        ),
    )


class ModelGroupCountRow(Base):
    """The number of models of a group. A trigger updates it at the end of each transaction."""

    __tablename__ = "model_group_counts"

    model_group_id: Mapped[str] = mapped_column(
        Text(collation="C"), ForeignKey(ModelGroupRow.id, ondelete="CASCADE"), primary_key=True
    )
    version_count: Mapped[int] = mapped_column(
        BigInteger, comment="Number of models. A group without models has no row."
    )

    __table_args__ = (Index("ix_model_group_counts_version_count", "version_count", "model_group_id"),)
