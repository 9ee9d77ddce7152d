"""JSON Web Tokens of an OpenID provider: which are accepted, and the lifetime of the provider's keys."""

import base64
import itertools
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from registry_service.domain.access import Grant, Role
from registry_service.domain.errors import IdentityProviderUnavailableError, InvalidCredentialsError
from registry_service.oidc.authenticator import OidcAuthenticator
from registry_service.oidc.provider import KeyCache, Provider, SigningKey
from registry_service.services.tokens import TokenService
from registry_service.storage.sql.database import SqlDatabase
from tests.identity_provider import AUDIENCE, IdentityProvider
from tests.integration.test_access import Bearer
from tests.polling import eventually
from tests.registry import StartRegistry
from tests.stub_client import Client, refused


class Clock:
    """Stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticate(provider: IdentityProvider, clock: Clock) -> OidcAuthenticator:
    return authenticator(provider, clock)


def authenticator(provider: IdentityProvider, clock: Clock, **settings: Any) -> OidcAuthenticator:
    values: dict[str, Any] = {
        "keys": KeyCache(Provider(issuer=provider.issuer).fetch, clock),
        "issuer": provider.issuer,
        "audience": AUDIENCE,
        "algorithms": ("RS256", "ES256"),
        "leeway": timedelta(seconds=30),
        "roles_claim": "roles",
    }
    return OidcAuthenticator(**(values | settings))


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def from_now(claims: dict[str, Any]) -> dict[str, Any]:
    """Resolve times relative to the run of the test, not to its collection."""
    now = time.time()
    return {
        name: int(now + value.total_seconds()) if isinstance(value, timedelta) else value
        for name, value in claims.items()
    }


class TestTokens:
    @pytest.mark.parametrize("key", ["rsa", "ec"])
    def test_a_valid_token_yields_actor_and_grants(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, key: str
    ) -> None:
        identity = authenticate(provider.token(key=key))
        assert (identity.actor, identity.grants) == ("ada", (Grant(Role.READER),))
        assert identity.expire_time is not None

    @pytest.mark.parametrize(
        "claims",
        [
            {"aud": ["another", AUDIENCE]},
            {"exp": timedelta(seconds=-10)},
            {"nbf": timedelta(seconds=10)},
            {"roles": None},
        ],
        ids=str,
    )
    def test_unusual_but_valid_tokens_are_accepted(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, claims: dict[str, Any]
    ) -> None:
        assert authenticate(provider.token(**from_now(claims))).actor == "ada"

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": timedelta(seconds=-60)},
            {"exp": None},
            {"exp": "never"},
            {"exp": 1e300},
            {"nbf": timedelta(seconds=600)},
            {"iss": "https://evil.example.org"},
            {"iss": None},
            {"aud": "another"},
            {"aud": []},
            {"aud": AUDIENCE + "x"},
            {"aud": None},
            {"sub": None},
            {"sub": ""},
            {"sub": 7},
            {"sub": "x" * 257},
            {"sub": "ada\nroot"},
            {"sub": "token:ci"},
        ],
        ids=str,
    )
    def test_tokens_with_invalid_claims_are_refused(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, claims: dict[str, Any]
    ) -> None:
        # PyJWT refuses to create some of these.
        token = provider.token()
        header = token.split(".")[0]
        payload = part(provider.claims(**from_now(claims)))
        signing: Any = provider.keys["rsa"]
        signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(
            f"{header}.{payload}".encode(), signing
        )
        forged = f"{header}.{payload}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        with pytest.raises(InvalidCredentialsError):
            authenticate(forged)

    def test_an_unsigned_token_is_refused(self, authenticate: OidcAuthenticator, provider: IdentityProvider) -> None:
        for name in ("none", "None", "NONE", "", None):
            with pytest.raises(InvalidCredentialsError):
                authenticate(f"{part({'alg': name, 'typ': 'JWT', 'kid': 'rsa'})}.{part(provider.claims())}.")

    @pytest.mark.parametrize("shape", ["pem", "jwk"])
    def test_a_token_signed_with_the_public_key_as_shared_secret_is_refused(
        self, provider: IdentityProvider, clock: Clock, shape: str
    ) -> None:
        public: Any = provider.keys["rsa"].public_key()
        secret = (
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            if shape == "pem"
            else json.dumps(provider.jwk("rsa")).encode()
        )
        signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa'})}.{part(provider.claims())}"
        signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed.encode(), secret)
        token = f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
        with pytest.raises(InvalidCredentialsError):
            authenticator(provider, clock)(token)

    def test_an_unlisted_algorithm_is_refused(self, provider: IdentityProvider, clock: Clock) -> None:
        token = provider.token(algorithm="RS512")
        with pytest.raises(InvalidCredentialsError):
            authenticator(provider, clock)(token)
        assert authenticator(provider, clock, algorithms=("RS512",))(token).actor == "ada"

    def test_edwards_curves_are_accepted_if_listed(self, provider: IdentityProvider, clock: Clock) -> None:
        provider.add("ed", ed25519.Ed25519PrivateKey.generate())
        token = provider.token(key="ed", algorithm="EdDSA")
        assert authenticator(provider, clock, algorithms=("EdDSA",))(token).actor == "ada"

    def test_a_foreign_key_with_the_same_id_is_refused(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider
    ) -> None:
        authenticate(provider.token())
        provider.add("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        with pytest.raises(InvalidCredentialsError):
            authenticate(provider.token())

    @pytest.mark.parametrize(
        "headers",
        [{"typ": "logout+jwt"}, {"typ": "dpop+jwt"}, {"crit": ["b64"], "b64": False}, {"crit": ["x"], "x": 1}],
        ids=str,
    )
    def test_other_kinds_of_tokens_are_refused(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, headers: dict[str, Any]
    ) -> None:
        token = provider.token()
        rest = token.split(".", 1)[1]
        with pytest.raises(InvalidCredentialsError):
            authenticate(f"{part({'alg': 'RS256', 'kid': 'rsa', 'typ': 'JWT'} | headers)}.{rest}")

    @pytest.mark.parametrize(
        "token",
        [
            "",
            "x",
            "..",
            "a.b.c",
            "a.b.c.d.e",
            "é.é.é",
            f"{part([])}.{part({})}.x",
            f"{part({'alg': ['RS256']})}.{part({})}.x",
            f"{part({'alg': 'RS256', 'kid': {'a': 1}})}.{part({})}.x",
            f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.x.x",
        ],
    )
    def test_garbage_is_refused(self, authenticate: OidcAuthenticator, token: str) -> None:
        with pytest.raises(InvalidCredentialsError):
            authenticate(token)

    def test_a_token_without_a_key_id_is_accepted_if_there_is_only_one_key(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, clock: Clock
    ) -> None:
        token = provider.token(headers={"kid": None})
        assert authenticate(token).actor == "ada"
        provider.add("rsa2", rsa.generate_private_key(public_exponent=65537, key_size=2048))
        with pytest.raises(InvalidCredentialsError):
            authenticator(provider, clock)(token)


class TestKeys:
    def test_an_unresponsive_provider_blocks_one_thread_and_others_only_briefly(
        self, provider: IdentityProvider
    ) -> None:
        known = Provider(issuer=provider.issuer).fetch()
        hung, go_on = threading.Event(), threading.Event()
        asked = itertools.count()

        def fetch() -> Sequence[SigningKey]:
            if next(asked):
                hung.set()
                assert go_on.wait(60)
            return known

        clock = Clock()
        keys = KeyCache(fetch, clock)
        assert keys.find("rsa", "RS256") is not None
        clock.now += 11

        def find(key_id: str) -> float:
            started = time.monotonic()
            with pytest.raises(IdentityProviderUnavailableError):
                keys.find(key_id, "RS256")
            return time.monotonic() - started

        with ThreadPoolExecutor(9) as threads:
            asking = threads.submit(keys.find, "made-up", "RS256")
            assert hung.wait(30)
            clock.now += 2  # the provider has been asked for so long
            assert max(threads.map(find, [f"made-up-{number}" for number in range(8)])) < 2
            # A call with a known key does not wait.
            assert keys.find("rsa", "RS256") is not None
            go_on.set()
            assert asking.result() is None

    def test_keys_are_fetched_once_and_refreshed_later(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, clock: Clock
    ) -> None:
        for _ in range(3):
            authenticate(provider.token())
        assert provider.asked == 1
        clock.now += 301
        authenticate(provider.token())
        eventually(lambda: provider.asked == 2, 30, "the second fetch")

    def test_a_new_key_is_accepted_at_once(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, clock: Clock
    ) -> None:
        authenticate(provider.token())
        clock.now += 11
        provider.add("new", ec.generate_private_key(ec.SECP256R1()))
        assert authenticate(provider.token(key="new")).actor == "ada"

    def test_a_withdrawn_key_is_refused_after_a_refresh(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, clock: Clock
    ) -> None:
        token = provider.token()
        authenticate(token)
        del provider.keys["rsa"]
        clock.now += 301

        def is_refused() -> bool:
            clock.now += 11
            try:
                authenticate(token)
            except InvalidCredentialsError:
                return True
            return False

        eventually(is_refused, 30, "the refusal")

    def test_unknown_key_ids_do_not_cause_constant_fetches(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider
    ) -> None:
        for number in range(20):
            with pytest.raises(InvalidCredentialsError):
                authenticate(provider.token(headers={"kid": f"made-up-{number}"}))
        assert provider.asked == 1

    def test_known_keys_stay_valid_for_a_day_during_an_outage_of_the_provider(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, clock: Clock
    ) -> None:
        token = provider.token()
        authenticate(token)
        provider.status = 500
        clock.now += 80_000
        assert authenticate(token).actor == "ada"
        clock.now += 10_000
        with pytest.raises(IdentityProviderUnavailableError):
            authenticate(token)
        provider.status = 200
        clock.now += 3
        assert authenticate(token).actor == "ada"

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, None),
            (302, None),
            (200, b""),
            (200, b"[]"),
            (200, b"{}"),
            (200, b'{"keys": {}}'),
            (200, b'{"keys": []}'),
            (200, b'{"keys": [1, null, {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "n": 5}]}'),
            (200, b"[" * 100_000),
            (200, b" " * 2_000_000),
        ],
    )
    def test_a_provider_without_keys_counts_as_unavailable(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider, status: int, body: bytes | None
    ) -> None:
        provider.status, provider.body = status, body
        with pytest.raises(IdentityProviderUnavailableError):
            authenticate(provider.token())

    def test_a_provider_with_another_issuer_is_refused(
        self, authenticate: OidcAuthenticator, provider: IdentityProvider
    ) -> None:
        provider.calls_itself = "https://another.example.org"
        with pytest.raises(IdentityProviderUnavailableError):
            authenticate(provider.token())

    @pytest.mark.filterwarnings("ignore:The RSA key is:Warning")
    def test_short_and_private_keys_are_ignored(self, provider: IdentityProvider, clock: Clock) -> None:
        short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        provider.add("short", short)
        with pytest.raises(InvalidCredentialsError):
            authenticator(provider, clock)(provider.token(key="short"))
        good = provider.jwk("rsa")
        provider.body = json.dumps({"keys": [provider.jwk("ec"), good | {"d": "AQAB"}]}).encode()
        with pytest.raises(InvalidCredentialsError):
            authenticator(provider, clock)(provider.token())
        provider.body = json.dumps({"keys": [provider.jwk("ec"), good | {"use": "enc"}]}).encode()
        with pytest.raises(InvalidCredentialsError):
            authenticator(provider, clock)(provider.token())


class TestServer:
    """Whole calls with both kinds of tokens."""

    def client(self, address: str, token: str) -> Client:
        return Client(address, Bearer(("authorization", f"Bearer {token}")))

    def test_calls_are_authenticated_with_either_kind_of_token(
        self, start_registry: StartRegistry, provider: IdentityProvider
    ) -> None:
        running = start_registry(auth_mode="oidc", oidc_issuer=provider.issuer, oidc_audience=AUDIENCE)
        address = running.client.address
        user = self.client(address, provider.token(roles=["model-registry:p:1:writer", "model-registry:reader"]))
        assert user.register(project_id="p:1").creator == "ada"
        with refused(grpc.StatusCode.PERMISSION_DENIED, "PROJECT_DENIED"):
            user.register(project_id="p:2")
        _, secret = TokenService(SqlDatabase(running.engine)).create(Grant(Role.READER))
        service = self.client(address, secret)
        assert len(service.all()) == 1
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            running.client.all()
        with refused(grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"):
            self.client(address, provider.token(roles=[])).all()
        for client in (user, service):
            client.close()

    def test_an_outage_of_the_provider_is_unavailable_and_not_unauthenticated(
        self, start_registry: StartRegistry, provider: IdentityProvider
    ) -> None:
        running = start_registry(auth_mode="oidc", oidc_issuer=provider.issuer, oidc_audience=AUDIENCE)
        provider.status = 503
        client = self.client(running.client.address, provider.token())
        with refused(grpc.StatusCode.UNAVAILABLE, "IDENTITY_PROVIDER_UNAVAILABLE"):
            client.all()
        client.close()

    def test_token_mode_refuses_openid_tokens(self, start_registry: StartRegistry, provider: IdentityProvider) -> None:
        running = start_registry(auth_mode="token")
        client = self.client(running.client.address, provider.token())
        with refused(grpc.StatusCode.UNAUTHENTICATED):
            client.all()
        client.close()
