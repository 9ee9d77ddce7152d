"""Events of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from modelreg._results import Result


@dataclass(frozen=True, kw_only=True)
class Event(Result):
    """A change that the registry recorded."""

    sequence: int
    """Number of the event, from 1. Filtered events leave gaps."""
    action: str
    """`model_registered`, `model_updated`, `model_deleted`, `alias_set`, `alias_rolled_back`, `alias_deleted`,
    `token_created`, `token_revoked`, `model_group_updated` or `model_group_deleted`. Expect others from newer servers.
    """
    event_time: datetime | None = None
    actor: str = ""
    request_id: str = ""
    project_id: str | None = None
    project_name: str | None = None
    name: str = ""
    model_id: str = ""
    model_group_id: str = ""
    alias: str = ""
    reason: str = ""
    before: Mapping[str, Any] | None = None
    """The state before the change; of an update, the fields that changed."""
    after: Mapping[str, Any] | None = None
    details_omitted: bool = False
    """Whether `before` and `after` were too large for the stream. `Registry.log` has them."""
    previous_hash: str = ""
    hash: str = ""
    damaged: bool = False
    """Whether the stored event was altered. `mreg log --verify` finds where."""
    moved_away: bool = False
    """Whether the model moved to a project that the caller may not read."""
    resume_token: str = field(default="", compare=False, repr=False)
    """Of `Registry.watch`: continues after this event. Empty in the events of `Registry.log`."""

    _columns: ClassVar = ("sequence", "event_time", "action", "name", "alias", "reason", "actor")

    def __hash__(self) -> int:
        # Not of all fields, as Python would: mappings have no hash. Equal events have both of these.
        return hash((self.sequence, self.hash))


@dataclass(frozen=True, kw_only=True)
class LogPosition(Result):
    """A position in the audit log, with the hash that proves it is the same log."""

    sequence: int
    """Number of the event. 0: before the first one."""
    hash: str
    """Hash of the event: 64 lowercase hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class LogVerification(Result):
    """What a verification of the whole audit log found."""

    valid: bool
    """Whether every event is as it was written, and follows the one before it."""
    checked_count: int
    """Number of intact events: all of them, or those before the first broken one."""
    head: LogPosition
    """The last intact event. Keep it elsewhere, and pass it as `anchor` of the next verification."""
    broken_sequence: int | None = None
    """Number of the first event that is missing or was altered. None if there is none."""
    problem: str = ""
    """What is wrong with it, for people."""
