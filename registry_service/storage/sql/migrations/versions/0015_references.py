"""The groups of a project, by its id and by its name.

Revision: 0015.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# Each can be repeated: the migration may have been broken off after it, and left an index behind that is never used.
_STATEMENTS = tuple(
    statement
    for column in ("project_id", "project_name")
    for statement in (
        f"DROP INDEX CONCURRENTLY IF EXISTS ix_model_groups_{column}",
        f"""
        CREATE INDEX CONCURRENTLY ix_model_groups_{column}
            ON model_groups (text_digest({column}), text_digest(name), id)
        """,
    )
)


def upgrade() -> None:
    """Make the indexes."""
    with op.get_context().autocommit_block():
        for statement in _STATEMENTS:
            op.execute(statement)
