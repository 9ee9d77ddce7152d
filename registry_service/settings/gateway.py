"""Settings of the REST gateway."""

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from registry_service.settings.base import MIB, Port, Positive, SharedSettings, ShutdownSettings
from registry_service.settings.telemetry import TelemetrySettings
from registry_service.settings.tls import TlsSettings


class GatewaySettings(TelemetrySettings, TlsSettings, ShutdownSettings, SharedSettings):
    """Settings of `model-registry gateway`."""

    server_ip_address: str = Field(
        "127.0.0.1",
        description="IP address on which the REST gateway listens. Set `0.0.0.0` to accept requests from other hosts.",
    )
    server_port: Port = Field(32002, description="Port on which the REST gateway listens.")
    grpc_upstreams: tuple[str, ...] = Field(
        ("127.0.0.1:50051",), description="gRPC servers behind the gateway, as comma-separated `host:port`."
    )
    allowed_hosts: tuple[str, ...] | None = Field(
        None,
        description="Names that the `Host` header may have in addition to localhost and IP addresses, as "
        "comma-separated `host` or `*.domain`. If unset: names without a dot with AUTH_MODE=none, else all names.",
    )
    gateway_max_connections: Positive = Field(
        10_500,
        description="Most simultaneous connections to the gateway. The limit is lower if the process's limit of open "
        "files is.",
    )
    gateway_connections_per_address: Positive | None = Field(
        None,
        description="Most simultaneous connections of one IPv4 address or IPv6 /64 network; further ones are closed. "
        "If unset, there is no limit: behind a proxy or NAT, all clients share one address.",
    )
    gateway_heap_bytes: Annotated[int, Field(ge=128 * MIB)] = Field(
        512 * MIB,
        description="Largest heap of Envoy, in bytes. Near the limit, Envoy resets the requests that hold the most "
        "memory. Raise it for many simultaneous transfers.",
    )
    gateway_concurrency: Positive = Field(
        2, description="Number of Envoy's worker threads. Set it to the number of cores that the gateway may use."
    )
    gateway_metrics_port: Port | None = Field(
        None, description="Port of Envoy's metrics for Prometheus, at `/metrics`. If unset, there are none."
    )

    @field_validator("grpc_upstreams", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().rstrip(".").lower() for part in value.split(",") if part.strip()) or None

    @field_validator("allowed_hosts")
    @classmethod
    def _check_host_names(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for host in value or ():
            if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", host):
                raise ValueError(f"{host!r} must be a host name without a port, *.domain, or *")
        return value

    @field_validator("grpc_upstreams")
    @classmethod
    def _check_host_and_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for upstream in value:
            host, _, port = upstream.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{upstream!r} must be host:port")
        return value

    @model_validator(mode="after")
    def _check_client_certificate(self) -> Self:
        if self.client_ca_cert is not None and self.client_cert is None:
            raise ValueError("CLIENT_CERT: must be set with CLIENT_CA_CERT, because the gateway is a client too")
        return self
