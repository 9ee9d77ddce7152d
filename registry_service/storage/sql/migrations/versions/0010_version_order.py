"""The order of versions, and the models of a group in that order.

Revision: 0010.
"""

from alembic import op

from registry_service.storage.sql.migrations import analyze

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_SEPARATORS = (
    r"E'\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
    r"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f"
    r""" !"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~\x7f'"""
)

# docs/decisions/0011-version-order.md explains the key. The bytes of its symbols: 10 dev, 20 alpha, 28 beta, 30 rc,
# 40 the end, 50 post, 60 another word (UTF-8, ended by 00), 70 a number (count of bytes, then two digits a byte).
# What refers to nothing but pg_catalog works while pg_restore builds the indexes.
_KEY = rf"""
    CREATE OR REPLACE FUNCTION model_version_key(version text) RETURNS bytea
        LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        -- The collation folds ASCII letters alone, and compares code points, whatever the locale of the database.
        folded text COLLATE "C" := lower(left(version, 400) COLLATE "C");
        plus integer;
        public text COLLATE "C";
        token text COLLATE "C";
        zeros text := '';
        hex text := '';
    BEGIN
        IF folded ~ '^v[0-9]' THEN
            folded := substr(folded, 2);
        END IF;
        IF folded ~ '^[0-9]+(\.[0-9]+)*$' THEN
            -- What most versions are, in a third of the time.
            FOREACH token IN ARRAY string_to_array(folded, '.') LOOP
                token := ltrim(token, '0');
                IF token = '' THEN
                    zeros := zeros || '7000';
                    CONTINUE;
                END IF;
                token := lpad(token, (length(token) + 1) / 2 * 2, '0');
                hex := hex || zeros || '70' || lpad(to_hex(length(token) / 2), 2, '0') || token;
                zeros := '';
            END LOOP;
            RETURN substr(decode(hex || '40', 'hex'), 1, 400);
        END IF;
        plus := strpos(folded, '+');
        public := CASE WHEN plus > 0 THEN left(folded, plus - 1) ELSE folded END;
        IF public ~ '[0-9][abc][0-9]' THEN
            public := regexp_replace(public, '([0-9])a(?=[0-9])', '\1 alpha ', 'g');
            public := regexp_replace(public, '([0-9])b(?=[0-9])', '\1 beta ', 'g');
            public := regexp_replace(public, '([0-9])c(?=[0-9])', '\1 rc ', 'g');
        END IF;
        FOREACH token IN ARRAY string_to_array(
            regexp_replace(translate(public, {_SEPARATORS}, repeat(' ', 65)), '[0-9]+', ' \& ', 'g'), ' '
        ) LOOP
            CONTINUE WHEN token = '';
            IF token < ':' THEN
                token := ltrim(token, '0');
                IF token = '' THEN
                    -- Counts only if another number follows: 1.0 is 1.
                    zeros := zeros || '7000';
                    CONTINUE;
                END IF;
                token := lpad(token, (length(token) + 1) / 2 * 2, '0');
                hex := hex || zeros || '70' || lpad(to_hex(length(token) / 2), 2, '0') || token;
            ELSE
                hex := hex || CASE token
                    WHEN 'dev' THEN '10'
                    WHEN 'nightly' THEN '10'
                    WHEN 'snapshot' THEN '10'
                    WHEN 'alpha' THEN '20'
                    WHEN 'beta' THEN '28'
                    WHEN 'pre' THEN '30'
                    WHEN 'preview' THEN '30'
                    WHEN 'rc' THEN '30'
                    WHEN 'post' THEN '50'
                    ELSE '60' || encode(convert_to(token, 'UTF8'), 'hex') || '00'
                END;
            END IF;
            zeros := '';
        END LOOP;
        hex := hex || '40';
        IF plus = 0 THEN
            RETURN substr(decode(hex, 'hex'), 1, 400);
        END IF;
        FOREACH token IN ARRAY string_to_array(
            regexp_replace(
                translate(substr(folded, plus + 1), {_SEPARATORS}, repeat(' ', 65)), '[0-9]+', ' \& ', 'g'
            ),
            ' '
        ) LOOP
            CONTINUE WHEN token = '';
            IF token < ':' THEN
                token := ltrim(token, '0');
                token := lpad(token, (length(token) + 1) / 2 * 2, '0');
                hex := hex || '70' || lpad(to_hex(length(token) / 2), 2, '0') || token;
            ELSE
                hex := hex || '60' || encode(convert_to(token, 'UTF8'), 'hex') || '00';
            END IF;
        END LOOP;
        RETURN substr(decode(hex, 'hex'), 1, 400);
    END
    $$
"""

# What the key calls dev, alpha, beta, or rc.
_IS_RELEASE = r"""
    CREATE OR REPLACE FUNCTION model_version_is_release(version text) RETURNS boolean
        LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
        RETURN lower(split_part(left(version, 400) COLLATE "C", '+', 1)) !~ (
            '[0-9][abc][0-9]'
            '|(^|[\x01-@[-`{-\x7f])(dev|nightly|snapshot|alpha|beta|pre|preview|rc)($|[\x01-@[-`{-\x7f])'
        )
"""

# Names a group in one value that is never NULL: no index finds a row by IS NOT DISTINCT FROM, nor keeps its order
# after IS NULL. Unlike text_digest it is inlined, as all that it calls is IMMUTABLE.
_GROUP_KEY = r"""
    CREATE OR REPLACE FUNCTION model_group_key(name text, project_id text, project_name text) RETURNS bytea
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN sha256((
            replace(name, '\', '\\')
            || CASE WHEN project_id IS NULL THEN '\000' ELSE '\000\001' || replace(project_id, '\', '\\') END
            || CASE WHEN project_name IS NULL THEN '\000' ELSE '\000\001' || replace(project_name, '\', '\\') END
        )::bytea)
"""

# Each can be repeated: the migration may have been broken off after it. An index that was broken off is never used, but
# has the name. Built concurrently, they keep no writer waiting, however many models there are.
_STATEMENTS = (
    _KEY,
    _IS_RELEASE,
    _GROUP_KEY,
    "DROP INDEX CONCURRENTLY IF EXISTS ix_models_version_order",
    """
    CREATE INDEX CONCURRENTLY ix_models_version_order ON models (
        model_version_key(version), "left"(version, 400) COLLATE "C", create_time, id
    )
    """,
    "DROP INDEX CONCURRENTLY IF EXISTS ix_models_group",
    """
    CREATE INDEX CONCURRENTLY ix_models_group ON models (
        model_group_key(name, project_id, project_name), model_version_is_release(version),
        model_version_key(version), "left"(version, 400) COLLATE "C", create_time, id
    )
    """,
    # Without statistics of its expression, Postgres takes a group for half a percent of all models.
    analyze("models"),
)


def upgrade() -> None:
    """Make the functions and the indexes."""
    with op.get_context().autocommit_block():
        for statement in _STATEMENTS:
            op.execute(statement)
