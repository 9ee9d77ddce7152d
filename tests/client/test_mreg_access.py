"""`mreg login`, `logout`, `whoami` and `profile`, on a registry with an OpenID provider."""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from modelreg import Registry
from modelreg.cli import main
from modelreg.profiles import Profile, Profiles

from registry_service.domain.access import Grant, Role
from registry_service.embedded.postgres import PostgresAddress
from registry_service.services.tokens import TokenService
from registry_service.storage.sql.database import SqlDatabase
from tests.authorization_server import CLIENT, PUBLIC_CLIENT, SECRET, AuthorizationServer, Device
from tests.client.mreg import Ended, Mreg
from tests.identity_provider import AUDIENCE, IdentityProvider
from tests.registry import RunningRegistry, running_registry


@pytest.fixture(autouse=True)
def _users(provider: IdentityProvider) -> None:
    """Let users sign in at once."""

    def user(device: Device) -> None:
        device.subject = "grace"

    provider.authorization.users = user


@pytest.fixture(scope="module")
def settings(oidc_settings: dict[str, str]) -> dict[str, str]:
    return oidc_settings


@pytest.fixture(scope="module")
def open_url(
    server: RunningRegistry,
    postgres: PostgresAddress,
    module_database_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The URL of a registry that requires no token."""
    folder = tmp_path_factory.mktemp("artifacts")
    with running_registry(postgres, module_database_name, server.engine, folder) as running:
        yield f"grpc://{running.address}"


@pytest.fixture(scope="module")
def token_url(
    server: RunningRegistry,
    postgres: PostgresAddress,
    module_database_name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The URL of a registry that takes only its own tokens."""
    folder = tmp_path_factory.mktemp("artifacts")
    settings = {"auth_mode": "token"}
    with running_registry(postgres, module_database_name, server.engine, folder, **settings) as running:
        yield f"grpc://{running.address}"


@pytest.fixture(scope="module")
def token(server: RunningRegistry) -> str:
    """A token of the registry."""
    tokens = TokenService(SqlDatabase(server.engine))
    return tokens.create(Grant(Role.WRITER, "vision"), name="ci")[1]


def run(*arguments: str, given: str = "") -> Ended:
    result = CliRunner().invoke(main, arguments, input=given, prog_name="mreg")
    return Ended(result.exit_code, result.stdout, result.stderr)


def failed(code: int, *arguments: str, given: str = "") -> str:
    """Run a command that fails, and return what it says."""
    ended = run(*arguments, given=given)
    assert ended.code == code, ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    return ended.err


# ---- tokens ----


def test_a_token_from_stdin_is_checked_and_kept(url: str, token: str) -> None:
    ended = run("login", url, "--token-stdin", given=f"{token}\n")
    assert ended.code == 0, ended.err
    assert f"Signed in to {url} as token:ci (writer in vision)." in ended.err
    assert token not in ended.err + ended.out
    path = Profiles().tokens.path("127.0.0.1")
    assert f"The token is in {path}." in ended.err
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600
    assert token not in Profiles().path.read_text()
    with Registry() as registry:
        assert registry.url == url
        assert registry.whoami().subject == "token:ci"


def test_a_token_that_the_registry_refuses_is_not_kept(url: str, token: str) -> None:
    said = failed(4, "login", url, "--token-stdin", given="mrt_" + "x" * 43)
    assert "UNAUTHENTICATED" not in said
    assert not Profiles().directory.exists()
    # Neither does it replace one that works.
    assert run("login", url, "--token-stdin", given=token).code == 0
    failed(4, "login", url, "--token-stdin", given="wrong")
    assert run("whoami").code == 0


@pytest.mark.parametrize("given", ["", "\n", "a b", "Bearer abc", "ä"])
def test_what_is_no_token_is_not_sent(url: str, given: str) -> None:
    failed(2, "login", url, "--token-stdin", given=given)
    assert not Profiles().directory.exists()


def test_a_registry_with_tokens_asks_for_one(token_url: str, token: str) -> None:
    said = failed(2, "login", token_url)
    assert "pass it on stdin with --token-stdin" in said
    shown = Mreg(token_url).terminal("login", typed=f"{token}\n", prompt="Token: ")
    assert shown.code == 0, shown.out
    assert "model-registry token create" in shown.out
    assert "Signed in" in shown.out
    assert token not in shown.out


def test_a_registry_without_authentication_becomes_a_profile(open_url: str) -> None:
    ended = run("login", open_url, "--profile", "local")
    assert ended.code == 0, ended.err
    assert "requires no token. The active profile is now local" in ended.err
    assert not Profiles().tokens.path("local").exists()
    assert run("ls").code == 0


def test_a_registry_that_is_away_or_strange_is_named() -> None:
    said = failed(1, "login", "grpc://nowhere.invalid")
    assert "No connection to grpc://nowhere.invalid:50051" in said
    assert "must begin with grpc://" in failed(2, "login", "ftp://a")
    assert "are different" in failed(2, "login", "a", "--url", "b")
    assert not Profiles().directory.exists()


# ---- OpenID ----


def test_a_user_signs_in_at_the_provider(url: str, provider: IdentityProvider) -> None:
    ended = run("login", url, "--issuer", provider.issuer)
    assert ended.code == 0, ended.err
    assert "open http://127.0.0.1:1/device on any device" in ended.err
    assert "WDJB-" in ended.err
    assert f"Signed in to {url} as grace (reader)." in ended.err
    ((_, asked), *_) = provider.authorization.requests
    assert asked == {"client_id": PUBLIC_CLIENT, "scope": "openid models", "audience": AUDIENCE}
    assert Profiles().get("127.0.0.1").sign_in == "device"
    assert run("whoami", "--format", "json").json["subject"] == "grace"


def test_options_replace_what_the_registry_proposes(url: str, provider: IdentityProvider) -> None:
    options = ("--scope", "a", "--scope", "b", "--audience", "c", "--client-id", PUBLIC_CLIENT)
    assert run("login", url, "--issuer", provider.issuer, *options).code == 0
    assert provider.authorization.requests[0][1] == {"client_id": PUBLIC_CLIENT, "scope": "a b", "audience": "c"}


def test_a_client_signs_in_with_its_secret(url: str, provider: IdentityProvider) -> None:
    options = ("--issuer", provider.issuer, "--client-id", CLIENT, "--client-secret-stdin")
    ended = run("login", url, *options, given=SECRET)
    assert ended.code == 0, ended.err
    assert SECRET not in ended.err
    assert run("whoami", "--format", "quiet").out == "robot\n"
    assert "unknown client or secret" in failed(4, "login", url, *options, given="wrong")


def test_nothing_is_sent_to_a_provider_that_nobody_confirmed(url: str, provider: IdentityProvider) -> None:
    said = failed(2, "login", url)
    assert f"To confirm, pass --issuer {provider.issuer}" in said
    for shown in (provider.issuer, PUBLIC_CLIENT, AUDIENCE, "openid models"):
        assert shown in said
    said = failed(2, "login", url, "--issuer", "https://login.example.org")
    assert f"takes tokens of '{provider.issuer}', not of 'https://login.example.org'" in said
    asked = Mreg(url).terminal("login", typed="n\n", prompt="[y/N]")
    assert asked.code == 130
    assert "Go on only if you trust" in asked.out
    assert provider.authorization.requests == []
    assert not Profiles().directory.exists()


def test_a_provider_is_confirmed_once_for_a_registry(url: str, provider: IdentityProvider) -> None:
    shown = Mreg(url).terminal("login", typed="y\n", prompt="[y/N]")
    assert shown.code == 0, shown.out
    assert "Signed in" in shown.out
    again = run("login")
    assert again.code == 0
    assert "Go on only" not in again.err
    assert [profile.name for profile in Profiles()] == ["127.0.0.1"]
    # Until the registry asks for more.
    kept = Profiles().tokens.read("127.0.0.1")
    assert kept is not None
    assert kept.grant is not None
    Profiles().tokens.write("127.0.0.1", replace(kept, grant=replace(kept.grant, scopes=("openid",))))
    assert "nobody can be asked" in failed(2, "login")


def test_a_token_that_another_registry_takes_too_is_warned_of(url: str, provider: IdentityProvider) -> None:
    Profiles().save(Profile(name="prod", url="grpcs://prod.lan", issuer=provider.issuer, audience=AUDIENCE))
    said = failed(2, "login", url, "--profile", "new")
    assert "would be valid for grpcs://prod.lan:50051 (profile prod), too" in said


def test_a_sign_in_that_is_declined_changes_nothing(url: str, provider: IdentityProvider) -> None:
    def user(device: Device) -> None:
        device.is_declined = True

    provider.authorization.users = user
    assert "declined" in failed(4, "login", url, "--issuer", provider.issuer)
    assert not Profiles().directory.exists()


def test_a_token_that_the_registry_does_not_take_is_explained(url: str, provider: IdentityProvider) -> None:
    provider.authorization = AuthorizationServer(lambda **claims: provider.token(**claims, aud="another"))
    provider.authorization.users = lambda device: setattr(device, "subject", "grace")
    said = failed(4, "login", url, "--issuer", provider.issuer)
    assert f"{url} refuses the token that {provider.issuer} issued" in said
    assert "--audience" in said
    assert not Profiles().directory.exists()


def test_options_that_do_not_fit_together_are_refused(url: str) -> None:
    assert "takes no option of an OpenID" in failed(2, "login", url, "--token-stdin", "--issuer", "https://a")
    assert "needs --client-id" in failed(2, "login", url, "--client-secret-stdin")
    assert "not the name of a profile" in failed(2, "login", url, "--profile", "../x")


def test_a_token_is_not_asked_for_where_it_could_not_be_sent(
    url: str, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the registry were on another machine.
    monkeypatch.setattr("modelreg.urls.Endpoint.is_loopback", False)
    for options in ((), ("--token-stdin",), ("--issuer", provider.issuer)):
        assert "is not encrypted, so others could read the token" in failed(2, "login", url, *options, given="abc")
    assert provider.authorization.requests == []
    assert run("login", url, "--issuer", provider.issuer, "--insecure").code == 0
    assert Profiles().get("127.0.0.1").insecure
    assert run("whoami").code == 0


# ---- logout ----


def test_signing_out_deletes_and_revokes_the_token(url: str, provider: IdentityProvider) -> None:
    assert run("login", url, "--issuer", provider.issuer).code == 0
    kept = Profiles().tokens.read("127.0.0.1")
    assert kept is not None
    ended = run("logout")
    assert ended.code == 0
    assert f"Signed out of {url} (profile 127.0.0.1)." in ended.err
    assert provider.authorization.revoked == [kept.refresh_token]
    said = failed(4, "whoami")
    assert f"Sign in again: mreg login {url} --profile 127.0.0.1" in said
    assert "There was no token" in run("logout").err


def test_signing_out_succeeds_while_the_provider_is_away(url: str, provider: IdentityProvider) -> None:
    assert run("login", url, "--issuer", provider.issuer).code == 0
    provider.authorization.answers = [(503, b"")]
    ended = run("logout", "--all")
    assert ended.code == 0
    assert "could not be revoked" in ended.err
    assert Profiles().tokens.read("127.0.0.1") is None


def test_signing_out_of_a_fixed_token_says_that_it_stays_valid(url: str, token: str) -> None:
    assert run("login", url, "--token-stdin", given=token).code == 0
    assert "still accepts the token" in run("logout").err


def test_signing_out_without_a_profile_is_an_error() -> None:
    assert "There is no such profile" in failed(3, "logout")
    assert "no profile 'nope'" in failed(3, "logout", "--profile", "nope")


# ---- whoami, profile ----


def test_whoami_shows_subject_and_roles(url: str, token: str) -> None:
    run("login", url, "--token-stdin", given=token)
    shown = Mreg(url).terminal("whoami", variables={"NO_COLOR": "1"})
    assert f"token:ci at {url}" in shown.out
    assert "writer" in shown.out
    assert run("whoami").rows == [[f"token:ci at {url}"], ["writer", "vision", "read, write"]]
    assert run("whoami", "--format", "json").json == {
        "subject": "token:ci",
        "grants": [{"role": "writer", "project_id": "vision", "permissions": ["read", "write"]}],
    }


def test_profiles_are_listed_used_and_removed(url: str, open_url: str, token: str, provider: IdentityProvider) -> None:
    assert "There is no profile" in run("profile", "ls").err
    run("login", open_url, "--profile", "open")
    run("login", url, "--token-stdin", "--profile", "closed", given=token)
    assert run("profile", "ls").rows == [
        ["active", "closed", url, "token", "token:ci"],
        ["", "open", open_url, "none", ""],
    ]
    assert run("profile", "ls", "--format", "quiet").out == "closed\nopen\n"
    assert [found["name"] for found in run("profile", "ls", "--format", "json").json["profiles"]] == ["closed", "open"]
    assert run("profile", "use", "open").code == 0
    assert run("ls").code == 0
    assert run("whoami", "--profile", "closed", "--format", "quiet").out == "token:ci\n"
    assert run("profile", "rm", "open", "closed").code == 0
    assert "closed" not in "".join(path.read_text() for path in Profiles().directory.iterdir())
    assert "no profile 'open'" in failed(3, "profile", "use", "open")


def test_a_second_registry_on_a_host_gets_a_name_of_its_own(url: str, open_url: str, token: str) -> None:
    run("login", url, "--token-stdin", given=token)
    run("login", open_url)
    assert [profile.name for profile in Profiles()] == ["127.0.0.1", f"127.0.0.1-{open_url.rpartition(':')[2]}"]


def test_a_profile_that_is_named_keeps_its_url(
    url: str, open_url: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("login", url, "--token-stdin", "--profile", "one", given=token)
    monkeypatch.setenv("MODELREG_URL", open_url)
    assert run("login", "--profile", "one", "--token-stdin", given=token).code == 0
    assert Profiles().get("one").url == url
    again = run("login", open_url, "--profile", "one")
    assert again.code == 0
    assert Profiles().get("one").url == open_url
    assert Profiles().tokens.read("one") is None


def test_a_profile_keeps_the_absolute_paths_of_its_certificates(
    open_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelreg._access.sign_in import find_target  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    target = find_target("grpcs://a", None, {"ca_file": "ca.pem"})
    profile, _ = target.save("none", None, "")
    assert profile.ca_file == str(tmp_path / "ca.pem")
    # The next sign-in keeps it.
    assert find_target("a", None, {}).options.ca_file == profile.ca_file


def test_json_of_a_sign_in_is_one_document(url: str, token: str) -> None:
    ended = run("login", url, "--token-stdin", "--format", "json", given=token)
    found: dict[str, Any] = json.loads(ended.out)
    assert found == {
        "name": "127.0.0.1",
        "url": url,
        "active": True,
        "sign_in": "token",
        "subject": "token:ci",
        "issuer": "",
    }


def test_an_expired_profile_can_sign_in_again(url: str, provider: IdentityProvider) -> None:
    run("login", url, "--issuer", provider.issuer)
    profiles = Profiles()
    kept = profiles.tokens.read("127.0.0.1")
    assert kept is not None
    profiles.tokens.write("127.0.0.1", replace(kept, expire_time=time.time() - 1, refresh_token="used"))
    assert "Sign in again with `mreg login`" in failed(4, "whoami")
    assert run("login").code == 0
    assert run("whoami").code == 0
