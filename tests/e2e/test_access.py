"""Access control over real processes: the commands for tokens, gRPC, and HTTP through the gateway."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
from click.testing import CliRunner, Result
from google.protobuf.message import Message
from grpc_status import rpc_status
from modelregistry.v1 import model_service_pb2, upload_service_pb2

from registry_service.cli import main
from registry_service.embedded.postgres import PostgresAddress
from tests.identity_provider import AUDIENCE, IdentityProvider
from tests.integration.test_access import Bearer
from tests.polling import eventually
from tests.postgres_server import create_database, drop_database
from tests.products import COMMAND, Product, environment, grpcurl, running_serve, running_up
from tests.stub_client import Client, refused, zip_of
from tests.temporary_folders import accessible_folder

CHALLENGE = 'Bearer realm="model-registry"'


@dataclass
class Guarded:
    """A product that requires tokens, and the data folder in which they are created."""

    product: Product
    data_dir: Path

    def token(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return token_command(*arguments, f"--data-dir={self.data_dir}")

    def token_here(self, *arguments: str) -> Result:
        """Run the command in this process, as each start of Python takes a second of CPU time."""
        return CliRunner().invoke(main, ["token", *arguments, f"--data-dir={self.data_dir}"])

    def secret(self, *arguments: str) -> str:
        """Create a token, and return its secret: the last word of the output."""
        made = self.token_here("create", *arguments)
        assert made.exit_code == 0, made.stderr
        return made.stdout.split()[-1]

    def request(self, method: str, path: str, secret: str = "", **options: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return httpx.request(method, f"{self.product.rest_url}{path}", headers=headers, timeout=60, **options)  # type: ignore[arg-type]


def token_command(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "token", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def form(version: str, **fields: str) -> dict[str, object]:
    return {"data": {"name": "yolo", "version": version} | fields, "files": {"file": ("m.zip", SMALL_ZIP)}}


SMALL_ZIP = zip_of({"model.bin": b"weights"})


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with accessible_folder() as folder, running_up(folder, auth_mode="token") as product:
        yield Guarded(product, folder / "data")


class TestHttp:
    @pytest.mark.parametrize("path", ["/health", "/ready", "/v1/serverInfo", "/openapi.json", "/docs", "/redoc"])
    def test_probes_and_documentation_need_no_token(self, guarded: Guarded, path: str) -> None:
        assert guarded.request("GET", path).status_code == 200

    def test_a_request_without_a_token_is_challenged(self, guarded: Guarded) -> None:
        typed = guarded.request("GET", "/v1/models")
        assert (typed.status_code, typed.headers["www-authenticate"]) == (401, CHALLENGE)
        assert typed.json()["details"][0]["reason"] == "UNAUTHENTICATED"
        compat = guarded.request("GET", "/models")
        assert (compat.status_code, compat.headers["www-authenticate"]) == (401, CHALLENGE)
        assert compat.text == "Missing bearer token in the `Authorization` header.\n"

    def test_a_client_learns_the_authentication_mode_and_its_own_identity(self, guarded: Guarded) -> None:
        assert guarded.request("GET", "/v1/serverInfo").json()["authentication"]["mode"] == "MODE_TOKEN"
        secret = guarded.secret("--role=writer", "--project=own", "--name=somebody")
        assert guarded.request("GET", "/v1/whoAmI", secret).json() == {
            "subject": "token:somebody",
            "grants": [{"role": "writer", "project_id": "own", "permissions": ["read", "write"]}],
        }

    def test_an_unknown_token_is_called_invalid(self, guarded: Guarded) -> None:
        typed = guarded.request("GET", "/v1/models", "mrt_nonsense")
        assert (typed.status_code, typed.headers["www-authenticate"]) == (401, f'{CHALLENGE}, error="invalid_token"')
        assert guarded.request("GET", "/models", "mrt_nonsense").status_code == 401

    def test_every_other_route_requires_a_token(self, guarded: Guarded) -> None:
        description = guarded.request("GET", "/openapi.json").json()
        for path, item in description["paths"].items():
            for verb, operation in item.items():
                if verb == "parameters" or operation.get("security") == []:
                    assert path in {"/health", "/ready", "/v1/serverInfo"} or verb == "parameters", path
                    continue
                assert "security" not in operation, path
                address = re.sub(r"\{[^}]*\}", "a" * 16, path)
                answer = guarded.request(verb.upper(), address, content=b"")
                assert answer.status_code == 401, (verb, path, answer.text)
                assert answer.headers["www-authenticate"] == CHALLENGE

    def test_roles_apply_to_the_intel_compatible_api(self, guarded: Guarded) -> None:
        reader, writer = guarded.secret("--role", "reader"), guarded.secret("--role", "writer")
        admin = guarded.secret("--role=admin", "--name=compat-admin")
        refused = guarded.request("POST", "/models", reader, **form("1"))
        assert (refused.status_code, refused.headers["content-type"]) == (403, "text/plain; charset=utf-8")
        registered = guarded.request("POST", "/models", writer, **form("1"))
        assert registered.status_code == 201
        path = f"/models/{registered.text}"
        assert guarded.request("GET", path, reader).status_code == 200
        assert guarded.request("GET", f"{path}/files", reader).content == SMALL_ZIP
        assert guarded.request("PUT", path, reader, data={"score": "0.5"}).status_code == 403
        assert guarded.request("PUT", path, writer, data={"score": "0.5"}).status_code == 200
        assert guarded.request("DELETE", path, writer).status_code == 403
        assert guarded.request("DELETE", path, admin).status_code == 204
        events = guarded.request("GET", "/v1/auditEvents", admin).json()["audit_events"]
        assert events[0]["actor"] == "token:compat-admin"

    def test_the_last_element_of_a_watch_that_the_server_ends_is_the_error(self, guarded: Guarded) -> None:
        secret = guarded.secret("--role=reader", "--name=watcher")
        address = f"{guarded.product.rest_url}/v1/auditEvents:watch"
        headers = {"authorization": f"Bearer {secret}"}
        with httpx.stream("GET", address, headers=headers, timeout=60) as answer:
            pieces = answer.iter_text()
            text = next(pieces)
            assert guarded.token("revoke", "watcher").returncode == 0
            text += "".join(pieces)
        *_, before, last = json.loads(text)
        assert last["resume_token"] == before["resume_token"]
        assert last["error"]["code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
        details = {detail["@type"].rpartition(".")[2]: detail for detail in last["error"]["details"]}
        assert details["ErrorInfo"]["reason"] == "INVALID_CREDENTIALS"
        assert details["RequestInfo"]["request_id"] == answer.headers["x-request-id"]

    def test_a_token_of_a_project_shows_only_that_project(self, guarded: Guarded) -> None:
        own = guarded.secret("--role", "writer", "--project", "own")
        other = guarded.secret("--role", "writer", "--project", "other")
        registered = guarded.request("POST", "/models", own, **form("1", project_id="own"))
        assert registered.status_code == 201
        for path in (f"/models/{registered.text}", f"/v1/models/{registered.text}", f"/models/{registered.text}/files"):
            assert guarded.request("GET", path, own).status_code == 200
            assert guarded.request("GET", path, other).status_code == 404
        assert [model["id"] for model in guarded.request("GET", "/models", own).json()] == [registered.text]
        assert guarded.request("GET", "/models", other).json() == []
        elsewhere = guarded.request("POST", "/models", other, **form("2", project_id="own"))
        assert (elsewhere.status_code, elsewhere.text) == (
            403,
            "You have no role that allows this call in the project 'own'.\n",
        )

    def test_every_request_of_an_upload_over_http_needs_a_token(self, guarded: Guarded) -> None:
        secret = guarded.secret("--role", "writer")
        spec = {"spec": {"model": {"name": "uploaded", "version": "1"}, "artifact": {"file_name": "a.bin"}}}
        upload = guarded.request("POST", "/v1/uploads", secret, json=spec).json()["id"]
        assert guarded.request("PUT", f"/v1/uploads/{upload}/content", content=b"data").status_code == 401
        assert guarded.request("PUT", f"/v1/uploads/{upload}/content", secret, content=b"data").status_code == 200
        assert guarded.request("POST", f"/v1/uploads/{upload}:complete", secret).status_code == 200


class TestTokens:
    def test_a_token_works_until_it_is_revoked(self, guarded: Guarded) -> None:
        secret = guarded.secret("--role", "reader", "--name", "short-lived", "--expires", "30d")
        assert guarded.request("GET", "/v1/models", secret).status_code == 200
        listed = guarded.token("list").stdout
        assert secret not in listed
        assert "short-lived  reader in all projects, expires " in listed
        assert guarded.token("revoke", "short-lived").returncode == 0
        eventually(lambda: guarded.request("GET", "/v1/models", secret).status_code == 401, 30, "the refusal")
        assert "short-lived  reader in all projects, revoked " in guarded.token("list").stdout

    def test_wrong_arguments_of_the_token_commands_are_explained(self, guarded: Guarded) -> None:
        guarded.secret("--role", "reader", "--name", "twice")
        for arguments, expected in (
            (("create", "--role", "reader", "--name", "twice"), "A token has, or had, the name 'twice'."),
            (("create", "--role", "reader", "--name", "a b"), "name: "),
            (("create", "--role", "reader", "--project", ""), "project: must not be empty."),
            (("create", "--role", "reader", "--expires", "soon"), "expires: must be a span"),
            (("create", "--role", "reader", "--expires", "2001-01-01"), "expires: must be in the future."),
        ):
            answer = guarded.token_here(*arguments)
            assert (answer.exit_code, answer.stdout) == (1, "")
            assert expected in answer.stderr
        ended = guarded.token("revoke", "nobody")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == "Error: No token has the id or name 'nobody'.\n"

    def test_tokens_are_created_in_an_external_postgres(self, postgres: PostgresAddress) -> None:
        create_database(postgres, "of_tokens", "template1")
        settings = {
            "psql_hostname": postgres.socket_dir,
            "psql_port": postgres.port,
            "psql_database": "of_tokens",
            "mr_user_name": postgres.user,
        }
        made = token_command("create", "--role", "admin", "--name", "first", **settings)
        assert made.stdout.split()[-1].startswith("mrt_")
        assert "first" in token_command("list", **settings).stdout
        drop_database(postgres, "of_tokens")

    def test_tokens_can_be_created_before_the_first_start(self) -> None:
        with accessible_folder() as folder:
            made = token_command("create", "--role", "admin", f"--data-dir={folder / 'data'}")
            with running_up(folder, auth_mode="token") as product:
                answer = httpx.get(
                    f"{product.rest_url}/v1/models", headers={"authorization": f"Bearer {made.stdout.split()[-1]}"}
                )
                assert answer.status_code == 200


class TestGrpc:
    def test_grpcurl_authenticates_with_a_token(self, guarded: Guarded) -> None:
        program = grpcurl()
        command = [program, "-plaintext"]
        call = [guarded.product.grpc_address, "modelregistry.v1.ModelService/ListModels"]
        anonymous = subprocess.run([*command, *call], capture_output=True, text=True, timeout=60, check=False)
        assert anonymous.returncode != 0
        header = ["-H", f"authorization: Bearer {guarded.secret('--role', 'reader')}"]
        answer = subprocess.run([*command, *header, *call], capture_output=True, text=True, timeout=60, check=False)
        assert answer.returncode == 0, answer.stderr
        json.loads(answer.stdout)

    def test_tokens_work_for_grpc_through_the_gateway(self, guarded: Guarded) -> None:
        address = f"127.0.0.1:{guarded.product.rest_port}"
        client = Client(address, Bearer(("authorization", f"Bearer {guarded.secret('--role', 'reader')}")))
        client.all()
        with refused(grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"):
            client.create_upload()
        client.close()


@pytest.mark.parametrize(
    "shown", [(), ("Basic eDp5",), ("Bearer",), ("Bearer a", "Bearer b"), ("Bearer mrt_nonsense",)]
)
def test_the_gateway_refuses_credentials_as_the_server_does(guarded: Guarded, shown: tuple[str, ...]) -> None:
    metadata = (("x-request-id", "the-same"), *(("authorization", value) for value in shown))
    refusals = []
    for address in (guarded.product.grpc_address, f"127.0.0.1:{guarded.product.rest_port}"):
        with closing(Client(address)) as client:
            calls: tuple[tuple[Any, Message], ...] = (
                (client.models.GetModel, model_service_pb2.GetModelRequest(model_id="a" * 16)),
                (client.uploads.CreateUpload, upload_service_pb2.CreateUploadRequest()),
            )
            for call, request in calls:
                with refused(grpc.StatusCode.UNAUTHENTICATED) as refusal:
                    call(request, metadata=metadata)
                answer = cast("grpc.Call", refusal.error)
                challenge = dict(answer.trailing_metadata() or ()).get("www-authenticate")
                refusals.append((rpc_status.from_call(answer), refusal.message, challenge))
    assert refusals == refusals[:1] * 4


def test_the_check_command_needs_no_token(guarded: Guarded) -> None:
    answer = subprocess.run(
        [*COMMAND, "check"],
        env=environment(grpc_port=guarded.product.grpc_port, auth_mode="token"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (0, "SERVING\n")


def test_tokens_of_an_openid_provider_work_through_the_gateway(
    postgres: PostgresAddress, provider: IdentityProvider, tmp_path: Path
) -> None:
    create_database(postgres, "of_users", "template1")
    settings: dict[str, object] = {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": "of_users",
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": tmp_path / "artifacts",
        "auth_mode": "oidc",
        "oidc_issuer": provider.issuer,
        "oidc_audience": AUDIENCE,
        "oidc_roles_claim": "realm_access.roles",
    }
    with running_serve(tmp_path, settings) as product:
        guarded = Guarded(product, tmp_path)
        token = provider.token(realm_access={"roles": ["model-registry:own:writer"]})
        registered = guarded.request("POST", "/models", token, **form("1", project_id="own"))
        assert registered.status_code == 201
        model = guarded.request("GET", f"/v1/models/{registered.text}", token).json()
        assert model["creator"] == "ada"
        assert guarded.request("GET", "/v1/models", provider.token(aud="another")).status_code == 401
    drop_database(postgres, "of_users")


def test_a_server_without_authentication_on_a_public_address_warns(tmp_path: Path) -> None:
    with accessible_folder() as folder, running_up(folder, grpc_ip_address="0.0.0.0"):
        lines = [json.loads(line) for line in (folder / "data" / "registry.log").read_text().splitlines()]
    warnings = [line["message"] for line in lines if line["level"] == "WARNING"]
    assert "AUTH_MODE=none: anyone who can reach 0.0.0.0 can read, change and delete everything" in warnings
