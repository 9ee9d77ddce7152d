"""What roles allow, where, and how claims, spans and settings are read."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from registry_service.domain.access import EVERYTHING, Access, Grant, Identity, Permission, Role, access_of
from registry_service.domain.errors import InvalidArgumentError, InvalidCredentialsError
from registry_service.domain.tokens import checked_name, digest_of, expiry, new_secret
from registry_service.oidc.authenticator import grants_of
from registry_service.services.authentication import CachedAuthenticator
from registry_service.settings import AuthSettings, SettingsError, load

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class TestAccess:
    def test_a_role_in_all_projects_sees_everything(self) -> None:
        access = access_of([Grant(Role.WRITER)], Permission.WRITE)
        assert access == EVERYTHING
        assert not EVERYTHING.is_restricted

    def test_a_role_that_does_not_allow_it_gives_none(self) -> None:
        assert access_of([Grant(Role.PROMOTER), Grant(Role.READER, "p")], Permission.WRITE) is None
        assert access_of([], Permission.READ) is None

    def test_a_role_in_a_project_is_for_models_of_that_project_alone(self) -> None:
        access = access_of([Grant(Role.ADMIN, "p")], Permission.ADMINISTER)
        assert access is not None
        assert access.is_restricted
        assert [access.sees(project) for project in ("p", "q", "P", "", None)] == [True, False, False, False, False]

    def test_roles_add_up(self) -> None:
        access = access_of([Grant(Role.READER), Grant(Role.WRITER, "p"), Grant(Role.PROMOTER, "q")], Permission.WRITE)
        assert access == Access(visible=None, acting=frozenset({"p"}))


class TestClaims:
    @pytest.mark.parametrize(
        ("claims", "claim", "grants"),
        [
            ({"roles": ["model-registry:writer"]}, "roles", [Grant(Role.WRITER)]),
            ({"roles": ["model-registry:p:writer"]}, "roles", [Grant(Role.WRITER, "p")]),
            ({"roles": ["model-registry:a:b:reader"]}, "roles", [Grant(Role.READER, "a:b")]),
            ({"scope": "openid model-registry:reader x"}, "scope", [Grant(Role.READER)]),
            ({"realm_access": {"roles": ["model-registry:admin"]}}, "realm_access.roles", [Grant(Role.ADMIN)]),
            ({"https://a.b/roles": ["model-registry:admin"]}, "https://a.b/roles", [Grant(Role.ADMIN)]),
            ({"roles": ["admin", "other:admin", "model-registry:Admin", "model-registry:root"]}, "roles", []),
            (
                {"roles": ["model-registry:", "model-registry::admin", "model-registry:p:", "model-registry"]},
                "roles",
                [],
            ),
            ({"roles": [1, None, ["model-registry:admin"], {"model-registry:admin": 1}]}, "roles", []),
            ({"roles": {"model-registry:admin": True}}, "roles", []),
            ({"roles": None}, "roles", []),
            ({"roles": "x"}, "roles.inner", []),
            ({}, "roles", []),
        ],
    )
    def test_roles_are_read_from_them(self, claims: dict[str, Any], claim: str, grants: list[Grant]) -> None:
        assert list(grants_of(claims, claim)) == grants


class TestTokens:
    def test_secrets_differ_and_are_recognised(self) -> None:
        secrets = {new_secret() for _ in range(100)}
        assert len(secrets) == len({digest_of(secret) for secret in secrets}) == 100
        assert None not in {digest_of(secret) for secret in secrets}

    @pytest.mark.parametrize(
        "text", ["", "mrt_", "mrt_" + "A" * 42, "MRT_" + "A" * 43, "mrt_" + "A" * 43 + "\n", "\ud800"]
    )
    def test_what_cannot_be_one_has_no_hash(self, text: str) -> None:
        assert digest_of(text) is None

    @pytest.mark.parametrize(
        ("text", "end"),
        [
            ("90s", NOW + timedelta(seconds=90)),
            ("15m", NOW + timedelta(minutes=15)),
            ("12h", NOW + timedelta(hours=12)),
            ("30d", NOW + timedelta(days=30)),
            ("8w", NOW + timedelta(weeks=8)),
            ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
            ("2027-01-01T10:00", datetime(2027, 1, 1, 10, tzinfo=UTC)),
            ("2027-01-01T10:00+02:00", datetime(2027, 1, 1, 8, tzinfo=UTC)),
        ],
    )
    def test_spans_and_dates_are_ends(self, text: str, end: datetime) -> None:
        assert expiry(text, NOW) == end

    @pytest.mark.parametrize(
        "text", ["", "30", "d", "0d", "-1d", "1.5h", "30 d", "30y", "999999w", "2026-01-31", "2020-01-01", "soon", "٣d"]
    )
    def test_others_are_none(self, text: str) -> None:
        with pytest.raises(InvalidArgumentError, match="expires"):
            expiry(text, NOW)

    @pytest.mark.parametrize("name", ["", " ", "a b", "-a", "é", "a" * 101, "a\n", "token:a", "a/b"])
    def test_names_are_plain(self, name: str) -> None:
        with pytest.raises(InvalidArgumentError, match="name"):
            checked_name(name)


class TestCache:
    """An authenticator that counts, behind a cache with a clock of its own."""

    def setup_method(self) -> None:
        self.now = 100.0
        self.asked: list[str] = []
        self.identity: Identity | None = Identity(actor="ada", grants=())
        self.cached = CachedAuthenticator(self.authenticate, most=2, seconds=5, clock=lambda: self.now)

    def authenticate(self, token: str) -> Identity:
        self.asked.append(token)
        if self.identity is None:
            raise InvalidCredentialsError
        return self.identity

    def test_somebody_is_known_for_some_seconds(self) -> None:
        for _ in range(3):
            assert self.cached("a").actor == "ada"
        self.now += 4.9
        self.cached("a")
        assert self.asked == ["a"]
        self.identity = None
        self.now += 0.2
        with pytest.raises(InvalidCredentialsError):
            self.cached("a")

    def test_nobody_is_known_longer_than_their_token_lasts(self) -> None:
        self.identity = Identity(actor="ada", grants=(), expire_time=datetime.now(UTC) - timedelta(seconds=1))
        self.cached("a")
        self.cached("a")
        assert self.asked == ["a", "a"]

    def test_a_refusal_is_not_remembered(self) -> None:
        found, self.identity = self.identity, None
        with pytest.raises(InvalidCredentialsError):
            self.cached("a")
        self.identity = found
        assert self.cached("a").actor == "ada"

    def test_only_some_are_remembered(self) -> None:
        for token in ("a", "b", "c", "c", "b", "a"):
            self.cached(token)
        assert self.asked == ["a", "b", "c", "a"]

    def test_no_secret_is_kept(self) -> None:
        self.cached("s3cr3t")
        assert "s3cr3t" not in repr(vars(self.cached))


class TestSettings:
    OIDC: ClassVar[dict[str, object]] = {
        "auth_mode": "oidc",
        "oidc_issuer": "https://login.example.org",
        "oidc_audience": "models",
    }

    def test_nothing_is_needed_by_default(self) -> None:
        assert load(AuthSettings).auth_mode == "none"
        assert load(AuthSettings, auth_mode=" ", oidc_issuer="", oidc_algorithms="").oidc_algorithms == (
            "RS256",
            "ES256",
        )

    def test_a_provider_needs_an_issuer_and_an_audience(self) -> None:
        assert load(AuthSettings, **self.OIDC).auth_mode == "oidc"
        with pytest.raises(SettingsError, match="OIDC_ISSUER, OIDC_AUDIENCE: must be set with AUTH_MODE=oidc"):
            load(AuthSettings, auth_mode="oidc")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("auth_mode", "basic"),
            ("oidc_issuer", "login.example.org"),
            ("oidc_issuer", "https://user:secret@login.example.org"),
            ("oidc_jwks_url", "file:///etc/passwd"),
            ("oidc_algorithms", "none"),
            ("oidc_algorithms", "RS256,HS256"),
            ("oidc_leeway_seconds", "-1"),
            ("oidc_leeway_seconds", "3600"),
        ],
    )
    def test_what_cannot_be_is_refused(self, name: str, value: str) -> None:
        with pytest.raises(SettingsError, match=name.upper()):
            load(AuthSettings, **(self.OIDC | {name: value}))
