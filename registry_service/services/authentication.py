"""Authenticate callers by their bearer tokens."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from registry_service.domain.access import Authenticator, Identity
from registry_service.domain.errors import InvalidCredentialsError, TooManyCallsError
from registry_service.domain.models import utc_now
from registry_service.domain.ports import Database
from registry_service.domain.tokens import PREFIX, digest_of

CACHED = timedelta(seconds=5)
"""How long an identity is cached. A revocation takes effect within this time."""
_MAX_CACHED = 10_000
# Anyone can send a token of the right shape. These are the connections to the database that lookups of unknown tokens
# may use, and the calls, each with a thread, that may wait for one.
_MAX_LOOKUPS = 4
_MAX_WAITING_LOOKUPS = 256
_RETRY_SECONDS = 1.0


class _UnknownTokens:
    """Limits the lookups of tokens that never authenticated a caller."""

    def __init__(self) -> None:
        self._slots = threading.BoundedSemaphore(_MAX_LOOKUPS + _MAX_WAITING_LOOKUPS)
        self._lookups = threading.BoundedSemaphore(_MAX_LOOKUPS)
        # By digest. A known token that the cache has dropped does not wait for lookups of unknown ones.
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def lookup(self, digest: bytes) -> Iterator[None]:
        """Hold a slot for the lookup of a token, or raise TooManyCallsError if too many lookups wait already."""
        if digest in self._known:
            yield
            return
        if not self._slots.acquire(blocking=False):
            raise TooManyCallsError(_MAX_WAITING_LOOKUPS, _RETRY_SECONDS)
        try:
            with self._lookups:
                yield
        finally:
            self._slots.release()

    def record(self, digest: bytes, *, is_known: bool) -> None:
        """Record whether a token authenticated a caller."""
        if is_known == (digest in self._known):
            return
        with self._lock:
            if not is_known:
                self._known.pop(digest, None)
                return
            self._known[digest] = None
            if len(self._known) > _MAX_CACHED:
                self._known.popitem(last=False)


@dataclass(frozen=True, slots=True)
class TokenAuthenticator(Authenticator):
    """`domain.access.Authenticator` for the registry's own tokens."""

    database: Database
    _unknown: _UnknownTokens = field(default_factory=_UnknownTokens)

    def __call__(self, token: str) -> Identity:
        """See the port."""
        digest = digest_of(token)
        if digest is None:
            raise InvalidCredentialsError
        # Looked up by digest, so the time of the lookup does not tell how much of a guess is right.
        with self._unknown.lookup(digest), self.database.transaction() as transaction:
            found = transaction.tokens.find(digest)
        is_known = found is not None and found.is_valid
        self._unknown.record(digest, is_known=is_known)
        if found is None or not is_known:
            raise InvalidCredentialsError
        # The database's clock decides whether the token is valid. The remaining time is measured by this machine's
        # clock, which may differ.
        expire_time = None if found.remaining is None else utc_now() + found.remaining
        return replace(found.identity, expire_time=expire_time)


@dataclass(frozen=True, slots=True)
class TokenOrOther(Authenticator):
    """Authenticates the registry's own tokens by one authenticator, and all others by another one, if there is one."""

    token: Authenticator
    other: Authenticator | None

    def __call__(self, token: str) -> Identity:
        """See the port."""
        authenticate = self.token if token.startswith(PREFIX) else self.other
        if authenticate is None:
            raise InvalidCredentialsError
        return authenticate(token)


class CachedAuthenticator(Authenticator):
    """Caches the identities that another authenticator returns, but not its errors.

    Args:
        authenticate: The other authenticator.
        most: Maximum number of cached identities.
        seconds: How long an identity is cached.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        authenticate: Authenticator,
        *,
        most: int = _MAX_CACHED,
        seconds: float = CACHED.total_seconds(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authenticate = authenticate
        self._most = most
        self._seconds = seconds
        self._clock = clock
        # By digest, so that no secret is kept.
        self._known: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, token: str) -> Identity:
        """See the port."""
        key = hashlib.sha256(token.encode()).digest()
        # Read before the identity is requested, because its age counts from then on.
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
