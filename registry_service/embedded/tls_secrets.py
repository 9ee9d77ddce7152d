"""The gateway's certificates as Envoy's secrets, which refer to the certificates' files.

server_certificate    the certificate that clients see
clients               the CA for clients' certificates
client_certificate    the certificate that gRPC servers see if they require one
servers               the CA for the gRPC servers' certificates
"""

import hashlib
import json
import ssl
from collections.abc import Mapping
from pathlib import Path

from registry_service.certificates import Certificate, CertificateFiles
from registry_service.embedded.process import EmbeddedError
from registry_service.settings import GatewaySettings

_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_CERTIFICATES = ("server_certificate", "client_certificate")


class TlsSecrets:
    """Certificates that Envoy reads again when they are renewed.

    Args:
        settings: The gateway's settings.
        folder: Private folder in which Envoy watches the secrets. None to put them into Envoy's configuration,
            which does not change.
    """

    def __init__(self, settings: GatewaySettings, folder: Path | None) -> None:
        self._settings = settings
        self._folder = folder
        pairs = [pair for pair in (server_certificate(settings), client_certificate(settings)) if pair is not None]
        authorities = [file for file in (settings.ca_cert, settings.client_ca_cert) if file is not None]
        self._files = CertificateFiles(pairs if settings.enable_https_mode else [], authorities)

    def write(self) -> None:
        """Write the secrets into the folder.

        Raises:
            CertificateError: A certificate or key is unusable.
        """
        self._files.read()
        self._write()

    def refresh(self) -> None:
        """Make Envoy read the files again if they were renewed."""
        if self._files.read_if_renewed() is not None:
            self._write()

    def of_listener(self) -> dict[str, object]:
        """Return the fields of Envoy's CommonTlsContext for clients."""
        return self._fields("server_certificate", "clients")

    def of_upstream(self) -> dict[str, object]:
        """Return the fields of Envoy's CommonTlsContext for gRPC servers."""
        return self._fields("client_certificate", "servers")

    def _write(self) -> None:
        if self._folder is None or not self._settings.enable_https_mode:
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for name, secret in self._all().items():
            kind = "tls_certificate" if name in _CERTIFICATES else "validation_context"
            resource = {"@type": _TYPE, "name": name, kind: secret}
            unfinished = self._folder / f"{name}.new"
            unfinished.write_text(json.dumps({"resources": [resource]}), encoding="utf-8")
            unfinished.rename(self._file(name))

    def _fields(self, certificate: str, authority: str) -> dict[str, object]:
        secrets = self._all()
        fields: dict[str, object] = {}
        if certificate in secrets:
            if self._folder is None:
                fields["tls_certificates"] = [secrets[certificate]]
            else:
                fields["tls_certificate_sds_secret_configs"] = [self._reference(certificate)]
        if authority in secrets:
            if self._folder is None:
                fields["validation_context"] = secrets[authority]
            else:
                fields["validation_context_sds_secret_config"] = self._reference(authority)
        return fields

    def _reference(self, name: str) -> dict[str, object]:
        return {"name": name, "sds_config": {"path_config_source": {"path": str(self._file(name))}}}

    def _file(self, name: str) -> Path:
        if self._folder is None:
            raise AssertionError("without a folder no secret has a file")
        return self._folder / f"{name}.json"

    def _all(self) -> dict[str, Mapping[str, object]]:
        """Return the secrets that the settings give, by name."""
        settings = self._settings
        secrets: dict[str, Mapping[str, object]] = {}
        server, client = server_certificate(settings), client_certificate(settings)
        if server is None:
            return secrets
        secrets["server_certificate"] = self._pair(server)
        if client is not None:
            secrets["client_certificate"] = self._pair(client)
        if settings.client_ca_cert is not None:
            secrets["clients"] = self._authority(settings.client_ca_cert)
        # Without a CA, the gRPC servers must have the gateway's own certificate.
        secrets["servers"] = (
            {"verify_certificate_hash": [_certificate_hash(server.chain)]}
            if settings.ca_cert is None
            else self._authority(settings.ca_cert)
        )
        return secrets

    def _pair(self, certificate: Certificate) -> Mapping[str, object]:
        return {
            "certificate_chain": {"filename": str(certificate.chain)},
            "private_key": {"filename": str(certificate.private_key)},
            **self._watch(),
        }

    def _authority(self, file: Path) -> Mapping[str, object]:
        return {"trusted_ca": {"filename": str(file.absolute())}, **self._watch()}

    def _watch(self) -> Mapping[str, object]:
        """Return the folder to watch: a file that is moved into it makes Envoy read the certificates again."""
        return {} if self._folder is None else {"watched_directory": {"path": str(self._folder)}}


def server_certificate(settings: GatewaySettings) -> Certificate | None:
    """Return the certificate that clients see; None without TLS."""
    if not settings.enable_https_mode or settings.server_cert is None or settings.server_private_key is None:
        return None
    return Certificate(settings.server_cert.absolute(), settings.server_private_key.absolute())


def client_certificate(settings: GatewaySettings) -> Certificate | None:
    """Return the certificate that gRPC servers see if they require one; None if none is set."""
    if settings.client_cert is None or settings.client_private_key is None:
        return None
    return Certificate(settings.client_cert.absolute(), settings.client_private_key.absolute())


def _certificate_hash(chain: Path) -> str:
    """Return the SHA-256 digest of the first certificate of a chain, in hexadecimal."""
    first, end, _ = chain.read_text(encoding="ascii", errors="replace").partition("-----END CERTIFICATE-----")
    try:
        der = ssl.PEM_cert_to_DER_cert(first[first.index("-----BEGIN CERTIFICATE-----") :] + end)
    except ValueError:
        raise EmbeddedError(f"SERVER_CERT: {chain} has no PEM certificate") from None
    return hashlib.sha256(der).hexdigest()
