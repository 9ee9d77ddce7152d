"""Model groups: all models of one name in one project, as a resource.

The rows of `models` are not written anew: the group of a model is found by its identity, by `model_group_key` and the
index on it, which 0010 made. Triggers make the groups and count their models, as replicas of the
version before register, move and delete models too. Whatever takes long is done without locks that writers wait for.

Revision: 0012.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = (
    # For the indexes of many groups.
    "SET LOCAL maintenance_work_mem = '256MB'",
    """
    CREATE TABLE model_groups (
        id text COLLATE "C" NOT NULL DEFAULT gen_random_uuid()::text,
        name text NOT NULL,
        project_id text,
        project_name text,
        description text NOT NULL DEFAULT '',
        owner text NOT NULL DEFAULT '',
        tags jsonb NOT NULL DEFAULT '{}',
        metric_goals jsonb NOT NULL DEFAULT '{}',
        create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
        update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
        revision bigint NOT NULL DEFAULT 1,
        CONSTRAINT ck_model_groups_named CHECK (name <> ''),
        CONSTRAINT ck_model_groups_maps
            CHECK (jsonb_typeof(tags) = 'object' AND jsonb_typeof(metric_goals) = 'object'),
        CONSTRAINT ck_model_groups_revision CHECK (revision > 0)
    )
    """,
    "COMMENT ON COLUMN model_groups.metric_goals IS 'By metrics, maximize or minimize.'",
    # In a table of its own, which the end of a transaction alone writes: see count_model_groups.
    """
    CREATE TABLE model_group_counts (
        model_group_id text COLLATE "C" NOT NULL,
        version_count bigint NOT NULL
    )
    """,
    "COMMENT ON COLUMN model_group_counts.version_count IS 'Of its models; a group without any has no row.'",
    # Where the log ends: what is committed from here on is in it, see _CATCH_UP.
    "CREATE TEMPORARY TABLE groups_begin ON COMMIT DROP AS SELECT sequence FROM audit_head",
    """
    WITH made AS MATERIALIZED (
        SELECT gen_random_uuid()::text AS id, name, project_id, project_name, min(create_time) AS create_time,
            sum(models) AS models
        FROM (
            SELECT name, project_id, project_name, create_time, 1 AS models FROM models
            UNION ALL
            SELECT aliases.name, project_id, project_name, time, 0
            FROM aliases JOIN alias_moves ON alias_moves.alias_id = aliases.id AND alias_moves.revision = 1
        ) AS every
        GROUP BY name, project_id, project_name
    ), grouped AS (
        INSERT INTO model_groups (id, name, project_id, project_name, create_time, update_time)
        SELECT id, name, project_id, project_name, create_time, create_time FROM made
    )
    INSERT INTO model_group_counts (model_group_id, version_count) SELECT id, models FROM made WHERE models > 0
    """,
    # Only now, as that takes a fraction of the time.
    "ALTER TABLE model_groups ADD CONSTRAINT pk_model_groups PRIMARY KEY (id)",
    "ALTER TABLE model_group_counts ADD CONSTRAINT pk_model_group_counts PRIMARY KEY (model_group_id)",
    """
    ALTER TABLE model_group_counts ADD CONSTRAINT fk_model_group_counts_model_group_id
        FOREIGN KEY (model_group_id) REFERENCES model_groups (id) ON DELETE CASCADE
    """,
    """
    CREATE UNIQUE INDEX uq_model_groups_identity ON model_groups (model_group_key(name, project_id, project_name))
    """,
    'CREATE INDEX ix_model_groups_name ON model_groups ((left(name, 400)) COLLATE "C", id)',
    "CREATE INDEX ix_model_groups_create_time ON model_groups (create_time, id)",
    "CREATE INDEX ix_model_groups_update_time ON model_groups (update_time, id)",
    """
    CREATE INDEX ix_model_groups_text ON model_groups USING gin (
        name gin_trgm_ops, project_id gin_trgm_ops, project_name gin_trgm_ops
    )
    """,
    "CREATE INDEX ix_model_groups_tags ON model_groups USING gin (tags)",
    "CREATE INDEX ix_model_group_counts_version_count ON model_group_counts (version_count, model_group_id)",
    # For models by an alias, and for the moves of all aliases.
    "CREATE INDEX ix_aliases_alias ON aliases (alias, model_id)",
    "CREATE INDEX ix_alias_moves_time ON alias_moves (time, alias_id, revision)",
    # Locked, the group can't be deleted until the transaction ends; its description may change.
    """
    CREATE FUNCTION ensure_model_group(of_name text, of_project_id text, of_project_name text) RETURNS text
    LANGUAGE plpgsql AS $$
    DECLARE
        key bytea := model_group_key(of_name, of_project_id, of_project_name);
        made_time timestamptz := clock_timestamp();
        found_id text;
    BEGIN
        LOOP
            SELECT id INTO found_id FROM model_groups
                WHERE model_group_key(name, project_id, project_name) = key FOR KEY SHARE;
            IF NOT FOUND THEN
                -- Of two at once, the second waits here, and then finds the row, unless the first was rolled back.
                INSERT INTO model_groups (name, project_id, project_name, create_time, update_time)
                    VALUES (of_name, of_project_id, of_project_name, made_time, made_time)
                    ON CONFLICT DO NOTHING RETURNING id INTO found_id;
            END IF;
            IF FOUND THEN
                RETURN found_id;
            END IF;
        END LOOP;
    END
    $$
    """,
    """
    CREATE FUNCTION group_model() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM ensure_model_group(NEW.name, NEW.project_id, NEW.project_name);
        RETURN NULL;
    END
    $$
    """,
    # Deferred to the end of the transaction, when it has locked the end of the audit log, as every change does: a row
    # that all registrations of a group write would make them wait for one another for longer than that does.
    """
    CREATE FUNCTION count_model_groups() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        found_id text;
        old_key bytea;
        new_key bytea;
    BEGIN
        IF TG_OP <> 'INSERT' THEN
            old_key := model_group_key(OLD.name, OLD.project_id, OLD.project_name);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            new_key := model_group_key(NEW.name, NEW.project_id, NEW.project_name);
        END IF;
        IF new_key IS NOT DISTINCT FROM old_key THEN
            RETURN NULL;
        END IF;
        IF new_key IS NOT NULL THEN
            INSERT INTO model_group_counts AS counts (model_group_id, version_count)
                SELECT id, 1 FROM model_groups WHERE model_group_key(name, project_id, project_name) = new_key
                ON CONFLICT (model_group_id) DO UPDATE SET version_count = counts.version_count + 1;
        END IF;
        IF old_key IS NOT NULL THEN
            SELECT id INTO found_id FROM model_groups WHERE model_group_key(name, project_id, project_name) = old_key;
            UPDATE model_group_counts SET version_count = version_count - 1 WHERE model_group_id = found_id;
            DELETE FROM model_group_counts WHERE model_group_id = found_id AND version_count = 0;
        END IF;
        RETURN NULL;
    END
    $$
    """,
)
# From the first trigger on, whoever changes models, aliases or the log waits for the rest: milliseconds.
_CATCH_UP = (
    """
    CREATE TRIGGER group_new_model AFTER INSERT ON models FOR EACH ROW EXECUTE FUNCTION group_model()
    """,
    """
    CREATE TRIGGER group_moved_model AFTER UPDATE OF name, project_id, project_name ON models
        FOR EACH ROW EXECUTE FUNCTION group_model()
    """,
    """
    CREATE CONSTRAINT TRIGGER count_model_groups AFTER INSERT OR DELETE ON models
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_model_groups()
    """,
    """
    CREATE CONSTRAINT TRIGGER count_moved_model AFTER UPDATE OF name, project_id, project_name ON models
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_model_groups()
    """,
    # What was registered, moved or deleted meanwhile. Every such change has an event, of its new group; one that moved
    # a model has what it was before.
    """
    CREATE TEMPORARY TABLE groups_touched ON COMMIT DROP AS
    SELECT name, project_id, project_name FROM audit_events
    WHERE sequence > (SELECT sequence FROM groups_begin) AND name <> ''
    UNION
    SELECT
        coalesce(before ->> 'name', name),
        CASE WHEN before ? 'project_id' THEN before ->> 'project_id' ELSE project_id END,
        CASE WHEN before ? 'project_name' THEN before ->> 'project_name' ELSE project_name END
    FROM audit_events
    WHERE sequence > (SELECT sequence FROM groups_begin) AND action = 'model.updated'
    """,
    "SELECT ensure_model_group(name, project_id, project_name) FROM groups_touched",
    """
    DELETE FROM model_group_counts USING model_groups, groups_touched AS touched
    WHERE model_group_id = model_groups.id
        AND model_group_key(model_groups.name, model_groups.project_id, model_groups.project_name)
            = model_group_key(touched.name, touched.project_id, touched.project_name)
    """,
    """
    INSERT INTO model_group_counts (model_group_id, version_count)
    SELECT model_groups.id, count(*)
    FROM groups_touched AS touched
    JOIN model_groups ON model_group_key(model_groups.name, model_groups.project_id, model_groups.project_name)
        = model_group_key(touched.name, touched.project_id, touched.project_name)
    JOIN models ON model_group_key(models.name, models.project_id, models.project_name)
        = model_group_key(touched.name, touched.project_id, touched.project_name)
    GROUP BY model_groups.id
    """,
    "ALTER TABLE audit_events ADD COLUMN model_group_id text",
    "COMMENT ON COLUMN audit_events.model_group_id IS 'None: of a token, or from before there were groups.'",
    # The group is part of the hash only where there is one, so that events from before keep theirs. Found here, and
    # not by the program, as it is for replicas of the version before as well. Otherwise as in 0004.
    """
    CREATE OR REPLACE FUNCTION chain_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        head audit_head%ROWTYPE;
        hashed jsonb;
    BEGIN
        IF NEW.model_group_id IS NULL AND NEW.name <> '' THEN
            SELECT id INTO NEW.model_group_id FROM model_groups
                WHERE model_group_key(name, project_id, project_name)
                    = model_group_key(NEW.name, NEW.project_id, NEW.project_name);
        END IF;
        SELECT * INTO STRICT head FROM audit_head FOR UPDATE;
        NEW.sequence := head.sequence + 1;
        NEW.time := greatest(clock_timestamp(), head.time);
        NEW.previous_hash := head.hash;
        hashed := jsonb_build_array(
            NEW.sequence, to_char(NEW.time AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), NEW.actor,
            NEW.request_id, NEW.action, NEW.project_id, NEW.project_name, NEW.name, NEW.model_id, NEW.alias,
            NEW.reason, NEW.before, NEW.after, NEW.previous_hash
        );
        IF NEW.model_group_id IS NOT NULL THEN
            hashed := hashed || jsonb_build_array(NEW.model_group_id);
        END IF;
        NEW.hash := encode(sha256(convert_to(hashed::text, 'UTF8')), 'hex');
        UPDATE audit_head SET sequence = NEW.sequence, time = NEW.time, hash = NEW.hash;
        PERFORM pg_notify('audit_events', '');
        RETURN NEW;
    END
    $$
    """,
)


def upgrade() -> None:
    """Makes the tables from the models and aliases that there are, and what keeps them."""
    for statement in (*_TABLES, *_CATCH_UP):
        op.execute(statement)
