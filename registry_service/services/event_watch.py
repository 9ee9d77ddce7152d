"""Watch the audit log."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from registry_service.domain import filter as filters
from registry_service.domain.errors import DatabaseUnavailableError, InvalidArgumentError, OutOfRangeError
from registry_service.domain.events import Event
from registry_service.domain.listing import decode_page_token, encode_page_token
from registry_service.domain.ports import Database, Transaction

_BATCH = 100
_BATCH_BYTES = 256 * 1024
# Maximum number of events that one statement reads, so that a filter that matches nothing stays within the time limit.
_WINDOW = 10_000
_ACTION = filters.Field(("action",), filters.Kind.TEXT)
# A wake-up may get lost. The event is then delayed by up to this time.
_POLL_SECONDS = 5.0
# How long a watch retries while the database is unavailable.
_RETRY_LIMIT_SECONDS = 30.0
_RETRY_SECONDS = 0.5
MAX_READERS = 4
"""Maximum number of watches that read at the same time. All wake at once, and other calls need connections, too."""


@dataclass(frozen=True, slots=True)
class EventWatch:
    """One watch of the audit log.

    Args:
        database: The database.
        heartbeat: The maximum time between two messages.
        readers: Limits the watches that read the database at the same time.
        wake: Set by other threads to have `check_cancelled` called at once.
        check_cancelled: Raises when the watch must end.
    """

    database: Database
    heartbeat: timedelta
    readers: threading.BoundedSemaphore
    wake: threading.Event
    check_cancelled: Callable[[], None]

    def run(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        token: str,
        from_beginning: bool,
    ) -> Iterator[tuple[Event | None, str]]:
        """Yield every event that a filter matches, once and in order, each with the token that resumes after it.

        The first message has no event and comes at once. A heartbeat is a token without an event. Between two messages,
        the watch holds neither a transaction nor a connection.

        Args:
            filter: The filter; blank for all events.
            token: The token of the message after which to resume; empty for none.
            from_beginning: Whether to begin with the first event of the log instead of now.

        Raises:
            InvalidArgumentError: The filter or the token is invalid.
            OutOfRangeError: The token is of a position that the log has not reached.
            DatabaseUnavailableError: The database was unavailable for a long time.
        """
        node, given = _parsed(filter, token)
        if given is not None and from_beginning:
            raise InvalidArgumentError.of("resume_token", "must not be set together with from_beginning.")
        query = _query(filter)
        with self.database.transaction() as transaction:
            end = _end(transaction, given or 0)
        position = given if given is not None else 0 if from_beginning else end
        heartbeat_seconds = self.heartbeat.total_seconds()
        with self.database.wakes(self.wake):
            yield None, encode_page_token(query, (position,))
            sent = time.monotonic()
            while True:
                # Cleared before the log is read, so that an event that arrives meanwhile wakes the watch again.
                self.wake.clear()
                self.check_cancelled()
                events, reached = self._read_with_retries(position, node)
                for event in events:
                    yield event, encode_page_token(query, (event.sequence,))
                    sent = time.monotonic()
                is_end, position = reached == position, reached
                silence = time.monotonic() - sent
                if silence >= heartbeat_seconds:
                    yield None, encode_page_token(query, (position,))
                    sent = time.monotonic()
                elif is_end:
                    self.wake.wait(min(_POLL_SECONDS, heartbeat_seconds - silence))

    def _read_with_retries(self, position: int, node: filters.Node | None) -> tuple[Sequence[Event], int]:
        deadline = time.monotonic() + _RETRY_LIMIT_SECONDS
        while True:
            try:
                with self.readers:
                    return self._read(position, node)
            except DatabaseUnavailableError:
                if time.monotonic() > deadline:
                    raise
            self.wake.clear()
            self.check_cancelled()
            self.wake.wait(_RETRY_SECONDS)

    def _read(self, position: int, node: filters.Node | None) -> tuple[Sequence[Event], int]:
        """Return the next matching events after a position, and the position up to which the log was read."""
        with self.database.transaction() as transaction:
            # Read the end of the log first: all events up to there are visible then.
            until = min(_end(transaction, position), position + _WINDOW)
            if until == position:
                return (), position
            events = transaction.events.after(position, until=until, limit=_BATCH, max_bytes=_BATCH_BYTES, filter=node)
        return events, events[-1].sequence if events else until


def _query(filter: str) -> tuple[str, str]:  # noqa: A002 - AIP-160's name
    """Return the query that resume tokens belong to."""
    return "watch", filter


def _parsed(filter: str, token: str) -> tuple[filters.Node, int | None]:  # noqa: A002 - AIP-160's name
    """Return the parsed filter and the position of the token, None without a token.

    Tokens don't expire, and they belong to the text of the filter. Programs of schema revision 0009 and older called
    the field `event_time` `time`. A client with a token of such a program resumes with its old filter, or with that
    filter after the renaming. The old name is accepted only together with a token.
    """
    new, old = "event_time", "time"
    node = filters.parse(filters.with_field_renamed(filter, old, new) if token else filter, filters.Subject.EVENT)
    try:
        start = decode_page_token(token, _query(filter), (int,), "resume_token")
    except InvalidArgumentError:
        before = filters.with_field_renamed(filter, new, old)
        start = decode_page_token(token, _query(before), (int,), "resume_token")
    return _of_models(node), start[0] if start is not None and isinstance(start[0], int) else None


def _of_models(node: filters.Node | None) -> filters.Node:
    """Restrict a filter to events of models and aliases."""
    own = filters.Not(filters.Restriction(_ACTION, filters.Comparator.EQUAL, filters.Pattern(("token.", ""))))
    return own if node is None else filters.And((own, node))


def _end(transaction: Transaction, position: int) -> int:
    """Return the sequence of the last event, or raise OutOfRangeError if the position is past it."""
    head = transaction.events.head().sequence
    if not 0 <= position <= head:
        raise OutOfRangeError(
            f"The log ends with event {head}; the token is of event {position}, of another log perhaps.",
            sequence=str(position),
            head=str(head),
        )
    return head
