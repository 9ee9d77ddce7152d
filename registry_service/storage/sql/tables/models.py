"""Models, deleted models, and verifications of artifacts."""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from registry_service.domain.listing import SORT_PREFIX
from registry_service.domain.models import FieldKind, fields_of_kind
from registry_service.storage.sql.tables.base import (
    GROUP_KEY,
    Base,
    JsonObject,
    JsonValue,
    OptionalJsonObject,
    OptionalText,
    RequiredText,
    Time,
)

_VERSION_ORDER = (text("model_version_key(version)"), text(f'("left"(version, {SORT_PREFIX})) COLLATE "C"'))

_COUNTED_TEXTS = (
    "project_id",
    "project_name",
    "target_device",
    "target_device_type",
    "format",
    "origin",
    "category",
    "architecture",
)
UNCOUNTED_TEXTS = tuple(
    name
    for name in fields_of_kind(FieldKind.TEXT, FieldKind.LONG_TEXT)
    if name not in {"name", "version", *_COUNTED_TEXTS}
)
"""Texts that `metadata_bytes` leaves out: to change a generated column, Postgres rewrites all rows."""
_METADATA_BYTES = " + ".join(
    (
        *(f"octet_length({column})" for column in ("name", "version", "created_date")),
        *(f"COALESCE(octet_length({column}), 0)" for column in _COUNTED_TEXTS),
        *(
            f"COALESCE(octet_length({column}::text), 0)"
            for column in ("overview", "optimization_capabilities", "labels", "metrics", "tags", "provenance")
        ),
    )
)


class ModelRow(Base):
    """A registered model with its artifact."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    name: Mapped[RequiredText]
    version: Mapped[RequiredText]
    project_id: Mapped[OptionalText]
    project_name: Mapped[OptionalText]
    precision: Mapped[list[str]] = mapped_column(ARRAY(Text))
    target_device: Mapped[OptionalText]
    target_device_type: Mapped[OptionalText]
    format: Mapped[OptionalText]
    origin: Mapped[OptionalText]
    category: Mapped[OptionalText]
    architecture: Mapped[OptionalText]
    score: Mapped[float | None] = mapped_column(Double)
    overview: Mapped[JsonValue]
    optimization_capabilities: Mapped[JsonValue]
    labels: Mapped[JsonValue]
    metrics: Mapped[JsonObject]
    tags: Mapped[JsonObject]
    provenance: Mapped[JsonObject]
    created_date: Mapped[str] = mapped_column(Text, comment="Shown by the Intel-compatible API. Any text.")
    last_updated_date: Mapped[str] = mapped_column(Text, comment="Shown by the Intel-compatible API.")
    create_time: Mapped[Time]
    update_time: Mapped[Time]
    revision: Mapped[int] = mapped_column(BigInteger)
    creator: Mapped[RequiredText]
    file_name: Mapped[RequiredText]
    media_type: Mapped[RequiredText]
    size: Mapped[int] = mapped_column(BigInteger, comment="Size of the artifact in bytes.")
    sha256: Mapped[str] = mapped_column(Text, comment="SHA-256 of the artifact in hexadecimal.")
    file_url: Mapped[str] = mapped_column(Text, comment="URL of the artifact that the Intel-compatible API shows.")
    object_key: Mapped[str] = mapped_column(Text, comment="Key of the artifact in the artifact store.")
    artifact_kind: Mapped[str] = mapped_column(
        Text, server_default="file", comment="Whether a client sent a file or packed a folder."
    )
    metadata_bytes: Mapped[int] = mapped_column(
        Integer,
        Computed(_METADATA_BYTES, persisted=True),
        comment="Size of the metadata, which limits a page.",
    )
    documented_size: Mapped[int | None] = mapped_column(
        BigInteger, comment="Size that the Intel-compatible API shows, if a client of it changed the size."
    )
    documented_precision: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="Precisions that the Intel-compatible API shows, if Geti spells them differently."
    )
    schema: Mapped[OptionalJsonObject] = mapped_column(comment="Signature that was read from the artifact.")
    description: Mapped[str] = mapped_column(Text, server_default="", comment="Markdown.")

    __table_args__ = (
        CheckConstraint("id ~ '^[A-Za-z0-9_-]+$' AND char_length(id) BETWEEN 16 AND 256", name="id"),
        CheckConstraint("name <> '' AND version <> ''", name="named"),
        CheckConstraint(
            "array_to_string(precision, ',', '*') ~ '^[a-z][a-z0-9_.-]{0,31}(,[a-z][a-z0-9_.-]{0,31})*$'",
            name="precision",
        ),
        # NaN sorts above infinity, so this excludes NaN, too.
        CheckConstraint("score > '-Infinity' AND score < 'Infinity'", name="score_finite"),
        CheckConstraint("jsonb_typeof(labels) = 'array'", name="labels_array"),
        CheckConstraint(
            "jsonb_typeof(metrics) = 'object' AND jsonb_typeof(tags) = 'object'"
            " AND jsonb_typeof(provenance) = 'object'",
            name="maps",
        ),
        CheckConstraint("revision > 0", name="revision"),
        CheckConstraint("size >= 0", name="size"),
        CheckConstraint("artifact_kind IN ('file', 'folder')", name="artifact_kind"),
        CheckConstraint("documented_size >= 0", name="documented_size"),
        CheckConstraint("cardinality(documented_precision) > 0", name="documented_precision"),
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256"),
        CheckConstraint("update_time >= create_time", name="times"),
        Index("uq_models_object_key", "object_key", unique=True),
        # Digests, because a text may be longer than an index row.
        Index(
            "uq_models_identity",
            text("text_digest(name)"),
            text("text_digest(version)"),
            text("text_digest(project_id)"),
            text("text_digest(project_name)"),
            "precision",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_models_name", text(f'("left"(name, {SORT_PREFIX})) COLLATE "C"'), "id"),
        Index("ix_models_version", text(f'("left"(version, {SORT_PREFIX})) COLLATE "C"'), "id"),
        Index("ix_models_version_order", *_VERSION_ORDER, "create_time", "id"),
        # The latest release of a group is its last row in this index.
        Index(
            "ix_models_group",
            text(GROUP_KEY),
            text("model_version_is_release(version)"),
            *_VERSION_ORDER,
            "create_time",
            "id",
        ),
        Index("ix_models_score", text("COALESCE(score, '-Infinity'::double precision)"), "id"),
        Index("ix_models_create_time", "create_time", "id"),
        Index("ix_models_update_time", "update_time", "id"),
        # Trigrams serve substrings in any case, LIKE patterns and equality.
        Index(
            "ix_models_text",
            *(text(f"{column} gin_trgm_ops") for column in ("name", "version", *_COUNTED_TEXTS)),
            postgresql_using="gin",
        ),
        # The same for models with exactly these precisions, for references with precisions.
        Index(
            "ix_models_group_precisions",
            text('model_group_precisions_key(name, project_id, project_name, "precision")'),
            text("model_version_is_release(version)"),
            *_VERSION_ORDER,
            "create_time",
            "id",
        ),
        # For the children of many models at once. The next index is slow if most models have parents.
        Index("ix_models_parents", text("(provenance -> 'parent_model_ids'::text)"), postgresql_using="gin"),
        Index("ix_models_elements", "precision", "labels", "metrics", "tags", "provenance", postgresql_using="gin"),
    )


class DeletedModelRow(Base):
    """The id of a deleted model. Triggers ensure that only its project can use the id again."""

    __tablename__ = "deleted_models"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    project_id: Mapped[str | None] = mapped_column(
        Text, comment="The model's project when it was deleted; null without a project."
    )


class ArtifactVerificationRow(Base):
    """The result of the last verification of an artifact. Not a column of `models`, whose rows are costly to update."""

    __tablename__ = "artifact_verifications"

    model_id: Mapped[str] = mapped_column(ForeignKey(ModelRow.id, ondelete="CASCADE"), primary_key=True)
    object_key: Mapped[str] = mapped_column(Text, comment="Key of the artifact that was verified.")
    time: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), comment="When the reading of an intact artifact began, or when damage was found."
    )
    is_intact: Mapped[bool]
