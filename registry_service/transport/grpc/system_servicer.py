"""SystemService: health for HTTP."""

import grpc
from modelregistry.v1 import system_service_pb2 as pb
from modelregistry.v1 import system_service_pb2_grpc

from registry_service.transport.grpc.health import HealthMonitor


class SystemServicer(system_service_pb2_grpc.SystemServiceServicer):
    """Answers what the monitor knows."""

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor

    def GetHealth(self, request: pb.GetHealthRequest, context: grpc.ServicerContext) -> pb.GetHealthResponse:
        return pb.GetHealthResponse(status="ok")

    def GetReadiness(self, request: pb.GetReadinessRequest, context: grpc.ServicerContext) -> pb.GetReadinessResponse:
        if self._monitor.error is not None:
            raise self._monitor.error
        return pb.GetReadinessResponse(status="ok", clock_offset_seconds=self._monitor.clock_offset)
