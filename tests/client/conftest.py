"""A server that the client's tests of a module share, and clients of it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelreg import Registry
from modelreg._access.token_store import Grant
from modelreg._async import runtime as async_runtime
from modelreg._sync import runtime

from registry_service.embedded.postgres import PostgresAddress
from tests.authorization_server import CLIENT, PUBLIC_CLIENT, SECRET, AuthorizationServer
from tests.client.mreg import Mreg
from tests.identity_provider import AUDIENCE, IdentityProvider, running_provider
from tests.postgres_server import engine_of
from tests.registry import RunningRegistry, running_registry


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """The settings of `server`, for modules to override."""
    return {}


@pytest.fixture(scope="module")
def oidc_settings(shared_provider: IdentityProvider) -> dict[str, str]:
    """The settings of a server that takes tokens of the provider, and its own."""
    return {
        "auth_mode": "oidc",
        "oidc_issuer": shared_provider.issuer,
        "oidc_audience": AUDIENCE,
        "oidc_client_id": PUBLIC_CLIENT,
        "oidc_scopes": "openid,models",
    }


@pytest.fixture(scope="module")
def server(
    postgres: PostgresAddress,
    module_database_name: str,
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
) -> Iterator[RunningRegistry]:
    """A server, with `server.client` for its raw stubs and `server.address`."""
    engine = engine_of(postgres, module_database_name)
    folder = tmp_path_factory.mktemp("artifacts")
    with running_registry(postgres, module_database_name, engine, folder, **settings) as running:
        yield running
    engine.dispose()


@pytest.fixture
def url(server: RunningRegistry) -> str:
    """The URL of the server."""
    return f"grpc://{server.address}"


@pytest.fixture
def registry(url: str) -> Iterator[Registry]:
    """A client of the server."""
    with Registry(url) as registry:
        yield registry


@pytest.fixture
def name() -> str:
    """The name of a model that no other test uses."""
    return f"model-{uuid.uuid4()}"


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests away from the configuration and the cache of the person who runs them."""
    for variable in [found for found in os.environ if found.startswith("MODELREG_")]:
        monkeypatch.delenv(variable)
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, which take no time."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(runtime, "sleep", pauses.append)
    monkeypatch.setattr(async_runtime, "sleep", sleep)
    return pauses


@pytest.fixture
def mreg(url: str) -> Mreg:
    """The command line, which talks to the server."""
    return Mreg(url)


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[IdentityProvider]:
    """A running OpenID provider."""
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(shared_provider: IdentityProvider) -> IdentityProvider:
    """The provider of the module, as it was at first."""
    shared_provider.authorization = AuthorizationServer(shared_provider.token)
    shared_provider.calls_itself = shared_provider.issuer
    return shared_provider


@pytest.fixture
def public(provider: IdentityProvider) -> Grant:
    return Grant(issuer=provider.issuer, client_id=PUBLIC_CLIENT, scopes=("openid",), audience=AUDIENCE)


@pytest.fixture
def secret(provider: IdentityProvider) -> Grant:
    return Grant(issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET, audience=AUDIENCE)
