"""Checks JSON Web Tokens (RFC 7519, RFC 8725) of an OpenID provider, and reads roles from them."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from registry_service.domain.access import Grant, Identity, Role
from registry_service.domain.errors import InvalidCredentialsError
from registry_service.domain.tokens import ACTOR_PREFIX
from registry_service.oidc.provider import KeyCache

logger = logging.getLogger(__name__)

# What a token may call itself: an ID or access token. Others of the same provider, such as those that end a
# session, must not pass for one.
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_MAX_ACTOR_LENGTH = 256
_ROLE_PREFIX = "model-registry:"


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcAuthenticator:
    """`domain.access.Authenticator` for JSON Web Tokens."""

    keys: KeyCache
    issuer: str
    audience: str
    algorithms: Sequence[str]
    leeway: timedelta
    """How far clocks may be apart."""
    roles_claim: str

    def __call__(self, token: str) -> Identity:
        """See the port."""
        try:
            claims = self._claims(token)
            # `exp` may be any number, also one that no date has.
            expire_time = datetime.fromtimestamp(int(claims["exp"]), UTC) + self.leeway
            actor = _actor(claims["sub"])
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError, RecursionError) as error:
            # Not its message, which may quote the token.
            logger.info("a bearer token is refused: %s", type(error).__name__)
            raise InvalidCredentialsError from error
        return Identity(actor=actor, grants=tuple(grants_of(claims, self.roles_claim)), expire_time=expire_time)

    def _claims(self, token: str) -> Mapping[str, Any]:
        header = jwt.get_unverified_header(token)
        algorithm, key_id = str(header.get("alg")), header.get("kid")
        if algorithm not in self.algorithms:
            raise jwt.InvalidAlgorithmError
        # Extensions that must be understood, of which we understand none.
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
    """Returns the actor of a subject (`ValueError` where it cannot be one)."""
    if not 0 < len(subject) <= _MAX_ACTOR_LENGTH or not subject.isprintable() or subject.startswith(ACTOR_PREFIX):
        raise ValueError("no actor")
    return subject


def grants_of(claims: Mapping[str, Any], claim: str) -> Iterator[Grant]:
    """Yields the roles that claims hold: `model-registry:<role>`, `model-registry:<project id>:<role>`.

    Args:
        claims: What the token says.
        claim: The name of the claim, or names separated by dots that lead to it. It is a list of texts, or one
            text with blanks between them; whatever else is in it is none of our business.
    """
    value = claims.get(claim, _inside(claims, claim))
    if isinstance(value, str):
        value = value.split()
    for text in value if isinstance(value, list) else ():
        if not isinstance(text, str) or not text.startswith(_ROLE_PREFIX):
            continue
        # A project's id may hold colons.
        project_id, colon, role = text.removeprefix(_ROLE_PREFIX).rpartition(":")
        if role in set(Role) and bool(project_id) == bool(colon):
            yield Grant(Role(role), project_id or None)


def _inside(claims: Mapping[str, Any], path: str) -> object:
    value: object = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
