"""What calls with idempotency keys were answered.

Revision: 0013.
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE idempotency_keys (
        id bytea NOT NULL,
        method text NOT NULL,
        request_digest bytea NOT NULL,
        attempt text COLLATE "C" NOT NULL,
        lease_time timestamptz NOT NULL,
        expire_time timestamptz NOT NULL,
        answer_time timestamptz,
        answer bytea,
        resource_id text,
        project_id text,
        artifact_sha256 text,
        CONSTRAINT pk_idempotency_keys PRIMARY KEY (id),
        CONSTRAINT ck_idempotency_keys_id CHECK (octet_length(id) = 32),
        CONSTRAINT ck_idempotency_keys_request_digest CHECK (octet_length(request_digest) = 32),
        CONSTRAINT ck_idempotency_keys_answer CHECK (
            num_nulls(answer_time, resource_id, artifact_sha256) IN (0, 3)
            AND (answer_time IS NOT NULL OR num_nonnulls(answer, project_id) = 0)
        )
    )
    """,
    "COMMENT ON COLUMN idempotency_keys.id IS 'SHA-256 of caller, method and key.'",
    "COMMENT ON COLUMN idempotency_keys.attempt IS 'The call that is under way, or was answered.'",
    "COMMENT ON COLUMN idempotency_keys.lease_time IS 'Until then the call counts as under way.'",
    "COMMENT ON COLUMN idempotency_keys.answer IS 'A message; none: too large, the resource is read again.'",
    "CREATE INDEX ix_idempotency_keys_expire_time ON idempotency_keys (expire_time)",
    "CREATE INDEX ix_idempotency_keys_attempt ON idempotency_keys (attempt) WHERE answer_time IS NULL",
)


def upgrade() -> None:
    """Make the table."""
    for statement in _STATEMENTS:
        op.execute(statement)
