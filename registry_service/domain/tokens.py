"""Tokens: secrets that stand for a role. Only their hashes are kept."""

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
"""Before the name of a token, where it is an actor: so nobody else is one by chance."""

_SECRET = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token, without its secret."""

    id: str
    name: str
    """No two tokens have the same, not even when one is revoked: the log of changes has it."""
    grant: Grant
    create_time: datetime
    """Aware, UTC, as all times here."""
    expire_time: datetime | None
    """None: never."""
    revoke_time: datetime | None = None
    last_use_time: datetime | None = None
    """To about ten minutes; None: never used."""
    remaining: timedelta | None = None
    """From when it was read to its end, by the database's clock; not positive: it has ended. None: it never ends."""

    @property
    def identity(self) -> Identity:
        """Whoever has the secret."""
        return Identity(actor=f"{ACTOR_PREFIX}{self.name}", grants=(self.grant,), expire_time=self.expire_time)

    @property
    def is_valid(self) -> bool:
        """Whether it counted when it was read."""
        return self.revoke_time is None and (self.remaining is None or self.remaining > timedelta())


class TokenRepository(Protocol):
    """The tokens."""

    def add(self, token: Token, digest: bytes) -> None:
        """Adds a token (`TokenExistsError` where its name is taken)."""

    def find(self, digest: bytes) -> Token | None:
        """Returns the token with this hash, valid or not, and notes that it is used."""

    def revoke(self, token_id: str) -> Token:
        """Revokes a token by its id or its name (`TokenNotFoundError`); one that is revoked stays as it is."""

    def list(self) -> Sequence[Token]:
        """Returns every token, oldest first."""


def new_secret() -> str:
    """Makes the secret of a token: 256 random bits, so its plain hash tells nothing of it."""
    return PREFIX + secrets.token_urlsafe(32)


def digest_of(secret: str) -> bytes | None:
    """Returns the SHA-256 of what may be a token; None where it cannot be one."""
    return hashlib.sha256(secret.encode()).digest() if _SECRET.fullmatch(secret) else None


def checked_name(name: str) -> str:
    """Returns the name of a token (`InvalidArgumentError`)."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError.of("name", "must be 1 to 100 of A-Z, a-z, 0-9, '.', '_', '@' and '-'.")
    return name


def expiry(text: str, now: datetime) -> datetime:
    """Reads when a token ends: a span such as `12h`, `30d` or `8w`, or a date or time (ISO 8601; UTC unless it says).

    Raises:
        InvalidArgumentError: It is neither, or not in the future.
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
