"""The size that clients of the documented API set.

Revision: 0002.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # Without a default, so that no row is written anew.
    """
    ALTER TABLE models ADD COLUMN documented_size bigint
        CONSTRAINT ck_models_documented_size CHECK (documented_size >= 0)
    """,
    "COMMENT ON COLUMN models.documented_size IS 'Size that the documented API shows, where its client changed that.'",
)


def upgrade() -> None:
    """Adds the column."""
    for statement in _STATEMENTS:
        op.execute(statement)
