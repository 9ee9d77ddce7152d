"""Backups of a running registry, and restorations from them."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import Engine, text

from registry_service.domain.artifact_store import ListableArtifactStore
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import DatabaseUnavailableError, ModelNotFoundError
from registry_service.domain.source_error import SourceError
from registry_service.embedded.postgres import PostgresAddress
from registry_service.services.backup import CopyReport
from registry_service.services.verification import Found
from registry_service.settings import Settings, load
from registry_service.storage.sql.schema import migrate
from registry_service.wiring import Registry, build_verification, open_backup, open_registry, open_restore
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.s3_server import S3Server, new_bucket_name
from tests.stub_client import Client, sha256
from tests.watch_client import Watch


@pytest.fixture(params=["a folder", "an S3"])
def store(request: pytest.FixtureRequest, s3_server: S3Server) -> dict[str, object]:
    """Return the settings of a store; none for a local folder."""
    if request.param == "a folder":
        return {}
    return {
        "artifact_store": "s3",
        "minio_hostname": s3_server.endpoint.host,
        "minio_server_port": s3_server.endpoint.port,
        "minio_access_key": s3_server.endpoint.access_key,
        "minio_secret_key": s3_server.endpoint.secret_key,
        "minio_bucket_name": new_bucket_name(),
    }


@pytest.fixture
def settings_of(
    postgres: PostgresAddress, database_name: str, empty_database: Engine, tmp_path: Path, store: dict[str, object]
) -> Callable[[str], Settings]:
    """The settings of the registry to back up ("source") and of an empty one ("target")."""

    def settings(which: str) -> Settings:
        values: dict[str, object] = {
            "psql_hostname": str(postgres.socket_dir),
            "psql_port": postgres.port,
            "psql_database": database_name if which == "source" else empty_database.url.database,
            "mr_user_name": postgres.user,
            "artifact_store": "local",
            "artifact_dir": tmp_path / ("artifacts" if which == "source" else "restored"),
            **store,
        }
        if which == "target" and "minio_bucket_name" in store:
            values["minio_bucket_name"] = f"{str(store['minio_bucket_name'])[:50]}-target"
        return load(Settings, **values)

    return settings


@pytest.fixture
def source(start_registry: StartRegistry, store: dict[str, object]) -> RunningRegistry:
    """The registry to back up."""
    return start_registry(**store)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def back_up(settings: Settings, folder: Path) -> CopyReport:
    with open_backup(settings, folder) as run:
        return run()


def restore(settings: Settings, folder: Path) -> CopyReport:
    with open_restore(settings, folder) as run:
        return run()


@contextmanager
def restored(settings: Settings) -> Iterator[Registry]:
    with open_registry(settings) as registry:
        yield registry


def findings(registry: Registry) -> list[Found]:
    return [found for found in build_verification(registry).run() if found.finding != "intact"]


def contents(registry: Registry) -> dict[str, bytes]:
    return {
        model.id: b"".join(registry.services.artifacts.read(model.id)[1])
        for page in registry.services.models.find(None)
        for model in page
    }


def rows(engine: Engine, table: str) -> list[Any]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]


# ---- restoration ----


def test_everything_is_restored_unchanged(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, empty_database: Engine
) -> None:
    client = source.client
    one = client.register(
        b"one", name="model", metrics={"mAP50": 0.1 + 0.2}, tags={"a\tb\\n": "\\N\n\r\\."}, score=1e-300
    )
    two = client.register(bytes(9 * 1024 * 1024), name="model", version="2")
    client.update(one.id, score=0.5)
    client.update_group(one.model_group_id, description="a\tb", metric_goals={"mAP50": 1})
    gone = client.register(b"gone", name="gone")
    client.delete(gone.id)
    upload = client.create_upload(name="under way")
    client.write_upload(upload.id, 0, b"not yet a model")
    report = back_up(settings_of("source"), folder)
    assert (report.objects, report.copied, report.problems) == (2, 2, ())
    report = restore(settings_of("target"), folder)
    assert (report.objects, report.copied, report.problems) == (2, 2, ())
    for table in (
        "models",
        "model_groups",
        "model_group_counts",
        "audit_events",
        "audit_head",
        "aliases",
        "alias_moves",
    ):
        assert rows(empty_database, table) == rows(source.engine, table)
    assert rows(empty_database, "uploads") == []
    with restored(settings_of("target")) as registry:
        assert findings(registry) == []
        assert contents(registry) == {one.id: b"one", two.id: bytes(9 * 1024 * 1024)}
        # The verification was of the copies in the backup.
        restored_model = registry.services.models.get(one.id)
        assert restored_model.artifact_verify_time is not None
        assert replace(restored_model, artifact_verify_time=None) == source.parts.services.models.get(one.id)


def test_a_restored_registry_continues_where_the_source_stopped(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, start_registry: StartRegistry
) -> None:
    model = source.client.register(b"one", name="model")
    with Watch(source.client) as watch:
        watch.message()  # the watch has begun
        source.client.update(model.id, score=1)
        watch.event()
        token = watch.token
    source.client.register(b"two", name="model", version="2")
    back_up(settings_of("source"), folder)
    restore(settings_of("target"), folder)
    target = settings_of("target")
    values = target.model_dump(include={"psql_database", "artifact_dir", "minio_bucket_name"})
    client = start_registry(**values).client if target.artifact_store == "local" else None
    if client is None:
        client = start_registry(
            **values,
            **target.model_dump(include={"artifact_store", "minio_hostname", "minio_server_port", "minio_access_key"}),
            minio_secret_key=target.minio_secret_key,
        ).client
    with Watch(client, resume_token=token) as watch:
        assert watch.event().after["version"] == "2"
        client.register(b"three", name="model", version="3")
        assert watch.event().sequence == 4


def test_restored_aliases_continue_with_new_revisions(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, empty_database: Engine
) -> None:
    model = source.client.register(b"one", name="model")
    source.execute("INSERT INTO aliases (name, alias, model_id, revision) SELECT name, 'production', id, 0 FROM models")
    back_up(settings_of("source"), folder)
    restore(settings_of("target"), folder)
    with empty_database.begin() as connection:
        statement = (
            "INSERT INTO aliases (name, alias, model_id, revision) VALUES ('model', 'next', :id, 0) RETURNING id"
        )
        assert connection.execute(text(statement), {"id": model.id}).scalar_one() == 2
        # The triggers of the audit log are back.
        with pytest.raises(Exception, match="can only be added"):
            connection.execute(text("DELETE FROM audit_events"))


# ---- backups under load ----


def test_a_backup_under_load_is_complete(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    for number in range(20):
        source.client.register(bytes([number]) * 100_000, name="there", version=str(number))
    stop = threading.Event()
    done = [0, 0]

    def churn(worker: int) -> None:
        client = Client(source.client.address)
        kept: list[str] = []
        number = 0
        while not stop.is_set():
            number += 1
            kept.append(
                client.register(f"{worker} {number}".encode() * 1000, name=f"load-{worker}", version=str(number)).id
            )
            if len(kept) > 3:
                client.delete(kept.pop(0))
            done[worker] += 1
        client.close()

    def collect_garbage() -> None:
        while not stop.is_set():
            with acting_as_registry():
                source.parts.services.garbage_collector.collect()
            stop.wait(0.01)

    threads = [threading.Thread(target=churn, args=(worker,)) for worker in (0, 1)]
    threads.append(threading.Thread(target=collect_garbage))
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            before = sum(done)
            assert back_up(settings_of("source"), folder).problems == ()
            eventually(lambda before=before: sum(done) > before, what="some load")  # type: ignore[misc]
        report = back_up(settings_of("source"), folder)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    restore(settings_of("target"), folder)
    with restored(settings_of("target")) as registry:
        assert findings(registry) == []
        found = contents(registry)
        assert len(found) == report.objects >= 20
        log = registry.services.audit.verify(report.log_head, lambda: None)
        assert (log.head, log.broken) == (report.log_head, None)
    # The objects of models deleted during the backup are deleted now.
    source.parts.services.garbage_collector.collect()
    assert source.count("unreferenced_objects") == 0
    assert findings(source.parts) == []


def test_objects_are_kept_only_while_a_backup_runs(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    model = source.client.register(b"bytes", name="model")
    key = source.parts.services.models.get(model.id).artifact.object_key
    with open_backup(settings_of("source"), folder) as run, run.copier.lock():
        source.client.delete(model.id)
        with pytest.raises(ModelNotFoundError):
            source.parts.services.models.get(model.id)
        assert source.parts.services.garbage_collector.collect().objects == ()
        assert source.parts.store.size(key) == 5
        assert source.parts.services.garbage_collector.collect(dry_run=True).objects == (key,)
    assert source.parts.services.garbage_collector.collect().objects == (key,)
    assert source.parts.store.size(key) is None


def test_a_killed_backup_keeps_no_objects(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    model = source.client.register(b"bytes", name="model")
    with open_backup(settings_of("source"), folder) as run, run.copier.lock() as check_locked:
        source.client.delete(model.id)
        source.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks"
            " WHERE locktype = 'advisory' AND mode = 'ExclusiveLock' AND granted AND pid <> pg_backend_pid()"
        )
        eventually(
            lambda: len(source.parts.services.garbage_collector.collect().objects) == 1, what="garbage collection"
        )
        with pytest.raises(DatabaseUnavailableError):
            check_locked()


def test_a_second_backup_copies_new_objects_and_drops_old_ones(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    one, two = (source.client.register(bytes([n]) * 1000, name="model", version=str(n)) for n in (1, 2))
    back_up(settings_of("source"), folder)
    source.client.delete(one.id)
    three = source.client.register(b"three", name="model", version="3")
    report = back_up(settings_of("source"), folder)
    assert (report.objects, report.copied, report.copied_bytes) == (2, 1, 5)
    assert len([path for path in (folder / "objects" / "artifacts").iterdir() if path.is_file()]) == 2
    assert len(list(folder.glob("database-*"))) == 1
    restore(settings_of("target"), folder)
    with restored(settings_of("target")) as registry:
        assert contents(registry) == {two.id: bytes([2]) * 1000, three.id: b"three"}


# ---- errors ----


def test_a_damaged_or_missing_object_is_reported_and_does_not_stop_the_backup(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    keys = []
    for version in ("1", "2", "3"):
        model = source.client.register(b"bytes", name="model", version=version)
        keys.append(source.parts.services.models.get(model.id).artifact.object_key)
    source.parts.store.put(keys[0], b"other")
    source.parts.store.delete(keys[1])
    report = back_up(settings_of("source"), folder)
    assert report.copied == 1
    assert sorted(problem.split(" is ")[0] for problem in report.problems) == sorted(keys[:2])
    assert len(restore(settings_of("target"), folder).problems) == 2
    with restored(settings_of("target")) as registry:
        assert {found.finding for found in findings(registry)} == {"missing"}


def test_an_interrupted_run_leaves_the_previous_backup_intact(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    model = source.client.register(b"one", name="model")
    back_up(settings_of("source"), folder)
    source.client.register(b"two", name="model", version="2")
    with open_backup(settings_of("source"), folder) as run:
        object.__setattr__(run, "store", None)
        with pytest.raises(AttributeError):
            run()
    restore(settings_of("target"), folder)
    with restored(settings_of("target")) as registry:
        assert contents(registry) == {model.id: b"one"}


def test_an_interrupted_restoration_can_be_repeated(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    model = source.client.register(b"one", name="model")
    back_up(settings_of("source"), folder)
    with open_restore(settings_of("target"), folder) as run:
        object.__setattr__(run, "copier", Breaking(run.copier))
        with pytest.raises(ConnectionError):
            run()
    assert restore(settings_of("target"), folder).copied == 0
    with restored(settings_of("target")) as registry:
        assert contents(registry) == {model.id: b"one"}


class Breaking:
    """A copier that fails before it restores the database."""

    def __init__(self, copier: Any) -> None:
        self.check_target = copier.check_target

    def restore(self, *_: object) -> None:
        raise ConnectionError


class BreakingLate:
    """A copier that fails after it has restored all rows."""

    def __init__(self, copier: Any) -> None:
        self.check_target = copier.check_target
        self.restore = copier.restore

    def finish(self, **_: object) -> None:
        raise ConnectionError


def test_a_restoration_interrupted_after_its_rows_can_be_repeated(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, tmp_path: Path
) -> None:
    model = source.client.register(b"one", name="model")
    back_up(settings_of("source"), folder)
    source.client.register(b"two", name="model", version="2")
    back_up(settings_of("source"), tmp_path / "another")
    with open_restore(settings_of("target"), folder) as run:
        object.__setattr__(run, "copier", BreakingLate(run.copier))
        with pytest.raises(ConnectionError):
            run()
    with pytest.raises(SourceError, match="is not empty"):
        restore(settings_of("target"), tmp_path / "another")
    assert restore(settings_of("target"), folder).problems == ()
    with restored(settings_of("target")) as registry:
        assert contents(registry) == {model.id: b"one"}
    with pytest.raises(SourceError, match="is not empty"):
        restore(settings_of("target"), folder)


# ---- damaged backups ----


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "objects" / "artifacts").rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["a bit", "shorter", "gone"])
def test_the_next_backup_repairs_a_damaged_copy(
    damage: str, source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    one, two = (source.client.register(bytes([n]) * 1000, name="model", version=str(n)) for n in (1, 2))
    back_up(settings_of("source"), folder)
    damaged = files_of(folder)[0]
    match damage:
        case "a bit":
            flip(damaged)
        case "shorter":
            damaged.write_bytes(b"")
        case _:
            damaged.unlink()
    report = back_up(settings_of("source"), folder)
    assert (report.copied, report.copied_bytes, report.problems) == (1, 1000, ())
    assert len(report.mended) == (damage != "gone")
    assert all(damaged.name in told for told in report.mended)
    assert restore(settings_of("target"), folder).problems == ()
    with restored(settings_of("target")) as registry:
        assert contents(registry) == {one.id: bytes([1]) * 1000, two.id: bytes([2]) * 1000}


def test_copies_are_trusted_on_request(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    source.client.register(b"bytes", name="model")
    back_up(settings_of("source"), folder)
    flip(files_of(folder)[0])
    with open_backup(settings_of("source"), folder, is_thorough=False) as run:
        assert run().copied == 0
    with open_backup(settings_of("source"), folder) as run:
        assert run().copied == 1


@pytest.mark.parametrize("name", ["manifest.json", "models.copy", "objects.tsv"])
def test_the_next_backup_reports_damaged_metadata_of_the_backup(
    name: str, source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    source.client.register(b"bytes", name="model")
    back_up(settings_of("source"), folder)
    flip(next(folder.rglob(name)))
    with pytest.raises(SourceError):
        restore(settings_of("target"), folder)
    report = back_up(settings_of("source"), folder)
    assert len(report.mended) == 1
    assert back_up(settings_of("source"), folder).mended == ()
    assert restore(settings_of("target"), folder).problems == ()


def test_a_backup_without_an_object_is_refused_before_anything_is_written(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, empty_database: Engine
) -> None:
    models = [source.client.register(bytes([n]) * 1000, name="model", version=str(n)) for n in range(3)]
    back_up(settings_of("source"), folder)
    flip(files_of(folder)[1])
    for _ in range(2):
        with pytest.raises(SourceError, match=f"1 objects of the backup.*{files_of(folder)[1].name}"):
            restore(settings_of("target"), folder)
        with empty_database.connect() as connection:
            assert connection.execute(text("SELECT to_regclass('models')")).scalar_one() is None
        with open_restore(settings_of("target"), folder) as run:
            assert not [found for found in models if run.store.size(f"artifacts/{found.id}") is not None]
            assert list(cast("ListableArtifactStore", run.store).keys()) == []
    back_up(settings_of("source"), folder)
    assert restore(settings_of("target"), folder).copied == 3


def test_an_accepted_loss_is_restored_later_from_a_repaired_backup(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    source.client.register(b"one", name="model")
    source.client.register(b"two", name="model", version="2")
    back_up(settings_of("source"), folder)
    damaged = files_of(folder)[0]
    intact = damaged.read_bytes()
    flip(damaged)
    for _ in range(2):
        with open_restore(settings_of("target"), folder, accepts_damage=True) as run:
            assert len(run().problems) == 1
    damaged.write_bytes(intact)
    assert restore(settings_of("target"), folder).problems == ()
    with restored(settings_of("target")) as registry:
        assert sorted(contents(registry).values()) == [b"one", b"two"]


def test_a_damaged_object_in_the_target_store_is_replaced(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    model = source.client.register(b"bytes", name="model")
    back_up(settings_of("source"), folder)
    key = source.parts.services.models.get(model.id).artifact.object_key
    with open_restore(settings_of("target"), folder) as run:
        run.store.put(key, b"bytez")
    report = restore(settings_of("target"), folder)
    assert (report.copied, len(report.mended)) == (1, 1)
    with restored(settings_of("target")) as registry:
        assert contents(registry) == {model.id: b"bytes"}


def test_the_next_run_removes_the_leftovers_of_killed_ones(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    model = source.client.register(b"bytes", name="model")
    key = source.parts.services.models.get(model.id).artifact.object_key
    back_up(settings_of("source"), folder)
    (folder / "database-20200101T000000000000Z").mkdir()
    (folder / "manifest.json.new").write_text("{")
    for leftover in ("artifacts+gone~0123.put", f"{key.replace('/', '+')}~0123.put"):
        (folder / "objects" / ".partial" / leftover).write_bytes(b"half")
    (folder / "objects" / "models" / "gone").mkdir(parents=True)
    back_up(settings_of("source"), folder)
    assert {str(path.relative_to(folder / "objects")) for path in (folder / "objects").rglob("*")} == {
        ".partial",
        "artifacts",
        key,
    }
    assert len(list(folder.iterdir())) == 3
    with open_restore(settings_of("target"), folder) as run:
        handle = run.store.begin(key)
        run.store.write_part(key, handle, number=1, offset=0, pieces=[b"half"])
    assert restore(settings_of("target"), folder).copied == 1
    target = settings_of("target").artifact_dir
    assert target is None or list((target / ".partial").glob("*~*")) == []


def test_a_backup_is_restored_only_into_an_empty_database(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, empty_database: Engine
) -> None:
    source.client.register(b"one", name="model")
    back_up(settings_of("source"), folder)
    with pytest.raises(SourceError, match="is not empty"):
        restore(settings_of("source"), folder)
    migrate(empty_database, "0003")
    with pytest.raises(SourceError, match="is at revision 0003"):
        restore(settings_of("target"), folder)
    migrate(empty_database)
    assert restore(settings_of("target"), folder).problems == ()


def test_a_database_of_a_newer_program_is_not_backed_up(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    source.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SourceError, match="9999, of a newer program"):
        back_up(settings_of("source"), folder)


NEWER_COLUMNS = {"models": {"artifact_kind", "description"}, "audit_events": {"model_group_id"}}
"""By table, since the schema that the test goes back to."""


def test_a_backup_of_an_older_schema_is_upgraded(
    settings_of: Callable[[str], Settings], folder: Path, empty_database: Engine, source: RunningRegistry
) -> None:
    source.client.register(b"one", name="model")
    # Later migrations added them.
    source.execute("ALTER TABLE models DROP COLUMN description")
    source.execute("ALTER TABLE audit_events DROP COLUMN model_group_id")
    source.execute("DROP TABLE model_group_counts, model_groups")
    back_up(settings_of("source"), folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["revision"] = "0005"
    manifest["format"] = 1
    del manifest["sha256"], manifest["lacking"]
    # Later migrations added them.
    newer = {"tokens", "deleted_models", "model_groups", "model_group_counts"}
    manifest["tables"] = [table for table in manifest["tables"] if table["name"] not in newer]
    for name, columns in NEWER_COLUMNS.items():
        [table] = [table for table in manifest["tables"] if table["name"] == name]
        older = [i for i, column in enumerate(table["columns"]) if column not in columns]
        [copied] = folder.glob(f"database-*/{name}.copy")
        lines = [line.split("\t") for line in copied.read_text().removesuffix("\n").split("\n")]
        copied.write_text("".join("\t".join(line[i] for i in older) + "\n" for line in lines))
        table["columns"] = [table["columns"][i] for i in older]
        manifest["files"][f"{name}.copy"] = sha256(copied.read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest))
    restore(settings_of("target"), folder)
    with empty_database.begin() as connection:
        groups = connection.execute(
            text("SELECT name, version_count FROM model_groups JOIN model_group_counts ON model_group_id = id")
        )
        assert groups.all() == [("model", 1)]
        connection.execute(text("ALTER TABLE models DROP COLUMN description"))
    assert rows(empty_database, "models") == rows(source.engine, "models")


@pytest.mark.parametrize(
    "damage",
    [
        "no manifest",
        "no table",
        "a changed table",
        "another folder",
        "no JSON",
        "a format",
        "a changed value",
        "no hash",
    ],
)
def test_a_damaged_backup_is_refused_before_anything_changes(
    damage: str, source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path, empty_database: Engine
) -> None:
    source.client.register(b"one", name="model")
    back_up(settings_of("source"), folder)
    manifest = folder / "manifest.json"
    database = next(folder.glob("database-*"))
    values = json.loads(manifest.read_text())
    match damage:
        case "no manifest":
            manifest.unlink()
        case "no table":
            (database / "models.copy").unlink()
        case "a changed table":
            (database / "models.copy").write_bytes(b"\n")
        case "another folder":
            manifest.write_text(json.dumps(values | {"database": "../elsewhere"}))
        case "no JSON":
            manifest.write_text("{")
        case "a changed value":
            manifest.write_text(json.dumps(values | {"revision": "0007"}))
        case "no hash":
            manifest.write_text(json.dumps({name: value for name, value in values.items() if name != "sha256"}))
        case _:
            manifest.write_text(json.dumps(values | {"format": 3}))
    with pytest.raises(SourceError):
        restore(settings_of("target"), folder)
    with empty_database.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('models')")).scalar_one() is None


def test_a_folder_without_a_backup_is_not_touched(
    source: RunningRegistry, settings_of: Callable[[str], Settings], folder: Path
) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(SourceError, match=r"thesis\.txt"):
        back_up(settings_of("source"), folder)
    assert (folder / "thesis.txt").read_text() == "irreplaceable"
    shutil.rmtree(folder)


# ---- verify ----


def test_damaged_missing_and_unknown_objects_are_found(source: RunningRegistry) -> None:
    with ExitStack() as stack:
        models = [source.client.register(b"bytes" * n, name="model", version=str(n)) for n in range(1, 5)]
        keys = [source.parts.services.models.get(model.id).artifact.object_key for model in models]
        upload = source.client.create_upload(name="under way")
        source.client.write_upload(upload.id, 0, b"not yet a model")
        stack.callback(source.client.cancel_upload, upload.id)
        assert findings(source.parts) == []
        source.parts.store.put(keys[0], b"bytez")
        source.parts.store.put(keys[1], b"short")
        source.parts.store.delete(keys[2])
        source.parts.store.put("artifacts/left-behind", b"left")
        source.parts.store.put("somebody/elses", b"not ours")
        found = {item.subject: item.finding.value for item in findings(source.parts)}
        assert found == {
            models[0].id: "damaged",
            models[1].id: "damaged",
            models[2].id: "missing",
            "artifacts/left-behind": "unreferenced",
        }


def test_a_tampered_log_is_found(source: RunningRegistry) -> None:
    source.client.register(b"bytes", name="model")
    source.execute("ALTER TABLE audit_events DISABLE TRIGGER USER; UPDATE audit_events SET actor = 'nobody'")
    assert [(item.subject, item.finding.value) for item in findings(source.parts)] == [("audit log", "broken")]
