"""Changes of the registry as events: one append-only log, which audits, and feeds whoever watches.

An event is written in the transaction of its change, so there is neither a
change without its event nor an event without its change. Sequence numbers have
no gaps and are in the order of the commits: whoever has seen an event has been
able to see all earlier ones. Each event's hash covers the hash of the one
before it, so that no event can be changed or removed unnoticed.
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
"""Of a damaged event."""
GENESIS_HASH = "0" * 64
"""What stands for the hash before the first event."""

REMOVALS = frozenset({Action.MODEL_DELETED, Action.ALIAS_DELETED, Action.MODEL_GROUP_DELETED, Action.TOKEN_REVOKED})
"""Actions that leave less than there was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an event says, but for what the log adds."""

    action: Action
    group_key: GroupKey
    """Of a token only its project; the name is empty."""
    model_id: str
    """Of the model that was changed, or that the alias points to afterwards; before, where it was deleted. Empty for a
    token, and for a group."""
    model_group_id: str | None = None
    """Of the group of that key. None to record: the one that there is. None in the log: of a token, or from before
    there were groups."""
    alias: str = ""
    """Empty where a model was changed."""
    reason: str = ""
    actor: str = ""
    """Empty: the caller."""
    before: Mapping[str, Json] | None = None
    """Of a model that was updated, the fields that changed; None where there was nothing before."""
    after: Mapping[str, Json] | None = None
    """The like; None where there is nothing afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Change):
    """A change as the log has it."""

    sequence: int
    """Counts from 1, without gaps, in the order of the commits."""
    time: datetime
    """Aware, UTC; never before that of an earlier event."""
    request_id: str
    previous_hash: str
    """Of the event before it; GENESIS_HASH for the first."""
    hash: str
    """SHA-256 of all the other fields, 64 lower-case hexadecimal digits."""
    is_damaged: bool = False
    """Whether somebody changed the log so that not all of it can be read; what cannot is empty, or as below."""
    moved_away: bool = False
    """Whether this is all that `as_seen_from` shows of a model that moved out of sight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogHead:
    """Where the log ends."""

    sequence: int
    """Of the last event; 0 where there is none."""
    hash: str
    """Of the last event; GENESIS_HASH where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLink:
    """The first event that is not as it was written."""

    sequence: int
    description: str
    """What is wrong, for a person."""


def as_seen_from(event: Event, projects: Projects) -> Event:
    """Return what the readers of these projects see of an event, of which they may read one side at least.

    Of a model that moved here from elsewhere, `before` is hidden. Of a model that moved from here to elsewhere,
    everything is hidden that it did not have before the move.
    """
    if projects is None:
        return event
    before = event.before or {}
    # Only an update that moved a model has the id of its project among the earlier values, or a deletion.
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
        # A damaged event may not tell any more which side is theirs.
        group_key=left if is_from_here else GroupKey(name=""),
        before=event.before if is_from_here else None,
        model_group_id=None,
        after=None,
        moved_away=True,
    )


class EventLog(Protocol):
    """The log of all changes."""

    def record(self, change: Change) -> None:
        """Writes an event when the transaction is committed, after whatever else is done in it."""

    def head(self) -> LogHead:
        """Returns where the log ends."""

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
        """Returns the events after a sequence number, and up to `until` (None: the end), that match, in order.

        At most `limit`, and no more than fit in `max_bytes` of JSON, but one at
        least where there is one. An event of a model that moved to another project
        has two sides, its name and project before and after; it matches where one
        side does that is of a project in `within`. The events come as they are.
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
        """Returns the events before a sequence number (None: the end) that match, newest first; as many as `after`."""

    def verify(self, after: LogHead, *, limit: int) -> tuple[LogHead, BrokenLink | None]:
        """Checks up to `limit` events, fewer where they are large, after one that is known to be good.

        Returns the last good one, the same as `after` where there are no more;
        and the first one that is not as it was written, or is missing.
        """
