"""Models, resumable uploads, unreferenced objects.

Revision: 0001, the first.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_STATEMENTS = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    # convert_to is only STABLE as a database's encoding could change; it never does.
    """
    CREATE FUNCTION text_digest(value text) RETURNS bytea
        LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
        RETURN sha256(convert_to(value, 'UTF8'))
    """,
    """
    CREATE TABLE models (
        id text COLLATE "C" NOT NULL,
        name text NOT NULL,
        version text NOT NULL,
        project_id text,
        project_name text,
        precision text[] NOT NULL,
        target_device text,
        target_device_type text,
        format text,
        origin text,
        category text,
        architecture text,
        score double precision,
        overview jsonb,
        optimization_capabilities jsonb,
        labels jsonb,
        metrics jsonb NOT NULL,
        tags jsonb NOT NULL,
        provenance jsonb NOT NULL,
        created_date text NOT NULL,
        last_updated_date text NOT NULL,
        create_time timestamptz NOT NULL,
        update_time timestamptz NOT NULL,
        revision bigint NOT NULL,
        creator text NOT NULL,
        file_name text NOT NULL,
        media_type text NOT NULL,
        size bigint NOT NULL,
        sha256 text NOT NULL,
        file_url text NOT NULL,
        object_key text NOT NULL,
        metadata_bytes integer NOT NULL GENERATED ALWAYS AS (
            octet_length(name) + octet_length(version) + octet_length(created_date)
            + coalesce(octet_length(project_id), 0) + coalesce(octet_length(project_name), 0)
            + coalesce(octet_length(target_device), 0) + coalesce(octet_length(target_device_type), 0)
            + coalesce(octet_length(format), 0) + coalesce(octet_length(origin), 0)
            + coalesce(octet_length(category), 0) + coalesce(octet_length(architecture), 0)
            + coalesce(octet_length(overview::text), 0) + coalesce(octet_length(optimization_capabilities::text), 0)
            + coalesce(octet_length(labels::text), 0) + coalesce(octet_length(metrics::text), 0)
            + coalesce(octet_length(tags::text), 0) + coalesce(octet_length(provenance::text), 0)
        ) STORED,
        CONSTRAINT pk_models PRIMARY KEY (id),
        CONSTRAINT ck_models_id CHECK (id ~ '^[A-Za-z0-9_-]+$' AND char_length(id) BETWEEN 16 AND 256),
        CONSTRAINT ck_models_named CHECK (name <> '' AND version <> ''),
        CONSTRAINT ck_models_precision
            CHECK (cardinality(precision) > 0 AND precision <@ ARRAY['fp32', 'fp16', 'int8', 'int4']),
        CONSTRAINT ck_models_score_finite CHECK (score > '-Infinity' AND score < 'Infinity'),
        CONSTRAINT ck_models_labels_array CHECK (jsonb_typeof(labels) = 'array'),
        CONSTRAINT ck_models_maps CHECK (
            jsonb_typeof(metrics) = 'object' AND jsonb_typeof(tags) = 'object' AND jsonb_typeof(provenance) = 'object'
        ),
        CONSTRAINT ck_models_revision CHECK (revision > 0),
        CONSTRAINT ck_models_size CHECK (size >= 0),
        CONSTRAINT ck_models_sha256 CHECK (sha256 ~ '^[0-9a-f]{64}$'),
        CONSTRAINT ck_models_times CHECK (update_time >= create_time)
    )
    """,
    "COMMENT ON COLUMN models.created_date IS 'As the documented API shows it; any text.'",
    "COMMENT ON COLUMN models.last_updated_date IS 'As the documented API shows it.'",
    "COMMENT ON COLUMN models.size IS 'Of the artifact, in bytes.'",
    "COMMENT ON COLUMN models.sha256 IS 'Of the artifact, in hexadecimal.'",
    "COMMENT ON COLUMN models.file_url IS 'Of the artifact, as the documented API shows it.'",
    "COMMENT ON COLUMN models.object_key IS 'Of the artifact in the artifact store.'",
    "COMMENT ON COLUMN models.metadata_bytes IS 'What bounds a page of a listing.'",
    "CREATE UNIQUE INDEX uq_models_object_key ON models (object_key)",
    """
    CREATE UNIQUE INDEX uq_models_identity ON models (
        text_digest(name), text_digest(version), text_digest(project_id), text_digest(project_name), precision
    ) NULLS NOT DISTINCT
    """,
    'CREATE INDEX ix_models_name ON models ((left(name, 400)) COLLATE "C", id)',
    'CREATE INDEX ix_models_version ON models ((left(version, 400)) COLLATE "C", id)',
    "CREATE INDEX ix_models_score ON models (coalesce(score, '-Infinity'::double precision), id)",
    "CREATE INDEX ix_models_create_time ON models (create_time, id)",
    "CREATE INDEX ix_models_update_time ON models (update_time, id)",
    """
    CREATE INDEX ix_models_text ON models USING gin (
        name gin_trgm_ops, version gin_trgm_ops, project_id gin_trgm_ops, project_name gin_trgm_ops,
        target_device gin_trgm_ops, target_device_type gin_trgm_ops, format gin_trgm_ops, origin gin_trgm_ops,
        category gin_trgm_ops, architecture gin_trgm_ops
    )
    """,
    "CREATE INDEX ix_models_elements ON models USING gin (precision, labels, metrics, tags, provenance)",
    """
    CREATE TABLE unreferenced_objects (
        object_key text NOT NULL,
        due_time timestamptz NOT NULL,
        CONSTRAINT pk_unreferenced_objects PRIMARY KEY (object_key)
    )
    """,
    "CREATE INDEX ix_unreferenced_objects_due_time ON unreferenced_objects (due_time)",
    """
    CREATE TABLE uploads (
        id text NOT NULL,
        spec jsonb NOT NULL,
        state text NOT NULL,
        object_key text NOT NULL,
        handle text,
        tail_key text,
        committed_size bigint NOT NULL,
        epoch bigint NOT NULL,
        create_time timestamptz NOT NULL,
        expire_time timestamptz NOT NULL,
        CONSTRAINT pk_uploads PRIMARY KEY (id),
        CONSTRAINT ck_uploads_state CHECK (state IN ('active', 'completing', 'completed')),
        CONSTRAINT ck_uploads_committed_size CHECK (committed_size >= 0)
    )
    """,
    "COMMENT ON COLUMN uploads.committed_size IS 'In bytes.'",
    "COMMENT ON COLUMN uploads.epoch IS 'Counts the writers; only the newest may commit.'",
    "CREATE INDEX ix_uploads_expire_time ON uploads (expire_time)",
    "CREATE UNIQUE INDEX uq_uploads_object_key ON uploads (object_key)",
    """
    CREATE TABLE upload_parts (
        upload_id text NOT NULL,
        number integer NOT NULL,
        "offset" bigint NOT NULL,
        size bigint NOT NULL,
        receipt text NOT NULL,
        CONSTRAINT pk_upload_parts PRIMARY KEY (upload_id, number),
        CONSTRAINT fk_upload_parts_upload_id FOREIGN KEY (upload_id) REFERENCES uploads (id) ON DELETE CASCADE
    )
    """,
    """COMMENT ON COLUMN upload_parts."offset" IS 'In the artifact, in bytes.'""",
    "COMMENT ON COLUMN upload_parts.size IS 'In bytes.'",
    "COMMENT ON COLUMN upload_parts.receipt IS 'What the artifact store gave for it.'",
)


def upgrade() -> None:
    """Makes everything."""
    for statement in _STATEMENTS:
        op.execute(statement)
