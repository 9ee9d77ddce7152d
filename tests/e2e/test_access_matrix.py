"""Access of every caller to every operation on a model over HTTP, by role and project."""

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from registry_service.domain.access import Grant, Permission, Role
from registry_service.domain.caller import acting_as_registry
from registry_service.jobs import open_tokens
from tests.e2e.test_access import Guarded, form
from tests.products import running_up
from tests.temporary_folders import accessible_folder

PERMISSIONS = {
    Role.READER: {Permission.READ},
    Role.WRITER: {Permission.READ, Permission.WRITE},
    Role.PROMOTER: {Permission.READ, Permission.PROMOTE},
    Role.ADMIN: set(Permission),
}
READ, WRITE, PROMOTE, ADMINISTER = Permission.READ, Permission.WRITE, Permission.PROMOTE, Permission.ADMINISTER
# Method, path and body, and the permission that the operation requires.
OPERATIONS = {
    ("GET", "/models/{id}", ""): READ,
    ("GET", "/models/{id}/files", ""): READ,
    ("HEAD", "/models/{id}/files", ""): READ,
    ("PUT", "/models/{id}", "score=0.5"): WRITE,
    ("DELETE", "/models/{id}", ""): ADMINISTER,
    ("GET", "/v1/models/{id}", ""): READ,
    ("PATCH", "/v1/models/{id}?update_mask=score", '{"score": 0.5}'): WRITE,
    ("DELETE", "/v1/models/{id}", ""): ADMINISTER,
    ("GET", "/v1/models/{id}/artifact", ""): READ,
    ("HEAD", "/v1/models/{id}/artifact", ""): READ,
    ("POST", "/v1/models/{id}/artifact:verify", ""): READ,
    ("GET", "/v1/models/{id}/files", ""): READ,
    ("GET", "/v1/models/{id}/files/model.bin", ""): READ,
    ("HEAD", "/v1/models/{id}/files/model.bin", ""): READ,
    ("GET", "/v1/models/{id}/lineage?direction=DIRECTION_ANCESTORS", ""): READ,
    ("GET", "/v1/models/{id}/lineage?direction=DIRECTION_DESCENDANTS", ""): READ,
    ("GET", "/v1/models/{id}/manifest", ""): READ,
    ("GET", "/v1/models:compare?model_ids={id}&model_ids={id2}", ""): READ,
    ("GET", "/v1/modelGroups/{group}", ""): READ,
    ("PATCH", "/v1/modelGroups/{group}", '{"owner": "ada"}'): WRITE,
    ("GET", "/v1/modelGroups/{group}/aliases", ""): READ,
    ("GET", "/v1/modelGroups/{group}/aliases/-/history", ""): READ,
    ("POST", "/v1/modelGroups/{group}/aliases/production:set", '{"model_id": "{id}"}'): PROMOTE,
    ("GET", "/v1/models:resolve?reference={id}", ""): READ,
}
PROJECTS = [None, "own", "other"]
CALLERS = list(itertools.product(Role, PROJECTS))


@dataclass
class Matrix:
    guarded: Guarded
    admin: str
    secrets: dict[tuple[Role, str | None], str]
    group: str = ""
    """Of all models."""

    def register(self) -> str:
        version = str(uuid.uuid4())
        answer = self.guarded.request("POST", "/models", self.admin, **form(version, project_id="own"))
        assert answer.status_code == 201, answer.text
        model_id = answer.text
        if not self.group:
            self.group = self.guarded.request("GET", f"/v1/models/{model_id}", self.admin).json()["model_group_id"]
        return model_id

    def call(self, operation: tuple[str, str, str], secret: str, model_id: str, other_id: str) -> httpx.Response:
        method, path, body = (
            text.replace("{id}", model_id).replace("{id2}", other_id).replace("{group}", self.group)
            for text in operation
        )
        kind = "application/json" if body.startswith("{") else "application/x-www-form-urlencoded"
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        if body:
            headers["content-type"] = kind
        return httpx.request(
            method, f"{self.guarded.product.rest_url}{path}", headers=headers, content=body, timeout=60, trust_env=False
        )


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    with accessible_folder() as folder, running_up(folder, auth_mode="token") as product:
        guarded = Guarded(product, folder / "data")
        with acting_as_registry(), open_tokens(guarded.data_dir) as tokens:
            secrets = {
                (role, project): tokens.create(Grant(role, project), name=f"{role.value}-{project}")[1]
                for role, project in CALLERS
            }
        yield Matrix(guarded, secrets[Role.ADMIN, None], secrets)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation[0]} {operation[1]}")
def test_an_operation_is_allowed_by_role_and_project_alone(matrix: Matrix, operation: tuple[str, str, str]) -> None:
    missing = "no-such-model-in-any-project-000000"
    second = matrix.register()
    model_id = matrix.register()
    for secret, challenge in (("", 401), ("mrt_nonsense", 401)):
        assert matrix.call(operation, secret, model_id, second).status_code == challenge
    for (role, project), secret in matrix.secrets.items():
        answer = matrix.call(operation, secret, model_id, second)
        who = f"{role.value} in {project or 'all projects'}: {answer.status_code} {answer.text}"
        if OPERATIONS[operation] not in PERMISSIONS[role]:
            assert answer.status_code == 403, who
        elif project == "other":
            # Word for word the answer about a model that does not exist.
            nowhere = matrix.call(operation, secret, missing, second)
            assert answer.status_code == nowhere.status_code == 404, who
            assert without_request_id(answer).replace(model_id, missing) == without_request_id(nowhere), who
        else:
            assert answer.is_success, who
            if operation[0] == "DELETE":
                model_id = matrix.register()


def without_request_id(answer: httpx.Response) -> str:
    return answer.text.replace(answer.headers["x-request-id"], "")
