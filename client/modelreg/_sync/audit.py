# Generated from modelreg/_async by `make generate`. Do not edit.
"""The audit log."""

from __future__ import annotations

from modelregistry.v1 import audit_service_pb2

from modelreg import _messages, _methods
from modelreg._sync.connection import Connection
from modelreg._sync.listing import Listing, Page
from modelreg.audit import Event

_PAGE_SIZE = 1000


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

        def fetch(token: str) -> Page:
            request = audit_service_pb2.ListAuditEventsRequest(filter=filter, page_size=_PAGE_SIZE, page_token=token)
            response = self._connection.unary(_methods.LIST_AUDIT_EVENTS, request)
            return response.audit_events, response.next_page_token

        return Listing(fetch, _messages.event)
