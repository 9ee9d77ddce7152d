"""How large an event is, so that pages of events can be bounded.

Revision: 0006.
"""

from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    ALTER TABLE audit_events ADD COLUMN json_bytes integer NOT NULL GENERATED ALWAYS AS (
        COALESCE(octet_length(before::text), 0) + COALESCE(octet_length(after::text), 0)
    ) STORED
    """,
    "COMMENT ON COLUMN audit_events.json_bytes IS 'What bounds a page of a listing.'",
)


def upgrade() -> None:
    """Makes the column."""
    for statement in _STATEMENTS:
        op.execute(statement)
