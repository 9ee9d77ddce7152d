"""A new artifact store needs its adapter, the factory and its tests."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr

import registry_service
from registry_service.domain.artifact_store import ListableArtifactStore
from registry_service.settings import Settings
from registry_service.storage.artifacts.factory import build_artifact_store

PACKAGE = Path(registry_service.__file__).parent
# What `import-intel` reads is S3 whatever the registry's own store is.
OF_EVERY_DEPLOYMENT = {"intel_bucket", "s3_connection"}


def prepared(_: Callable[[], None]) -> None:
    """Takes every store for one that answers."""


@pytest.mark.parametrize("name", get_args(Settings.model_fields["artifact_store"].annotation))
def test_the_factory_builds_every_store_that_the_settings_name(name: str, tmp_path: Path) -> None:
    settings = Settings.model_construct(
        artifact_store=name,
        artifact_dir=tmp_path,
        minio_hostname="host",
        minio_access_key="key",
        minio_secret_key=SecretStr("secret"),
    )
    store: ListableArtifactStore = build_artifact_store(settings, prepared)
    assert store.location


def test_no_other_module_names_an_adapter() -> None:
    naming = {
        f"{path.relative_to(PACKAGE)}: {module}"
        for path in PACKAGE.rglob("*.py")
        if path.parent != PACKAGE / "storage/artifacts"
        for module in imports(path)
        if module.startswith("registry_service.storage.artifacts.")
        and module.rpartition(".")[2] not in {"factory", *OF_EVERY_DEPLOYMENT}
    }
    assert naming == set()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
