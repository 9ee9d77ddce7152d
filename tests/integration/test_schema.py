"""The migrations create the declared tables, once, and the tables refuse invalid rows."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from registry_service.domain.events import GENESIS_HASH, LogHead
from registry_service.domain.model_groups import GroupQuery, parse_group_order
from registry_service.embedded.postgres import PostgresAddress
from registry_service.storage.sql import migrations, tables
from registry_service.storage.sql.database import SqlDatabase
from registry_service.storage.sql.schema import SchemaError, known_revisions, migrate
from registry_service.storage.sql.tables import Base
from tests.postgres_server import create_database, drop_database, engine_of

# Columns, constraints, indexes, comments and functions, in the spelling of Postgres.
CATALOG = """
    SELECT 'column ' || table_name || '.' || column_name AS name, concat_ws(' ', data_type, udt_name, is_nullable,
        collation_name, column_default, generation_expression,
        col_description(table_name::regclass, ordinal_position::int)) AS definition
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT 'constraint ' || conname, conrelid::regclass || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 't'
    UNION ALL
    SELECT 'index ' || indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
"""

INDEXED_FUNCTIONS = """
    SELECT pg_get_functiondef(oid) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND proname LIKE ANY ('{text_digest,model_%}')
"""


def catalog(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        rows = connection.execute(text(CATALOG))
        return {row.name: row.definition for row in rows if "alembic_version" not in row.name}


@pytest.fixture
def made_from_metadata(postgres: PostgresAddress, engine: Engine) -> Iterator[Engine]:
    """A database with the tables of tables.py and the functions of the migrations."""
    name = "made_from_metadata"
    create_database(postgres, name, "template1")
    with engine.connect() as connection:
        functions = connection.execute(text(INDEXED_FUNCTIONS)).scalars().all()
    made = engine_of(postgres, name)
    with made.begin() as connection:
        connection.execute(text("CREATE EXTENSION pg_trgm"))
        for function in functions:
            connection.exec_driver_sql(function.replace("%", "%%"))
        Base.metadata.create_all(connection)
    yield made
    made.dispose()
    drop_database(postgres, name)


class TestMigrations:
    def test_the_migrations_create_the_declared_tables(self, engine: Engine, made_from_metadata: Engine) -> None:
        migrated, believed = catalog(engine), catalog(made_from_metadata)
        assert len(migrated) > 80
        assert migrated == believed

    # Alembic cannot compare expressions of indexes and warns; the test above compares them.
    @pytest.mark.filterwarnings("ignore:Expression #")
    def test_alembic_finds_no_difference(self, engine: Engine) -> None:
        def compared(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
            return kind != "index" and name != "alembic_version"

        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"include_object": compared, "compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, Base.metadata) == []

    def test_a_second_migration_changes_nothing(self, empty_database: Engine) -> None:
        first = migrate(empty_database)
        before = catalog(empty_database)
        assert migrate(empty_database) == first
        assert catalog(empty_database) == before

    def test_a_new_database_has_no_statistics_of_its_empty_tables(self, empty_database: Engine) -> None:
        migrate(empty_database)
        with empty_database.connect() as connection:
            analyzed = connection.execute(
                text("SELECT relname FROM pg_class WHERE relname IN ('models', 'model_groups') AND reltuples >= 0")
            )
            assert analyzed.scalars().all() == []

    def test_concurrent_migrations_run_once(self, empty_database: Engine) -> None:
        barrier = Barrier(4)

        def migrate_together(_number: int) -> str:
            barrier.wait()
            return migrate(empty_database)

        with ThreadPoolExecutor(4) as threads:
            revisions = list(threads.map(migrate_together, range(4)))
        assert len(set(revisions)) == 1
        with empty_database.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == revisions[:1]

    def test_a_migration_that_fails_leaves_nothing(self, empty_database: Engine) -> None:
        with empty_database.begin() as connection:
            connection.execute(text("CREATE TABLE uploads (id text)"))
        with pytest.raises(Exception, match="uploads"):
            migrate(empty_database)
        assert set(catalog(empty_database)) == {"column uploads.id"}
        with empty_database.begin() as connection:
            connection.execute(text("DROP TABLE uploads"))
        migrate(empty_database)

    def test_ids_of_deleted_models_stay_with_their_last_project(self, empty_database: Engine) -> None:
        migrate(empty_database, "0007")
        with empty_database.begin() as connection:
            for model_id, project, action in (
                ("once-deleted-0000001", "'p'", "model.deleted"),
                ("moved-twice-00000001", "'p'", "model.deleted"),
                ("moved-twice-00000001", "'q'", "model.deleted"),
                ("without-project-0001", "NULL", "model.deleted"),
                ("never-deleted-000001", "'p'", "model.registered"),
            ):
                changes = {"model_id": f"'{model_id}'", "project_id": project, "action": f"'{action}'"}
                insert(connection, "audit_events", **changes)
        migrate(empty_database)
        with empty_database.connect() as connection:
            kept = {row.id: row.project_id for row in connection.execute(text("SELECT * FROM deleted_models"))}
        assert kept == {"once-deleted-0000001": "p", "moved-twice-00000001": "q", "without-project-0001": None}

    def test_the_known_revisions_are_those_of_the_migrations(self) -> None:
        folder = ScriptDirectory(str(Path(migrations.__path__[0])))
        assert known_revisions() == {script.revision for script in folder.walk_revisions()}
        assert max(known_revisions()) == folder.get_current_head()

    def test_the_schema_of_a_newer_program_is_not_changed(self, empty_database: Engine) -> None:
        migrate(empty_database)
        with empty_database.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text("UPDATE schema_compatibility SET oldest_revision = '9998'"))
        before = catalog(empty_database)
        with pytest.raises(SchemaError, match="9999"):
            migrate(empty_database)
        assert catalog(empty_database) == before
        with empty_database.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"

    def test_a_compatible_schema_of_a_newer_program_is_used(
        self, empty_database: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        own = migrate(empty_database)
        with empty_database.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text(f"UPDATE schema_compatibility SET oldest_revision = '{own}'"))
            connection.execute(text("ALTER TABLE models ADD COLUMN later text"))
        before = catalog(empty_database)
        assert migrate(empty_database) == "9999"
        assert catalog(empty_database) == before
        assert "9999, of a newer program" in caplog.text

    def test_an_incompatible_schema_of_a_newer_program_is_refused(self, empty_database: Engine) -> None:
        migrate(empty_database)
        with empty_database.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
            connection.execute(text("UPDATE schema_compatibility SET oldest_revision = '9998'"))
        with pytest.raises(SchemaError, match=r"from revision 9998 on.* Run the newer program"):
            migrate(empty_database)

    def test_the_schema_of_another_program_is_refused(self, empty_database: Engine) -> None:
        migrate(empty_database)
        with empty_database.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0584bdc529eb'"))
            connection.execute(text("DROP TABLE schema_compatibility"))
        with pytest.raises(SchemaError, match="not one of this program's"):
            migrate(empty_database)


class TestModelGroups:
    """Migration 0012, from a schema without groups."""

    def test_groups_are_created_for_existing_models_and_aliases(self, empty_database: Engine) -> None:
        migrate(empty_database, "0011")
        with empty_database.begin() as connection:
            for number, changes in enumerate(
                (
                    {"create_time": "'2026-01-02Z'", "update_time": "'2026-01-03Z'"},
                    {"create_time": "'2026-01-01Z'"},
                    {"project_id": "'p'", "project_name": "''"},
                    {"name": "repeat('x', 5000)"},
                )
            ):
                insert(connection, "models", **numbered(number), **changes)
            insert(connection, "aliases", model_id=f"'{model_id(0)}'")
            insert(connection, "aliases", name="'gone'", project_id="'p'")
            for alias, kind in (("n", "set"), ("gone", "set"), ("gone", "deleted")):
                target = {"model_id": "NULL", "version": "NULL", "sha256": "NULL"} if kind == "deleted" else {}
                insert(
                    connection,
                    "alias_moves",
                    alias_id=f"(SELECT id FROM aliases WHERE name = '{alias}')",
                    kind=f"'{kind}'",
                    revision="1" if kind == "set" else "2",
                    time="'2025-12-31Z'" if kind == "set" else "'2026-01-31Z'",
                    **target,
                )
        migrate(empty_database)
        with empty_database.connect() as connection:
            found = connection.execute(
                text(
                    "SELECT left(name, 5) AS name, project_id, project_name, create_time::date::text AS day,"
                    " coalesce(version_count, 0) AS count FROM model_groups"
                    " LEFT JOIN model_group_counts ON model_group_id = id ORDER BY name, project_id"
                )
            )
            assert [tuple(row) for row in found] == [
                ("gone", "p", None, "2025-12-31", 0),
                ("n", "p", "", "2026-01-01", 1),
                ("n", None, None, "2025-12-31", 2),
                ("xxxxx", None, None, "2026-01-01", 1),
            ]

    def test_alias_history_and_audit_log_stay_unchanged(self, empty_database: Engine) -> None:
        migrate(empty_database, "0011")
        with empty_database.begin() as connection:
            insert(connection, "models")
            insert(connection, "aliases", model_id=MODEL["id"], revision="1")
            insert(connection, "alias_moves", model_id=MODEL["id"])
            insert(connection, "audit_events", alias="'production'", action="'alias.set'")
            insert(connection, "tokens")
            kept = ("aliases", "alias_moves", "tokens", "audit_head", "models")
            before = {table: connection.execute(text(f"SELECT * FROM {table}")).all() for table in kept}
        migrate(empty_database, "0012")
        with empty_database.connect() as connection:
            assert {table: connection.execute(text(f"SELECT * FROM {table}")).all() for table in kept} == before
        migrate(empty_database)
        with empty_database.begin() as connection:
            insert(connection, "audit_events")
        with SqlDatabase(empty_database).transaction() as transaction:
            groups = [event.model_group_id for event in transaction.events.after(0, limit=10)]
            head, broken = transaction.events.verify(LogHead(sequence=0, hash=GENESIS_HASH), limit=10)
            assert (head.sequence, broken) == (2, None)
            [group] = transaction.groups.list(
                GroupQuery(filter=None, show_empty=True, order=parse_group_order(""), after=None, limit=10)
            ).groups
            assert groups == [None, group.id]
            alias = transaction.aliases.find(group.handle, "production").current
            assert alias is not None
            assert alias.target.model_id == MODEL["id"].strip("'")

    def test_replicas_of_the_previous_version_can_write_during_the_migration(self, empty_database: Engine) -> None:
        migrate(empty_database, "0011")
        with empty_database.begin() as connection:
            values = MODEL | {"id": "'before-' || lpad(n::text, 10, '0')", "name": "'n' || n % 5000"}
            values |= {"version": "n::text", "object_key": "n::text"}
            connection.execute(
                text(
                    f"INSERT INTO models ({', '.join(values)}) SELECT {', '.join(values.values())}"
                    " FROM generate_series(1, 20000) AS n"
                )
            )
        is_migrated = Event()

        def write(writer: int) -> int:
            """Register, rename and delete like the previous version: write rows and their events."""
            engine = empty_database.execution_options(isolation_level="READ COMMITTED")
            count = 0
            while not is_migrated.is_set() or count < 10:
                count += 1
                # In an existing group and in a new one.
                names = [f"n{count % 7}", f"new {writer} {count % 5}"]
                mine = numbered(writer * 1_000_000 + count)
                with engine.begin() as connection:
                    insert(connection, "models", **mine, name=f"'{names[0]}'")
                    insert(connection, "audit_events", action="'model.registered'", name=f"'{names[0]}'")
                with engine.begin() as connection:
                    renamed = f"UPDATE models SET name = '{names[1]}' WHERE id = {mine['id']}"
                    connection.execute(text(renamed))
                    before = f"""'{{"name": "{names[0]}"}}'"""
                    insert(connection, "audit_events", name=f"'{names[1]}'", before=before)
                if count % 3 == 0:
                    with engine.begin() as connection:
                        connection.execute(text(f"DELETE FROM models WHERE id = {mine['id']}"))
                        insert(connection, "audit_events", action="'model.deleted'", name=f"'{names[1]}'")
            return count

        with ThreadPoolExecutor(3) as threads:
            writers = [threads.submit(write, number) for number in (1, 2, 3)]
            migrate(empty_database)
            is_migrated.set()
            assert all(writer.result() >= 10 for writer in writers)
        with empty_database.connect() as connection:
            wrong = connection.execute(
                text(
                    "SELECT name, models.count, counts.version_count FROM"
                    " (SELECT name, count(*) FROM models GROUP BY name) AS models"
                    " FULL JOIN (SELECT name, version_count FROM model_groups"
                    "   JOIN model_group_counts ON model_group_id = id) AS counts USING (name)"
                    " WHERE models.count IS DISTINCT FROM counts.version_count"
                )
            )
            assert wrong.all() == []


def model_id(number: int) -> str:
    return f"model-{number:010}"


def numbered(number: int) -> dict[str, str]:
    """Return the unique columns of a model and its version."""
    return {"id": f"'{model_id(number)}'", "object_key": f"'key {number}'", "version": f"'{number}'"}


MODEL: dict[str, str] = {
    "id": "'0123456789abcdef'",
    "name": "'n'",
    "version": "'v'",
    "project_id": "NULL",
    "project_name": "NULL",
    "precision": "'{fp32}'",
    "score": "NULL",
    "labels": "NULL",
    "metrics": "'{}'",
    "tags": "'{}'",
    "provenance": "'{}'",
    "created_date": "''",
    "last_updated_date": "''",
    "create_time": "'2026-01-01Z'",
    "update_time": "'2026-01-01Z'",
    "revision": "1",
    "creator": "''",
    "file_name": "''",
    "media_type": "''",
    "size": "0",
    "sha256": "repeat('0', 64)",
    "file_url": "''",
    "object_key": "'k'",
}
UPLOAD: dict[str, str] = {
    "id": "'u'",
    "spec": "'{}'",
    "state": "'active'",
    "object_key": "'k'",
    "committed_size": "0",
    "epoch": "0",
    "create_time": "now()",
    "expire_time": "now()",
}
PART: dict[str, str] = {"upload_id": "'u'", "number": "1", '"offset"': "0", "size": "1", "receipt": "''"}
TOKEN: dict[str, str] = {
    "id": "'t'",
    "digest": "sha256('t')",
    "name": "'ci'",
    "role": "'writer'",
    "create_time": "'2026-01-01Z'",
}
GROUP: dict[str, str] = {"name": "'n'"}
ALIAS: dict[str, str] = {"name": "'n'", "alias": "'production'", "revision": "0"}
MOVE: dict[str, str] = {
    "alias_id": "(SELECT id FROM aliases)",
    "revision": "1",
    "kind": "'set'",
    "model_id": "'m'",
    "version": "''",
    "sha256": "''",
    "time": "'2026-01-01Z'",
    "actor": "''",
    "reason": "''",
    "request_id": "''",
}
EVENT: dict[str, str] = {
    "actor": "''",
    "request_id": "''",
    "action": "'model.updated'",
    "name": "'n'",
    "model_id": "'m'",
    "alias": "''",
    "reason": "''",
}
HEAD: dict[str, str] = {"sequence": "0", "time": "now()", "hash": "''"}
ROWS = {
    "model_groups": GROUP,
    "tokens": TOKEN,
    "aliases": ALIAS,
    "alias_moves": MOVE,
    "models": MODEL,
    "uploads": UPLOAD,
    "upload_parts": PART,
    "unreferenced_objects": {"object_key": "'k'", "due_time": "now()"},
    "audit_events": EVENT,
    "audit_head": HEAD,
}
NEEDED = {"upload_parts": "uploads", "alias_moves": "aliases"}
OTHER = {"id": "'another-0123456789'", "object_key": "'another'"}


def insert(connection: Connection, table: str, **changes: str) -> None:
    values = ROWS[table] | changes
    connection.execute(text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"))


def prepare(connection: Connection, table: str) -> None:
    """Delete conflicting rows, and insert the rows that a row refers to."""
    if table in NEEDED:
        insert(connection, NEEDED[table])
    if table == "audit_head":
        connection.execute(text("DELETE FROM audit_head"))


def constraint_of(error: IntegrityError) -> str | None:
    assert isinstance(error.orig, psycopg.Error)
    return error.orig.diag.constraint_name


class TestConstraints:
    @pytest.mark.parametrize(
        ("table", "constraint", "changes"),
        [
            *(
                ("models", "ck_models_id", {"id": value})
                for value in ("'short'", "repeat('a', 257)", "'0123456789abcde é'", "E'0123456789abcdef\\n'", "''")
            ),
            ("models", "ck_models_named", {"name": "''"}),
            ("models", "ck_models_named", {"version": "''"}),
            *(
                ("models", "ck_models_precision", {"precision": value})
                for value in ("'{}'", "'{8bit}'", "'{fp32,FP16}'", "'{NULL}'", "'{\"\"}'")
            ),
            *(
                ("models", "ck_models_score_finite", {"score": value})
                for value in ("'NaN'", "'Infinity'", "'-Infinity'")
            ),
            *(("models", "ck_models_labels_array", {"labels": value}) for value in ("'{}'", "'1'", "'null'")),
            *(
                ("models", "ck_models_maps", {name: value})
                for name in ("metrics", "tags", "provenance")
                for value in ("'[]'", "'null'", "'\"x\"'")
            ),
            ("models", "ck_models_revision", {"revision": "0"}),
            ("models", "ck_models_size", {"size": "-1"}),
            *(
                ("models", "ck_models_sha256", {"sha256": value})
                for value in (
                    "''",
                    "repeat('0', 63)",
                    "repeat('A', 64)",
                    "repeat('0', 65)",
                    "repeat('0', 64) || E'\\n'",
                )
            ),
            ("models", "ck_models_times", {"update_time": "'2025-12-31Z'"}),
            ("uploads", "ck_uploads_state", {"state": "'asleep'"}),
            ("uploads", "ck_uploads_committed_size", {"committed_size": "-1"}),
            ("upload_parts", "fk_upload_parts_upload_id", {"upload_id": "'missing'"}),
            ("model_groups", "ck_model_groups_named", {"name": "''"}),
            ("model_groups", "ck_model_groups_revision", {"revision": "0"}),
            *(
                ("model_groups", "ck_model_groups_maps", {name: value})
                for name in ("tags", "metric_goals")
                for value in ("'[]'", "'null'", "'1'")
            ),
            ("aliases", "fk_aliases_model_id", {"model_id": "'missing'"}),
            ("aliases", "ck_aliases_named", {"name": "''"}),
            ("aliases", "ck_aliases_revision", {"revision": "-1"}),
            *(
                ("aliases", "ck_aliases_alias", {"alias": value})
                for value in ("''", "'-a'", "'a b'", "'é'", "repeat('a', 129)", "'latest'", "'LATEST'", "E'a\\n'")
            ),
            ("alias_moves", "fk_alias_moves_alias_id", {"alias_id": "0"}),
            ("alias_moves", "fk_alias_moves_previous", {"revision": "3", "previous": "2"}),
            ("alias_moves", "ck_alias_moves_previous", {"previous": "1"}),
            ("alias_moves", "ck_alias_moves_kind", {"kind": "'moved'"}),
            ("alias_moves", "ck_alias_moves_revision", {"revision": "0"}),
            *(("alias_moves", "ck_alias_moves_target", {name: "NULL"}) for name in ("model_id", "version", "sha256")),
            ("alias_moves", "ck_alias_moves_target", {"kind": "'deleted'"}),
            ("audit_head", "ck_audit_head_only_one", {"id": "2"}),
            *(
                (table, None, {column: "NULL"})
                for table, columns in (
                    ("models", [name for name, value in MODEL.items() if value != "NULL"]),
                    ("uploads", list(UPLOAD)),
                    ("upload_parts", list(PART)),
                    ("unreferenced_objects", ["object_key", "due_time"]),
                    ("model_groups", [*GROUP, "description", "owner", "tags", "metric_goals", "create_time"]),
                    ("aliases", list(ALIAS)),
                    ("alias_moves", [name for name in MOVE if name not in {"model_id", "version", "sha256"}]),
                    # The trigger sets the other columns.
                    ("audit_events", list(EVENT)),
                    ("audit_head", list(HEAD)),
                )
                for column in columns
            ),
        ],
    )
    def test_invalid_rows_are_refused(
        self, engine: Engine, table: str, constraint: str | None, changes: dict[str, str]
    ) -> None:
        with engine.connect() as connection:
            prepare(connection, table)
            savepoint = connection.begin_nested()
            insert(connection, table)  # is valid except for the change
            savepoint.rollback()
            with pytest.raises(IntegrityError) as caught:
                insert(connection, table, **changes)
        assert constraint_of(caught.value) == constraint

    @pytest.mark.parametrize(
        ("table", "constraint", "first", "second"),
        [
            ("models", "pk_models", {}, {"object_key": "'another'", "name": "'another'"}),
            ("models", "uq_models_object_key", {}, {"id": OTHER["id"], "name": "'another'"}),
            ("models", "uq_models_identity", {}, OTHER),
            ("models", "uq_models_identity", {"project_id": "'p'"}, OTHER | {"project_id": "'p'"}),
            ("models", "uq_models_identity", {"project_name": "''"}, OTHER | {"project_name": "''"}),
            ("models", "uq_models_identity", {"name": "repeat('x', 5000)"}, OTHER | {"name": "repeat('x', 5000)"}),
            ("uploads", "pk_uploads", {}, {"object_key": "'another'"}),
            ("uploads", "uq_uploads_object_key", {}, {"id": "'another'"}),
            ("upload_parts", "pk_upload_parts", {}, {}),
            ("unreferenced_objects", "pk_unreferenced_objects", {}, {}),
            ("model_groups", "uq_model_groups_identity", {}, {}),
            ("model_groups", "uq_model_groups_identity", {"project_id": "''"}, {"project_id": "''"}),
            ("aliases", "uq_aliases_identity", {}, {}),
            ("aliases", "uq_aliases_identity", {"project_id": "'p'"}, {"project_id": "'p'"}),
            ("alias_moves", "pk_alias_moves", {}, {"time": "now()"}),
            ("alias_moves", "uq_alias_moves_time", {}, {"revision": "2"}),
            ("audit_head", "pk_audit_head", {}, {}),
        ],
    )
    def test_duplicates_are_refused(
        self, engine: Engine, table: str, constraint: str, first: dict[str, str], second: dict[str, str]
    ) -> None:
        with engine.connect() as connection:
            prepare(connection, table)
            insert(connection, table, **first)
            with pytest.raises(IntegrityError) as caught:
                insert(connection, table, **second)
        assert constraint_of(caught.value) == constraint

    def test_no_two_events_have_one_number(self, engine: Engine) -> None:
        with engine.connect() as connection:
            insert(connection, "audit_events")
            connection.execute(text("CREATE TEMPORARY TABLE copy AS SELECT * FROM audit_events"))
            connection.execute(text("ALTER TABLE copy DROP COLUMN json_bytes"))
            # The trigger would assign another number.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            columns = ", ".join(c.name for c in tables.audit_events.columns if c.computed is None)
            with pytest.raises(IntegrityError) as caught:
                connection.execute(text(f"INSERT INTO audit_events ({columns}) SELECT {columns} FROM copy"))
        assert constraint_of(caught.value) == "pk_audit_events"

    @pytest.mark.parametrize(
        "changes",
        [
            {"project_id": "''"},
            {"project_name": "''"},
            {"precision": "'{fp16}'"},
            {"name": "'N'"},
            {"version": "'v '"},
            {"name": "repeat('x', 4999) || 'y'"},
        ],
    )
    def test_other_identities_are_not_duplicates(self, engine: Engine, changes: dict[str, str]) -> None:
        with engine.connect() as connection:
            insert(connection, "models")
            insert(connection, "models", **OTHER, **changes)
            insert(
                connection,
                "models",
                id="'a-third-0123456789'",
                object_key="'third'",
                name="repeat('x', 4999) || 'z'",
            )

    def test_the_parts_of_an_upload_are_deleted_with_it(self, engine: Engine) -> None:
        with engine.connect() as connection:
            insert(connection, "uploads")
            insert(connection, "upload_parts")
            connection.execute(text("DELETE FROM uploads"))
            assert connection.execute(text("SELECT count(*) FROM upload_parts")).scalar_one() == 0
