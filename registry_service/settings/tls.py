"""Settings of TLS towards clients, and of the gRPC server's address."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from registry_service.settings.base import CommonSettings, OptionalPath, Port

CIPHER_SUITES = ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384")
"""Cipher suites of TLS 1.2, as Intel's Model Registry offers. Those of TLS 1.3 are all secure, and not configurable."""

_FILES = ("server_cert", "server_private_key", "ca_cert", "client_ca_cert", "client_cert", "client_private_key")


class TlsSettings(CommonSettings):
    """Settings of TLS towards clients, for REST and gRPC."""

    enable_https_mode: bool = Field(
        False,
        description="Whether the ports of REST and gRPC use TLS (1.2 or newer). Requires SERVER_CERT and "
        "SERVER_PRIVATE_KEY. Renewed certificate files take effect without a restart.",
    )
    server_cert: OptionalPath = Field(None, description="PEM file of the server's certificate chain.")
    server_private_key: OptionalPath = Field(None, description="PEM file of the private key of SERVER_CERT.")
    ca_cert: OptionalPath = Field(
        None,
        description="PEM file of the CA that signed SERVER_CERT, with which the gateway and `check` verify the gRPC "
        "server. If unset, they accept SERVER_CERT itself.",
    )
    client_ca_cert: OptionalPath = Field(
        None, description="PEM file of CAs. If set, clients must present a certificate that one of them signed."
    )
    client_cert: OptionalPath = Field(
        None,
        description="PEM file of the certificate chain that the gateway and `check` present if CLIENT_CA_CERT is set.",
    )
    client_private_key: OptionalPath = Field(None, description="PEM file of the private key of CLIENT_CERT.")

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if not self.enable_https_mode:
            if self.client_ca_cert is not None:
                raise ValueError("CLIENT_CA_CERT: requires ENABLE_HTTPS_MODE=true")
            return self
        required = {"server_cert", "server_private_key"}
        if self.client_cert is not None or self.client_private_key is not None:
            required |= {"client_cert", "client_private_key"}
        for name in _FILES:
            path: Path | None = getattr(self, name)
            if path is None and name in required:
                raise ValueError(f"{name.upper()}: must be set with ENABLE_HTTPS_MODE=true")
            if path is not None and not path.is_file():
                raise ValueError(f"{name.upper()}: there is no file {path}")
        return self


class ListenSettings(TlsSettings):
    """Settings of the gRPC server's address, which `model-registry check` needs."""

    grpc_ip_address: str = Field(
        "127.0.0.1",
        description="IP address on which the gRPC server listens. Set `0.0.0.0` to accept calls from other hosts.",
    )
    grpc_port: Port = Field(50051, description="Port on which the gRPC server listens.")
