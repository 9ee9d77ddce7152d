"""The oldest program that the schema serves.

Revision: 0009.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE schema_compatibility (
        id integer NOT NULL DEFAULT 1,
        oldest_revision text NOT NULL,
        CONSTRAINT pk_schema_compatibility PRIMARY KEY (id),
        CONSTRAINT ck_schema_compatibility_only_one CHECK (id = 1)
    )
    """,
    """
    COMMENT ON COLUMN schema_compatibility.oldest_revision IS
        'Newest migration of the oldest program that works with this schema.'
    """,
    "INSERT INTO schema_compatibility (oldest_revision) VALUES ('0007')",
)


def upgrade() -> None:
    """Makes the table."""
    for statement in _STATEMENTS:
        op.execute(statement)
