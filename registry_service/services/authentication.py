"""Tells who somebody is, and manages the tokens by which the registry itself can tell."""

import hashlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from registry_service.domain.access import Authenticator, Grant, Identity
from registry_service.domain.errors import InvalidArgumentError, InvalidCredentialsError, TooManyCallsError
from registry_service.domain.models import checked_text, utc_now
from registry_service.domain.ports import Database
from registry_service.domain.tokens import PREFIX, Token, checked_name, digest_of, expiry, new_secret

CACHED = timedelta(seconds=5)
"""How long somebody who was recognised stays so: a revocation counts after so long at the latest."""
_MOST_CACHED = 10_000
# Anybody may show a token of the right shape; these are the connections to the database that strangers may keep busy,
# and the calls, each with a thread, that may wait for one.
_LOOKUPS = 4
_WAITING_LOOKUPS = 256
_RETRY_SECONDS = 1.0


class _Strangers:
    """Bounds the lookups of tokens that nobody has been recognised by yet."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(_LOOKUPS + _WAITING_LOOKUPS)
        self._lookups = threading.BoundedSemaphore(_LOOKUPS)
        # By hashes. Those who were recognised wait for no strangers when the cache has forgotten them.
        self._recognised: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def lookup(self, digest: bytes) -> Iterator[None]:
        """Hold a place for a lookup (`TooManyCallsError` where too many strangers wait already)."""
        if digest in self._recognised:
            yield
            return
        if not self._places.acquire(blocking=False):
            raise TooManyCallsError(_WAITING_LOOKUPS, _RETRY_SECONDS)
        try:
            with self._lookups:
                yield
        finally:
            self._places.release()

    def note(self, digest: bytes, *, is_recognised: bool) -> None:
        """Remember whether somebody was recognised by a token."""
        if is_recognised == (digest in self._recognised):
            return
        with self._lock:
            if not is_recognised:
                self._recognised.pop(digest, None)
                return
            self._recognised[digest] = None
            if len(self._recognised) > _MOST_CACHED:
                self._recognised.popitem(last=False)


@dataclass(frozen=True, slots=True)
class TokenAuthenticator:
    """`domain.access.Authenticator` for the registry's own tokens."""

    database: Database
    _strangers: _Strangers = field(default_factory=_Strangers)

    def __call__(self, token: str) -> Identity:
        """See the port."""
        digest = digest_of(token)
        if digest is None:
            raise InvalidCredentialsError
        # By its hash, so how long it takes tells nothing of how much of a guess was right.
        with self._strangers.lookup(digest), self.database.transaction() as transaction:
            found = transaction.tokens.find(digest)
        is_recognised = found is not None and found.is_valid
        self._strangers.note(digest, is_recognised=is_recognised)
        if found is None or not is_recognised:
            raise InvalidCredentialsError
        # The database's clock decides; what is left is measured by ours, whatever it shows.
        expire_time = None if found.remaining is None else utc_now() + found.remaining
        return replace(found.identity, expire_time=expire_time)


@dataclass(frozen=True, slots=True)
class TokenOrOther:
    """Takes the registry's own tokens to one authenticator, and all others to another, where there is one."""

    token: Authenticator
    other: Authenticator | None

    def __call__(self, token: str) -> Identity:
        """See the port."""
        authenticate = self.token if token.startswith(PREFIX) else self.other
        if authenticate is None:
            raise InvalidCredentialsError
        return authenticate(token)


class CachedAuthenticator:
    """Remembers for some seconds whom another authenticator recognised; those that it refused it is asked anew."""

    def __init__(
        self,
        authenticate: Authenticator,
        *,
        most: int = _MOST_CACHED,
        seconds: float = CACHED.total_seconds(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticate = authenticate
        self._most = most
        self._seconds = seconds
        self._clock = clock
        # By hashes, so that no secret is kept.
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, token: str) -> Identity:
        """See the port."""
        key = hashlib.sha256(token.encode()).digest()
        # Before the question: from then on the answer grows old.
        now = self._clock()
        with self._lock:
            known = self._known.get(key)
        if known is not None and now < known[0]:
            return known[1]
        identity = self._authenticate(token)
        seconds = self._seconds
        if identity.expire_time is not None:
            seconds = min(seconds, (identity.expire_time - utc_now()).total_seconds())
        with self._lock:
            self._known[key] = now + seconds, identity
            self._known.move_to_end(key)
            if len(self._known) > self._most:
                self._known.popitem(last=False)
        return identity


@dataclass(frozen=True, slots=True)
class CreateToken:
    """Makes a token."""

    database: Database

    def __call__(self, grant: Grant, *, name: str = "", expires: str = "") -> tuple[Token, str]:
        """Returns the token and its secret, which nobody can look up later.

        `expires` as `domain.tokens.expiry` reads it; empty: never.

        Raises:
            InvalidArgumentError: Name, project or `expires` are wrong.
            TokenExistsError: The name is taken.
        """
        if grant.project_id is not None:
            if not grant.project_id:
                raise InvalidArgumentError.of("project", "must not be empty.")
            checked_text(grant.project_id, "project")
        token_id = str(uuid.uuid4())
        secret = new_secret()
        digest = digest_of(secret)
        if digest is None:
            raise AssertionError("it was just made")
        with self.database.transaction() as transaction:
            token = Token(
                id=token_id,
                name=checked_name(name) if name else token_id,
                grant=grant,
                create_time=transaction.now,
                expire_time=expiry(expires, transaction.now) if expires else None,
            )
            transaction.tokens.add(token, digest)
        return token, secret


@dataclass(frozen=True, slots=True)
class RevokeToken:
    """Revokes a token."""

    database: Database

    def __call__(self, token_id: str) -> Token:
        """Returns the token, named by its id or its name, as it then is (`TokenNotFoundError`)."""
        with self.database.transaction() as transaction:
            return transaction.tokens.revoke(token_id)


@dataclass(frozen=True, slots=True)
class ListTokens:
    """Lists the tokens."""

    database: Database

    def __call__(self) -> Sequence[Token]:
        """Returns every token, oldest first, also those that don't count any more."""
        with self.database.transaction() as transaction:
            return transaction.tokens.list()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What can be done with tokens, wired."""

    create: CreateToken
    revoke: RevokeToken
    list: ListTokens

    @classmethod
    def on(cls, database: Database) -> "Tokens":
        """Wires the use cases to a database."""
        return cls(create=CreateToken(database), revoke=RevokeToken(database), list=ListTokens(database))
