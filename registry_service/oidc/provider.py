"""The keys that an OpenID provider signs with: fetched, checked, cached, and fetched anew when it changes them."""

import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from registry_service.domain.errors import IdentityProviderUnavailableError

logger = logging.getLogger(__name__)

_MAX_BODY_BYTES = 1024 * 1024
_MAX_KEYS = 100
_TIMEOUT_SECONDS = 3.0
# One that trickles is given up.
_DEADLINE_SECONDS = 6.0
_MIN_RSA_BITS = 2048
_LIFETIME_SECONDS = 300.0
# While the provider is away, keys serve on for so long.
_MAX_AGE_SECONDS = 86_400.0
# Anybody can name keys that there are not.
_PAUSE_SECONDS = 10.0
_PAUSE_AFTER_FAILURE_SECONDS = 2.0
# From when the provider is asked, others wait so long for its answer: with it, anybody can make them.
_SHARED_WAIT_SECONDS = 1.0
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}


class ProviderError(Exception):
    """The provider does not answer, or not what it should; the message is for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A public key of the provider."""

    id: str | None
    kind: str
    """`kty` of RFC 7517."""
    curve: str | None
    algorithm: str | None
    """The only one that it is for; None: any that suits it."""
    key: AllowedPublicKeys

    def suits(self, algorithm: str) -> bool:
        """Tells whether it is for an algorithm."""
        if self.algorithm not in {None, algorithm}:
            return False
        if algorithm.startswith(("RS", "PS")):
            return self.kind == "RSA"
        return self.kind == ("OKP" if algorithm == "EdDSA" else "EC") and self.curve == _CURVES[algorithm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An OpenID provider, over HTTP."""

    issuer: str
    jwks_url: str | None = None
    """Where its keys are; None: where its description says."""
    ca_cert: Path | None = None
    """File of the CA certificates that it is checked with; None: those of the system or of certifi."""

    def fetch(self) -> Sequence[SigningKey]:
        """Returns its keys (`ProviderError`)."""
        verify = True if self.ca_cert is None else ssl.create_default_context(cafile=self.ca_cert)
        with httpx.Client(timeout=_TIMEOUT_SECONDS, verify=verify, follow_redirects=False) as http:
            found = signing_keys(_get_json(http, self.jwks_url or self._discovered_url(http)))
        if not found:
            raise ProviderError("it has no key that can be used")
        return found

    def _discovered_url(self, http: httpx.Client) -> str:
        """Finds where the keys are (OpenID Connect Discovery 1.0, section 4)."""
        description = _get_json(http, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if description.get("issuer") != self.issuer:
            raise ProviderError(f"it calls itself another issuer than {self.issuer}")
        url = description.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise ProviderError("it does not say where its keys are")
        if self.issuer.startswith("https://") and not url.startswith("https://"):
            raise ProviderError("it has its keys where anybody could change them: jwks_uri is not https")
        return url


def _get_json(http: httpx.Client, url: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    try:
        with http.stream("GET", url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ProviderError(f"it answers {answer.status_code}")
            body = bytearray()
            for piece in answer.iter_bytes():
                body += piece
                if len(body) > _MAX_BODY_BYTES or time.monotonic() > deadline:
                    raise ProviderError("its answer is too long, or takes too long")
        found = json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
        raise ProviderError(f"{type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        raise ProviderError("its answer is no JSON object")
    return found


def signing_keys(document: Mapping[str, Any]) -> Sequence[SigningKey]:
    """Returns the keys of a JSON Web Key Set (RFC 7517) that signatures may be checked with; passes over all others."""
    members = document.get("keys")
    if not isinstance(members, list):
        raise ProviderError("its key set has no keys")
    return [key for member in members[:_MAX_KEYS] if (key := _signing_key(member)) is not None]


def _signing_key(member: object) -> SigningKey | None:
    # One with a private part is none that a provider shows.
    if not isinstance(member, dict) or member.get("use") not in {None, "sig"} or "d" in member:
        return None
    makers: Mapping[object, Callable[[Any], Any]] = {
        "RSA": RSAAlgorithm.from_jwk,
        "EC": ECAlgorithm.from_jwk,
        "OKP": OKPAlgorithm.from_jwk,
    }
    kind, key_id, algorithm = member.get("kty"), member.get("kid"), member.get("alg")
    if kind not in makers or not isinstance(key_id, str | None) or not isinstance(algorithm, str | None):
        return None
    try:
        key = makers[kind](member)
    except (PyJWTError, ValueError, TypeError):
        logger.warning("a key of the identity provider cannot be read", extra={"key_id": key_id})
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        logger.warning("a key of the identity provider is too short", extra={"key_id": key_id})
        return None
    return SigningKey(id=key_id, kind=str(kind), curve=member.get("crv"), algorithm=algorithm, key=key)


class KeyCache:
    """The provider's keys.

    They are fetched anew when they have been here for long, and when a token names
    one that is not among them, as then the provider may have changed them. While it
    is away, the old ones serve on.
    """

    def __init__(self, fetch: Callable[[], Sequence[SigningKey]], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Sequence[SigningKey] = ()
        self._fetched = self._begun = self._attempted = float("-inf")
        self._is_away = False

    def find(self, key_id: str | None, algorithm: str) -> SigningKey | None:
        """Returns the key of a token that names it, or names none where there is but one for its algorithm.

        Raises:
            IdentityProviderUnavailableError: It is not known, and the provider cannot be asked.
        """
        age = self._clock() - self._fetched
        if age > _MAX_AGE_SECONDS:
            self._renew()
        elif age > _LIFETIME_SECONDS:
            self._renew_in_background()
        found = self._find(key_id, algorithm)
        if found is None:
            self._renew()
            found = self._find(key_id, algorithm)
        return found

    def _find(self, key_id: str | None, algorithm: str) -> SigningKey | None:
        suitable = [key for key in self._keys if key.suits(algorithm) and key_id in {None, key.id}]
        return suitable[0] if len(suitable) == 1 or (suitable and key_id is not None) else None

    def _renew(self) -> None:
        """Ask the provider, unless somebody just did; who comes meanwhile waits for the answer, but not for long.

        A token with a made-up key is enough to come here. A provider that does not
        answer holds one thread, and no other for longer than a moment.
        """
        if not self._lock.acquire(blocking=False):
            waited = self._clock() - self._begun
            # Who has just begun to ask may not have said when.
            if not self._lock.acquire(timeout=max(_SHARED_WAIT_SECONDS - waited, 0.1)):
                raise IdentityProviderUnavailableError
        try:
            if self._is_due():
                self._attempt()
        finally:
            self._lock.release()
        if self._is_away:
            raise IdentityProviderUnavailableError

    def _renew_in_background(self) -> None:
        if self._is_due() and self._lock.acquire(blocking=False):
            threading.Thread(target=self._renew_and_release, name="identity-provider", daemon=True).start()

    def _renew_and_release(self) -> None:
        with suppress(Exception):  # logged
            self._attempt()
        self._lock.release()

    def _is_due(self) -> bool:
        pause = _PAUSE_AFTER_FAILURE_SECONDS if self._is_away else _PAUSE_SECONDS
        return self._clock() - self._attempted > pause

    def _attempt(self) -> None:
        self._begun = self._clock()
        try:
            self._keys = self._fetch()
        except ProviderError as error:
            self._is_away = True
            logger.warning("the identity provider cannot be asked for its keys: %s", error)
        except Exception:
            self._is_away = True
            logger.exception("asking the identity provider for its keys failed in an unexpected way")
        else:
            self._is_away = False
            self._fetched = self._clock()
        finally:
            self._attempted = self._clock()
