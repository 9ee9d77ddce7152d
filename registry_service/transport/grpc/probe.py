"""Health probes of a running server, for containers and supervisors."""

import socket
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from registry_service.certificates import ClientTls
from registry_service.transport.grpc.health_servicer import LIVENESS

_CHECK = "/grpc.health.v1.Health/Check"
# Statuses that the client library sets itself when the server does not respond.
_SILENCE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}


class LivenessProbe:
    """Checks over a persistent connection to a server's private socket whether the server is alive.

    Args:
        socket_path: The socket, which need not exist yet.
        timeout_seconds: How long the server may take to respond.
    """

    def __init__(self, socket_path: Path, timeout_seconds: float) -> None:
        self._socket_path = socket_path
        self._timeout_seconds = timeout_seconds
        # Reconnects to a restarted server with little delay.
        backoff = [(f"grpc.{kind}_reconnect_backoff_ms", 200) for kind in ("initial", "min", "max")]
        self._channel = grpc.insecure_channel(f"unix:{socket_path}", options=backoff)
        self._check = self._channel.unary_unary(
            _CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )

    def __call__(self) -> bool:
        """Return whether the server responds, with any status: a busy server is alive."""
        if not self._socket_path.exists():
            return False
        try:
            self._check(health_pb2.HealthCheckRequest(service=LIVENESS), timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            return error.code() not in _SILENCE
        return True

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


def health_status(address: str, timeout_seconds: float, tls: ClientTls | None = None, *, service: str = "") -> str:
    """Return the status that the server's gRPC health service reports, such as SERVING; UNREACHABLE without a response.

    Args:
        address: Host and port.
        timeout_seconds: Limit for connecting and the response.
        tls: How to connect with TLS; None for plain text.
        service: The whole server by default, or `LIVENESS`.

    Raises:
        CertificateError: The client certificate cannot be used.
    """
    try:
        channel = grpc.insecure_channel(address) if tls is None else _secure_channel(address, tls, timeout_seconds)
    except OSError:
        return "UNREACHABLE"
    with channel:
        check = channel.unary_unary(
            _CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            answer = check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_seconds)
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
    """Return a name in the server's certificate, since gRPC always verifies one."""
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
