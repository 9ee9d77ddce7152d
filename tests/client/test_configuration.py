"""Which registry is called, and with which token: arguments, environment, profiles."""

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modelreg
import pytest
from modelreg import InvalidArgument, NotFound, Registry
from modelreg._access.configuration import Configuration
from modelreg._access.credentials import Credentials
from modelreg._access.token_store import StoredToken
from modelreg._async import runtime as async_runtime
from modelreg._async.connection import Connection
from modelreg._wire.options import Options
from modelreg.profiles import Profile, Profiles

DEFAULT = "grpc://127.0.0.1:50051"
PROD, TEST = "grpcs://prod.lan:50051", "grpcs://test.lan:50051"


@pytest.fixture
def profiles() -> Profiles:
    """Two profiles; `prod` is active."""
    profiles = Profiles()
    for name, url in (("test", TEST), ("prod", PROD)):
        profiles.save(Profile(name=name, url=url, sign_in="token"))
        profiles.tokens.write(name, StoredToken(url=url, access_token=f"token-of-{name}"))
    return profiles


def resolve(arguments: dict[str, Any], environment: dict[str, str]) -> tuple[Options, Credentials]:
    defaults: dict[str, Any] = dict.fromkeys(("url", "token", "profile", "ca_file", "client_certificate", "client_key"))
    defaults |= {"timeout": 30, "stall_timeout": 60, "insecure": False}
    home = {"MODELREG_CONFIG": str(Profiles().directory)}
    return Configuration(**(defaults | arguments)).resolve(home | environment)


def url_and_token(arguments: dict[str, Any], environment: dict[str, str]) -> tuple[str, str | None]:
    options, credentials = resolve(arguments, environment)
    return options.endpoint.url, credentials.token()


CI = {"MODELREG_URL": "ci.lan", "MODELREG_TOKEN": "env"}


@pytest.mark.parametrize(
    ("arguments", "environment", "found"),
    [
        ({}, {}, (DEFAULT, None)),
        ({"url": "prod.lan", "token": "arg"}, CI, (PROD, "arg")),
        ({"url": "prod.lan"}, CI, (PROD, None)),
        ({"url": "grpcs://ci.lan:50051"}, CI, ("grpcs://ci.lan:50051", "env")),
        ({}, CI, ("grpcs://ci.lan:50051", "env")),
        ({}, {"MODELREG_TOKEN": "env"}, (DEFAULT, "env")),
        ({"token": "arg"}, {}, (DEFAULT, "arg")),
        ({"token": "arg"}, {"MODELREG_TOKEN": "env"}, (DEFAULT, "arg")),
        ({}, {"MODELREG_URL": "", "MODELREG_TOKEN": "", "MODELREG_PROFILE": ""}, (DEFAULT, None)),
    ],
)
def test_url_and_token_come_from_one_source(
    arguments: dict[str, Any], environment: dict[str, str], found: tuple[str, str | None]
) -> None:
    assert url_and_token(arguments, environment) == found


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize(
    ("arguments", "environment", "found"),
    [
        ({}, {}, (PROD, "token-of-prod")),
        ({"profile": "test"}, {}, (TEST, "token-of-test")),
        ({"profile": "test"}, CI, (TEST, "token-of-test")),
        ({"profile": "test", "url": "test.lan"}, {}, (TEST, "token-of-test")),
        ({}, {"MODELREG_PROFILE": "test"}, (TEST, "token-of-test")),
        ({}, {"MODELREG_PROFILE": "test", "MODELREG_URL": "test.lan"}, (TEST, "token-of-test")),
        # The token of a profile goes to its URL, whatever names that.
        ({"url": "test.lan"}, {}, (TEST, "token-of-test")),
        ({}, {"MODELREG_URL": "test.lan"}, (TEST, "token-of-test")),
        # And to no other one.
        ({"url": "grpcs://prod.lan:1"}, {}, ("grpcs://prod.lan:1", None)),
        ({"url": "https://prod.lan"}, {}, ("https://prod.lan:443", None)),
        ({}, {"MODELREG_URL": "other.lan"}, ("grpcs://other.lan:50051", None)),
        ({"url": DEFAULT}, {}, (DEFAULT, None)),
        ({"url": "prod.lan", "token": "arg"}, {}, (PROD, "arg")),
        ({}, CI, ("grpcs://ci.lan:50051", "env")),
    ],
)
def test_a_token_of_a_profile_goes_only_to_its_url(
    arguments: dict[str, Any], environment: dict[str, str], found: tuple[str, str | None]
) -> None:
    assert url_and_token(arguments, environment) == found


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (
            {"token": "s3cret"},
            {},
            "token was passed without url.* active profile says grpcs://prod.lan:50051. Pass url",
        ),
        ({"token": "s3cret"}, {"MODELREG_URL": "ci.lan"}, "MODELREG_URL says ci.lan"),
        ({}, {"MODELREG_TOKEN": "s3cret"}, "MODELREG_TOKEN is set without MODELREG_URL.*Set MODELREG_URL, too"),
        ({}, {"MODELREG_TOKEN_FILE": "s3cret"}, "MODELREG_TOKEN_FILE is set without MODELREG_URL"),
        ({}, {"MODELREG_TOKEN": "s3cret", "MODELREG_PROFILE": "prod"}, "both set"),
        ({"profile": "prod", "token": "s3cret"}, {}, "a profile has its own token"),
        ({"profile": "prod", "url": "test.lan"}, {}, "different registries"),
        ({}, {"MODELREG_PROFILE": "prod", "MODELREG_URL": "test.lan"}, "MODELREG_PROFILE and MODELREG_URL"),
        ({"url": "ftp://a"}, {}, "url: .* must begin with grpc://"),
        ({}, {"MODELREG_URL": "ftp://a"}, "MODELREG_URL: .* must begin with grpc://"),
        ({"url": "prod.lan", "token": "s3cret s3cret"}, {}, "token: "),
        ({"url": "prod.lan", "token": "Bearer s3cret"}, {}, "without 'Bearer'"),
        ({"url": "prod.lan", "token": ""}, {}, "token: is empty"),
        ({}, {"MODELREG_URL": "a", "MODELREG_TOKEN": "s3cret\u00e9"}, "MODELREG_TOKEN: "),
        ({}, CI | {"MODELREG_TOKEN_FILE": "s3cret"}, "MODELREG_TOKEN and MODELREG_TOKEN_FILE are both set"),
        ({}, {"MODELREG_URL": "a", "MODELREG_CLIENT_ID": "b"}, "without MODELREG_ISSUER and MODELREG_CLIENT_SECRET"),
        ({}, {"MODELREG_INSECURE": "maybe"}, "MODELREG_INSECURE: must be 1 or 0"),
        ({"url": "grpc://prod.lan", "ca_file": "ca.pem"}, {}, "uses no TLS"),
        ({"timeout": 0}, {}, "timeout: must be more than 0"),
        ({"stall_timeout": float("nan")}, {}, "stall_timeout: must be more than 0"),
        ({"timeout": None}, {}, "timeout: must be a number of seconds, not None"),
        ({"stall_timeout": "5"}, {}, "stall_timeout: must be a number of seconds, not '5'"),
    ],
)
def test_what_is_unclear_is_refused(arguments: dict[str, Any], environment: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        resolve(arguments, environment)
    assert "s3cret" not in str(caught.value)


def test_a_profile_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="'nope'"):
        resolve({"profile": "nope"}, {})
    with pytest.raises(NotFound, match="'nope'"):
        resolve({}, {"MODELREG_PROFILE": "nope"})


def test_space_around_a_token_is_dropped() -> None:
    assert url_and_token({"url": "a", "token": " abc\n"}, {})[1] == "abc"


def test_a_token_file_is_read_for_each_call(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    _, credentials = resolve({}, {"MODELREG_URL": "a", "MODELREG_TOKEN_FILE": str(path)})
    assert credentials.token() == "one"
    assert credentials.refresh("one") is False
    path.write_text("two\n")
    assert credentials.refresh("one") is True
    assert credentials.token() == "two"
    path.unlink()
    with pytest.raises(InvalidArgument, match=r"MODELREG_TOKEN_FILE: .* cannot be read"):
        credentials.token()


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({"MODELREG_URL": "ci.lan"}, 0),
        (CI, 0),
        ({"MODELREG_URL": "ci.lan", "MODELREG_TOKEN_FILE": "token"}, 1),
        ({"MODELREG_PROFILE": "test"}, 1),
    ],
    ids=["none", "fixed", "file", "profile"],
)
@pytest.mark.usefixtures("profiles")
def test_only_a_token_that_is_read_or_refreshed_needs_a_thread(
    environment: dict[str, str], threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("token").write_text("one")
    used: list[Any] = []

    async def run_blocking(function: Callable[[], str]) -> str:
        used.append(function)
        return function()

    monkeypatch.setattr(async_runtime, "run_blocking", run_blocking)
    options, credentials = resolve({}, environment)
    assert asyncio.run(Connection(options, credentials).token()) == credentials.token()
    assert len(used) == threads


def test_a_profile_whose_url_was_changed_does_not_send_its_token(profiles: Profiles) -> None:
    profiles.path.write_text(profiles.path.read_text().replace("prod.lan", "evil.lan"))
    _, credentials = resolve({"profile": "prod"}, {})
    with pytest.raises(InvalidArgument, match=r"is for grpcs://prod.lan:50051, not for grpcs://evil.lan:50051"):
        credentials.token()


def test_without_a_home_directory_a_url_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelreg.directories.platformdirs.user_config_path", lambda *_, **__: Path("~/x"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert Registry("grpc://localhost:1").url == "grpc://localhost:1"
    with pytest.raises(InvalidArgument, match="no home directory"):
        Registry(profile="one")


def test_files_of_tls_come_from_arguments_the_environment_or_the_profile(profiles: Profiles) -> None:
    profiles.save(
        Profile(name="prod", url=PROD, ca_file="p-ca", client_certificate="p-cert", client_key="p-key", insecure=True)
    )
    environment = {"MODELREG_CA_FILE": "e-ca", "MODELREG_CLIENT_CERTIFICATE": "e-cert", "MODELREG_CLIENT_KEY": "e-key"}
    arguments = {"ca_file": "a-ca", "client_certificate": "a-cert", "client_key": "a-key"}

    def files(arguments: dict[str, Any], environment: dict[str, str]) -> tuple[str | None, str | None, str | None]:
        options, _ = resolve(arguments, environment)
        return options.ca_file, options.client_certificate, options.client_key

    assert files(arguments, environment) == ("a-ca", "a-cert", "a-key")
    assert files({}, environment) == ("e-ca", "e-cert", "e-key")
    assert files({}, {}) == ("p-ca", "p-cert", "p-key")
    # Halves of two pairs never meet.
    assert files({"client_key": "a-key"}, environment) == ("e-ca", None, "a-key")
    assert files({"url": "other.lan"}, {}) == (None, None, None)
    assert resolve({}, {})[0].insecure
    assert resolve({"url": "other.lan"}, {"MODELREG_INSECURE": "1"})[0].insecure
    assert not resolve({"url": "other.lan"}, {"MODELREG_INSECURE": "0"})[0].insecure


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize("kind", [Registry, modelreg.aio.Registry])
def test_a_pickled_registry_keeps_its_url_without_the_token(
    kind: type[Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = pickle.dumps(kind()), pickle.dumps(kind("test.lan", token="s3cret", timeout=7))
    assert b"s3cret" not in pickled[1]
    assert b"token-of" not in pickled[0]
    monkeypatch.setenv("MODELREG_URL", "elsewhere.lan")
    Profiles().remove("prod")
    first, second = (pickle.loads(content) for content in pickled)
    assert (first.url, second.url) == (PROD, TEST)
    assert second._connection.options.timeout == 7
    # Where it is used, the profile for the URL signs in.
    assert second._connection._credentials.token() == "token-of-test"


@pytest.mark.parametrize(
    ("url", "insecure", "is_sent"),
    [
        ("grpc://127.0.0.1:1", False, True),
        ("grpc://localhost:1", False, True),
        ("grpcs://10.0.0.1:1", False, True),
        ("grpc://10.0.0.1:1", False, False),
        ("http://registry.lan", False, False),
        ("http://registry.lan", True, True),
        ("grpc://localhost.evil.lan", False, False),
        ("grpc://127.0.0.1.evil.lan", False, False),
    ],
)
def test_tokens_are_sent_unencrypted_only_to_this_machine(url: str, insecure: bool, is_sent: bool) -> None:
    registry = Registry(url, token="abc", insecure=insecure)
    if is_sent:
        assert registry._connection.token() == "abc"
    else:
        with pytest.raises(InvalidArgument, match="not encrypted, so others could read the token"):
            registry.whoami()
