"""The profiles of `mreg login`, and their tokens."""

import json
import logging
import os
import stat
import sys
import types
from pathlib import Path

import pytest
from modelreg import InvalidArgument, NotFound, Unavailable
from modelreg._access.token_store import Grant, StoredToken
from modelreg._files import lock_file
from modelreg.profiles import Profile, Profiles
from modelreg.urls import parse_url

from tests.client.processes import run_together

GRANT = Grant(issuer="https://login.example.org", client_id="mreg", scopes=("openid",), client_secret="shh")
TOKEN = StoredToken(
    url="grpcs://registry.lan:50051", access_token="abc", refresh_token="def", expire_time=1.5e9, grant=GRANT
)


@pytest.fixture
def profiles(tmp_path: Path) -> Profiles:
    return Profiles(tmp_path / "config")


def profile(name: str, url: str = "grpcs://registry.lan:50051", **values: str) -> Profile:
    return Profile(name=name, url=url, **values)  # type: ignore[arg-type]


def test_a_profile_is_found_by_its_name_and_its_url(profiles: Profiles) -> None:
    profiles.save(profile("one", "registry.lan", ca_file="ca.pem", sign_in="token", subject="token:ci"))
    found = Profiles(profiles.directory).get("one")
    assert found.url == "grpcs://registry.lan:50051"
    assert (found.ca_file, found.sign_in, found.subject) == ("ca.pem", "token", "token:ci")
    assert profiles.find(parse_url("grpcs://registry.lan")) == profiles.active() == found
    assert profiles.find(parse_url("https://registry.lan")) is None


def test_the_profile_that_was_saved_or_used_last_is_active(profiles: Profiles) -> None:
    assert profiles.active() is None
    profiles.save(profile("one"))
    profiles.save(profile("two"))
    assert profiles.active() == profile("two")
    profiles.use("one")
    assert profiles.active() == profile("one")
    profiles.save(profile("three"), activate=False)
    assert profiles.active() == profile("one")
    profiles.remove("one")
    assert profiles.active() is None
    assert [found.name for found in profiles] == ["three", "two"]


def test_of_several_profiles_of_a_url_the_active_one_is_found(profiles: Profiles) -> None:
    profiles.save(profile("one"))
    profiles.save(profile("two"))
    assert profiles.find(parse_url("registry.lan")) == profile("two")
    profiles.save(profile("other", "grpc://localhost:1"))
    with pytest.raises(InvalidArgument, match=r"Several profiles .* one, two"):
        profiles.find(parse_url("registry.lan"))


def test_a_profile_that_is_not_there_is_not_found(profiles: Profiles) -> None:
    profiles.save(profile("one"))
    for act in (profiles.get, profiles.use, profiles.remove):
        with pytest.raises(NotFound, match=r"no profile 'two'\. Known: one"):
            act("two")


@pytest.mark.parametrize("name", ["", "A", "../x", "a/b", "-a", ".a", "a" * 65, "ä", "a b", "a\n"])
def test_names_that_cannot_be_part_of_a_file_name_are_refused(profiles: Profiles, name: str) -> None:
    with pytest.raises(InvalidArgument, match="not the name of a profile"):
        profiles.save(profile(name))
    assert not profiles.path.exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("\xff", "is damaged"),
        ("{}", "'version' is missing"),
        ('{"version": 2}', "format 2 of another version of modelreg"),
        ('{"version": 1}', "'profiles' is missing"),
        ('{"version": 1, "profiles": []}', "is damaged"),
        ('{"version": 1, "profiles": {"a": 1}}', "is damaged"),
        ('{"version": 1, "profiles": {"a": {}}}', "'url' is missing"),
        ('{"version": 1, "profiles": {"a": {"url": 1}}}', "expected a str"),
        ('{"version": 1, "profiles": {"a": {"url": "ftp://a"}}}', "must begin with grpc://"),
        ('{"version": 1, "profiles": {"../a": {"url": "a"}}}', "'../a' is not the name of a profile"),
        ('{"version": 1, "profiles": {"a": {"url": "a", "insecure": "yes"}}}', "expected a bool"),
        ('{"version": 1, "profiles": {"a": {"url": "a", "sign_in": "magic"}}}', "sign_in"),
        ('{"version": 1, "active": [], "profiles": {}}', "expected a str"),
        (" " * 5_000_000, "larger than"),
    ],
)
def test_a_damaged_file_is_named_with_its_problem_and_kept(profiles: Profiles, content: str, problem: str) -> None:
    profiles.directory.mkdir()
    profiles.path.write_bytes(content.encode("latin-1"))
    for act in (profiles.active, lambda: profiles.save(profile("one"))):
        with pytest.raises(InvalidArgument) as caught:
            act()
        assert str(profiles.path) in str(caught.value)
        assert problem in str(caught.value)
    assert profiles.path.read_bytes() == content.encode("latin-1")


def test_what_a_newer_client_adds_does_no_harm(profiles: Profiles) -> None:
    profiles.directory.mkdir()
    added = {"version": 1, "active": "a", "profiles": {"a": {"url": "a", "later": 1}}, "later": 2}
    profiles.path.write_text(json.dumps(added))
    assert profiles.active() == profile("a", "grpcs://a:50051")


def test_processes_that_sign_in_together_keep_all_profiles(profiles: Profiles) -> None:
    names = ["one", "two", "three"]
    opening = f"profiles = Profiles(pathlib.Path({str(profiles.directory)!r})); "
    run_together(*(f"{opening}[profiles.save(Profile(name={name!r}, url='a')) for _ in range(5)]" for name in names))
    assert [found.name for found in profiles] == sorted(names)


def test_a_lock_that_is_held_is_named(tmp_path: Path) -> None:
    with (
        lock_file(tmp_path / "lock"),
        pytest.raises(Unavailable, match="Another process has held the lock"),
        lock_file(tmp_path / "lock", seconds=0.01),
    ):
        pytest.fail("two have the lock")


# ---- tokens ----


def test_a_token_is_kept_in_a_file_for_this_user_only(profiles: Profiles) -> None:
    assert profiles.tokens.read("one") is None
    assert profiles.tokens.write("one", TOKEN) is False
    assert profiles.tokens.read("one") == TOKEN
    assert profiles.tokens.read("two") is None
    if os.name != "nt":
        assert stat.S_IMODE(profiles.tokens.path("one").stat().st_mode) == 0o600
        assert stat.S_IMODE(profiles.directory.stat().st_mode) == 0o700


def test_a_fixed_token_has_nothing_to_be_refreshed_with(profiles: Profiles) -> None:
    fixed = StoredToken(url="grpc://127.0.0.1:50051", access_token="abc")
    profiles.tokens.write("one", fixed)
    assert profiles.tokens.read("one") == fixed
    assert not fixed.can_be_refreshed


def test_secrets_are_not_shown() -> None:
    for secret in ("abc", "def", "shh"):
        assert secret not in repr(TOKEN)


def test_a_profile_is_removed_with_its_token(profiles: Profiles) -> None:
    profiles.save(profile("one"))
    profiles.tokens.write("one", TOKEN)
    profiles.remove("one")
    assert profiles.tokens.read("one") is None
    assert "abc" not in "".join(path.read_text() for path in profiles.directory.iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"access_token": None},
        {"access_token": 1},
        {"refresh_token": ["s3cret"]},
        {"expire_time": "soon"},
        {"expire_time": True},
        {"grant": "s3cret"},
        {"grant": {"issuer": "https://a"}},
        {"grant": {"issuer": "https://a", "client_id": "b", "scopes": "s3cret"}},
    ],
)
def test_a_damaged_token_is_named_but_not_shown(profiles: Profiles, damage: dict[str, object]) -> None:
    profiles.tokens.write("one", TOKEN)
    path = profiles.tokens.path("one")
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(InvalidArgument) as caught:
        profiles.tokens.read("one")
    assert str(path) in str(caught.value)
    assert "mreg login" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff", "[" * 100_000])
def test_a_token_that_is_no_json_is_named(profiles: Profiles, content: str) -> None:
    profiles.directory.mkdir()
    profiles.tokens.path("one").write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidArgument, match="is damaged"):
        profiles.tokens.read("one")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no mode bits")
def test_a_token_that_others_can_read_is_reported(profiles: Profiles, caplog: pytest.LogCaptureFixture) -> None:
    profiles.tokens.write("one", TOKEN)
    profiles.tokens.path("one").chmod(0o644)
    with caplog.at_level(logging.WARNING, "modelreg"):
        assert profiles.tokens.read("one") == TOKEN
    assert "Others can read the token" in caplog.text


class Keyring:
    """What of the package `keyring` is used."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.is_locked = False
        self.max_length = 10_000
        self.is_recommended = True

    def get_keyring(self) -> object:
        return self

    def get_password(self, service: str, user: str) -> str | None:
        self._check()
        return self.entries.get((service, user))

    def set_password(self, service: str, user: str, text: str) -> None:
        self._check()
        if len(text) > self.max_length:
            raise RuntimeError("too long")
        self.entries[service, user] = text

    def delete_password(self, service: str, user: str) -> None:
        self._check()
        del self.entries[service, user]

    def _check(self) -> None:
        if self.is_locked:
            raise RuntimeError("locked")


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Keyring:
    found = Keyring()
    module = types.ModuleType("keyring")
    core = types.ModuleType("keyring.core")
    for name in ("get_keyring", "get_password", "set_password", "delete_password"):
        setattr(module, name, getattr(found, name))
    core.recommended = lambda _: found.is_recommended  # type: ignore[attr-defined]
    module.core = core  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", module)
    monkeypatch.setitem(sys.modules, "keyring.core", core)
    return found


def test_a_token_is_kept_in_the_keyring_where_there_is_one(profiles: Profiles, keyring: Keyring) -> None:
    profiles.save(profile("one"))
    assert profiles.tokens.write("one", TOKEN) is True
    assert "abc" not in "".join(path.read_text() for path in profiles.directory.iterdir())
    assert profiles.tokens.read("one") == TOKEN
    assert Profiles(profiles.directory.parent / "other").tokens.read("one") is None
    profiles.remove("one")
    assert keyring.entries == {}


def test_a_keyring_that_is_not_recommended_or_refuses_the_token_is_not_used(
    profiles: Profiles, keyring: Keyring
) -> None:
    keyring.is_recommended = False
    assert profiles.tokens.write("one", TOKEN) is False
    keyring.is_recommended = True
    keyring.max_length = 10
    assert profiles.tokens.write("one", TOKEN) is False
    assert profiles.tokens.read("one") == TOKEN
    assert keyring.entries == {}


def test_a_locked_keyring_is_named(profiles: Profiles, keyring: Keyring) -> None:
    profiles.tokens.write("one", TOKEN)
    keyring.is_locked = True
    with pytest.raises(InvalidArgument, match=r"keyring, which does not return it \(locked\)"):
        profiles.tokens.read("one")
    profiles.tokens.delete("one")
    assert profiles.tokens.read("one") is None
