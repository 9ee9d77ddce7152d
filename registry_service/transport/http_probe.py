"""Health probes of a running gateway, for containers."""

import http.client
from http import HTTPStatus

from registry_service.certificates import ClientTls


def gateway_status(
    host: str, port: int, timeout_seconds: float, tls: ClientTls | None = None, *, path: str = "/health"
) -> str:
    """Return SERVING if the gateway answers with 200, NOT_SERVING for another status, UNREACHABLE for no answer.

    Args:
        host: Host of the gateway.
        port: Port of the gateway.
        timeout_seconds: Limit for connecting, and for each read.
        tls: How to connect with TLS; None for plain text.
        path: /health for the registry behind the gateway, or /live for the gateway alone.

    Raises:
        CertificateError: The client certificate cannot be used.
    """
    connection = (
        http.client.HTTPConnection(host.strip("[]"), port, timeout=timeout_seconds)
        if tls is None
        else http.client.HTTPSConnection(host.strip("[]"), port, timeout=timeout_seconds, context=tls.context())
    )
    try:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return "SERVING" if answer.status == HTTPStatus.OK else "NOT_SERVING"
    except (OSError, http.client.HTTPException):
        return "UNREACHABLE"
    finally:
        connection.close()
