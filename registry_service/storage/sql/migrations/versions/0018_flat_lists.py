"""Model groups by owner and by project, and the models of a group by their precisions.

Revision: 0018.
"""

from alembic import op

from registry_service.storage.sql.migrations import analyze

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Names the models of a group that have the same set of precisions, in any order. As in 0010, it refers to nothing that
# pg_restore could not find while it builds the indexes: the body is bound to what it calls when it is made.
_KEY = """
    CREATE OR REPLACE FUNCTION model_group_precisions_key(
        name text, project_id text, project_name text, "precision" text[]
    ) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN sha256(
            model_group_key(name, project_id, project_name)
            || (
                SELECT string_agg(DISTINCT one COLLATE "C", ',' ORDER BY one COLLATE "C")::bytea
                FROM unnest("precision") AS one
            )
        )
"""

# Each can be repeated: the migration may have been broken off after it, and left an index behind that is never used.
_STATEMENTS = (
    _KEY,
    "DROP INDEX CONCURRENTLY IF EXISTS ix_models_group_precisions",
    """
    CREATE INDEX CONCURRENTLY ix_models_group_precisions ON models (
        model_group_precisions_key(name, project_id, project_name, "precision"), model_version_is_release(version),
        model_version_key(version), "left"(version, 400) COLLATE "C", create_time, id
    )
    """,
    *(
        statement
        for column in ("owner", "project_id", "project_name")
        for statement in (
            f"DROP INDEX CONCURRENTLY IF EXISTS ix_model_groups_by_{column}",
            f"""
            CREATE INDEX CONCURRENTLY ix_model_groups_by_{column}
                ON model_groups (coalesce("left"({column}, 400), '') COLLATE "C", create_time, id)
            """,
        )
    ),
    # Without statistics of the expressions, Postgres takes a project for half a percent of all groups.
    analyze("model_groups"),
    analyze("models"),
)


def upgrade() -> None:
    """Make the function and the indexes."""
    with op.get_context().autocommit_block():
        for statement in _STATEMENTS:
            op.execute(statement)
