"""TLS of the gRPC server, with certificate files that may be renewed while it runs."""

from pathlib import Path

import grpc

from registry_service.certificates import Certificate, CertificateFiles


def server_credentials(certificate: Certificate, client_ca: Path | None) -> grpc.ServerCredentials:
    """Return the credentials of a port. Each new connection uses the present contents of the files.

    Args:
        certificate: The server's certificate.
        client_ca: File of CA certificates; clients must present a certificate that one of them has signed. None to
            require no client certificates.

    Raises:
        CertificateError: A file cannot be used.
    """
    files = CertificateFiles([certificate], [] if client_ca is None else [client_ca])

    def configuration(contents: dict[Path, bytes]) -> grpc.ServerCertificateConfiguration:
        pair = (contents[certificate.private_key], contents[certificate.chain])
        return grpc.ssl_server_certificate_configuration([pair], None if client_ca is None else contents[client_ca])

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        contents = files.read_if_renewed()
        return None if contents is None else configuration(contents)

    return grpc.dynamic_ssl_server_credentials(
        configuration(files.read()),
        renewed,  # type: ignore[arg-type]  # None means no change
        require_client_authentication=client_ca is not None,
    )
