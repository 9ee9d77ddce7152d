"""The models that were made from others are found by these.

Revision: 0006.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the index."""
    op.execute("CREATE INDEX ix_models_parents ON models USING gin ((provenance -> 'parent_model_ids'))")
