"""Asks a running gateway how it is, as a container's health check does."""

import http.client
from http import HTTPStatus

from registry_service.certificates import ClientTls


def gateway_status(
    host: str, port: int, timeout_seconds: float, tls: ClientTls | None = None, *, path: str = "/health"
) -> str:
    """Return SERVING if the gateway answers with 200, NOT_SERVING for another status, UNREACHABLE for no answer.

    Args:
        host: Of the gateway.
        port: Of the gateway.
        timeout_seconds: For connecting, and for each read.
        tls: How the gateway is reached with TLS.
        path: What is asked: /health for the registry behind the gateway, /live for the gateway alone.

    Raises:
        CertificateError: Our own certificate is not what it should be.
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
