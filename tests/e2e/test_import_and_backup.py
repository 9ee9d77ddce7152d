"""The commands `import-intel`, `backup`, `restore` and `verify`, and the product on their results."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from registry_service.embedded.postgres import PostgresAddress
from tests.intel_deployment import IDS, OBJECTS, TWIN, IntelDeployment
from tests.products import COMMAND, environment, running_serve, running_up, s3_settings
from tests.s3_server import S3Server
from tests.temporary_folders import accessible_folder

TAKEN = [model_id for model_id in IDS if model_id != TWIN]


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**settings), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def settings(
    postgres: PostgresAddress, empty_database: Engine, s3_server: S3Server, intel: IntelDeployment
) -> Mapping[str, object]:
    """Settings of an empty database, and of the bucket of the Intel deployment."""
    return s3_settings(postgres, str(empty_database.url.database), s3_server, intel.bucket)


def test_an_imported_intel_deployment_answers_like_the_original(
    settings: Mapping[str, object], intel: IntelDeployment, tmp_path: Path
) -> None:
    before = intel.state()
    options = [f"--source-host={intel.address.socket_dir}", f"--source-database={intel.database}"]
    options += [f"--source-user={intel.address.user}", f"--source-bucket={intel.bucket}"]
    dry = run("import-intel", *options, "--dry-run", **settings)
    assert (dry.returncode, dry.stdout.splitlines()[-1]) == (
        1,
        "16 models would be: 15 adopted, 0 updated, 0 unchanged, 0 kept, 1 failed; 0 artifacts copied.",
    )
    answer = run("import-intel", *options, **settings)
    assert answer.returncode == 1, answer.stderr
    assert f"failed {TWIN} The model " in answer.stdout
    assert "is already registered. Its id is 'put-other-000000002'." in answer.stdout
    again = run("adopt", *options, "--json", **settings)  # the command's alias
    lines = [json.loads(line) for line in again.stdout.splitlines()]
    assert {line["outcome"] for line in lines[:-1]} == {"unchanged", "failed"}
    assert (lines[-1]["unchanged"], lines[-1]["failed"]) == (15, 1)
    assert intel.state() == before

    with running_serve(tmp_path, settings) as product:
        listed = httpx.get(f"{product.rest_url}/models").json()
        assert [model["id"] for model in listed] == TAKEN
        for shown in listed:
            one = httpx.get(f"{product.rest_url}/models/{shown['id']}")
            assert one.json() == shown
            key = shown["file_url"].removeprefix("minio://model-registry/")
            file = httpx.get(f"{product.rest_url}/models/{shown['id']}/files")
            assert file.headers["content-type"] == "application/zip"
            assert file.content == OBJECTS[key].read_bytes()
        found = httpx.get(f"{product.rest_url}/models", params={"precision": "FP16"}).json()
        assert {model["id"] for model in found} >= {"66c10000000000000000a111", "put-other-000000002"}
        assert httpx.delete(f"{product.rest_url}/models/legacy-poison-0001").status_code == 204


def test_an_import_of_all_models_succeeds(settings: Mapping[str, object], intel: IntelDeployment) -> None:
    intel.set_tag(TWIN, "version", "8")
    answer = run("import-intel", **settings, **intel.settings())
    assert answer.returncode == 0, answer.stdout
    assert answer.stdout.splitlines()[-1].startswith("16 models: 16 adopted")


def test_the_error_about_an_unreadable_source_hides_its_password(
    settings: Mapping[str, object], intel: IntelDeployment
) -> None:
    answer = run(
        "import-intel",
        **settings,
        **(intel.settings() | {"source_psql_database": "nowhere", "source_psql_password": "password-marker"}),
    )
    assert answer.returncode == 1
    assert 'database "nowhere" does not exist' in answer.stderr
    assert "marker" not in answer.stderr + answer.stdout
    assert "Traceback" not in answer.stderr
    answer = run("import-intel", **settings)
    assert "SOURCE_PSQL_HOSTNAME: must be set" in answer.stderr
    before = intel.state()
    answer = run("import-intel", **(dict(settings) | {"psql_database": intel.database}), **intel.settings())
    assert answer.returncode == 1
    assert "schema is not one of this program's" in answer.stderr
    assert intel.state() == before


def test_the_embedded_product_imports_is_backed_up_and_restored(intel: IntelDeployment) -> None:
    with accessible_folder() as folder:
        data, backup, second = folder / "data", folder / "backup", folder / "second"
        source = intel.settings() | intel.s3_settings()
        answer = run("import-intel", f"--data-dir={data}", **source)
        assert answer.stdout.splitlines()[-1] == (
            "16 models: 15 adopted, 0 updated, 0 unchanged, 0 kept, 1 failed; 15 artifacts copied."
        )
        with running_up(folder) as product:
            assert [model.id for model in product.client.all(order_by="id")] == TAKEN
            new = product.client.register(b"new here", name="new")
            answer = run("backup", f"--to={backup}", f"--data-dir={data}")
            assert answer.returncode == 0, answer.stderr
            assert answer.stdout.startswith("16 of 16 objects backed up, 16 of them")
            answer = run("verify", f"--data-dir={data}")
            assert answer.stdout.startswith("17 intact, 0 missing"), answer.stderr
        answer = run("restore", f"--from={backup}", f"--data-dir={data}")
        assert (answer.returncode, "The database is not empty" in answer.stderr) == (1, True)
        answer = run("restore", f"--from={backup}", f"--data-dir={second / 'data'}")
        assert answer.returncode == 0, answer.stderr
        assert run("verify", f"--data-dir={second / 'data'}").returncode == 0
        with running_up(second) as product:
            assert len(product.client.all()) == 16
            assert product.client.download(new.id) == b"new here"


def test_verify_reports_damage_by_its_exit_code_and_as_json(
    settings: Mapping[str, object], intel: IntelDeployment, s3_server: S3Server
) -> None:
    run("import-intel", **settings, **intel.settings())
    key = "put-base-0000000001/model.zip"
    intel.s3.remove_object(intel.bucket, key)
    answer = run("verify", "--json", **settings)
    assert answer.returncode == 1
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    wrong = [line for line in lines[:-1] if line["finding"] != "intact"]
    assert [(line["finding"], line["subject"]) for line in wrong] == [("missing", "put-base-0000000001")]
    assert (lines[-1]["intact"], lines[-1]["missing"]) == (15, 1)
    assert run("verify", "--model=put-other-000000002", **settings).returncode == 0
    assert run("verify", "--model=put-base-0000000001", **settings).returncode == 1
    assert run("verify", "--model=nothing-like-that-1", **settings).returncode == 1


def test_help_names_the_commands() -> None:
    listed = run("--help").stdout
    for command in ("import-intel", "backup", "restore", "verify"):
        assert f"\n  {command} " in listed


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    for command in (["verify"], ["backup", f"--to={tmp_path / 'to'}"]):
        answer = run(*command, f"--data-dir={tmp_path / 'nothing'}")
        assert answer.returncode == 1
        assert "has no data of `model-registry up`" in answer.stderr
    answer = run(
        "restore", f"--from={tmp_path}", psql_hostname="/nowhere", artifact_store="local", artifact_dir=tmp_path
    )
    assert "has no backup" in answer.stderr
