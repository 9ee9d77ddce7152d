"""The models that were made from others are found by these.

Revision: 0007.
"""

from alembic import op

revision = "0007"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the index."""
    op.execute("CREATE INDEX ix_models_parents ON models USING gin ((provenance -> 'parent_model_ids'))")
