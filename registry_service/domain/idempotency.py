"""Idempotency keys: a write that is repeated under its key is answered again, not carried out again.

The answer is kept in the transaction of the change itself, so that there is either
both or neither, whatever crashes in between.
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
"""How long an answer is repeated."""
MAX_ANSWER_BYTES = 4 * 1024
"""The largest answer that is kept where the resource can be read again instead."""
MAX_KEYS_PER_CALLER = 100_000
"""New keys of one caller, but for those of calls that failed, in a window of `KEPT_FOR`."""

_KEY = re.compile(r"[ -~]{1,128}")


def checked_key(key: str) -> str:
    """Return a key that a client may use (`InvalidArgumentError` otherwise)."""
    if not _KEY.fullmatch(key):
        raise InvalidArgumentError.of(FIELD, "must be 1 to 128 printable ASCII characters.")
    return key


@dataclass(slots=True, kw_only=True)
class KeyedCall:
    """A call with an idempotency key."""

    caller: str
    """Who makes it: keys of different callers differ."""
    method: str
    """Path of the RPC: keys of different methods differ."""
    key: str
    digest: bytes
    """SHA-256 of the request; of a stream, of its first message."""
    encode: Callable[[Any], bytes]
    """Makes the answer of what the use case returns."""
    attempt: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Names this call among those with the same key: only one of them may commit its change."""
    is_kept: bool = False
    """Whether its answer was written down."""

    @property
    def id(self) -> bytes:
        """What the key is stored under: of a fixed size, whatever the caller is called."""
        return hashlib.sha256(f"{self.caller}\0{self.method}\0{self.key}".encode()).digest()

    @property
    def caller_digest(self) -> bytes:
        """What the caller's keys are counted under."""
        return hashlib.sha256(self.caller.encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptAnswer:
    """What an earlier call with the same key answered."""

    answer: bytes | None
    """None where it was too large: then the resource is read again."""
    resource_id: str
    """The model, upload, or model group that the answer is about; empty for none."""
    project_id: str | None
    """Where the caller must still be allowed to make the call."""
    artifact_sha256: str
    """Of a stream, what its bytes were; empty for other calls."""


current_keyed_call: ContextVar[KeyedCall | None] = ContextVar("current_keyed_call", default=None)
"""Set around a call with an idempotency key."""


class IdempotencyKeys(Protocol):
    """The calls with idempotency keys: under way, and answered."""

    def begin(self, call: KeyedCall, *, lease: timedelta) -> KeptAnswer | None:
        """Begin a call, unless it was answered: then return the answer.

        Args:
            call: The call.
            lease: How long it counts as under way, unless `renew` is called.

        Raises:
            IdempotencyKeyReusedError: Another request has the key.
            IdempotentCallRunningError: A call with the key is under way.
            TooManyIdempotencyKeysError: The key is new, and the caller has begun `MAX_KEYS_PER_CALLER` others.
        """

    def keep(self, result: object, *, resource_id: str, project_id: str | None, artifact_sha256: str = "") -> None:
        """Write down the answer of the current call, if it has a key, in this transaction.

        Args:
            result: What the use case returns.
            resource_id: As in `KeptAnswer`.
            project_id: As in `KeptAnswer`.
            artifact_sha256: As in `KeptAnswer`.

        Raises:
            IdempotentCallRunningError: Another call has taken the key over, as this one was silent for too long.
        """

    def renew(self, attempts: Sequence[str], *, lease: timedelta) -> None:
        """Renew the leases of calls that are under way."""

    def forget(self, call: KeyedCall) -> None:
        """Forget a call that has changed nothing."""

    def remove_expired(self, limit: int) -> int:
        """Remove answers that are not repeated any more, and return how many these were.

        The counts of callers whose window has ended are removed, too.
        """
