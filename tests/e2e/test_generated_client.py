"""A client that openapi-python-client generates from the API's description, on the running product."""

import importlib
import io
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from registry_service.transport.http_routes import http_routes
from tests.products import Product


class GeneratedClient:
    """The generated package, called by operation id."""

    def __init__(self, package: ModuleType, connected: Any) -> None:
        self._package = package.__name__
        self._client = connected
        self.models: Any = importlib.import_module(f"{self._package}.models")

    def call(self, service: str, method: str, *arguments: Any, **fields: Any) -> Any:
        """Call an operation, and return the parsed answer."""
        module = importlib.import_module(f"{self._package}.api.{service}.{service}_{method}")
        return module.sync(*arguments, client=self._client, **fields)

    def file(self, data: bytes) -> Any:
        return importlib.import_module(f"{self._package}.types").File(payload=io.BytesIO(data))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("generated")
    name = "generated_registry_client"
    generated = subprocess.run(
        [
            Path(sys.executable).with_name("openapi-python-client"),
            "generate",
            f"--path={http_routes().openapi}",
            f"--output-path={folder / name}",
            "--meta=none",
            "--fail-on-warning",
        ],
        capture_output=True,
        text=True,
        check=False,
        # Without ruff, which only formats the generated code.
        env={"PATH": str(Path(sys.executable).parent)},
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module(name)
    sys.path.remove(str(folder))


@pytest.fixture
def client(package: ModuleType, product: Product) -> Iterator[GeneratedClient]:
    with package.Client(base_url=product.rest_url) as connected:
        yield GeneratedClient(package, connected)


def test_the_generated_client_has_every_operation_of_the_typed_api(package: ModuleType) -> None:
    document = json.loads(http_routes().openapi.read_text(encoding="utf-8"))
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if verb == "parameters" or not path.startswith("/v1/"):
                continue
            [service, method] = operation["operationId"].split("_")
            names = [snake_case(service), f"{snake_case(service)}_{snake_case(method)}"]
            assert callable(importlib.import_module(f"{package.__name__}.api.{'.'.join(names)}").sync)


def test_the_generated_client_registers_resolves_promotes_and_rolls_back(client: GeneratedClient) -> None:
    models = client.models
    name = f"generated-{uuid.uuid4()}"
    registered = []
    for version in ("1.0", "1.1"):
        spec = {"model": {"name": name, "version": version, "metrics": {"f1": 0.9}}}
        upload = client.call("upload_service", "create_upload", body=models.Upload.from_dict({"spec": spec}))
        written = client.call("upload_service", "write_upload_content", upload.id, body=client.file(b"weights"))
        assert written.upload.committed_size == "7"
        completed = client.call(
            "upload_service", "complete_upload", upload.id, body=models.CompleteUploadRequest.from_dict({})
        )
        registered.append(completed.model)
    first, second = registered
    for model in registered:
        body = models.SetAliasRequest.from_dict({"model_id": model.id, "reason": "a test"})
        moved = client.call("alias_service", "set_alias", model.model_group_id, "production", body=body)
        assert moved.changed
    found = client.call("model_service", "resolve_model", reference=f"{name}@production")
    assert found.model.id == second.id
    rollback = models.RollbackAliasRequest.from_dict({"expected_model_id": second.id})
    rolled_back = client.call("alias_service", "rollback_alias", second.model_group_id, "production", body=rollback)
    assert rolled_back.alias.model_id == first.id
    moves = client.call("alias_service", "list_alias_moves", second.model_group_id, "production", page_size=2)
    assert [move.kind for move in moves.alias_moves] == ["KIND_ROLLED_BACK", "KIND_SET"]
    content = client.call("artifact_service", "download_artifact_content", first.id)
    assert content.payload.read() == b"weights"


def test_the_generated_client_parses_errors(client: GeneratedClient) -> None:
    error = client.call("model_service", "get_model", "there-is-no-such-model")
    assert isinstance(error, client.models.Status)
    assert error.details[0].reason == "MODEL_NOT_FOUND"


def snake_case(name: str) -> str:
    """Return a name in the generator's spelling."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
