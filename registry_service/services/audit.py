"""Read, verify and watch the audit log."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from registry_service.domain import filter as filters
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.events import GENESIS_HASH, BrokenLink, Event, LogHead
from registry_service.domain.listing import decode_page_token, encode_page_token, page_size
from registry_service.domain.ports import Database
from registry_service.services.event_watch import MAX_READERS, EventWatch
from registry_service.services.policy import Policy

_BATCH = 1000
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerification:
    """The result of verifying the audit log."""

    head: LogHead
    """The last intact event; the end of the log if nothing is broken."""
    broken: BrokenLink | None


@dataclass(frozen=True, slots=True)
class AuditService:
    """The audit log."""

    database: Database
    policy: Policy
    watch_readers: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(MAX_READERS))

    def list(self, *, filter: str, size: int, token: str) -> tuple[Sequence[Event], str]:  # noqa: A002 - AIP-160's name
        """Return a page of events, newest first, and the token of the next page, which is empty for the last page.

        Raises:
            InvalidArgumentError: The filter, the size or the token is invalid.
        """
        limit = page_size(size)
        query = ("events", filter)
        start = decode_page_token(token, query, (int,))
        before = start[0] if start is not None and isinstance(start[0], int) else None
        node = filters.parse(filter, filters.Subject.EVENT)
        with self.database.transaction() as transaction:
            events = transaction.events.before(before, limit=limit, filter=node)
            # A page of large events has fewer than `limit`, so only the log can tell whether more events follow.
            more = bool(events) and transaction.events.before(events[-1].sequence, limit=1, filter=node)
        return events, encode_page_token(query, (events[-1].sequence,)) if more else ""

    def verify(self, anchor: LogHead | None, check_cancelled: Callable[[], None]) -> LogVerification:
        """Verify every event of the log, in batches with a transaction each. A broken log is a result.

        Args:
            anchor: The `head` of an earlier result, which the log must still contain.
            check_cancelled: Called between batches. Raises if the call was cancelled.

        Raises:
            InvalidArgumentError: The anchor is not valid.
        """
        if anchor is not None:
            _check_anchor(anchor)
        good = LogHead(sequence=0, hash=GENESIS_HASH)
        while True:
            check_cancelled()
            wrong = _broken_anchor(anchor, good)
            if wrong is not None:
                return LogVerification(head=good, broken=wrong)
            # End a batch at the anchor, to compare its hash.
            until_anchor = 0 if anchor is None else anchor.sequence - good.sequence
            limit = min(_BATCH, until_anchor) if until_anchor > 0 else _BATCH
            with self.database.transaction() as transaction:
                reached, broken = transaction.events.verify(good, limit=limit)
            if broken is not None:
                return LogVerification(head=reached, broken=broken)
            if reached == good:
                return LogVerification(head=good, broken=_missing_anchor(anchor, good))
            good = reached

    def watch(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        token: str,
        from_beginning: bool,
        wake: threading.Event,
        check_cancelled: Callable[[], None],
    ) -> Iterator[tuple[Event | None, str]]:
        """Yield every event that a filter matches, once and in order; see `EventWatch.run`."""
        watch = EventWatch(self.database, self.policy.watch_heartbeat, self.watch_readers, wake, check_cancelled)
        return watch.run(filter=filter, token=token, from_beginning=from_beginning)


def _check_anchor(anchor: LogHead) -> None:
    if anchor.sequence < 0:
        raise InvalidArgumentError.of("anchor.sequence", "must not be negative.")
    if not _HASH.fullmatch(anchor.hash):
        raise InvalidArgumentError.of("anchor.hash", "must be 64 lower-case hexadecimal digits.")


def _broken_anchor(anchor: LogHead | None, good: LogHead) -> BrokenLink | None:
    if anchor is None or anchor.sequence != good.sequence or anchor.hash == good.hash:
        return None
    return BrokenLink(sequence=good.sequence, description="is not the anchor: the log was written anew.")


def _missing_anchor(anchor: LogHead | None, end: LogHead) -> BrokenLink | None:
    if anchor is None or anchor.sequence <= end.sequence:
        return None
    return BrokenLink(sequence=end.sequence + 1, description="is missing: the anchor is a later event.")
