"""${message}.

Revision: ${up_revision}, after ${down_revision | comma,n}.

Where programs without this migration can't work with the schema any more, `upgrade` ends with
`UPDATE schema_compatibility SET oldest_revision = '${up_revision}'`: they then don't start. Better: add what the next
version needs now, and remove what this one needs in a later version, so that a rolling upgrade has two versions at work.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
