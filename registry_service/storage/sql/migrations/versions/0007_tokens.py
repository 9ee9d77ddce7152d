"""Tokens, by their hashes.

Revision: 0007.
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE tokens (
        id text COLLATE "C" NOT NULL,
        digest bytea NOT NULL,
        name text COLLATE "C" NOT NULL,
        role text NOT NULL,
        project_id text,
        create_time timestamptz NOT NULL,
        expire_time timestamptz,
        revoke_time timestamptz,
        last_use_time timestamptz,
        CONSTRAINT pk_tokens PRIMARY KEY (id),
        CONSTRAINT ck_tokens_digest CHECK (octet_length(digest) = 32),
        CONSTRAINT ck_tokens_role CHECK (role IN ('reader', 'writer', 'promoter', 'admin')),
        CONSTRAINT ck_tokens_project_id CHECK (project_id <> ''),
        CONSTRAINT ck_tokens_expire_time CHECK (expire_time > create_time)
    )
    """,
    "COMMENT ON COLUMN tokens.digest IS 'SHA-256 of the secret, which is kept nowhere.'",
    "COMMENT ON COLUMN tokens.project_id IS 'Where the role counts; none: in all projects.'",
    "COMMENT ON COLUMN tokens.last_use_time IS 'To about ten minutes.'",
    "CREATE UNIQUE INDEX uq_tokens_digest ON tokens (digest)",
    "CREATE UNIQUE INDEX uq_tokens_name ON tokens (name)",
)


def upgrade() -> None:
    """Makes the table."""
    for statement in _STATEMENTS:
        op.execute(statement)
