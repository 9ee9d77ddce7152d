"""The command that checks servers."""

import click

from registry_service.certificates import Certificate, CertificateError, ClientTls
from registry_service.cli.errors import user_errors
from registry_service.settings import GatewaySettings, ListenSettings, TlsSettings, load, loopback_address
from registry_service.transport.grpc.health_servicer import LIVENESS
from registry_service.transport.grpc.probe import health_status
from registry_service.transport.http_probe import gateway_status

_CHECK_SECONDS = 5


@click.command
@click.option("--rest", is_flag=True, help="Check the gateway on SERVER_PORT instead.")
@click.option("--live", is_flag=True, help="Check only that it responds, and not its dependencies.")
@user_errors
def check(rest: bool, live: bool) -> None:
    """Print the health of the server.

    The command checks the gRPC server on GRPC_PORT. It exits with 1 unless the health is SERVING.
    """
    if rest:
        gateway = load(GatewaySettings)
        host = loopback_address(gateway.server_ip_address)
        path = "/live" if live else "/health"
        status = gateway_status(host, gateway.server_port, _CHECK_SECONDS, _probe_tls(gateway), path=path)
    else:
        settings = load(ListenSettings)
        host = loopback_address(settings.grpc_ip_address)
        service = LIVENESS if live else ""
        status = health_status(f"{host}:{settings.grpc_port}", _CHECK_SECONDS, _probe_tls(settings), service=service)
    click.echo(status)
    if status != "SERVING":
        raise SystemExit(1)


def _probe_tls(settings: TlsSettings) -> ClientTls | None:
    """Return the TLS of a probe of a server with these settings; None without TLS.

    Raises:
        CertificateError: CLIENT_CERT is missing, and clients must have a certificate.
    """
    trust = settings.ca_cert or settings.server_cert
    if not settings.enable_https_mode or trust is None:
        return None
    if settings.client_cert is None or settings.client_private_key is None:
        if settings.client_ca_cert is not None:
            raise CertificateError("CLIENT_CERT: must be set with CLIENT_CA_CERT, because `check` is a client too")
        return ClientTls(trust)
    return ClientTls(trust, Certificate(settings.client_cert, settings.client_private_key))
