"""The precisions as Geti writes them.

Revision: 0003.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    # Without a default, so that no row is written anew.
    """
    ALTER TABLE models ADD COLUMN documented_precision text[]
        CONSTRAINT ck_models_documented_precision CHECK (cardinality(documented_precision) > 0)
    """,
    """
    COMMENT ON COLUMN models.documented_precision
        IS 'Precisions as the documented API shows them, where Geti writes them otherwise.'
    """,
)


def upgrade() -> None:
    """Adds the column."""
    for statement in _STATEMENTS:
        op.execute(statement)
