# Generated from modelreg/_async by `make generate`. Do not edit.
"""The audit log."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from modelregistry.v1 import audit_pb2, audit_service_pb2

from modelreg import _arguments
from modelreg._resume_files import ResumeFile
from modelreg._sync.connection import Connection
from modelreg._sync.listing import Listing, Page, listed
from modelreg._sync.watches import Watch
from modelreg._wire import convert, methods
from modelreg.audit import Event, LogPosition, LogVerification
from modelreg.errors import InvalidArgument


class AuditCalls:
    """The calls about the audit log."""

    _connection: Connection

    def log(self, filter: str = "") -> Listing[Event]:  # noqa: A002
        """Return the events of the audit log, the newest first.

        Args:
            filter: A filter (AIP-160), for example `action = ACTION_ALIAS_* AND name = vad`. Default: all events.

        Raises:
            PermissionDenied: At the first iteration: only admins may read the whole log. Readers can `watch`.

        >>> event = reg.log("name = vad AND action = ACTION_ALIAS_SET").first()
        >>> event.action, event.alias, event.after["version"]
        ('alias_set', 'production', '6.2.2')
        """
        filter_text = _arguments.text(filter, "filter")

        def fetch(token: str, size: int) -> Page:
            request = audit_service_pb2.ListAuditEventsRequest(filter=filter_text, page_size=size, page_token=token)
            response = self._connection.unary(methods.LIST_AUDIT_EVENTS, request)
            return response.audit_events, response.next_page_token

        return Listing(fetch, convert.event, of=listed("events", filter=filter_text))

    def watch(
        self,
        filter: str = "",  # noqa: A002
        *,
        resume_file: str | os.PathLike[str] | None = None,
        resume_token: str | None = None,
        from_beginning: bool = False,
    ) -> Generator[Event, None, None]:
        """Yield every change of models and aliases as it happens, until the consumer stops.

        The watch begins with the first iteration. It survives lost connections and restarts of the registry for as
        long as they take; the logger `modelreg` warns of them. With a resume file or a token, it also survives
        restarts of the consumer.

        Every event arrives at least once, in the order of the log: after a restart, the event that the consumer was
        busy with comes again. An event counts as done when the next one is asked for, and only then the position in
        the resume file moves past it.

        Args:
            filter: A filter (AIP-160), for example `action = ACTION_ALIAS_*`. Default: all events.
            resume_file: The file that keeps the position, one for each watch. If it exists, the watch continues there.
            resume_token: `Event.resume_token` of the event after which to continue. Cannot be combined with the other
                two ways to begin.
            from_beginning: Whether to begin with the first event of the log, unless the resume file has a position.
                Default: with the next change.

        Raises:
            InvalidArgument: The filter is wrong, the resume file or the token is of another filter, or the position
                is past the end of the log, because the database is another one or was restored.
            Conflict: Another watch uses the resume file.
            ConnectionFailed: The registry does not answer, and the watch has no position yet that it could keep.
            PermissionDenied: The caller may not read models.

        >>> model = reg.update("vad", tags={"stage": "candidate"})
        >>> for event in reg.watch("name = vad", from_beginning=True):
        ...     if event.action == "model_updated":
        ...         print(event.name, event.after["tags"]["stage"])
        ...         break
        vad candidate
        """
        if resume_token is not None and (resume_file is not None or from_beginning):
            raise InvalidArgument("resume_token: Pass either a token, or a file and from_beginning.")
        request = audit_service_pb2.WatchAuditEventsRequest(
            filter=_arguments.text(filter, "filter"),
            resume_token=None if resume_token is None else _arguments.text(resume_token, "resume_token"),
            from_beginning=from_beginning,
        )
        file = None if resume_file is None else ResumeFile(Path(resume_file), filter)
        return Watch(self._connection, request, file).events()

    def verify_log(self, *, anchor: LogPosition | None = None) -> LogVerification:
        """Verify the whole audit log: that every event is as it was written, and follows the one before it.

        Args:
            anchor: `head` of an earlier verification, kept elsewhere: the log must still have that event. Without it,
                an owner of the database could have written a whole new log.

        Raises:
            InvalidArgument: The anchor is not a position.
            PermissionDenied: The caller is not an admin.

        >>> result = reg.verify_log()
        >>> result.valid, result.broken_sequence
        (True, None)
        >>> reg.verify_log(anchor=result.head).valid
        True
        """
        position = None
        if anchor is not None:
            _arguments.instance(anchor, LogPosition, "anchor", advice="Pass `head` of an earlier verification.")
            position = audit_pb2.AuditLogPosition(sequence=anchor.sequence, hash=anchor.hash)
        request = audit_service_pb2.VerifyAuditLogRequest(anchor=position)
        return convert.log_verification(self._connection.unary(methods.VERIFY_AUDIT_LOG, request))
