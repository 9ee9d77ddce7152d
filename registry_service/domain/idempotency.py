"""Idempotency keys: a write that is repeated with its key returns the first response and changes nothing.

The transaction of the change also stores the response, so neither exists without the other.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from registry_service.domain.errors import InvalidArgumentError

FIELD = "idempotency_key"
KEPT_FOR = timedelta(hours=24)
"""How long a response is stored."""
MAX_ANSWER_BYTES = 4 * 1024
"""Maximum size of a stored response if the resource can be read again instead."""
MAX_KEYS_PER_CALLER = 100_000
"""Maximum number of new keys of one caller in a window of `KEPT_FOR`, without those of failed calls."""

_KEY = re.compile(r"[ -~]{1,128}")


def checked_key(key: str) -> str:
    """Return a valid key (`InvalidArgumentError`)."""
    if not _KEY.fullmatch(key):
        raise InvalidArgumentError.of(FIELD, "must be 1 to 128 printable ASCII characters.")
    return key


@dataclass(slots=True, kw_only=True)
class KeyedCall:
    """A call with an idempotency key."""

    caller: str
    """The caller. Keys of different callers are independent."""
    method: str
    """The path of the RPC. Keys of different methods are independent."""
    key: str
    digest: bytes
    """The SHA-256 of the request, or of the first message of a stream."""
    encode: Callable[[Any], bytes]
    """Turns the result of the use case into the response."""
    attempt: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Identifies this call among those with the same key, of which only one may commit."""
    is_kept: bool = False
    """Whether the response was stored."""

    @property
    def id(self) -> bytes:
        """The digest that identifies the key in storage."""
        return hashlib.sha256(f"{self.caller}\0{self.method}\0{self.key}".encode()).digest()

    @property
    def caller_digest(self) -> bytes:
        """The digest that identifies the caller in the count of keys."""
        return hashlib.sha256(self.caller.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """The response of an earlier call with the same key."""

    answer: bytes | None
    """None if the response was too large: the resource is read again."""
    resource_id: str
    """The model, upload or model group of the response; empty for none."""
    project_id: str | None
    """The project in which the caller must still have the permission."""
    artifact_sha256: str
    """The digest of the bytes of a stream; empty for other calls."""


current_keyed_call: ContextVar[KeyedCall | None] = ContextVar("current_keyed_call", default=None)
"""Set during a call with an idempotency key."""


class IdempotencyKeys(Protocol):
    """The calls with idempotency keys, running and finished."""

    def begin(self, call: KeyedCall, *, lease: timedelta) -> KeptAnswer | None:
        """Begin a call, or return the stored response of an earlier call with the key.

        Args:
            call: The call.
            lease: How long the call counts as running, unless `renew` extends it.

        Raises:
            IdempotencyKeyReusedError: Another request used the key.
            IdempotentCallRunningError: A call with the key is still running.
            TooManyIdempotencyKeysError: The key is new, and the caller has used `MAX_KEYS_PER_CALLER` others.
        """

    def keep(self, result: object, *, resource_id: str, project_id: str | None, artifact_sha256: str = "") -> None:
        """Store the response of the current call, if it has a key, in this transaction.

        Args:
            result: The result of the use case.
            resource_id: As in `KeptAnswer`.
            project_id: As in `KeptAnswer`.
            artifact_sha256: As in `KeptAnswer`.

        Raises:
            IdempotentCallRunningError: The lease expired, and another call has taken over the key.
        """

    def renew(self, attempts: Sequence[str], *, lease: timedelta) -> None:
        """Renew the leases of running calls."""

    def forget(self, call: KeyedCall) -> None:
        """Remove a call that changed nothing."""

    def remove_expired(self, limit: int) -> int:
        """Remove expired responses, and return their number.

        Also remove the counts of callers whose window has ended.
        """
