"""Importing an Intel deployment."""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from registry_service.compat.documents import document
from registry_service.domain.errors import ArtifactStoreUnavailableError, ModelNotFoundError
from registry_service.domain.models import Model, ModelFields, ModelSpec
from registry_service.domain.source_error import SourceError
from registry_service.intel_migration.imports import ACTOR, ModelImportResult, Outcome
from registry_service.settings import IntelSourceSettings, Settings, load
from registry_service.wiring import Registry, open_intel_import, open_registry
from tests.intel_deployment import IDS, OBJECTS, TWIN, IntelDeployment
from tests.s3_server import S3Server, new_bucket_name

BASE = "put-base-0000000001"
OTHER = "put-other-000000002"


class Target:
    """The registry that imports the deployment."""

    def __init__(self, settings: Settings, registry: Registry, intel: IntelDeployment) -> None:
        self.settings = settings
        self.registry = registry
        self._intel = intel

    def import_models(
        self, *, copy: bool = False, dry_run: bool = False, **source: object
    ) -> dict[str, ModelImportResult]:
        loaded = load(IntelSourceSettings, **(self._intel.settings() | self._intel.s3_settings() | source))
        with open_intel_import(self.registry, self.settings, loaded, copy=copy) as intel_import:
            return {result.model_id: result for result in intel_import.run(dry_run=dry_run)}

    def get(self, model_id: str) -> Model:
        return self.registry.services.models.get(model_id)

    def download(self, model_id: str) -> bytes:
        return b"".join(self.registry.services.artifacts.read(model_id)[1])

    def ids(self) -> list[str]:
        return [model.id for page in self.registry.services.models.find(None) for model in page]

    def events(self) -> list[Any]:
        return list(self.registry.services.audit.list(filter="", size=1000, token="")[0])


@contextmanager
def running_target(intel: IntelDeployment, database_name: str, **settings: object) -> Iterator[Target]:
    """Open a registry, by default on the bucket of the Intel deployment."""
    values: dict[str, object] = {
        "psql_hostname": str(intel.address.socket_dir),
        "psql_port": intel.address.port,
        "psql_database": database_name,
        "mr_user_name": intel.address.user,
        "minio_hostname": intel.endpoint.host,
        "minio_server_port": intel.endpoint.port,
        "minio_access_key": intel.endpoint.access_key,
        "minio_secret_key": intel.endpoint.secret_key,
        "minio_bucket_name": intel.bucket,
    }
    loaded = load(Settings, **(values | settings))
    with open_registry(loaded) as registry:
        yield Target(loaded, registry, intel)


@pytest.fixture
def target(intel: IntelDeployment, database_name: str) -> Iterator[Target]:
    """A registry on the bucket of the Intel deployment."""
    with running_target(intel, database_name) as target:
        yield target


@pytest.fixture(scope="module")
def imported(intel_template: IntelDeployment, module_database_name: str) -> Iterator[Target]:
    """A registry that has imported the deployment, which several tests only read."""
    with running_target(intel_template, module_database_name) as target:
        target.import_models()
        yield target


@pytest.fixture
def few_models(intel: IntelDeployment) -> None:
    """Leave three models in the Intel deployment, of which two are duplicates."""
    intel.keep_models(BASE, OTHER, TWIN)


def outcomes(results: Mapping[str, ModelImportResult]) -> Counter[Outcome]:
    return Counter(result.outcome for result in results.values())


def shown(target: Target, model_id: str, *names: str) -> dict[str, object]:
    found = document(target.get(model_id))
    return {name: found[name] for name in names}


# ---- imported models ----


def test_every_model_is_imported_except_duplicates(target: Target, intel: IntelDeployment) -> None:
    before = intel.state()
    found = target.import_models()
    assert sorted(found) == IDS
    assert outcomes(found) == {Outcome.IMPORTED: 15, Outcome.FAILED: 1}
    assert not any(result.copied for result in found.values())
    reason = (
        "The model proj-1/Other%20model:7 with the precisions fp16 is already registered."
        " Its id is 'put-other-000000002'."
    )
    assert (found[TWIN].outcome, found[TWIN].reason) == (Outcome.FAILED, reason)
    assert target.ids() == [model_id for model_id in IDS if model_id != TWIN]
    assert intel.state() == before


def test_artifacts_stay_in_their_place_and_are_hashed(imported: Target) -> None:
    for key, path in OBJECTS.items():
        model_id = key.partition("/")[0]
        if model_id == TWIN:
            continue
        assert imported.get(model_id).artifact.object_key == key
        assert imported.get(model_id).artifact.file_url == f"minio://model-registry/{key}"
        assert imported.download(model_id) == path.read_bytes()
        assert imported.registry.services.artifacts.verify(model_id).intact


def test_a_changed_model_is_shown_as_in_the_intel_deployment(imported: Target) -> None:
    assert document(imported.get(BASE)) == {
        "id": BASE,
        "name": "Changed before the failure",
        "target_device": "NPU",
        "created_date": "2023-01-02 03:04:05",
        "last_updated_date": "2026-11-23 05:27:20.642091 UTC",
        "precision": ["fp16"],
        "size": 77,
        "version": "3",
        "format": "tflite",
        "origin": "also changed",
        "file_url": f"minio://model-registry/{BASE}/model.zip",
        "project_id": "proj-2",
        "project_name": "Project Two",
        "category": "Segmentation",
        "target_device_type": "client",
        "score": 1e-07,
        "overview": {"d": 1},
        "optimization_capabilities": {"optimization": "speed"},
        "labels": ["x", "y"],
        "architecture": "ﬁ",
    }
    assert imported.get(BASE).artifact.size == 1295


def test_a_model_from_geti_is_shown_as_in_the_intel_deployment(imported: Target) -> None:
    assert document(imported.get("66c10000000000000000a111")) == {
        "id": "66c10000000000000000a111",
        "name": "YOLOX-S OpenVINO FP16",
        "target_device": "CPU",
        "created_date": "2025-07-01T10:20:30.405000+00:00",
        "last_updated_date": "2026-11-23 05:27:21.071000 UTC",
        "precision": ["FP16"],
        "size": 18350080,
        "version": "1",
        "format": "openvino",
        "origin": "Geti",
        "file_url": "minio://model-registry/66c10000000000000000a111/cattle-detection-v12.zip",
        "project_id": "65f0a1b2c3d4e5f600000001",
        "project_name": "Cattle Detection v1.2",
        "category": "Detection",
        "target_device_type": "None",
        "score": 0.79,
        "overview": None,
        "optimization_capabilities": {"is_nncf_supported": False},
        "labels": [
            {"id": "65f0a1b2c3d4e5f6000001a0", "name": "cow", "is_empty": False, "color": "#25a18eff"},
            {"id": "65f0a1b2c3d4e5f6000001a1", "name": "sheep", "is_empty": False, "color": "#f15b85ff"},
        ],
        "architecture": "YOLOX-S",
    }


def test_a_model_that_breaks_the_lists_of_the_intel_deployment_is_imported(imported: Target) -> None:
    assert shown(imported, "legacy-poison-0001", "name", "overview") == {
        "name": "Poisoned",
        "overview": {"reviewed": True},
    }


def test_unusual_texts_and_unset_fields_stay_unchanged(imported: Target) -> None:
    assert shown(imported, "00-filter-000000007", "name", "version", "project_id", "project_name") == {
        "name": "模型 É",
        "version": "\uff11",
        "project_id": None,
        "project_name": "None",
    }
    assert shown(imported, "Zz-filter-000000008", "version", "created_date", "last_updated_date", "overview") == {
        "version": "1 ",
        "created_date": "2026-11-23 05:27:18.773000 UTC",
        "last_updated_date": "2026-11-23 05:27:18.773000 UTC",
        "overview": {},
    }
    assert shown(imported, "a-filter-0000000009", "labels", "format", "precision") == {
        "labels": [],
        "format": None,
        "precision": ["fp32"],
    }


def test_imported_models_have_events_of_their_registration(imported: Target) -> None:
    events = imported.events()
    assert {(event.action, event.actor) for event in events} == {("model.registered", ACTOR)}
    assert len(events) == 15
    assert {imported.get(model_id).creator for model_id in imported.ids()} == {ACTOR}
    assert imported.registry.services.audit.verify(None, lambda: None).broken is None


def test_a_dry_run_reports_the_same_and_changes_nothing(target: Target) -> None:
    told = target.import_models(dry_run=True)
    assert (target.ids(), target.events()) == ([], [])
    done = target.import_models()
    assert {name: found.outcome for name, found in told.items()} == {n: found.outcome for n, found in done.items()}


# ---- repeated runs ----


def test_a_second_run_changes_nothing(target: Target, intel: IntelDeployment) -> None:
    target.import_models()
    before = [target.get(model_id) for model_id in target.ids()], target.events(), intel.state()
    assert outcomes(target.import_models()) == {Outcome.UNCHANGED: 15, Outcome.FAILED: 1}
    assert ([target.get(model_id) for model_id in target.ids()], target.events(), intel.state()) == before


@pytest.mark.usefixtures("few_models")
def test_a_later_change_in_the_source_is_imported(target: Target, intel: IntelDeployment) -> None:
    target.import_models()
    intel.set_tag(BASE, "score", "0.5")
    intel.set_tag(BASE, "last_updated_date", "2026-11-24 01:02:03.000004 UTC")
    found = target.import_models()
    assert found[BASE].outcome is Outcome.UPDATED
    assert shown(target, BASE, "score", "last_updated_date", "size") == {
        "score": 0.5,
        "last_updated_date": "2026-11-24 01:02:03.000004 UTC",
        "size": 77,
    }
    assert target.get(BASE).revision == 2
    assert (target.events()[0].action, target.events()[0].actor) == ("model.updated", ACTOR)
    assert target.import_models()[BASE].outcome is Outcome.UNCHANGED


@pytest.mark.usefixtures("few_models")
def test_a_model_registered_anew_in_the_source_is_hashed_again(target: Target, intel: IntelDeployment) -> None:
    target.import_models()
    intel.s3.put_object(intel.bucket, f"{BASE}/model.zip", io.BytesIO(b"another"), 7)
    intel.execute("UPDATE registered_models SET creation_time = creation_time + 60000 WHERE name = %s", BASE)
    assert target.import_models()[BASE].outcome is Outcome.UPDATED
    assert target.download(BASE) == b"another"
    assert target.registry.services.artifacts.verify(BASE).intact


def test_changes_and_deletions_in_the_target_are_kept(target: Target, intel: IntelDeployment) -> None:
    target.import_models(copy=True)
    target.registry.services.models.update(BASE, {"score": 0.25})
    target.registry.services.models.delete("put-twin-a-00000001")
    intel.set_tag(BASE, "score", "0.5")
    found = target.import_models(copy=True)
    assert (found[BASE].outcome, found["put-twin-a-00000001"].outcome) == (Outcome.KEPT, Outcome.KEPT)
    assert target.get(BASE).score == 0.25
    with pytest.raises(ModelNotFoundError):
        target.get("put-twin-a-00000001")


@pytest.mark.usefixtures("few_models")
def test_a_model_deleted_in_the_source_is_reported_and_kept(target: Target, intel: IntelDeployment) -> None:
    target.import_models()
    intel.execute("DELETE FROM registered_model_tags WHERE name = %s", BASE)
    intel.execute("DELETE FROM registered_models WHERE name = %s", BASE)
    found = target.import_models()
    assert (found[BASE].outcome, found[BASE].reason) == (Outcome.KEPT, "is no longer in the Intel deployment.")
    assert target.get(BASE).id == BASE


@pytest.mark.usefixtures("few_models")
def test_a_duplicate_is_imported_after_the_other_model_is_renamed(target: Target) -> None:
    target.import_models()
    target.registry.services.models.update("put-other-000000002", {"version": "7-fp16"})
    found = target.import_models()
    assert found[TWIN].outcome is Outcome.IMPORTED
    assert found["put-other-000000002"].outcome is Outcome.KEPT
    assert shown(target, TWIN, "version", "precision") == {"version": "7", "precision": ["FP16"]}


def test_an_interrupted_run_is_continued(target: Target, intel: IntelDeployment) -> None:
    loaded = load(IntelSourceSettings, **(intel.settings() | intel.s3_settings()))
    with open_intel_import(target.registry, target.settings, loaded, copy=False) as intel_import:
        running = intel_import.run()
        for _ in range(5):
            next(running)
        running.close()
    assert outcomes(target.import_models())[Outcome.FAILED] == 1
    assert len(target.ids()) == 15


# ---- objects ----


def test_changes_to_a_copy_do_not_affect_the_source(target: Target, intel: IntelDeployment) -> None:
    found = target.import_models(copy=True)
    assert {model_id for model_id, result in found.items() if result.copied} == set(IDS) - {TWIN}
    for model_id in target.ids():
        artifact = target.get(model_id).artifact
        assert artifact.object_key.startswith("artifacts/")
        assert target.download(model_id) == OBJECTS[f"{model_id}/{artifact.file_name}"].read_bytes()
        target.registry.services.models.delete(model_id)
    left = {left.object_name for left in intel.s3.list_objects(intel.bucket, recursive=True)}
    assert left == set(OBJECTS)


def test_deleting_a_model_imported_in_place_deletes_only_its_object(target: Target, intel: IntelDeployment) -> None:
    target.import_models()
    target.registry.services.garbage_collector.collect()
    target.registry.services.models.delete(BASE)
    target.registry.services.garbage_collector.collect()
    left = {found.object_name for found in intel.s3.list_objects(intel.bucket, recursive=True)}
    assert left == set(OBJECTS) - {f"{BASE}/model.zip"}


@pytest.mark.usefixtures("few_models")
def test_a_due_object_is_kept_once_a_model_refers_to_it(target: Target, engine: Engine) -> None:
    key = f"{BASE}/model.zip"
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO unreferenced_objects VALUES (:key, now())"), {"key": key})
    target.import_models()
    target.registry.services.garbage_collector.collect()
    assert target.download(BASE) == OBJECTS[key].read_bytes()


@pytest.mark.usefixtures("few_models")
def test_an_object_with_an_unusable_key_is_copied(target: Target, intel: IntelDeployment) -> None:
    key = f"{BASE}/modèle n° 1.zip"
    intel.s3.put_object(intel.bucket, key, io.BytesIO(b"zip"), 3)
    intel.set_tag(BASE, "file_url", f"minio://model-registry/{key}")
    found = target.import_models()
    assert (found[BASE].outcome, found[BASE].copied) == (Outcome.IMPORTED, True)
    assert target.get(BASE).artifact.file_name == "modèle n° 1.zip"
    assert target.get(BASE).artifact.file_url == f"minio://model-registry/{key}"
    assert target.download(BASE) == b"zip"


@pytest.mark.parametrize("to", ["a folder", "another bucket"])
def test_artifacts_are_copied_to_another_store(
    to: str, intel: IntelDeployment, database_name: str, tmp_path: Path
) -> None:
    elsewhere: dict[str, object] = {"minio_bucket_name": new_bucket_name()}
    if to == "a folder":
        elsewhere = {"artifact_store": "local", "artifact_dir": tmp_path / "artifacts"}
    before = intel.state()
    with running_target(intel, database_name, **elsewhere) as target:
        assert outcomes(target.import_models()) == {Outcome.IMPORTED: 15, Outcome.FAILED: 1}
        for model_id in target.ids():
            model = target.get(model_id)
            assert target.download(model_id) == OBJECTS[f"{model_id}/{model.artifact.file_name}"].read_bytes()
        assert outcomes(target.import_models()) == {Outcome.UNCHANGED: 15, Outcome.FAILED: 1}
        assert intel.state() == before


# ---- broken sources ----


@pytest.mark.usefixtures("few_models")
@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("name", None, "name: must not be empty."),
        ("version", "", "version: must not be empty."),
        ("precision", "['fp 64']", "precisions[0]: must be 1 to 32"),
        ("precision", "fp32", "precision: must be a list"),
        ("score", "good", "score: must be a number"),
        ("score", "nan", "score: must be a finite number"),
        ("size", "-1", "size: must be from 0"),
        ("size", "1.5", "size: must be a number"),
        ("overview", '{"description": "cut o', "overview: must be JSON"),
        ("overview", "__import__('os').system('true')", None),
        ("overview", "[1, 2]", "overview: must be an object or a string"),
        ("overview", "[" * 2500 + "]" * 2500, "overview: "),
        ("labels", "{'a': 1}", "labels: must be a list"),
        ("labels", "[1]", "labels[0]: must be a string or an object"),
        ("file_url", None, "file_url: must be minio://"),
        ("file_url", "minio://model-registry/put-other-000000002/model.zip", "file_url: must be minio://"),
        ("file_url", f"minio://model-registry/{BASE}/../../etc/passwd", "file_url: must be minio://"),
        ("file_url", f"minio://model-registry/{BASE}/..", "file_url: must be minio://"),
        ("file_url", f"minio://model-registry/{BASE}/gone.zip", f"the bucket has no {BASE}/gone.zip"),
        ("id", "another-id-00000001", "id: differs from the id in the tags"),
    ],
)
def test_a_model_that_cannot_be_imported_is_reported_and_does_not_stop_the_run(
    key: str, value: str | None, reason: str | None, target: Target, intel: IntelDeployment
) -> None:
    intel.set_tag(BASE, key, value)
    for dry_run in (True, False):
        found = target.import_models(dry_run=dry_run)
        if reason is None:  # a text stays a text
            assert found[BASE].outcome is Outcome.IMPORTED
        else:
            assert found[BASE].outcome is Outcome.FAILED
            assert reason in found[BASE].reason
        assert (found[OTHER].outcome, found[TWIN].outcome) == (Outcome.IMPORTED, Outcome.FAILED)
    assert target.ids() == ([BASE, OTHER] if reason is None else [OTHER])


@pytest.mark.usefixtures("few_models")
def test_a_missing_object_is_reported_and_imported_once_it_is_back(target: Target, intel: IntelDeployment) -> None:
    key = f"{BASE}/model.zip"
    intel.s3.remove_object(intel.bucket, key)
    assert f"the bucket has no {key}" in target.import_models()[BASE].reason
    intel.s3.put_object(intel.bucket, key, io.BytesIO(b"back"), 4)
    assert target.import_models()[BASE].outcome is Outcome.IMPORTED


@pytest.mark.usefixtures("few_models")
def test_a_model_of_another_origin_is_not_touched(target: Target) -> None:
    spec = ModelSpec(fields=ModelFields(name="mine", version="1"), id=BASE)
    target.registry.services.models.register(spec, [b"mine"], lambda: None)
    found = target.import_models()
    assert found[BASE].outcome is Outcome.FAILED
    assert "another model" in found[BASE].reason
    assert target.download(BASE) == b"mine"


@pytest.mark.usefixtures("few_models")
def test_invalid_ids_are_reported(target: Target, intel: IntelDeployment) -> None:
    intel.execute("INSERT INTO registered_models VALUES ('short', 1, 1, NULL), ('../../../etc/passwd', 1, 1, NULL)")
    found = target.import_models()
    assert {found["short"].outcome, found["../../../etc/passwd"].outcome} == {Outcome.FAILED}
    assert "id: must be 16 to 256 characters" in found["short"].reason


@pytest.mark.usefixtures("few_models")
def test_duplicates_in_a_source_without_constraints_are_reported(target: Target, intel: IntelDeployment) -> None:
    intel.execute("ALTER TABLE registered_models DROP CONSTRAINT registered_model_pk CASCADE")
    intel.execute("INSERT INTO registered_models SELECT * FROM registered_models WHERE name = %s", BASE)
    assert "more than once" in target.import_models()[BASE].reason


def test_more_models_than_a_page_are_all_imported(target: Target, intel: IntelDeployment) -> None:
    intel.execute("INSERT INTO registered_models SELECT 'empty-model-' || n, 1, 1 FROM generate_series(1000, 2200) n")
    found = target.import_models(dry_run=True)
    assert len(found) == 16 + 1201


def test_an_invalid_source_is_named(target: Target, intel: IntelDeployment, database_name: str) -> None:
    with pytest.raises(SourceError, match="not that of an Intel deployment"):
        target.import_models(source_psql_database=database_name)
    with pytest.raises(SourceError, match=r"cannot be read.*does not exist"):
        target.import_models(source_psql_database="nowhere")
    with pytest.raises(SourceError, match="cannot be read"):
        target.import_models(source_psql_hostname="127.0.0.1", source_psql_port=1, source_psql_password="marker")
    with pytest.raises(SourceError, match="no bucket 'nowhere'"):
        target.import_models(source_minio_bucket_name="nowhere")


def test_the_error_about_wrong_s3_keys_does_not_show_them(
    target: Target, intel: IntelDeployment, s3_server: S3Server
) -> None:
    s3_server.require("credentials")
    with pytest.raises((SourceError, ArtifactStoreUnavailableError)) as caught:
        target.import_models(source_minio_secret_key="wrong-secret-marker")
    assert "marker" not in str(caught.value)


def test_the_source_is_read_in_read_only_transactions(target: Target, intel: IntelDeployment) -> None:
    # A writing function stands for any hidden write in a source.
    intel.execute("CREATE TABLE written (n int)")
    intel.execute("ALTER TABLE registered_models RENAME TO kept")
    intel.execute(
        "CREATE FUNCTION sneaky() RETURNS text LANGUAGE plpgsql VOLATILE AS"
        " $$ BEGIN INSERT INTO written VALUES (1); RETURN 'x'; END $$"
    )
    intel.execute("CREATE VIEW registered_models AS SELECT *, sneaky() FROM kept WHERE sneaky() <> ''")
    with pytest.raises(SourceError, match="read-only transaction"):
        target.import_models()
    assert intel.execute("SELECT * FROM written") == []
