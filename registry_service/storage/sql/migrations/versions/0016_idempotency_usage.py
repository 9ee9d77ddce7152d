"""How many idempotency keys each caller has begun to use.

Revision: 0016.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE idempotency_usage (
        caller_digest bytea NOT NULL,
        window_end_time timestamptz NOT NULL,
        key_count integer NOT NULL,
        CONSTRAINT pk_idempotency_usage PRIMARY KEY (caller_digest),
        CONSTRAINT ck_idempotency_usage_caller_digest CHECK (octet_length(caller_digest) = 32),
        CONSTRAINT ck_idempotency_usage_key_count CHECK (key_count >= 0)
    )
    """,
    "COMMENT ON COLUMN idempotency_usage.caller_digest IS 'SHA-256 of the caller.'",
    "COMMENT ON COLUMN idempotency_usage.window_end_time IS 'Then the count begins anew.'",
    "COMMENT ON COLUMN idempotency_usage.key_count IS 'New keys, but for those of calls that failed.'",
    "CREATE INDEX ix_idempotency_usage_window_end_time ON idempotency_usage (window_end_time)",
)


def upgrade() -> None:
    """Make the table."""
    for statement in _STATEMENTS:
        op.execute(statement)
