"""SystemService: information about the server and about the caller."""

from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from modelregistry.v1 import model_service_pb2, system_service_pb2

from registry_service import __version__
from registry_service.domain.access import Grant, Identity, Role
from registry_service.services.authentication import CachedAuthenticator
from tests.integration.test_access import People, people  # noqa: F401 - a fixture
from tests.registry import RunningRegistry, StartRegistry
from tests.stub_client import refused

Mode = system_service_pb2.Authentication


def info_of(registry: RunningRegistry) -> system_service_pb2.ServerInfo:
    return registry.client.system.GetServerInfo(system_service_pb2.GetServerInfoRequest())


def who_am_i(stubs: Any, *metadata: tuple[str, str]) -> dict[str, Any]:
    response = stubs.system.WhoAmI(system_service_pb2.WhoAmIRequest(), metadata=metadata)
    return MessageToDict(response, preserving_proto_field_name=True)


class TestServerInfo:
    def test_server_info_has_the_version_and_the_limits_of_the_settings(self, start_registry: StartRegistry) -> None:
        registry = start_registry(
            artifact_max_bytes=5_000,
            metadata_max_bytes=70_000,
            upload_ttl_seconds=90,
            stream_idle_seconds=2.5,
            watch_heartbeat_seconds=7,
        )
        info = info_of(registry)
        assert info.version == __version__
        assert MessageToDict(info.limits, preserving_proto_field_name=True) == {
            "max_artifact_bytes": "5000",
            "max_metadata_bytes": "70000",
            "max_message_bytes": str(16 * 1024 * 1024),
            "recommended_chunk_bytes": str(1024 * 1024),
            "default_page_size": 50,
            "max_page_size": 1_000,
            "max_filter_characters": 8_192,
            "upload_ttl": "90s",
            "stream_idle_timeout": "2.500s",
            "watch_heartbeat_interval": "7s",
            "idempotency_key_ttl": "86400s",
        }

    def test_the_limits_in_server_info_are_enforced(self, registry: RunningRegistry) -> None:
        limits = info_of(registry).limits
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            registry.client.models.ListModels(
                model_service_pb2.ListModelsRequest(filter="x" * (limits.max_message_bytes + 1))
            )
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            registry.client.all(f'name = "{"x" * limits.max_filter_characters}"')

    def test_a_server_without_authentication_says_none(self, registry: RunningRegistry) -> None:
        assert info_of(registry).authentication == Mode(mode=Mode.MODE_NONE)

    def test_server_info_needs_no_token(self, start_registry: StartRegistry) -> None:
        registry = start_registry(
            auth_mode="oidc",
            oidc_issuer="https://login.example.org/realms/models",
            oidc_audience="model-registry",
            oidc_client_id="mreg",
            oidc_scopes="openid, offline_access",
        )
        assert info_of(registry).authentication == Mode(
            mode=Mode.MODE_OIDC,
            oidc_issuer="https://login.example.org/realms/models",
            oidc_client_id="mreg",
            oidc_scopes=["openid", "offline_access"],
            oidc_audience="model-registry",
        )

    def test_an_unused_openid_provider_is_not_named(self, start_registry: StartRegistry) -> None:
        registry = start_registry(auth_mode="token", oidc_issuer="https://login.example.org", oidc_client_id="mreg")
        assert info_of(registry).authentication == Mode(mode=Mode.MODE_TOKEN)

    def test_geti_is_listed_as_a_feature_if_connected(self, start_registry: StartRegistry) -> None:
        assert list(info_of(start_registry()).features) == ["idempotency_keys"]
        connected = start_registry(
            geti_host="https://geti.example.org",
            geti_token="secret",
            geti_server_api_version="v1",
            geti_organization_id="o",
            geti_workspace_id="w",
        )
        assert list(info_of(connected).features) == ["geti", "idempotency_keys"]


class TestWhoAmI:
    def test_without_authentication_the_caller_is_the_claimed_actor(self, registry: RunningRegistry) -> None:
        everything = [{"role": "admin", "permissions": ["administer", "promote", "read", "write"]}]
        assert who_am_i(registry.client, ("x-actor", "Ada Lovelace")) == {
            "subject": "Ada Lovelace",
            "grants": everything,
        }
        assert who_am_i(registry.client) == {"grants": everything}

    @pytest.mark.parametrize(
        ("role", "permissions"),
        [
            (Role.READER, ["read"]),
            (Role.WRITER, ["read", "write"]),
            (Role.PROMOTER, ["promote", "read"]),
            (Role.ADMIN, ["administer", "promote", "read", "write"]),
        ],
    )
    def test_a_token_is_shown_with_its_role_and_project(
        self,
        people: People,  # noqa: F811
        role: Role,
        permissions: list[str],
    ) -> None:
        everywhere, own = people.a(role, name="everywhere"), people.a(role, "own", name="own")
        grant = {"role": role.value, "permissions": permissions}
        assert who_am_i(everywhere) == {"subject": "token:everywhere", "grants": [grant]}
        assert who_am_i(own) == {"subject": "token:own", "grants": [grant | {"project_id": "own"}]}

    def test_a_token_is_shown_with_its_expiry(self, people: People) -> None:  # noqa: F811
        token, secret = people.tokens.create(Grant(Role.READER), name="short-lived", expires="90d")
        assert token.expire_time is not None
        found = people.who_has(("authorization", f"Bearer {secret}")).system.WhoAmI(system_service_pb2.WhoAmIRequest())
        # The clocks of server and database are read at different moments.
        assert abs(found.expire_time.ToDatetime(UTC) - token.expire_time) < timedelta(seconds=30)

    def test_who_am_i_requires_credentials(self, people: People) -> None:  # noqa: F811
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            who_am_i(people.who_has())

    def test_a_caller_without_a_role_sees_only_its_subject(
        self,
        people: People,  # noqa: F811
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        without_grants = Identity(actor="oidc:ada", grants=())
        monkeypatch.setattr(CachedAuthenticator, "__call__", lambda *_: without_grants)
        caller = people.who_has(("authorization", "Bearer mrt_x"))
        assert who_am_i(caller) == {"subject": "oidc:ada"}
        with refused(grpc.StatusCode.PERMISSION_DENIED):
            caller.all()
