"""Who is calling: what a change is written down with."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever made the call that the running code serves."""

    actor: str = ""
    """Who they say they are, a claim that nobody checks as there is no authentication. Empty where nobody said who they
    are, and for what the registry does by itself."""
    request_id: str = ""
    """Of the call; empty for what the registry does by itself."""


current_caller: ContextVar[Caller] = ContextVar("current_caller", default=Caller())  # noqa: B039 - is frozen
"""Set by the transport around every call."""
