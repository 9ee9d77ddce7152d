"""Hands out changes as they happen."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from registry_service.domain import filter as filters
from registry_service.domain.errors import DatabaseUnavailableError, InvalidArgumentError, OutOfRangeError
from registry_service.domain.events import Event
from registry_service.domain.listing import decode_page_token, encode_page_token
from registry_service.domain.ports import Database, Transaction
from registry_service.services.policy import Policy

_BATCH = 100
_BATCH_BYTES = 256 * 1024
# Events that one statement looks at: a filter that matches nothing must not run into the time limit.
_WINDOW = 10_000
_ACTION = filters.Field(("action",), filters.Kind.TEXT)
# Should a wake-up get lost, a change is seen so much later.
_POLL_SECONDS = 5.0
# For so long a watch outlives the database's absence.
_PATIENCE_SECONDS = 30.0
_RETRY_SECONDS = 0.5
# Watches all wake at once; these are the connections that they leave to others.
_READERS = 4


@dataclass(frozen=True, slots=True)
class WatchEvents:
    """Hands out every event that a filter matches, once and in order, for ever."""

    database: Database
    policy: Policy
    _readers: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(_READERS))

    def __call__(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        token: str,
        from_beginning: bool,
        wake: threading.Event,
        confirm: Callable[[], None],
    ) -> Iterator[tuple[Event | None, str]]:
        """Yields events, each with the token that goes on after it; the first comes without an event, at once.

        When there is no event for as long as a heartbeat, a token comes without
        one. Nothing is held between two events but the place in the log: no
        transaction, and no connection.

        Args:
            filter: Which events; blank for all.
            token: Of the message after which to go on; empty for none.
            from_beginning: Whether to begin with the first event instead of now.
            wake: Set by others to have `confirm` called at once.
            confirm: Raises when the watch has to end.

        Raises:
            InvalidArgumentError: Filter or token are wrong.
            OutOfRangeError: The token is of a place that the log has not reached.
            DatabaseUnavailableError: It is away for long.
        """
        node, given = _parsed(filter, token)
        if given is not None and from_beginning:
            raise InvalidArgumentError.of("resume_token", "must not be set together with from_beginning.")
        query = _query(filter)
        with self.database.transaction() as transaction:
            end = _end(transaction, given or 0)
        position = given if given is not None else 0 if from_beginning else end
        with self.database.wakes(wake):
            yield None, encode_page_token(query, (position,))
            told = time.monotonic()
            while True:
                # Before the log is read, so that whatever comes meanwhile wakes us again.
                wake.clear()
                confirm()
                events, reached = self._read_patiently(position, node, wake, confirm)
                for event in events:
                    yield event, encode_page_token(query, (event.sequence,))
                    told = time.monotonic()
                is_end, position = reached == position, reached
                silence = time.monotonic() - told
                if silence >= self.policy.watch_heartbeat.total_seconds():
                    yield None, encode_page_token(query, (position,))
                    told = time.monotonic()
                elif is_end:
                    wake.wait(min(_POLL_SECONDS, self.policy.watch_heartbeat.total_seconds() - silence))

    def _read_patiently(
        self, position: int, node: filters.Node | None, wake: threading.Event, confirm: Callable[[], None]
    ) -> tuple[Sequence[Event], int]:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with self._readers:
                    return self._read(position, node)
            except DatabaseUnavailableError:
                if time.monotonic() > deadline:
                    raise
            wake.clear()
            confirm()
            wake.wait(_RETRY_SECONDS)

    def _read(self, position: int, node: filters.Node | None) -> tuple[Sequence[Event], int]:
        """Returns the next events after a position, and up to where the log is known by them."""
        with self.database.transaction() as transaction:
            # First where the log ends: all events up to there can be seen by then.
            until = min(_end(transaction, position), position + _WINDOW)
            if until == position:
                return (), position
            events = transaction.events.after(position, until=until, limit=_BATCH, max_bytes=_BATCH_BYTES, filter=node)
        return events, events[-1].sequence if events else until


def _query(filter: str) -> tuple[str, str]:  # noqa: A002 - AIP-160's name
    """Return what resume tokens belong to."""
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
    """Leaves out what is not of models and their aliases."""
    own = filters.Not(filters.Restriction(_ACTION, filters.Comparator.EQUAL, filters.Pattern(("token.", ""))))
    return own if node is None else filters.And((own, node))


def _end(transaction: Transaction, position: int) -> int:
    """Returns where the log ends (`OutOfRangeError` where that is before the position)."""
    head = transaction.events.head().sequence
    if not 0 <= position <= head:
        raise OutOfRangeError(
            f"The log ends with event {head}; the token is of event {position}, of another log perhaps.",
            sequence=str(position),
            head=str(head),
        )
    return head
