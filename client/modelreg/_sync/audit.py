# Generated from modelreg/_async by `make generate`. Do not edit.
"""The audit log."""

from __future__ import annotations

from modelregistry.v1 import audit_pb2, audit_service_pb2

from modelreg import _messages, _methods
from modelreg._sync.connection import Connection
from modelreg._sync.listing import Listing, Page
from modelreg.audit import Event, LogPosition, LogVerification


class AuditCalls:
    """The calls about the audit log."""

    _connection: Connection

    def log(self, filter: str = "") -> Listing[Event]:  # noqa: A002
        """Return the events of the audit log, the newest first.

        Args:
            filter: A filter (AIP-160), for example `action = ACTION_ALIAS_* AND name = vad`. Default: all events.

        Raises:
            PermissionDenied: At the first iteration: only admins may read the whole log. Readers can `watch`.
        """

        def fetch(token: str, size: int) -> Page:
            request = audit_service_pb2.ListAuditEventsRequest(filter=filter, page_size=size, page_token=token)
            response = self._connection.unary(_methods.LIST_AUDIT_EVENTS, request)
            return response.audit_events, response.next_page_token

        return Listing(fetch, _messages.event)

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
        >>> (reg.verify_log(anchor=result.head)).valid
        True
        """
        position = None if anchor is None else audit_pb2.AuditLogPosition(sequence=anchor.sequence, hash=anchor.hash)
        request = audit_service_pb2.VerifyAuditLogRequest(anchor=position)
        return _messages.log_verification(self._connection.unary(_methods.VERIFY_AUDIT_LOG, request))
