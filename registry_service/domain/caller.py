"""Who is calling: what a change is written down with, and what the call may touch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

from registry_service.domain.access import EVERYTHING, NOTHING, Access, Grant

_RECHECK_SECONDS = 1.0


def _allowed() -> None:
    """Raise nothing: nobody can take back what nobody was asked for."""


def _here() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever made the call that the running code serves."""

    actor: str = ""
    """Who they are; with AUTH_MODE=none who they say they are, a claim that nobody checks. Empty where nobody said who
    they are, and for what the registry does by itself."""
    request_id: str = ""
    """Of the call; empty for what the registry does by itself."""
    access: Access = NOTHING
    grants: tuple[Grant, ...] = ()
    """The roles of the caller."""
    expire_time: datetime | None = None
    """When the caller's credentials expire. Aware, by this machine's clock. None: never."""
    is_authenticated: bool = False
    """Whether they have shown who they are."""
    check_access: Callable[[], None] = field(default=_allowed, compare=False)
    """Raises UnauthenticatedError or AccessDeniedError where the call would be refused now, as when a token was revoked
    since: asked before a call that took long commits its change."""

    is_gone: Callable[[], bool] = field(default=_here, compare=False)
    """Whether nobody waits for the answer any more, so that what takes long may be given up."""

    def named(self, claim: str) -> str:
        """Returns the actor of a change for which a client names one: nobody who is known acts as another."""
        return self.actor if self.is_authenticated else claim or self.actor


current_caller: ContextVar[Caller] = ContextVar("current_caller", default=Caller())  # noqa: B039 - is frozen
"""Set by the transport around every call. Where nothing set it, as in a thread without the context of the thread that
started it, nothing is allowed."""


class AccessRecheck:
    """Asks again whether the caller may go on, about once a second: for loops of many small steps."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _RECHECK_SECONDS

    def __call__(self) -> None:
        """Ask where it is time (see `Caller.check_access` for what that raises)."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + _RECHECK_SECONDS
            current_caller.get().check_access()


@contextmanager
def acting_as_registry(actor: str = "") -> Iterator[None]:
    """Allow everything until the end of the block: for the registry's own work, which no client asked for.

    Args:
        actor: Written to the audit log with each change; empty for work that nobody started.
    """
    token = current_caller.set(Caller(actor=actor, access=EVERYTHING))
    try:
        yield
    finally:
        current_caller.reset(token)
