"""AuditService."""

import grpc
from modelregistry.v1 import audit_pb2, audit_service_pb2_grpc
from modelregistry.v1 import audit_service_pb2 as pb

from registry_service.domain.events import LogHead
from registry_service.services.use_cases import UseCases
from registry_service.transport.grpc.calls import expect_client
from registry_service.transport.grpc.convert import event_message, position_message


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Converts, calls one use case, converts back."""

    def __init__(self, use_cases: UseCases) -> None:
        self._use_cases = use_cases

    def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: grpc.ServicerContext
    ) -> pb.ListAuditEventsResponse:
        events, next_page_token = self._use_cases.list_events(
            filter=request.filter, size=request.page_size, token=request.page_token
        )
        return pb.ListAuditEventsResponse(events=map(event_message, events), next_page_token=next_page_token)

    def VerifyAuditLog(
        self, request: pb.VerifyAuditLogRequest, context: grpc.ServicerContext
    ) -> pb.VerifyAuditLogResponse:
        given = request.anchor if request.HasField("anchor") else None
        found = self._use_cases.verify_log(
            None if given is None else LogHead(sequence=given.sequence, hash=given.hash),
            lambda: expect_client(context),
        )
        broken = found.broken
        return pb.VerifyAuditLogResponse(
            valid=broken is None,
            checked=found.head.sequence,
            head=position_message(found.head),
            broken=None
            if broken is None
            else audit_pb2.BrokenAuditLink(sequence=broken.sequence, description=broken.description),
        )
