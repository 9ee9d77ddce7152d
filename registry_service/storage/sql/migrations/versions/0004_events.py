"""The log of changes, and what artifacts say about the models inside.

Revision: 0004.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE models ADD COLUMN schema jsonb",
    "COMMENT ON COLUMN models.schema IS 'What the artifact says about the model inside.'",
    """
    CREATE TABLE audit_events (
        sequence bigint NOT NULL,
        time timestamptz NOT NULL,
        actor text NOT NULL,
        request_id text NOT NULL,
        action text NOT NULL,
        project_id text,
        project_name text,
        name text NOT NULL,
        model_id text NOT NULL,
        alias text NOT NULL,
        reason text NOT NULL,
        before jsonb,
        after jsonb,
        previous_hash text NOT NULL,
        hash text NOT NULL,
        json_bytes integer NOT NULL GENERATED ALWAYS AS (
            COALESCE(octet_length(before::text), 0) + COALESCE(octet_length(after::text), 0)
        ) STORED,
        CONSTRAINT pk_audit_events PRIMARY KEY (sequence)
    )
    """,
    "COMMENT ON COLUMN audit_events.json_bytes IS 'What bounds a page of a listing.'",
    "CREATE INDEX ix_audit_events_model_id ON audit_events (model_id, sequence)",
    "CREATE INDEX ix_audit_events_name ON audit_events (text_digest(name), sequence)",
    "CREATE INDEX ix_audit_events_time ON audit_events (time)",
    """
    CREATE TABLE audit_head (
        id integer NOT NULL DEFAULT 1,
        sequence bigint NOT NULL,
        time timestamptz NOT NULL,
        hash text NOT NULL,
        CONSTRAINT pk_audit_head PRIMARY KEY (id),
        CONSTRAINT ck_audit_head_only_one CHECK (id = 1)
    )
    """,
    "INSERT INTO audit_head (sequence, time, hash) VALUES (0, '-infinity', repeat('0', 64))",
    # The head stays locked until the transaction ends: events get their numbers in the order of the commits. What a
    # hash covers is written out in storage/sql/event_log.py too, which does not trust this function.
    """
    CREATE FUNCTION chain_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        head audit_head%ROWTYPE;
    BEGIN
        SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
        NEW.sequence := head.sequence + 1;
        NEW.time := greatest(clock_timestamp(), head.time);
        NEW.previous_hash := head.hash;
        NEW.hash := encode(sha256(convert_to(jsonb_build_array(
            NEW.sequence, to_char(NEW.time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), NEW.actor,
            NEW.request_id, NEW.action, NEW.project_id, NEW.project_name, NEW.name, NEW.model_id, NEW.alias,
            NEW.reason, NEW.before, NEW.after, NEW.previous_hash
        )::text, 'UTF8')), 'hex');
        UPDATE audit_head SET sequence = NEW.sequence, time = NEW.time, hash = NEW.hash;
        PERFORM pg_notify('audit_events', '');
        RETURN NEW;
    END
    $$
    """,
    """
    CREATE TRIGGER chain_audit_event BEFORE INSERT ON audit_events
        FOR EACH ROW EXECUTE FUNCTION chain_audit_event()
    """,
    """
    CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'events of the audit log can only be added' USING ERRCODE = 'restrict_violation';
    END
    $$
    """,
    """
    CREATE TRIGGER refuse_audit_change BEFORE UPDATE OR DELETE ON audit_events
        FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()
    """,
    """
    CREATE TRIGGER refuse_audit_truncation BEFORE TRUNCATE ON audit_events
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()
    """,
)


def upgrade() -> None:
    """Makes the log, and the column."""
    for statement in _STATEMENTS:
        op.execute(statement)
