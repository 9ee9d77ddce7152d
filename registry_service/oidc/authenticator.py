"""Verify JSON Web Tokens (RFC 7519, RFC 8725) of an OpenID provider, and read roles from them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from typing_extensions import override

from registry_service.domain.access import Authenticator, Grant, Identity, Role
from registry_service.domain.errors import InvalidCredentialsError
from registry_service.domain.tokens import ACTOR_PREFIX
from registry_service.oidc.provider import KeyCache

logger = logging.getLogger(__name__)

# Types of ID and access tokens. Other tokens of the same provider, such as logout tokens, must not be accepted.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_MAX_ACTOR_LENGTH = 256
_ROLE_PREFIX = "model-registry:"


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcAuthenticator(Authenticator):
    """`domain.access.Authenticator` for JSON Web Tokens."""

    keys: KeyCache
    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway: timedelta
    """Accepted clock difference to the issuer."""
    roles_claim: str

    @override
    def __call__(self, token: str) -> Identity:
        """See the port."""
        try:
            claims = self._claims(token)
            # `exp` may be a number outside of the range of datetime.
            expire_time = datetime.fromtimestamp(int(claims["exp"]), UTC) + self.leeway
            actor = _actor(claims["sub"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
            # The error's message may quote the token.
            logger.info("bearer token rejected: %s", type(error).__name__)
            raise InvalidCredentialsError from error
        return Identity(actor=actor, grants=tuple(grants_of(claims, self.roles_claim)), expire_time=expire_time)

    def _claims(self, token: str) -> Mapping[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm, key_id = str(header.get("alg")), header.get("kid")
        if algorithm not in self.algorithms:
            raise jwt.InvalidAlgorithmError
        # `crit` lists extensions that the verifier must support; none is supported here.
        if "crit" in header or str(header.get("typ", "JWT")).lower() not in _TYPES:
            raise jwt.InvalidTokenError
        found = self.keys.find(key_id, algorithm)
        if found is None:
            raise jwt.InvalidKeyError
        claims: Mapping[str, Any] = jwt.decode(
            token,
            found.key,
            algorithms=[algorithm],
            issuer=self.issuer,
            audience=self.audience,
            leeway=self.leeway,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
        return claims


def _actor(subject: str) -> str:
    """Return the actor for a `sub` claim.

    Raises:
        ValueError: The claim is empty, too long, not printable, or looks like an actor of the registry's own tokens.
    """
    if not 0 < len(subject) <= _MAX_ACTOR_LENGTH or not subject.isprintable() or subject.startswith(ACTOR_PREFIX):
        raise ValueError("the claim `sub` cannot be an actor")
    return subject


def grants_of(claims: Mapping[str, Any], claim: str) -> Iterator[Grant]:
    """Yield the grants in a token: `model-registry:<role>` or `model-registry:<project id>:<role>`.

    Args:
        claims: The token's claims.
        claim: Name of the claim with the roles, or its path with dots. Its value is a list of texts, or a text with
            spaces between the roles. Other roles in the claim are ignored.
    """
    value = claims.get(claim, _value_at(claims, claim))
    if isinstance(value, str):
        value = value.split()
    for text in value if isinstance(value, list) else ():
        if not isinstance(text, str) or not text.startswith(_ROLE_PREFIX):
            continue
        # A project's id may contain colons.
        project_id, colon, role = text.removeprefix(_ROLE_PREFIX).rpartition(":")
        if role in set(Role) and bool(project_id) == bool(colon):
            yield Grant(Role(role), project_id or None)


def _value_at(claims: Mapping[str, Any], path: str) -> object:
    value: object = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
