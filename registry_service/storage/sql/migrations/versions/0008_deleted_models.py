"""The ids of deleted models stay with their projects.

Revision: 0008.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE deleted_models (
        id text COLLATE "C" NOT NULL,
        project_id text,
        CONSTRAINT pk_deleted_models PRIMARY KEY (id)
    )
    """,
    "COMMENT ON COLUMN deleted_models.project_id IS 'As it was when the model was deleted; none: no project.'",
    # Triggers rather than the program, as replicas of the version before delete and register too.
    """
    CREATE FUNCTION keep_deleted_id() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO deleted_models (id, project_id) VALUES (OLD.id, OLD.project_id)
            ON CONFLICT (id) DO UPDATE SET project_id = EXCLUDED.project_id;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER keep_deleted_id AFTER DELETE ON models FOR EACH ROW EXECUTE FUNCTION keep_deleted_id()
    """,
    # After the insertion: that had to wait for a deletion of the same id under way, and each statement of the
    # function sees what was committed meanwhile.
    """
    CREATE FUNCTION refuse_deleted_id() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT FROM deleted_models WHERE id = NEW.id AND project_id IS DISTINCT FROM NEW.project_id) THEN
            RAISE EXCEPTION 'the id was used in another project'
                USING ERRCODE = 'unique_violation', CONSTRAINT = 'refuse_deleted_id';
        END IF;
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER refuse_deleted_id AFTER INSERT ON models FOR EACH ROW EXECUTE FUNCTION refuse_deleted_id()
    """,
    # Last: the triggers wait for writers, so the log has every deletion that they did not see.
    """
    INSERT INTO deleted_models (id, project_id)
    SELECT DISTINCT ON (model_id COLLATE "C") model_id, project_id FROM audit_events
    WHERE action = 'model.deleted' ORDER BY model_id COLLATE "C", sequence DESC
    """,
)


def upgrade() -> None:
    """Makes the table and its triggers, and fills it from the log."""
    for statement in _STATEMENTS:
        op.execute(statement)
