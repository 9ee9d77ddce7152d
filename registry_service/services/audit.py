"""Reads and checks the log of all changes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from registry_service.domain import filter as filters
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.events import GENESIS_HASH, BrokenLink, Event, LogHead
from registry_service.domain.listing import decode_page_token, encode_page_token, page_size
from registry_service.domain.ports import Database

_BATCH = 1000
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ListEvents:
    """Lists events, a page at a time."""

    database: Database

    def __call__(self, *, filter: str, size: int, token: str) -> tuple[Sequence[Event], str]:  # noqa: A002 - AIP-160's name
        """Returns the events of a page, newest first, and the token of the next, empty where this is the last.

        Raises:
            InvalidArgumentError: Filter, size or token are wrong.
        """
        limit = page_size(size)
        query = ("events", filter)
        start = decode_page_token(token, query, (int,))
        before = start[0] if start is not None and isinstance(start[0], int) else None
        node = filters.parse(filter, filters.Subject.EVENT)
        with self.database.transaction() as transaction:
            events = transaction.events.before(before, limit=limit, filter=node)
            # A page may be short as its events are large, so the log itself has to tell whether there are more.
            more = bool(events) and transaction.events.before(events[-1].sequence, limit=1, filter=node)
        return events, encode_page_token(query, (events[-1].sequence,)) if more else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerification:
    """What the log was found to be."""

    head: LogHead
    """Of the last good event; where the log ends, if nothing is broken."""
    broken: BrokenLink | None


@dataclass(frozen=True, slots=True)
class VerifyLog:
    """Checks every event of the log."""

    database: Database

    def __call__(self, anchor: LogHead | None, confirm: Callable[[], None]) -> LogVerification:
        """Reads the whole log, in batches that are transactions of their own; what is broken is a result.

        Args:
            anchor: What an earlier answer had as `head`: the log must still have it.
            confirm: Called between batches; raises when nobody waits for the answer.

        Raises:
            InvalidArgumentError: The anchor can be no event's.
        """
        if anchor is not None:
            _check_anchor(anchor)
        good = LogHead(sequence=0, hash=GENESIS_HASH)
        while True:
            confirm()
            wrong = _broken_anchor(anchor, good)
            if wrong is not None:
                return LogVerification(head=good, broken=wrong)
            # A batch ends at the anchor, where its hash is then at hand.
            until_anchor = 0 if anchor is None else anchor.sequence - good.sequence
            limit = min(_BATCH, until_anchor) if until_anchor > 0 else _BATCH
            with self.database.transaction() as transaction:
                reached, broken = transaction.events.verify(good, limit=limit)
            if broken is not None:
                return LogVerification(head=reached, broken=broken)
            if reached == good:
                return LogVerification(head=good, broken=_missing_anchor(anchor, good))
            good = reached


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
