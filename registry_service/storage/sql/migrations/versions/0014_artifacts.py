"""Kinds of artifacts, what their verifications found, and who began an upload.

Revision: 0014.
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Each can be repeated: the migration may have been broken off after it. None keeps others waiting for longer than it
# takes to write to the catalog, but for those of `uploads`, which has few rows.
_STATEMENTS = (
    "ALTER TABLE models ADD COLUMN IF NOT EXISTS artifact_kind text NOT NULL DEFAULT 'file'",
    "COMMENT ON COLUMN models.artifact_kind IS 'What the artifact is to whoever sent it.'",
    "ALTER TABLE models DROP CONSTRAINT IF EXISTS ck_models_artifact_kind",
    """
    ALTER TABLE models
        ADD CONSTRAINT ck_models_artifact_kind CHECK (artifact_kind IN ('file', 'folder')) NOT VALID
    """,
    # Reads all models, but others may write meanwhile.
    "ALTER TABLE models VALIDATE CONSTRAINT ck_models_artifact_kind",
    """
    CREATE TABLE IF NOT EXISTS artifact_verifications (
        model_id text COLLATE "C" NOT NULL,
        object_key text NOT NULL,
        time timestamptz NOT NULL,
        is_intact boolean NOT NULL,
        CONSTRAINT pk_artifact_verifications PRIMARY KEY (model_id),
        CONSTRAINT fk_artifact_verifications_model_id FOREIGN KEY (model_id) REFERENCES models (id) ON DELETE CASCADE
    )
    """,
    "COMMENT ON COLUMN artifact_verifications.object_key IS 'Of the artifact that was verified.'",
    """
    COMMENT ON COLUMN artifact_verifications.time IS
        'Since when it counts: the begin of reading, of damage the end.'
    """,
    "ALTER TABLE uploads ADD COLUMN IF NOT EXISTS creator text NOT NULL DEFAULT ''",
    "COMMENT ON COLUMN uploads.creator IS 'Who began it.'",
    """
    CREATE INDEX IF NOT EXISTS ix_uploads_creator ON uploads (creator, create_time, id) WHERE state <> 'completed'
    """,
    "CREATE INDEX IF NOT EXISTS ix_uploads_create_time ON uploads (create_time, id) WHERE state <> 'completed'",
)


def upgrade() -> None:
    """Make the columns, the table and the indexes."""
    with op.get_context().autocommit_block():
        for statement in _STATEMENTS:
            op.execute(statement)
