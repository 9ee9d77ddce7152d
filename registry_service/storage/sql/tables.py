"""The tables. migrations/ makes them; a test compares the two."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Computed,
    DateTime,
    Double,
    FetchedValue,
    ForeignKey,
    ForeignKeyConstraint,
    FromClause,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from registry_service.domain.listing import METRICS, SORT_PREFIX, OrderField
from registry_service.domain.model_groups import TIED_BY_TIME
from registry_service.domain.models import FieldKind, fields_of_kind

SORTED_TEXTS = ("name", "version")
"""Texts with an index of their own."""

INDEXED_ORDERS = ("id", "name", "version", "score", "create_time", "update_time")
"""Fields by which a listing comes from an index; for any other field, Postgres sorts what the filter matches."""
_ARTIFACT_COLUMNS = {
    "artifact.file_name": "file_name",
    "artifact.media_type": "media_type",
    "artifact.size_bytes": "size",
    "artifact.sha256": "sha256",
}

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

_GROUP_KEY = "model_group_key(name, project_id, project_name)"

_OptionalText = Annotated[str | None, mapped_column(Text)]
_RequiredText = Annotated[str, mapped_column(Text)]
_Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
_OptionalTime = Annotated[datetime | None, mapped_column(DateTime(timezone=True))]
_JsonObject = Annotated[dict[str, object], mapped_column(JSONB)]
_JsonValue = Annotated[object | None, mapped_column(JSONB(none_as_null=True))]
_OptionalJsonObject = Annotated[dict[str, object] | None, mapped_column(JSONB(none_as_null=True))]


class Base(DeclarativeBase):
    """Holds the tables; every constraint is named."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class ModelRow(Base):
    """A registered model with its artifact."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    name: Mapped[_RequiredText]
    version: Mapped[_RequiredText]
    project_id: Mapped[_OptionalText]
    project_name: Mapped[_OptionalText]
    precision: Mapped[list[str]] = mapped_column(ARRAY(Text))
    target_device: Mapped[_OptionalText]
    target_device_type: Mapped[_OptionalText]
    format: Mapped[_OptionalText]
    origin: Mapped[_OptionalText]
    category: Mapped[_OptionalText]
    architecture: Mapped[_OptionalText]
    score: Mapped[float | None] = mapped_column(Double)
    overview: Mapped[_JsonValue]
    optimization_capabilities: Mapped[_JsonValue]
    labels: Mapped[_JsonValue]
    metrics: Mapped[_JsonObject]
    tags: Mapped[_JsonObject]
    provenance: Mapped[_JsonObject]
    created_date: Mapped[str] = mapped_column(Text, comment="As the documented API shows it; any text.")
    last_updated_date: Mapped[str] = mapped_column(Text, comment="As the documented API shows it.")
    create_time: Mapped[_Time]
    update_time: Mapped[_Time]
    revision: Mapped[int] = mapped_column(BigInteger)
    creator: Mapped[_RequiredText]
    file_name: Mapped[_RequiredText]
    media_type: Mapped[_RequiredText]
    size: Mapped[int] = mapped_column(BigInteger, comment="Of the artifact, in bytes.")
    sha256: Mapped[str] = mapped_column(Text, comment="Of the artifact, in hexadecimal.")
    file_url: Mapped[str] = mapped_column(Text, comment="Of the artifact, as the documented API shows it.")
    object_key: Mapped[str] = mapped_column(Text, comment="Of the artifact in the artifact store.")
    artifact_kind: Mapped[str] = mapped_column(
        Text, server_default="file", comment="What the artifact is to whoever sent it."
    )
    metadata_bytes: Mapped[int] = mapped_column(
        Integer,
        Computed(_METADATA_BYTES, persisted=True),
        comment="What bounds a page of a listing.",
    )
    documented_size: Mapped[int | None] = mapped_column(
        BigInteger, comment="Size that the documented API shows, where its client changed that."
    )
    documented_precision: Mapped[list[str] | None] = mapped_column(
        ARRAY(Text), comment="Precisions as the documented API shows them, where Geti writes them otherwise."
    )
    schema: Mapped[_OptionalJsonObject] = mapped_column(comment="What the artifact says about the model inside.")
    description: Mapped[str] = mapped_column(Text, server_default="", comment="Markdown.")

    __table_args__ = (
        CheckConstraint("id ~ '^[A-Za-z0-9_-]+$' AND char_length(id) BETWEEN 16 AND 256", name="id"),
        CheckConstraint("name <> '' AND version <> ''", name="named"),
        CheckConstraint(
            "array_to_string(precision, ',', '*') ~ '^[a-z][a-z0-9_.-]{0,31}(,[a-z][a-z0-9_.-]{0,31})*$'",
            name="precision",
        ),
        # NaN sorts above infinity, so this refuses it too.
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
        # Digests, as a text may be longer than an index row.
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
        # The newest release of a group is the last one of it here.
        Index(
            "ix_models_group",
            text(_GROUP_KEY),
            text("model_version_is_release(version)"),
            *_VERSION_ORDER,
            "create_time",
            "id",
        ),
        Index("ix_models_score", text("COALESCE(score, '-Infinity'::double precision)"), "id"),
        Index("ix_models_create_time", "create_time", "id"),
        Index("ix_models_update_time", "update_time", "id"),
        # Trigrams serve substrings whatever the case, LIKE patterns and equality.
        Index(
            "ix_models_text",
            *(text(f"{column} gin_trgm_ops") for column in ("name", "version", *_COUNTED_TEXTS)),
            postgresql_using="gin",
        ),
        # The same of the models of a group that have exactly these precisions, for references with precisions.
        Index(
            "ix_models_group_precisions",
            text('model_group_precisions_key(name, project_id, project_name, "precision")'),
            text("model_version_is_release(version)"),
            *_VERSION_ORDER,
            "create_time",
            "id",
        ),
        # For the children of many models at once: the next one is slow where most models have parents.
        Index("ix_models_parents", text("(provenance -> 'parent_model_ids'::text)"), postgresql_using="gin"),
        Index("ix_models_elements", "precision", "labels", "metrics", "tags", "provenance", postgresql_using="gin"),
    )


class ModelGroupRow(Base):
    """All models of one name in one project. Triggers make the row with the first model."""

    __tablename__ = "model_groups"

    id: Mapped[str] = mapped_column(
        Text(collation="C"), primary_key=True, server_default=text("(gen_random_uuid())::text")
    )
    name: Mapped[_RequiredText]
    project_id: Mapped[_OptionalText]
    project_name: Mapped[_OptionalText]
    description: Mapped[str] = mapped_column(Text, server_default=text("''"))
    owner: Mapped[str] = mapped_column(Text, server_default=text("''"))
    tags: Mapped[dict[str, object]] = mapped_column(JSONB, server_default=text("'{}'"))
    metric_goals: Mapped[dict[str, object]] = mapped_column(
        JSONB, server_default=text("'{}'"), comment="By metrics, maximize or minimize."
    )
    create_time: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    update_time: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))

    __table_args__ = (
        CheckConstraint("name <> ''", name="named"),
        CheckConstraint("jsonb_typeof(tags) = 'object' AND jsonb_typeof(metric_goals) = 'object'", name="maps"),
        CheckConstraint("revision > 0", name="revision"),
        Index("uq_model_groups_identity", text(_GROUP_KEY), unique=True),
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
        # Each serves a filter by the field, in the default order, and the order by the field.
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
    """How many models a group has. Written by a trigger, at the end of each transaction alone."""

    __tablename__ = "model_group_counts"

    model_group_id: Mapped[str] = mapped_column(
        Text(collation="C"), ForeignKey(ModelGroupRow.id, ondelete="CASCADE"), primary_key=True
    )
    version_count: Mapped[int] = mapped_column(BigInteger, comment="Of its models; a group without any has no row.")

    __table_args__ = (Index("ix_model_group_counts_version_count", "version_count", "model_group_id"),)


class DeletedModelRow(Base):
    """The id of a deleted model. Only its project can have it again; triggers see to it."""

    __tablename__ = "deleted_models"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    project_id: Mapped[str | None] = mapped_column(
        Text, comment="As it was when the model was deleted; none: no project."
    )


class ArtifactVerificationRow(Base):
    """What the last verification of a model's artifact found. Not in `models`, whose rows cost much to write anew."""

    __tablename__ = "artifact_verifications"

    model_id: Mapped[str] = mapped_column(ForeignKey(ModelRow.id, ondelete="CASCADE"), primary_key=True)
    object_key: Mapped[str] = mapped_column(Text, comment="Of the artifact that was verified.")
    time: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), comment="Since when it counts: the begin of reading, of damage the end."
    )
    is_intact: Mapped[bool]


class UnreferencedObjectRow(Base):
    """An object of the artifact store that no model refers to, deleted when due (`domain.ports.ObjectLedger`)."""

    __tablename__ = "unreferenced_objects"

    object_key: Mapped[str] = mapped_column(Text, primary_key=True)
    due_time: Mapped[_Time]

    __table_args__ = (Index("ix_unreferenced_objects_due_time", "due_time"),)


class UploadRow(Base):
    """A resumable upload."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    spec: Mapped[_JsonObject]
    state: Mapped[_RequiredText]
    object_key: Mapped[_RequiredText]
    handle: Mapped[_OptionalText]
    tail_key: Mapped[_OptionalText]
    committed_size: Mapped[int] = mapped_column(BigInteger, comment="In bytes.")
    epoch: Mapped[int] = mapped_column(BigInteger, comment="Counts the writers; only the newest may commit.")
    create_time: Mapped[_Time]
    expire_time: Mapped[_Time]
    creator: Mapped[str] = mapped_column(Text, server_default="", comment="Who began it.")

    __table_args__ = (
        CheckConstraint("state IN ('active', 'completing', 'completed')", name="state"),
        CheckConstraint("committed_size >= 0", name="committed_size"),
        Index("ix_uploads_expire_time", "expire_time"),
        Index("uq_uploads_object_key", "object_key", unique=True),
        # A page of a listing is one range of the first, or of the second where it is of all callers.
        Index("ix_uploads_creator", "creator", "create_time", "id", postgresql_where=text("state <> 'completed'")),
        Index("ix_uploads_create_time", "create_time", "id", postgresql_where=text("state <> 'completed'")),
    )


class UploadPartRow(Base):
    """A part of an upload that the artifact store holds for good."""

    __tablename__ = "upload_parts"

    upload_id: Mapped[str] = mapped_column(ForeignKey(UploadRow.id, ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, comment="In the artifact, in bytes.")
    size: Mapped[int] = mapped_column(BigInteger, comment="In bytes.")
    receipt: Mapped[str] = mapped_column(Text, comment="What the artifact store gave for it.")


IS_MOVE = "action = 'model.updated' AND before ? 'project_id'"
"""Whether an event is of a model that moved to another project; an update has what it changed in `before`."""


class AuditEventRow(Base):
    """A change. Rows are only ever added; a trigger numbers and chains them (`domain.events`)."""

    __tablename__ = "audit_events"

    sequence: Mapped[int] = mapped_column(BigInteger, FetchedValue(), primary_key=True, autoincrement=False)
    time: Mapped[_Time]
    actor: Mapped[_RequiredText]
    request_id: Mapped[_RequiredText]
    action: Mapped[_RequiredText]
    project_id: Mapped[_OptionalText]
    project_name: Mapped[_OptionalText]
    name: Mapped[_RequiredText]
    model_id: Mapped[_RequiredText]
    alias: Mapped[_RequiredText]
    reason: Mapped[_RequiredText]
    before: Mapped[_OptionalJsonObject]
    after: Mapped[_OptionalJsonObject]
    previous_hash: Mapped[_RequiredText]
    hash: Mapped[_RequiredText]
    model_group_id: Mapped[str | None] = mapped_column(
        Text, comment="None: of a token, or from before there were groups."
    )
    json_bytes: Mapped[int] = mapped_column(
        Integer,
        Computed("COALESCE(octet_length(before::text), 0) + COALESCE(octet_length(after::text), 0)", persisted=True),
        comment="What bounds a page of a listing.",
    )

    __table_args__ = (
        Index("ix_audit_events_model_id", "model_id", "sequence"),
        Index("ix_audit_events_name", text("text_digest(name)"), "sequence"),
        Index("ix_audit_events_time", "time"),
        Index("ix_audit_events_moves", "sequence", postgresql_where=text(IS_MOVE)),
    )


class AuditHeadRow(Base):
    """The one row that tells where the log ends; locked by whoever adds an event, until its transaction ends."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, server_default=text("1"))
    sequence: Mapped[int] = mapped_column(BigInteger)
    time: Mapped[_Time]
    hash: Mapped[_RequiredText]

    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)


class AliasRow(Base):
    """An alias; it stays when it is deleted, for its history, and for its next move to lock."""

    __tablename__ = "aliases"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[_RequiredText]
    project_id: Mapped[_OptionalText]
    project_name: Mapped[_OptionalText]
    alias: Mapped[str] = mapped_column(Text(collation="C"))
    model_id: Mapped[str | None] = mapped_column(
        ForeignKey(ModelRow.id), comment="What it points to; none where it is deleted."
    )
    revision: Mapped[int] = mapped_column(BigInteger, comment="Of its newest move; 0 until its first is written.")

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
    """A move of an alias. Rows are only ever added (`domain.aliases`)."""

    __tablename__ = "alias_moves"

    alias_id: Mapped[int] = mapped_column(ForeignKey(AliasRow.id), primary_key=True)
    revision: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[_RequiredText]
    model_id: Mapped[str | None] = mapped_column(Text, comment="Of the target, which may be gone; none: deleted.")
    version: Mapped[str | None] = mapped_column(Text, comment="Of the target, as it was.")
    sha256: Mapped[str | None] = mapped_column(Text, comment="Of the target, as it was.")
    previous: Mapped[int | None] = mapped_column(
        BigInteger, comment="Revision of the move that a rollback from here goes back to."
    )
    time: Mapped[_Time]
    actor: Mapped[_RequiredText]
    reason: Mapped[_RequiredText]
    request_id: Mapped[_RequiredText]

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
        # What an alias pointed to at a time has one answer.
        Index("uq_alias_moves_time", "alias_id", "time", unique=True),
        Index("ix_alias_moves_time", "time", "alias_id", "revision"),
    )


class TokenRow(Base):
    """A token, by its hash (`domain.tokens`)."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(Text(collation="C"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary, comment="SHA-256 of the secret, which is kept nowhere.")
    name: Mapped[str] = mapped_column(Text(collation="C"))
    role: Mapped[_RequiredText]
    project_id: Mapped[str | None] = mapped_column(Text, comment="Where the role counts; none: in all projects.")
    create_time: Mapped[_Time]
    expire_time: Mapped[_OptionalTime]
    revoke_time: Mapped[_OptionalTime]
    last_use_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), comment="To about ten minutes.")

    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("role IN ('reader', 'writer', 'promoter', 'admin')", name="role"),
        CheckConstraint("project_id <> ''", name="project_id"),
        CheckConstraint("expire_time > create_time", name="expire_time"),
        Index("uq_tokens_digest", "digest", unique=True),
        Index("uq_tokens_name", "name", unique=True),
    )


class IdempotencyKeyRow(Base):
    """A call with an idempotency key, under way or answered (`domain.idempotency`)."""

    __tablename__ = "idempotency_keys"

    id: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True, comment="SHA-256 of caller, method and key.")
    method: Mapped[_RequiredText]
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    attempt: Mapped[str] = mapped_column(Text(collation="C"), comment="The call that is under way, or was answered.")
    lease_time: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), comment="Until then the call counts as under way."
    )
    expire_time: Mapped[_Time]
    answer_time: Mapped[_OptionalTime]
    answer: Mapped[bytes | None] = mapped_column(
        LargeBinary, comment="A message; none: too large, the resource is read again."
    )
    resource_id: Mapped[_OptionalText]
    project_id: Mapped[_OptionalText]
    artifact_sha256: Mapped[_OptionalText]

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
    """How many idempotency keys a caller has begun to use."""

    __tablename__ = "idempotency_usage"

    caller_digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True, comment="SHA-256 of the caller.")
    window_end_time: Mapped[_Time] = mapped_column(comment="Then the count begins anew.")
    key_count: Mapped[int] = mapped_column(Integer, comment="New keys, but for those of calls that failed.")

    __table_args__ = (
        CheckConstraint("octet_length(caller_digest) = 32", name="caller_digest"),
        CheckConstraint("key_count >= 0", name="key_count"),
        Index("ix_idempotency_usage_window_end_time", "window_end_time"),
    )


class SchemaCompatibilityRow(Base):
    """The one row that tells which programs the schema serves (`storage.sql.schema`)."""

    __tablename__ = "schema_compatibility"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False, server_default=text("1"))
    oldest_revision: Mapped[str] = mapped_column(
        Text, comment="Newest migration of the oldest program that works with this schema."
    )

    __table_args__ = (CheckConstraint("id = 1", name="only_one"),)


models = ModelRow.__table__
model_groups = ModelGroupRow.__table__
model_group_counts = ModelGroupCountRow.__table__
deleted_models = DeletedModelRow.__table__
artifact_verifications = ArtifactVerificationRow.__table__
unreferenced_objects = UnreferencedObjectRow.__table__
uploads = UploadRow.__table__
upload_parts = UploadPartRow.__table__
audit_events = AuditEventRow.__table__
audit_head = AuditHeadRow.__table__
aliases = AliasRow.__table__
alias_moves = AliasMoveRow.__table__
tokens = TokenRow.__table__
idempotency_keys = IdempotencyKeyRow.__table__
idempotency_usage = IdempotencyUsageRow.__table__


def group_key(table: FromClause) -> ColumnElement[bytes]:
    """Return what names the group of a row with a name and a project; the indexes of groups and of models have it."""
    return func.model_group_key(table.c.name, table.c.project_id, table.c.project_name)


def group_sort_expression(name: str, table: FromClause) -> ColumnElement[Any]:
    """Return what an order of model groups compares; an absent text is an empty one."""
    column = table.c[name]
    if name in TIED_BY_TIME:
        return _sorted_text(column)
    return sort_expression(name, table) if name in SORTED_TEXTS else column


def _sorted_text(column: ColumnElement[Any]) -> ColumnElement[str]:
    prefix = func.left(column, literal_column(str(SORT_PREFIX)))
    return func.coalesce(prefix, literal_column("''"), type_=Text).collate("C")


def sort_expression(name: str, table: FromClause = models) -> ColumnElement[Any]:
    """Return what the values of this field are compared by; each but the version has an index that ends with id."""
    if name in SORTED_TEXTS:
        return func.left(table.c[name], literal_column(str(SORT_PREFIX)), type_=Text).collate("C")
    if name == "score":
        return func.coalesce(table.c.score, literal_column("'-Infinity'::double precision"), type_=Double)
    return table.c[name]


def sort_expressions(field: OrderField, table: FromClause = models) -> Sequence[ColumnElement[Any]]:
    """Return what a listing by this field is ordered by; an index has each of INDEXED_ORDERS, with id at its end.

    A version takes two: its key, in which 1.0 and v1.0.0 are equal, and its text. The index has the time of
    registration between these and the id.
    """
    if field.name == "version":
        return (func.model_version_key(table.c.version, type_=LargeBinary), sort_expression(field.name, table))
    if field.name in INDEXED_ORDERS:
        return (sort_expression(field.name, table),)
    lowest: ColumnElement[float] = literal_column("'-Infinity'::double precision")
    if field.name == METRICS:
        value = table.c.metrics.op("->", return_type=JSONB())(literal(field.key, Text()))
        # Anything but a number would fail the cast, NULL gives no number.
        number = case((func.jsonb_typeof(value) == "number", cast(value, Double)), else_=lowest)
        return (number,)
    column = table.c[_ARTIFACT_COLUMNS.get(field.name, field.name)]
    if not isinstance(column.type, Text):
        return (column,)
    return (_sorted_text(column),)
