"""Changes of the registry as events: one append-only log for audits and watches.

The transaction of a change writes its event, so neither exists without the other. Sequence numbers have no gaps and
are in the order of the commits: a reader of an event could read all earlier ones. The hash of an event covers the
hash of the previous event, so changing or removing an event is detectable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from registry_service.domain.access import Projects
from registry_service.domain.filter import Node
from registry_service.domain.listing import MAX_PAGE_BYTES
from registry_service.domain.models import GroupKey, Json
from registry_service.domain.vocabulary import Action

UNKNOWN_TIME = datetime.min.replace(tzinfo=UTC)
"""The time of a damaged event."""
GENESIS_HASH = "0" * 64
"""The previous hash of the first event."""

REMOVALS = frozenset({Action.MODEL_DELETED, Action.ALIAS_DELETED, Action.MODEL_GROUP_DELETED, Action.TOKEN_REVOKED})
"""Actions that remove something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An event without the fields that the log adds."""

    action: Action
    group_key: GroupKey
    """The group that changed. For a token, only its project; the name is empty."""
    model_id: str
    """The changed model, or the new target of the alias (the old one if the alias was deleted). Empty for a token and
    for a group."""
    model_group_id: str | None = None
    """The id of the group of that key. None when recording: the existing group. None in the log: a token, or an event
    from before there were groups."""
    alias: str = ""
    """Empty if a model changed."""
    reason: str = ""
    actor: str = ""
    """Empty means the caller."""
    before: Mapping[str, Json] | None = None
    """The state before; of an updated model, only the changed fields. None if there was none."""
    after: Mapping[str, Json] | None = None
    """The state afterwards, likewise. None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Change):
    """A change in the log."""

    sequence: int
    """From 1, without gaps, in the order of the commits."""
    time: datetime
    """Aware, UTC. Never before the time of an earlier event."""
    request_id: str
    previous_hash: str
    """The hash of the previous event; GENESIS_HASH for the first one."""
    hash: str
    """The SHA-256 of all other fields, in 64 lower-case hexadecimal digits."""
    is_damaged: bool = False
    """Whether someone changed the log so that a field is unreadable. Such a field is empty, or UNKNOWN."""
    moved_away: bool = False
    """Whether the model moved to a project that the reader cannot see (`as_seen_from`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """The end of the log."""

    sequence: int
    """Of the last event; 0 if there is none."""
    hash: str
    """Of the last event; GENESIS_HASH if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLink:
    """The first event that differs from what was written."""

    sequence: int
    description: str
    """What is wrong, for people."""


def as_seen_from(event: Event, projects: Projects) -> Event:
    """Return what readers of these projects see of an event. They may read at least one side of the event.

    Hide `before` of a model that moved into these projects. For a model that moved out of them, show only the state
    before the move.
    """
    if projects is None:
        return event
    before = event.before or {}
    # Only a deletion, and an update that moves a model, have the project id among the earlier values.
    origin = before.get("project_id")
    is_from_here = isinstance(origin, str) and origin in projects
    if event.group_key.project_id in projects:
        return event if is_from_here or "project_id" not in before else replace(event, before=None)

    def earlier(name: str, now: str | None) -> str | None:
        value = before.get(name, now)
        return None if value is None else str(value)

    now = event.group_key
    left = GroupKey(
        name=earlier("name", now.name) or "",
        project_id=earlier("project_id", None),
        project_name=earlier("project_name", now.project_name),
    )
    return replace(
        event,
        # A damaged event may not say which side the readers can see.
        group_key=left if is_from_here else GroupKey(name=""),
        before=event.before if is_from_here else None,
        model_group_id=None,
        after=None,
        moved_away=True,
    )


class EventLog(Protocol):
    """The audit log."""

    def record(self, change: Change) -> None:
        """Write an event at the end of the transaction."""

    def head(self) -> LogHead:
        """Return the end of the log."""

    def after(
        self,
        sequence: int,
        *,
        until: int | None = None,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,  # noqa: A002 - AIP-160's name
        within: Projects = None,
    ) -> Sequence[Event]:
        """Return the matching events after a sequence number and up to `until` (None: the end), in order.

        The result has at most `limit` events of `max_bytes` of JSON together, but at least one if any matches. An event
        of a model that moved to another project has two sides: its name and project before, and after. The event
        matches if a side in a project in `within` matches. Events are returned in full.
        """

    def before(
        self,
        sequence: int | None,
        *,
        limit: int,
        max_bytes: int = MAX_PAGE_BYTES,
        filter: Node | None = None,  # noqa: A002 - AIP-160's name
        within: Projects = None,
    ) -> Sequence[Event]:
        """Return the matching events before a sequence number (None: the end), newest first; limits as for `after`."""

    def verify(self, after: LogHead, *, limit: int) -> tuple[LogHead, BrokenLink | None]:
        """Check up to `limit` events, or fewer large ones, after one that is known to be correct.

        Return the last correct event (`after` if there are no more), and the first event that is wrong or missing.
        """
