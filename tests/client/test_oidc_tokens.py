"""Tokens of an OpenID provider: how the client gets, refreshes and revokes them, and what it refuses."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import modelreg
import pytest
from modelreg import ConnectionFailed, InvalidArgument, PermissionDenied, Registry, Unauthenticated, Unsupported
from modelreg._oidc import Issuer
from modelreg._refreshed_tokens import ProfileToken
from modelreg._token_store import Grant, StoredToken
from modelreg.profiles import Profile, Profiles

from registry_service.embedded.postgres import PostgresAddress
from tests.authorization_server import CLIENT, PUBLIC_CLIENT, SECRET, AuthorizationServer, Device
from tests.client.processes import run_together
from tests.identity_provider import AUDIENCE, IdentityProvider, running_provider
from tests.postgres_server import engine_of
from tests.registry import RunningRegistry, running_registry


@pytest.fixture(scope="module")
def shared_provider() -> Iterator[IdentityProvider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(shared_provider: IdentityProvider) -> IdentityProvider:
    """The provider of the module, as it was at first."""
    shared_provider.authorization = AuthorizationServer(shared_provider.token)
    shared_provider.calls_itself = shared_provider.issuer
    return shared_provider


@pytest.fixture(scope="module")
def server(
    postgres: PostgresAddress,
    module_database_name: str,
    tmp_path_factory: pytest.TempPathFactory,
    shared_provider: IdentityProvider,
) -> Iterator[RunningRegistry]:
    """A registry that takes tokens of the provider."""
    engine = engine_of(postgres, module_database_name)
    settings = {
        "auth_mode": "oidc",
        "oidc_issuer": shared_provider.issuer,
        "oidc_audience": AUDIENCE,
        "oidc_client_id": PUBLIC_CLIENT,
        "oidc_scopes": "openid",
    }
    folder = tmp_path_factory.mktemp("artifacts")
    with running_registry(postgres, module_database_name, engine, folder, **settings) as running:
        yield running
    engine.dispose()


@pytest.fixture
def public(provider: IdentityProvider) -> Grant:
    return Grant(issuer=provider.issuer, client_id=PUBLIC_CLIENT, scopes=("openid",), audience=AUDIENCE)


@pytest.fixture
def secret(provider: IdentityProvider) -> Grant:
    return Grant(issuer=provider.issuer, client_id=CLIENT, client_secret=SECRET, audience=AUDIENCE)


def sign_in(provider: IdentityProvider, url: str, seconds: float, **claims: Any) -> Profiles:
    """Save a profile whose token expires in some seconds, as `mreg login` does."""
    grant = Grant(issuer=provider.issuer, client_id=PUBLIC_CLIENT)
    token = StoredToken(
        url=url,
        access_token=provider.token(exp=int(time.time() + seconds), **claims),
        refresh_token=provider.authorization.refresh_token(**claims),
        expire_time=time.time() + seconds,
        grant=grant,
    )
    profiles = Profiles()
    profiles.save(Profile(name="one", url=url, sign_in="device"))
    profiles.tokens.write("one", token)
    return profiles


# ---- calls ----


def test_a_token_is_refreshed_a_minute_before_it_expires(provider: IdentityProvider, url: str) -> None:
    profiles = sign_in(provider, url, 61.5, sub="ada")
    with Registry() as registry:
        assert registry.whoami().subject == "ada"
        assert provider.authorization.requests == []
    before = profiles.tokens.read("one")
    profiles = sign_in(provider, url, 59, sub="ada")
    with Registry() as registry:
        for _ in range(3):
            assert registry.whoami().subject == "ada"
    assert provider.authorization.count("refresh_token") == 1
    after = profiles.tokens.read("one")
    assert before is not None
    assert after is not None
    assert after.access_token != before.access_token
    assert after.refresh_token != before.refresh_token


def test_a_refused_token_is_refreshed_once(provider: IdentityProvider, url: str) -> None:
    sign_in(provider, url, -3600, sub="ada")
    profiles = Profiles()
    stored = profiles.tokens.read("one")
    assert stored is not None
    # The client cannot know that this one has expired.
    profiles.tokens.write("one", replace(stored, expire_time=None))
    with Registry() as registry:
        assert registry.whoami().subject == "ada"
    assert provider.authorization.count("refresh_token") == 1


def test_a_refused_token_is_refreshed_once_by_aio(provider: IdentityProvider, url: str) -> None:
    sign_in(provider, url, 30, sub="ada")

    async def ask() -> set[str]:
        async with modelreg.aio.Registry() as registry:
            identities = await asyncio.gather(*(registry.whoami() for _ in range(5)))
            return {identity.subject for identity in identities}

    assert asyncio.run(ask()) == {"ada"}
    assert provider.authorization.count("refresh_token") == 1


def test_a_token_that_stays_refused_is_an_error_after_one_refresh(provider: IdentityProvider, url: str) -> None:
    profiles = sign_in(provider, url, 3600, aud="another", sub="ada")
    stored = profiles.tokens.read("one")
    assert stored is not None
    refused = replace(stored, refresh_token=provider.authorization.refresh_token(aud="another"))
    profiles.tokens.write("one", refused)
    with Registry() as registry, pytest.raises(Unauthenticated) as caught:
        registry.whoami()
    assert caught.value.reason == "INVALID_CREDENTIALS"
    assert provider.authorization.count("refresh_token") == 1


def test_processes_refresh_a_token_once_for_all(provider: IdentityProvider, url: str) -> None:
    sign_in(provider, url, 10, sub="ada")
    assert run_together(*["print(modelreg.Registry().whoami().subject)"] * 3) == ["ada"] * 3
    assert provider.authorization.count("refresh_token") == 1


def test_threads_refresh_a_token_once_for_all(provider: IdentityProvider, url: str) -> None:
    profiles = sign_in(provider, url, 10, sub="ada")
    credentials = ProfileToken(profiles.tokens, "one", url, None)
    tokens: list[str | None] = []
    threads = [threading.Thread(target=lambda: tokens.append(credentials.token())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 8
    assert len(set(tokens)) == 1
    assert provider.authorization.count("refresh_token") == 1


def test_a_token_is_used_to_its_end_while_the_provider_is_away(
    provider: IdentityProvider, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    sign_in(provider, url, 30, sub="ada")
    provider.authorization.answers = [(503, b"")] * 10
    with Registry() as registry, caplog.at_level(logging.WARNING, "modelreg"):
        for _ in range(3):
            assert registry.whoami().subject == "ada"
    assert "could not be refreshed" in caplog.text
    # The provider is not asked again with each call.
    assert len(provider.authorization.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((503, b""), ConnectionFailed, "status 503"),
        ((400, {"error": "invalid_grant", "error_description": "session ended"}), Unauthenticated, "session ended"),
    ],
)
def test_an_expired_token_that_cannot_be_refreshed_is_an_error(
    provider: IdentityProvider, url: str, answer: tuple[int, Any], kind: type[Exception], said: str
) -> None:
    sign_in(provider, url, -1)
    provider.authorization.answers = [answer]
    with Registry() as registry, pytest.raises(kind, match=said):
        registry.whoami()


def test_the_registry_can_be_asked_how_to_sign_in_without_a_token(provider: IdentityProvider, url: str) -> None:
    profiles = sign_in(provider, url, -1)
    profiles.tokens.delete("one")
    with Registry() as registry:
        assert registry.server_info().authentication.oidc_issuer == provider.issuer
    assert provider.authorization.requests == []


def test_a_token_that_was_signed_out_elsewhere_is_not_used(provider: IdentityProvider, url: str) -> None:
    profiles = sign_in(provider, url, 30)
    credentials = ProfileToken(profiles.tokens, "one", url, None)
    profiles.tokens.delete("one")
    with pytest.raises(Unauthenticated, match=f"signed out. Sign in again: mreg login {url} --profile one"):
        credentials.token()


def test_in_a_read_only_directory_a_refreshed_token_is_used_without_being_kept(
    provider: IdentityProvider, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    profiles = sign_in(provider, url, 10, sub="ada")

    # Root may write anywhere, so the mode of the directory would not do.
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("modelreg._token_store.write_private_file", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    credentials = ProfileToken(profiles.tokens, "one", url, None)
    with caplog.at_level(logging.WARNING, "modelreg"):
        assert credentials.token() == credentials.token()
    assert "could not be stored" in caplog.text
    assert provider.authorization.count("refresh_token") == 1


def test_a_client_signs_in_with_its_secret_from_the_environment(
    provider: IdentityProvider, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREG_URL", url)
    monkeypatch.setenv("MODELREG_ISSUER", provider.issuer)
    monkeypatch.setenv("MODELREG_CLIENT_ID", CLIENT)
    monkeypatch.setenv("MODELREG_CLIENT_SECRET", SECRET)
    monkeypatch.setenv("MODELREG_SCOPES", "openid models")
    monkeypatch.setenv("MODELREG_AUDIENCE", AUDIENCE)
    with Registry() as registry:
        assert registry.whoami().subject == registry.whoami().subject == "robot"
    assert [form for _, form in provider.authorization.requests] == [
        {"grant_type": "client_credentials", "scope": "openid models", "audience": AUDIENCE}
    ]
    assert not Profiles().directory.exists()


def test_a_token_of_a_client_is_replaced_with_its_secret(
    provider: IdentityProvider, url: str, monkeypatch: pytest.MonkeyPatch, secret: Grant
) -> None:
    provider.authorization.lifetime = 30
    token = Issuer(provider.issuer).client_credentials(secret, url)
    profiles = Profiles()
    profiles.save(Profile(name="one", url=url, sign_in="client_credentials"))
    profiles.tokens.write("one", token)
    with Registry() as registry:
        assert registry.whoami().subject == "robot"
    assert provider.authorization.count("client_credentials") == 2


# ---- grants ----


def test_a_user_signs_in_on_another_device(provider: IdentityProvider, url: str, public: Grant) -> None:
    issuer = Issuer(provider.issuer)
    assert issuer.supports_device_codes()
    code = issuer.device_code(public)
    assert code.verification_uri == "http://127.0.0.1:1/device"
    assert code.verification_uri_complete == f"http://127.0.0.1:1/device?user_code={code.user_code}"
    pauses: list[float] = []
    provider.authorization.interval = 0

    def user(device: Device) -> None:
        assert (device.scope, device.audience) == ("openid", AUDIENCE)
        if len(device.asked) == 3:
            device.subject = "grace"

    provider.authorization.users = user
    token = issuer.wait_for_user(code, public, url, sleep=pauses.append)
    assert pauses == [1, 1, 1]
    assert (token.url, token.grant) == (url, public)
    assert token.expire_time == pytest.approx(time.time() + 600, abs=10)
    with Registry(url, token=token.access_token) as registry:
        assert registry.whoami().subject == "grace"


def test_a_device_asks_less_often_when_told_so_or_when_the_provider_is_away(
    provider: IdentityProvider, url: str, public: Grant
) -> None:
    issuer = Issuer(provider.issuer)
    code = issuer.device_code(public)
    pauses: list[float] = []
    provider.authorization.answers = [(400, {"error": "slow_down"}), (502, b""), (400, {"error": "access_denied"})]
    with pytest.raises(Unauthenticated, match="declined"):
        issuer.wait_for_user(code, public, url, sleep=pauses.append)
    assert pauses == [1, 6, 12]


def test_a_code_that_nobody_uses_expires(provider: IdentityProvider, url: str, public: Grant) -> None:
    issuer = Issuer(provider.issuer)
    code = issuer.device_code(public)
    with pytest.raises(Unauthenticated, match="code expired"):
        issuer.wait_for_user(replace(code, expires_in=0.5), public, url, sleep=lambda _: None)
    provider.authorization.answers = [(400, {"error": "expired_token"})]
    with pytest.raises(Unauthenticated, match="code expired"):
        issuer.wait_for_user(code, public, url, sleep=lambda _: None)


@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["client_secret_basic", "client_secret_post"]])
def test_a_secret_is_sent_as_the_provider_wants_it(
    provider: IdentityProvider, url: str, secret: Grant, methods: list[str] | None
) -> None:
    provider.authorization.document = {"token_endpoint_auth_methods_supported": methods}
    assert Issuer(provider.issuer).client_credentials(secret, url).access_token
    ((_, form),) = provider.authorization.requests
    assert ("client_secret" in form) == (methods == ["client_secret_post"])


def test_a_wrong_secret_is_refused(provider: IdentityProvider, url: str, secret: Grant) -> None:
    with pytest.raises(Unauthenticated, match=r"unknown client or secret. Check client id and secret") as caught:
        Issuer(provider.issuer).client_credentials(replace(secret, client_secret="wr0ng"), url)
    assert "wr0ng" not in str(caught.value)


def test_a_refresh_token_is_revoked(provider: IdentityProvider, url: str, public: Grant) -> None:
    token = StoredToken(url=url, access_token="a", refresh_token=provider.authorization.refresh_token(), grant=public)
    assert Issuer(provider.issuer).revoke(token) is True
    with pytest.raises(Unauthenticated, match="refresh token used or revoked"):
        Issuer(provider.issuer).refresh(token)
    provider.authorization.document = {"revocation_endpoint": None}
    assert Issuer(provider.issuer).revoke(token) is False


# ---- hostile and broken providers ----


def test_a_provider_without_device_codes_is_named(provider: IdentityProvider, public: Grant) -> None:
    provider.authorization.document = {"device_authorization_endpoint": None}
    issuer = Issuer(provider.issuer)
    assert not issuer.supports_device_codes()
    with pytest.raises(Unsupported, match="does not offer the device authorization grant"):
        issuer.device_code(public)


def test_the_configuration_of_another_issuer_is_refused(provider: IdentityProvider, public: Grant) -> None:
    provider.calls_itself = "https://login.example.org"
    with pytest.raises(ConnectionFailed, match=r"configuration of another issuer: 'https://login.example.org'"):
        Issuer(provider.issuer).device_code(public)


def test_a_path_without_a_configuration_is_refused(provider: IdentityProvider, public: Grant) -> None:
    with pytest.raises(ConnectionFailed, match=r"status 404. Check the URL of the issuer"):
        Issuer(f"{provider.issuer}/nowhere").device_code(public)


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.org",
        "ftp://login.example.org",
        "login.example.org",
        "https://",
        "https://a b",
        "https://a@b.org",
        "https://login.example.org\n",
        "https://login.ex\u0430mple.org",
        "https://a\\b",
        "http://127.0.0.1.evil.org",
    ],
)
def test_secrets_are_sent_only_to_https_or_loopback(provider: IdentityProvider, public: Grant, url: str) -> None:
    with pytest.raises(InvalidArgument, match="issuer: "):
        Issuer(url)
    provider.authorization.document = {"device_authorization_endpoint": url}
    with pytest.raises(InvalidArgument, match="device_authorization_endpoint: "):
        Issuer(provider.issuer).device_code(public)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(provider: IdentityProvider, url: str, secret: Grant, status: int) -> None:
    provider.authorization.answers = [(status, b"")]
    with pytest.raises(Unauthenticated, match=f"status {status}"):
        Issuer(provider.issuer).client_credentials(secret, url)
    assert len(provider.authorization.requests) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "no valid access_token"),
        (b"[]", "not a JSON object"),
        (b"<html>", "not a JSON object"),
        (b"[" * 100_000, "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b" " * 2_000_000, "too large"),
        ({"access_token": 1}, "no valid access_token"),
        ({"access_token": "a\nb"}, "no valid access_token"),
        ({"access_token": "abc", "token_type": "mac"}, "another type than Bearer"),
    ],
)
def test_an_answer_that_is_no_token_is_refused(
    provider: IdentityProvider, url: str, secret: Grant, answer: Any, said: str
) -> None:
    provider.authorization.answers = [(200, answer)]
    with pytest.raises(ConnectionFailed, match=said):
        Issuer(provider.issuer).client_credentials(secret, url)


@pytest.mark.parametrize(
    ("lifetime", "expires"), [("600", True), (None, False), ("soon", False), (-1, False), (1e300, False), (True, True)]
)
def test_lifetimes_of_any_kind_are_understood_or_left_out(
    provider: IdentityProvider, url: str, secret: Grant, lifetime: Any, expires: bool
) -> None:
    provider.authorization.answers = [(200, {"access_token": "abc", "expires_in": lifetime})]
    token = Issuer(provider.issuer).client_credentials(secret, url)
    assert (token.expire_time is not None) == expires


@pytest.mark.parametrize(
    "answer",
    [
        {"user_code": "A\u202eB", "device_code": "a", "verification_uri": "https://a"},
        {"user_code": "A\x1b[2J", "device_code": "a", "verification_uri": "https://a"},
        {"user_code": "A", "device_code": "a", "verification_uri": "javascript:alert(1)"},
        {"user_code": "A", "device_code": "a", "verification_uri": "http://evil.org"},
        {"user_code": "A", "device_code": "a", "verification_uri": "https://a", "verification_uri_complete": "x:y"},
        {"user_code": "A", "verification_uri": "https://a"},
        {},
    ],
)
def test_a_device_code_that_should_not_be_shown_is_refused(
    provider: IdentityProvider, public: Grant, answer: dict[str, str]
) -> None:
    provider.authorization.answers = [(200, answer)]
    with pytest.raises((ConnectionFailed, InvalidArgument)):
        Issuer(provider.issuer).device_code(public)


def test_errors_of_a_provider_are_made_printable(provider: IdentityProvider, public: Grant) -> None:
    provider.authorization.answers = [(400, {"error": "x\x1b[2J", "error_description": "y" * 1000})]
    with pytest.raises(PermissionDenied) as caught:
        Issuer(provider.issuer).device_code(public)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def test_a_provider_that_is_away_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match=r"No connection to http://127.0.0.1:1/.*Connection refused"):
        Issuer("http://127.0.0.1:1").supports_device_codes()
    with pytest.raises(InvalidArgument, match="ca_file: "):
        Issuer("https://127.0.0.1:1", str(tmp_path / "none.pem"))
