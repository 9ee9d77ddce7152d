"""Asks a running server how it is, as a container's health check does."""

import socket

import grpc
from grpc_health.v1 import health_pb2

from registry_service.certificates import ClientTls


def health_status(address: str, timeout_seconds: float, tls: ClientTls | None = None) -> str:
    """Returns what the server's gRPC health service says, for example SERVING; UNREACHABLE where nothing answers.

    Raises:
        CertificateError: Our own certificate is not what it should be.
    """
    try:
        channel = grpc.insecure_channel(address) if tls is None else _secure_channel(address, tls, timeout_seconds)
    except OSError:
        return "UNREACHABLE"
    with channel:
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


def _secure_channel(address: str, tls: ClientTls, timeout_seconds: float) -> grpc.Channel:
    own = tls.own
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(
            tls.trust.read_bytes(),
            private_key=None if own is None else own.private_key.read_bytes(),
            certificate_chain=None if own is None else own.chain.read_bytes(),
        ),
        options=[("grpc.ssl_target_name_override", _name_of_server(address, tls, timeout_seconds))],
    )


def _name_of_server(address: str, tls: ClientTls, timeout_seconds: float) -> str:
    """Returns a name that the server's certificate is for, as gRPC insists on one."""
    context = tls.context()
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout_seconds) as connection,
        context.wrap_socket(connection) as secure,
    ):
        certificate = secure.getpeercert() or {}
    for name in certificate.get("subjectAltName", ()):
        if name[0] in {"DNS", "IP Address"}:
            return str(name[1]).replace("*.", "any.", 1)
    return host
