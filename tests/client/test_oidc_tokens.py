"""Tokens of an OpenID provider: when calls refresh them, once for all threads and processes."""

import asyncio
import io
import logging
import threading
import time
from contextlib import closing
from dataclasses import replace
from typing import Any

import modelreg
import pytest
from modelreg import ConnectionFailed, Registry, Unauthenticated
from modelreg._access.oidc import Issuer
from modelreg._access.refreshed_tokens import ProfileToken
from modelreg._access.token_store import Grant, StoredToken
from modelreg.profiles import Profile, Profiles

from tests.authorization_server import CLIENT, PUBLIC_CLIENT, SECRET
from tests.client.processes import run_together
from tests.identity_provider import AUDIENCE, IdentityProvider


@pytest.fixture(scope="module")
def settings(oidc_settings: dict[str, str]) -> dict[str, str]:
    return oidc_settings


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


@pytest.mark.parametrize("kind", ["push", "pull", "open", "watch", "list"])
def test_a_token_that_is_refused_at_a_stream_or_a_list_is_refreshed(
    provider: IdentityProvider, url: str, name: str, kind: str
) -> None:
    admin = provider.token(roles=["model-registry:admin"])
    with Registry(url, token=admin) as registry:
        model = registry.push(io.BytesIO(b"bytes"), name=name, version="1", file_name="a.bin")
    profiles = sign_in(provider, url, -3600, roles=["model-registry:writer"])
    stored = profiles.tokens.read("one")
    assert stored is not None
    profiles.tokens.write("one", replace(stored, expire_time=None))
    with Registry() as registry:
        if kind == "push":
            pushed = registry.push(io.BytesIO(b"bytes"), name=name, version="2", file_name="a.bin")
            assert pushed.artifact.sha256 == model.artifact.sha256
        elif kind == "pull":
            assert registry.pull(model).read_bytes() == b"bytes"
        elif kind == "open":
            with registry.open(model) as file:
                assert file.read() == b"bytes"
        elif kind == "watch":
            with closing(registry.watch(f"name = {name}", from_beginning=True)) as events:
                assert next(events).model_id == model.id
        else:
            assert [found.id for found in registry.models(f"name = {name}")] == [model.id]
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

    monkeypatch.setattr("modelreg._access.token_store.write_private_file", refuse)
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


def test_a_token_of_the_environment_for_another_registry_is_mentioned(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREG_TOKEN", "s3cret")
    with Registry(url) as registry, pytest.raises(Unauthenticated) as caught:
        registry.whoami()
    assert f"so it was not sent to {url}. Set MODELREG_URL={url}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
