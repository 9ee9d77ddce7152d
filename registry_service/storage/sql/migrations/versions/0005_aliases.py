"""Aliases and their moves.

Revision: 0005.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE aliases (
        id bigint GENERATED ALWAYS AS IDENTITY,
        name text NOT NULL,
        project_id text,
        project_name text,
        alias text COLLATE "C" NOT NULL,
        model_id text COLLATE "C",
        revision bigint NOT NULL,
        CONSTRAINT pk_aliases PRIMARY KEY (id),
        CONSTRAINT fk_aliases_model_id FOREIGN KEY (model_id) REFERENCES models (id),
        CONSTRAINT ck_aliases_named CHECK (name <> ''),
        CONSTRAINT ck_aliases_alias
            CHECK (alias ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$' AND lower(alias) <> 'latest'),
        CONSTRAINT ck_aliases_revision CHECK (revision >= 0)
    )
    """,
    "COMMENT ON COLUMN aliases.model_id IS 'What it points to; none where it is deleted.'",
    "COMMENT ON COLUMN aliases.revision IS 'Of its newest move; 0 until its first is written.'",
    """
    CREATE UNIQUE INDEX uq_aliases_identity ON aliases (
        text_digest(name), text_digest(project_id), text_digest(project_name), alias
    ) NULLS NOT DISTINCT
    """,
    "CREATE INDEX ix_aliases_model_id ON aliases (model_id)",
    """
    CREATE TABLE alias_moves (
        alias_id bigint NOT NULL,
        revision bigint NOT NULL,
        kind text NOT NULL,
        model_id text,
        version text,
        sha256 text,
        previous bigint,
        time timestamptz NOT NULL,
        actor text NOT NULL,
        reason text NOT NULL,
        request_id text NOT NULL,
        CONSTRAINT pk_alias_moves PRIMARY KEY (alias_id, revision),
        CONSTRAINT fk_alias_moves_alias_id FOREIGN KEY (alias_id) REFERENCES aliases (id),
        CONSTRAINT fk_alias_moves_previous
            FOREIGN KEY (alias_id, previous) REFERENCES alias_moves (alias_id, revision),
        CONSTRAINT ck_alias_moves_kind CHECK (kind IN ('set', 'rolled_back', 'deleted')),
        CONSTRAINT ck_alias_moves_target
            CHECK (num_nulls(model_id, version, sha256) = CASE kind WHEN 'deleted' THEN 3 ELSE 0 END),
        CONSTRAINT ck_alias_moves_previous CHECK (previous < revision AND (previous IS NULL OR kind <> 'deleted')),
        CONSTRAINT ck_alias_moves_revision CHECK (revision > 0)
    )
    """,
    "COMMENT ON COLUMN alias_moves.model_id IS 'Of the target, which may be gone; none: deleted.'",
    "COMMENT ON COLUMN alias_moves.version IS 'Of the target, as it was.'",
    "COMMENT ON COLUMN alias_moves.sha256 IS 'Of the target, as it was.'",
    "COMMENT ON COLUMN alias_moves.previous IS 'Revision of the move that a rollback from here goes back to.'",
    "CREATE UNIQUE INDEX uq_alias_moves_time ON alias_moves (alias_id, time)",
)


def upgrade() -> None:
    """Makes the tables."""
    for statement in _STATEMENTS:
        op.execute(statement)
