"""AuditService."""

import threading
from collections.abc import Iterator

import grpc
from modelregistry.v1 import audit_pb2, audit_service_pb2_grpc
from modelregistry.v1 import audit_service_pb2 as pb

from registry_service.domain.caller import current_caller
from registry_service.domain.errors import CallCancelledError
from registry_service.domain.events import LogHead
from registry_service.services.services import Services
from registry_service.transport.grpc.cancellation import check_cancelled
from registry_service.transport.grpc.convert.audit import event_message, position_message
from registry_service.transport.grpc.drain import Drain

# Clients accept messages of 4 MiB: a larger event would end their watch after every resumption.
_MAX_EVENT_BYTES = 3 * 1024 * 1024


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services, drain: Drain) -> None:
        self._services = services
        self._drain = drain

    def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditEventsResponse:
        events, next_page_token = self._services.audit.list(
            filter=request.filter, size=request.page_size, token=request.page_token
        )
        return pb.ListAuditEventsResponse(audit_events=map(event_message, events), next_page_token=next_page_token)

    def WatchAuditEvents(
        self, request: pb.WatchAuditEventsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchAuditEventsResponse]:
        wake = threading.Event()

        def check_watch() -> None:
            check_cancelled(context)
            current_caller.get().check_access()
            self._drain.check()

        with self._drain.wakes(wake):
            if not context.add_callback(wake.set):
                raise CallCancelledError
            for event, resume_token in self._services.audit.watch(
                filter=request.filter,
                token=request.resume_token,
                from_beginning=request.from_beginning,
                wake=wake,
                check_cancelled=check_watch,
            ):
                message = None if event is None else event_message(event, max_bytes=_MAX_EVENT_BYTES)
                yield pb.WatchAuditEventsResponse(event=message, resume_token=resume_token)

    def VerifyAuditLog(
        self, request: pb.VerifyAuditLogRequest, context: grpc.ServicerContext
    ) -> pb.VerifyAuditLogResponse:
        given = request.anchor if request.HasField("anchor") else None
        found = self._services.audit.verify(
            None if given is None else LogHead(sequence=given.sequence, hash=given.hash),
            lambda: check_cancelled(context),
        )
        broken = found.broken
        return pb.VerifyAuditLogResponse(
            valid=broken is None,
            checked_count=found.head.sequence,
            head=position_message(found.head),
            broken=None
            if broken is None
            else audit_pb2.BrokenAuditLink(sequence=broken.sequence, description=broken.description),
        )
