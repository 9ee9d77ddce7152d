"""Descriptions, and precisions of any name.

Revision: 0011.
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Each can be repeated: the migration may have been broken off before the validation.
_STATEMENTS = (
    # A constant default: no row is written anew, and replicas of the version before go on registering.
    "ALTER TABLE models ADD COLUMN IF NOT EXISTS description text NOT NULL DEFAULT ''",
    "COMMENT ON COLUMN models.description IS 'Markdown.'",
    # NOT VALID, as checking a million rows takes time that nobody could read in. What the constraint before let pass
    # fulfils it anyway.
    "ALTER TABLE models DROP CONSTRAINT IF EXISTS ck_models_precision",
    """
    ALTER TABLE models ADD CONSTRAINT ck_models_precision
        CHECK (array_to_string(precision, ',', '*') ~ '^[a-z][a-z0-9_.-]{0,31}(,[a-z][a-z0-9_.-]{0,31})*$') NOT VALID
    """,
)
_VALIDATION = "ALTER TABLE models VALIDATE CONSTRAINT ck_models_precision"


def upgrade() -> None:
    """Add the column and relax the constraint, then validate it beside readers and writers."""
    for statement in _STATEMENTS:
        op.execute(statement)
    with op.get_context().autocommit_block():
        op.execute(_VALIDATION)
