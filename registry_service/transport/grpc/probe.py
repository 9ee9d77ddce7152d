"""Asks a running server how it is, as a container's health check does."""

import socket
import ssl
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2


def health_status(address: str, timeout_seconds: float, trust: Path | None = None) -> str:
    """Returns what the server's gRPC health service says, for example SERVING; UNREACHABLE where nothing answers.

    `trust` is a file of certificates, PEM: the server is asked over TLS and must
    have one of them, or one that they vouch for, under whatever name.
    """
    try:
        channel = grpc.insecure_channel(address) if trust is None else _secure_channel(address, trust, timeout_seconds)
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


def _secure_channel(address: str, trust: Path, timeout_seconds: float) -> grpc.Channel:
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(trust.read_bytes()),
        options=[("grpc.ssl_target_name_override", _name_of_server(address, trust, timeout_seconds))],
    )


def _name_of_server(address: str, trust: Path, timeout_seconds: float) -> str:
    """Returns a name that the server's certificate is for: a probe on the same host knows it by none."""
    context = ssl.create_default_context(cafile=trust)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
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
