"""Fetch, check and cache the signing keys of an OpenID provider."""

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
# For the whole response, as a slow provider may send it byte by byte.
_DEADLINE_SECONDS = 6.0
_MIN_RSA_BITS = 2048
_LIFETIME_SECONDS = 300.0
# How long keys stay valid while the provider is unavailable.
_MAX_AGE_SECONDS = 86_400.0
# Least interval of requests: anyone can send tokens with unknown key ids.
_PAUSE_SECONDS = 10.0
_PAUSE_AFTER_FAILURE_SECONDS = 2.0
# How long other calls wait for a request to the provider. Short, as anyone can cause a request.
_SHARED_WAIT_SECONDS = 1.0
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521", "EdDSA": "Ed25519"}


class ProviderError(Exception):
    """The provider does not respond, or its response is invalid. The message is for the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A public key of the provider."""

    id: str | None
    kind: str
    """`kty` of RFC 7517."""
    curve: str | None
    algorithm: str | None
    """The only algorithm of the key; None if any algorithm of its kind may use it."""
    key: AllowedPublicKeys

    def supports(self, algorithm: str) -> bool:
        """Return whether the key may verify signatures of an algorithm."""
        if self.algorithm not in {None, algorithm}:
            return False
        if algorithm.startswith(("RS", "PS")):
            return self.kind == "RSA"
        return self.kind == ("OKP" if algorithm == "EdDSA" else "EC") and self.curve == _CURVES[algorithm]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An HTTP client of an OpenID provider."""

    issuer: str
    jwks_url: str | None = None
    """URL of the keys; None to read it from the provider's discovery document."""
    ca_cert: Path | None = None
    """PEM file of the CA for the provider's certificate; None for the default CAs."""

    def fetch(self) -> Sequence[SigningKey]:
        """Return the provider's keys.

        Raises:
            ProviderError: The provider does not respond, or has no usable key.
        """
        verify = True if self.ca_cert is None else ssl.create_default_context(cafile=self.ca_cert)
        with httpx.Client(timeout=_TIMEOUT_SECONDS, verify=verify, follow_redirects=False) as http:
            found = signing_keys(_get_json(http, self.jwks_url or self._discovered_url(http)))
        if not found:
            raise ProviderError("the key set has no usable key")
        return found

    def _discovered_url(self, http: httpx.Client) -> str:
        """Return the URL of the keys from the discovery document (OpenID Connect Discovery 1.0, section 4)."""
        document = _get_json(http, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.issuer:
            raise ProviderError(f"the discovery document has another issuer than {self.issuer}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not url.startswith(("https://", "http://")):
            raise ProviderError("the discovery document has no jwks_uri")
        if self.issuer.startswith("https://") and not url.startswith("https://"):
            raise ProviderError("the discovery document's jwks_uri must be https, like the issuer")
        return url


def _get_json(http: httpx.Client, url: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    try:
        with http.stream("GET", url, headers={"accept": "application/json"}) as response:
            if response.status_code != httpx.codes.OK:
                raise ProviderError(f"{url} returned status {response.status_code}")
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_BODY_BYTES or time.monotonic() > deadline:
                    raise ProviderError(f"the response of {url} is too large or too slow")
        document = json.loads(body)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
        raise ProviderError(f"{type(error).__name__}: {error}") from error
    if not isinstance(document, dict):
        raise ProviderError(f"the response of {url} is not a JSON object")
    return document


def signing_keys(document: Mapping[str, Any]) -> Sequence[SigningKey]:
    """Return the usable signing keys of a JSON Web Key Set (RFC 7517); skip all others.

    Raises:
        ProviderError: The document has no list of keys.
    """
    members = document.get("keys")
    if not isinstance(members, list):
        raise ProviderError("the key set has no member `keys`")
    return [key for member in members[:_MAX_KEYS] if (key := _signing_key(member)) is not None]


def _signing_key(member: object) -> SigningKey | None:
    # A member `d` is a private key, which no provider publishes.
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
        logger.warning("skipping an invalid key of the identity provider", extra={"key_id": key_id})
        return None
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        logger.warning("skipping a key of the identity provider that is too short", extra={"key_id": key_id})
        return None
    return SigningKey(id=key_id, kind=str(kind), curve=member.get("crv"), algorithm=algorithm, key=key)


class KeyCache:
    """A cache of the provider's keys.

    The keys are fetched again after their lifetime, and when a token names an unknown
    key, because the provider may have rotated its keys. While the provider is
    unavailable, the cached keys stay in use.
    """

    def __init__(self, fetch: Callable[[], Sequence[SigningKey]], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Sequence[SigningKey] = ()
        self._fetched = self._begun = self._attempted = float("-inf")
        self._is_unavailable = False

    def find(self, key_id: str | None, algorithm: str) -> SigningKey | None:
        """Return the key with an id; with the id None, return the only key for the algorithm.

        Returns:
            The key; None if the provider has no such key.

        Raises:
            IdentityProviderUnavailableError: The key is not in the cache, and the provider is unavailable.
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
        suitable = [key for key in self._keys if key.supports(algorithm) and key_id in {None, key.id}]
        return suitable[0] if len(suitable) == 1 or (suitable and key_id is not None) else None

    def _renew(self) -> None:
        """Fetch the keys, unless another thread has just done so. Wait only briefly for another thread's request.

        A token with an unknown key id is enough to call this. A provider that does not
        respond therefore holds one thread, and no other thread for long.
        """
        if not self._lock.acquire(blocking=False):
            waited = self._clock() - self._begun
            # At least 0.1 s, as the other thread may not have set `_begun` yet.
            if not self._lock.acquire(timeout=max(_SHARED_WAIT_SECONDS - waited, 0.1)):
                raise IdentityProviderUnavailableError
        try:
            if self._is_due():
                self._attempt()
        finally:
            self._lock.release()
        if self._is_unavailable:
            raise IdentityProviderUnavailableError

    def _renew_in_background(self) -> None:
        if self._is_due() and self._lock.acquire(blocking=False):
            threading.Thread(target=self._renew_and_release, name="identity-provider", daemon=True).start()

    def _renew_and_release(self) -> None:
        with suppress(Exception):  # logged
            self._attempt()
        self._lock.release()

    def _is_due(self) -> bool:
        pause = _PAUSE_AFTER_FAILURE_SECONDS if self._is_unavailable else _PAUSE_SECONDS
        return self._clock() - self._attempted > pause

    def _attempt(self) -> None:
        self._begun = self._clock()
        try:
            self._keys = self._fetch()
        except ProviderError as error:
            self._is_unavailable = True
            logger.warning("could not fetch the identity provider's keys: %s", error)
        except Exception:
            self._is_unavailable = True
            logger.exception("unexpected error while fetching the identity provider's keys")
        else:
            self._is_unavailable = False
            self._fetched = self._clock()
        finally:
            self._attempted = self._clock()
