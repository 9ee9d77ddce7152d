"""Tokens: secrets that grant a role. Only their hashes are stored."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from registry_service.domain.access import Grant, Identity
from registry_service.domain.errors import InvalidArgumentError

PREFIX = "mrt_"
ACTOR_PREFIX = "token:"
"""The prefix of a token's name as an actor, so that no other actor has the same name."""

_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its secret."""

    id: str
    name: str
    """Unique, also among revoked tokens, because the audit log contains it."""
    grant: Grant
    create_time: datetime
    """Aware, UTC, like all times here."""
    expire_time: datetime | None
    """None: the token does not expire."""
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None
    """Accurate to about ten minutes. None: never used."""
    remaining: timedelta | None = None
    """The time until expiry when the token was read, by the clock of the database. None: no expiry."""

    @property
    def identity(self) -> Identity:
        """The identity of the holder."""
        return Identity(actor=f"{ACTOR_PREFIX}{self.name}", grants=(self.grant,), expire_time=self.expire_time)

    @property
    def is_valid(self) -> bool:
        """Whether the token was valid when it was read."""
        return self.revoke_time is None and (self.remaining is None or self.remaining > timedelta())


class TokenRepository(Protocol):
    """The tokens."""

    def add(self, token: Token, digest: bytes) -> None:
        """Add a token (`TokenExistsError` if the name is taken)."""

    def find(self, digest: bytes) -> Token | None:
        """Return the token with this hash, valid or not, and record its use."""

    def revoke(self, token_id: str) -> Token:
        """Revoke a token by id or name (`TokenNotFoundError`). Revoking it again changes nothing."""

    def list(self) -> Sequence[Token]:
        """Return all tokens, oldest first."""


def new_secret() -> str:
    """Generate the secret of a token: 256 random bits, so a plain hash reveals nothing."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes | None:
    """Return the SHA-256 of a text with the form of a token, or None."""
    return hashlib.sha256(secret.encode()).digest() if _SECRET.fullmatch(secret) else None


def checked_name(name: str) -> str:
    """Return a valid name of a token (`InvalidArgumentError`)."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError.of("name", "must be 1 to 100 of A-Z, a-z, 0-9, '.', '_', '@' and '-'.")
    return name


def expiry(text: str, now: datetime) -> datetime:
    """Parse the expiry of a token: a duration such as `12h`, `30d` or `8w`, or an ISO 8601 date or time (default UTC).

    Raises:
        InvalidArgumentError: The text is neither, or the time is not in the future.
    """
    try:
        if span := _SPAN.fullmatch(text):
            end = now + timedelta(seconds=int(span[1]) * _SECONDS[span[2]])
        else:
            end = datetime.fromisoformat(text)
            end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError.of(
            "expires", "must be a span such as 12h, 30d or 8w, or a date such as 2030-01-31."
        ) from error
    if end <= now:
        raise InvalidArgumentError.of("expires", "must be in the future.")
    return end
