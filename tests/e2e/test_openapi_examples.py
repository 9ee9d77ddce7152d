"""The examples in the OpenAPI description are real answers.

`python -m tests.e2e.test_openapi_examples` regenerates gateway/examples.json.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from registry_service.transport.http_routes import http_routes
from tests.fake_geti import CATTLE, YOLOX, YOLOX_FP32, FakeGeti
from tests.model_files import onnx_model
from tests.products import running_up
from tests.stub_client import zip_of
from tests.temporary_folders import accessible_folder

EXAMPLES = Path(__file__).parents[2] / "gateway" / "examples.json"
JSON = "application/json"

Examples = dict[str, dict[str, Any]]
"""By the name of an operation its `request`, where it has a body, and its `response`."""


class Tour:
    """Calls every JSON operation of the typed API, and records requests and answers."""

    def __init__(self, rest: httpx.Client) -> None:
        self._rest = rest
        self.examples: Examples = {}

    def call(self, operation: str, verb: str, path: str, body: Any = None, **options: Any) -> Any:
        """Return the answer; the first answer of an operation is its example."""
        sent = {} if body is None else {"json": body}
        answer = self._rest.request(verb, path, **sent, **options)
        assert answer.status_code == 200, (operation, answer.text)
        received = answer.json()
        if operation not in self.examples:
            self.examples[operation] = ({} if body is None else {"request": body}) | {"response": received}
        return received

    def register(self, **fields: Any) -> Any:
        """Register a model by a resumable upload."""
        spec = {"model": fields, "artifact": {"file_name": "vad.zip", "media_type": "application/zip"}}
        upload = self.call("UploadService_CreateUpload", "POST", "/v1/uploads", {"spec": spec})
        path = f"/v1/uploads/{upload['id']}"
        self.call("UploadService_GetUpload", "GET", path)
        model = onnx_model().SerializeToString()
        data = zip_of({"vad.onnx": model, "version.txt": fields["version"].encode()})
        self.call("UploadService_WriteUploadContent", "PUT", f"{path}/content", content=data)
        return self.call("UploadService_CompleteUpload", "POST", f"{path}:complete", {})["model"]

    def models(self) -> None:
        first = self.register(
            name="silero-vad",
            version="6.2.2",
            project_id="audio",
            project_name="Audio team",
            precisions=["fp32"],
            format="onnx",
            target_device="CPU",
            category="Voice activity detection",
            architecture="Silero",
            metrics={"f1": 0.91},
            tags={"team": "audio"},
            labels=["speech"],
        )
        second = self.register(
            name="silero-vad",
            version="6.2.3",
            project_id="audio",
            project_name="Audio team",
            precisions=["int8"],
            format="onnx",
            metrics={"f1": 0.93},
            tags={"team": "audio"},
            labels=["speech", "music"],
            provenance={
                "source_repository": "https://git.example.org/audio/vad",
                "source_commit": "2f1c1f0e6f0c4b8e9b500c5f4a1d3a77aa01b2c3",
                "datasets": [{"name": "AVA-Speech", "uri": "s3://datasets/ava-speech", "digest": "sha256:" + 64 * "0"}],
                "parent_model_ids": [first["id"]],
                "framework": "pytorch",
                "framework_version": "2.9.0",
                "seed": "7",
            },
        )
        model = f"/v1/models/{second['id']}"
        self.call("ModelService_GetModel", "GET", model)
        self.call("ModelService_ListModels", "GET", "/v1/models", params={"filter": 'name = "silero-vad"'})
        change = {"tags": {"stage": "candidate"}}
        self.call("ModelService_UpdateModel", "PATCH", model, change, params={"update_mask": "tags.stage"})
        self.call(
            "ModelService_ResolveModel", "GET", "/v1/models:resolve", params={"reference": "audio/silero-vad:6.2.3"}
        )
        pair = {"model_ids": [first["id"], second["id"]], "diff_only": True}
        self.call("ModelService_CompareModels", "GET", "/v1/models:compare", params=pair)
        up = {"direction": "DIRECTION_ANCESTORS"}
        self.call("ModelService_GetLineage", "GET", f"{model}/lineage", params=up)
        self.call("ModelService_GetModelManifest", "GET", f"{model}/manifest")
        self.call("ArtifactService_ListArtifactFiles", "GET", f"{model}/files")
        self.call("ArtifactService_VerifyArtifact", "POST", f"{model}/artifact:verify", {})
        self.aliases(first, second)
        spare = self.register(name="spare", version="1")
        self.call("ModelService_DeleteModel", "DELETE", f"/v1/models/{spare['id']}")
        self.call("ModelGroupService_DeleteModelGroup", "DELETE", f"/v1/modelGroups/{spare['model_group_id']}")
        open_upload = self.call("", "POST", "/v1/uploads", {"spec": {"model": {"name": "vad", "version": "7"}}})
        self.call("UploadService_ListUploads", "GET", "/v1/uploads")
        self.call("UploadService_CancelUpload", "POST", f"/v1/uploads/{open_upload['id']}:cancel", {})

    def aliases(self, first: Any, second: Any) -> None:
        group = f"/v1/modelGroups/{second['model_group_id']}"
        alias = f"{group}/aliases/production"
        self.call("", "POST", f"{alias}:set", {"model_id": first["id"]})
        promotion = {
            "model_id": second["id"],
            "expected_model_id": first["id"],
            "reason": "half the size, better F1",
            "requirements": {"verified": True, "metrics": [{"metric": "f1", "min": 0.9}]},
        }
        self.call("AliasService_SetAlias", "POST", f"{alias}:set", promotion)
        self.call("AliasService_GetAlias", "GET", alias)
        self.call("AliasService_ListAliases", "GET", f"{group}/aliases")
        rollback = {"expected_model_id": second["id"], "reason": "false alarms"}
        self.call("AliasService_RollbackAlias", "POST", f"{alias}:rollback", rollback)
        self.call("AliasService_ListAliasMoves", "GET", f"{alias}/history")
        self.call("", "POST", f"{group}/aliases/challenger:set", {"model_id": second["id"]})
        self.call("AliasService_DeleteAlias", "DELETE", f"{group}/aliases/challenger")
        description = {"description": "Finds **speech** in audio.", "owner": "audio-team"}
        self.call("ModelGroupService_UpdateModelGroup", "PATCH", group, description)
        self.call("ModelGroupService_GetModelGroup", "GET", group)
        self.call("ModelGroupService_ListModelGroups", "GET", "/v1/modelGroups")

    def others(self) -> None:
        self.call("SystemService_GetReadiness", "GET", "/ready")
        self.call("SystemService_GetServerInfo", "GET", "/v1/serverInfo")
        self.call("SystemService_WhoAmI", "GET", "/v1/whoAmI")
        self.call("AuditService_ListAuditEvents", "GET", "/v1/auditEvents", params={"page_size": 1})
        self.call("AuditService_VerifyAuditLog", "POST", "/v1/auditEvents:verify", {})
        events: dict[str, str | bool] = {"from_beginning": True, "filter": 'action = "ACTION_ALIAS_SET"'}
        with self._rest.stream("GET", "/v1/auditEvents:watch", params=events) as answer:
            text = ""
            for piece in answer.iter_text():
                text += piece
                if text.count('"resume_token"') > 1:
                    break
        messages = json.loads(text if text.endswith("]") else text + "]")
        self.examples["AuditService_WatchAuditEvents"] = {"response": messages[:2]}
        self.call("GetiService_ListProjects", "GET", "/v1/geti/projects", params={"page_size": 1})
        self.call("GetiService_GetProject", "GET", f"/v1/geti/projects/{CATTLE}")
        wanted = {"models": [{"model_id": YOLOX_FP32, "group_id": YOLOX}]}
        self.call("GetiService_ImportModels", "POST", f"/v1/geti/projects/{CATTLE}:importModels", wanted)


def recorded(folder: Path, geti: FakeGeti) -> Examples:
    """Return the examples that a new product yields."""
    with running_up(folder, **geti.settings()) as product, httpx.Client(base_url=product.rest_url, timeout=60) as rest:
        tour = Tour(rest)
        tour.models()
        tour.others()
    return {name: example for name, example in sorted(tour.examples.items()) if name}


def shape(value: Any) -> Any:
    """Return the names and types in a JSON value."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        shapes = [shape(inner) for inner in value]
        return [one for number, one in enumerate(shapes) if one not in shapes[:number]]
    return type(value).__name__


@pytest.fixture(scope="module")
def found(geti_server: FakeGeti) -> Iterator[Examples]:
    with accessible_folder() as folder:
        yield recorded(folder, geti_server)


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(http_routes().openapi.read_text(encoding="utf-8"))


def described(document: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield each JSON body under /v1: operation, `request` or `response`, its schema and its example."""
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if verb == "parameters" or not path.startswith("/v1/"):
                continue
            bodies = (("request", operation.get("requestBody")), ("response", operation["responses"].get("200")))
            for kind, body in bodies:
                if body and JSON in body.get("content", {}):
                    content = body["content"][JSON]
                    yield operation["operationId"], kind, content["schema"], content.get("example")


def test_every_body_has_an_example_that_matches_its_schema(document: Any) -> None:
    strict = json.loads(json.dumps(document))
    for schema in strict["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    bodies = list(described(strict))
    assert len(bodies) > 40
    for operation, kind, schema, example in bodies:
        assert example is not None, f"{operation} has no example of its {kind}"
        problems = [
            f"{operation} {kind} {problem.json_path}: {problem.message}"
            for problem in Draft202012Validator({**schema, "components": strict["components"]}).iter_errors(example)
        ]
        assert not problems, problems


def test_the_examples_are_the_answers_of_this_program(found: Examples) -> None:
    committed: Examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    assert committed.keys() == found.keys()
    for operation, example in found.items():
        assert shape(committed[operation]) == shape(example), operation


def main() -> None:
    with accessible_folder() as folder, closing(FakeGeti()) as geti:
        examples = recorded(folder, geti)
    EXAMPLES.write_text(json.dumps(examples, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {EXAMPLES}\n")


if __name__ == "__main__":
    main()
