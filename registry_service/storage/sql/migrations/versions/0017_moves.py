"""The events of models that moved to another project.

Revision: 0017.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# Both can be repeated: the migration may have been broken off after it, and left an index behind that is never used.
_STATEMENTS = (
    "DROP INDEX CONCURRENTLY IF EXISTS ix_audit_events_moves",
    """
    CREATE INDEX CONCURRENTLY ix_audit_events_moves ON audit_events (sequence)
        WHERE action = 'model.updated' AND before ? 'project_id'
    """,
)


def upgrade() -> None:
    """Make the index."""
    with op.get_context().autocommit_block():
        for statement in _STATEMENTS:
            op.execute(statement)
