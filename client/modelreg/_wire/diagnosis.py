"""Why connections fail, where grpc says no more than "Socket closed"."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from modelreg._wire.options import Options

_SECONDS = 3.0


@dataclass(frozen=True)
class Diagnosis:
    """Why a server closes each connection."""

    hint: str
    """What is wrong, and what would be right. Empty if that is not clear."""
    is_certain: bool = False
    """Whether no repetition can help."""


def diagnose(options: Options) -> Diagnosis:
    """Connect without grpc, and look what the server does.

    A server with TLS closes connections without, and TLS 1.3 refuses the certificate of a client, or its absence, only
    after the handshake. grpc tells neither. Nothing but the handshake is sent, so the server is not verified.
    """
    endpoint = options.endpoint
    if options.proxy() is not None:
        return Diagnosis("")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        if options.client_certificate is not None:
            context.load_cert_chain(options.client_certificate, options.client_key)
        with (
            socket.create_connection((endpoint.host, endpoint.port), _SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=endpoint.host) as secure,
        ):
            if not endpoint.is_encrypted:
                return Diagnosis("It speaks TLS. Use grpcs:// or https://.", is_certain=True)
            # A server that accepts the client begins with its settings.
            if not secure.recv(1):
                # The server of grpc says no more. But the backend of a load balancer could be away, too.
                remedy = _about_certificate(options, "If it requires a client certificate, pass")
                return Diagnosis(f"It closes connections after the TLS handshake. {remedy}")
    except ssl.SSLError as error:
        # For example TLSV13_ALERT_CERTIFICATE_REQUIRED, TLSV1_ALERT_UNKNOWN_CA, SSLV3_ALERT_BAD_CERTIFICATE.
        reason = error.reason or ""
        if endpoint.is_encrypted and "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
            alert = reason.partition("ALERT_")[2].replace("_", " ").lower()
            remedy = _about_certificate(options, "Pass")
            return Diagnosis(f"It refuses this client ({alert}). {remedy}", is_certain=True)
    except OSError:
        pass
    return Diagnosis("")


def _about_certificate(options: Options, opening: str) -> str:
    if options.client_certificate is None:
        return f"{opening} client_certificate and client_key."
    return f"Check that it trusts the CA of the client certificate {options.client_certificate}."
