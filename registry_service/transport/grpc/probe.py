"""Asks a running server how it is, as a container's health check does."""

import grpc
from grpc_health.v1 import health_pb2


def health_status(address: str, timeout_seconds: float) -> str:
    """Returns what the server's gRPC health service says, for example SERVING; UNREACHABLE where nothing answers."""
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError:
            return "UNREACHABLE"
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
