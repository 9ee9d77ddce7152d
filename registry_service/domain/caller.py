"""The caller: the actor of changes, and what the call may access."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

from registry_service.domain.access import EVERYTHING, NOTHING, Access, Grant

_RECHECK_SECONDS = 1.0


def _allowed() -> None:
    """Raise nothing: without authentication there is no permission to lose."""


def _here() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of the RPC that the running code serves."""

    actor: str = ""
    """The identity. With AUTH_MODE=none, an unverified claim. Empty for anonymous callers and for the registry's own
    work."""
    request_id: str = ""
    """The request id of the call; empty for the registry's own work."""
    access: Access = NOTHING
    grants: tuple[Grant, ...] = ()
    """The roles of the caller."""
    expire_time: datetime | None = None
    """When the credentials expire. Aware, by the local clock. None: never."""
    is_authenticated: bool = False
    """Whether the server knows who calls, so that the client cannot claim another actor."""
    check_access: Callable[[], None] = field(default=_allowed, compare=False)
    """Raises UnauthenticatedError or AccessDeniedError if the call would be refused now, for example because a token
    was revoked. A long call checks this before it commits."""
    is_gone: Callable[[], bool] = field(default=_here, compare=False)
    """Whether the client has disconnected, so that long work can stop."""

    def named(self, claim: str) -> str:
        """Return the actor of a change for which the client names one. Authenticated callers act as themselves."""
        return self.actor if self.is_authenticated else claim or self.actor


current_caller: ContextVar[Caller] = ContextVar("current_caller", default=Caller())  # noqa: B039 - is frozen
"""Set by the transport during every call. Where it is not set, as in a thread without the context of its parent,
nothing is allowed."""


class AccessRecheck:
    """Checks the access of the caller again, about once a second, in loops of many small steps."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _RECHECK_SECONDS

    def __call__(self) -> None:
        """Check the access if a second has passed (see `Caller.check_access`)."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _RECHECK_SECONDS
            current_caller.get().check_access()


@contextmanager
def acting_as_registry(actor: str = "") -> Iterator[None]:
    """Allow everything until the end of the block, for the registry's own work.

    Args:
        actor: The actor of changes in the audit log; empty for work that no person started.
    """
    token = current_caller.set(Caller(actor=actor, access=EVERYTHING))
    try:
        yield
    finally:
        current_caller.reset(token)
