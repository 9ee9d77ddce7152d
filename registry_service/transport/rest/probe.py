"""Asks a running gateway how it is, as a container's health check does."""

import http.client
from http import HTTPStatus

from registry_service.certificates import ClientTls


def gateway_status(host: str, port: int, timeout_seconds: float, tls: ClientTls | None = None) -> str:
    """Returns SERVING where /health says so through the gateway, else NOT_SERVING; UNREACHABLE where nothing answers.

    Raises:
        CertificateError: Our own certificate is not what it should be.
    """
    connection = (
        http.client.HTTPConnection(host.strip("[]"), port, timeout=timeout_seconds)
        if tls is None
        else http.client.HTTPSConnection(host.strip("[]"), port, timeout=timeout_seconds, context=tls.context())
    )
    try:
        connection.request("GET", "/health")
        with connection.getresponse() as answer:
            return "SERVING" if answer.status == HTTPStatus.OK else "NOT_SERVING"
    except (OSError, http.client.HTTPException):
        return "UNREACHABLE"
    finally:
        connection.close()
