"""Settings, and the only reader of the environment.

The names are those of the documented API's service where it has them (PSQL_*,
MINIO_*, SERVER_*, GETI_*, MIN_LOG_LEVEL), so that an existing `.env` keeps working;
the others follow their style. The README has the table; a test compares the two.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]

SettingsT = TypeVar("SettingsT", bound="LogSettings")

CIPHER_SUITES = ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384")
"""Of TLS 1.2, what the documented service offers; those of TLS 1.3 are not to be chosen, and all good."""

_GETI_NEEDED = ("geti_host", "geti_token", "geti_server_api_version", "geti_organization_id", "geti_workspace_id")

MIB = 1024 * 1024
GIB = 1024 * MIB


class SettingsError(Exception):
    """Settings are missing or invalid; the message has a line for each, named as in the environment."""

    def __init__(self, error: ValidationError) -> None:
        lines = []
        for item in error.errors():
            name = str(item["loc"][0]).upper() if item["loc"] else ""
            message = "is not set" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        super().__init__("\n".join(lines))


class LogSettings(BaseSettings):
    """What every command reads."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    min_log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Least severe level that is logged."
    )

    @field_validator("min_log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class TlsSettings(LogSettings):
    """TLS towards clients, for REST and gRPC alike."""

    enable_https_mode: bool = Field(
        False, description="TLS (1.2 or newer) on the ports of REST and gRPC; needs SERVER_CERT and SERVER_PRIVATE_KEY."
    )
    server_cert: Path | None = Field(None, description="File of the server's certificate chain, PEM.")
    server_private_key: Path | None = Field(None, description="File of its private key, PEM.")
    ca_cert: Path | None = Field(
        None, description="File of the CA that SERVER_CERT is from, PEM, for the gateway to check the gRPC server with."
    )

    @model_validator(mode="after")
    def _certificate_is_there(self) -> Self:
        if not self.enable_https_mode:
            return self
        for name in ("server_cert", "server_private_key", "ca_cert"):
            path: Path | None = getattr(self, name)
            if path is None and name != "ca_cert":
                raise ValueError(f"{name.upper()}: not set, but needed with ENABLE_HTTPS_MODE")
            if path is not None and not path.is_file():
                raise ValueError(f"{name.upper()}: there is no file {path}")
        return self


class GatewaySettings(TlsSettings):
    """Settings of `model-registry gateway`: Envoy."""

    server_ip_address: str = Field("127.0.0.1", description="Address that the REST gateway listens on.")
    server_port: Port = Field(32002, description="Port that the REST gateway listens on.")
    grpc_upstreams: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:50051",), description="gRPC servers behind the gateway, as host:port, separated by commas."
    )
    gateway_concurrency: Positive = Field(2, description="Worker threads of Envoy.")

    @field_validator("grpc_upstreams", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("grpc_upstreams")
    @classmethod
    def _host_and_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for upstream in value:
            host, _, port = upstream.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{upstream!r} is not host:port")
        return value


class DatabaseSettings(LogSettings):
    """Where Postgres is: what `model-registry migrate` needs."""

    psql_hostname: str = Field(description="Host of Postgres, or the folder of its Unix socket.")
    psql_port: Port = Field(5432, description="Port of Postgres.")
    psql_database: str = Field("model_registry", description="Name of the database.")
    mr_user_name: str = Field("model_registry", description="User of the database.")
    psql_password: SecretStr = Field(SecretStr(""), description="Password of that user.")
    psql_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS towards Postgres, as libpq's sslmode; certificates by libpq's PGSSL* names."
    )
    psql_pool_size: Positive = Field(
        16, description="Most connections to Postgres of one server process; one more once somebody watches."
    )
    startup_timeout_seconds: Seconds = Field(
        60, description="How long to wait at start for Postgres and the artifact store."
    )


class ListenSettings(TlsSettings):
    """Where the gRPC server listens: what `model-registry check` needs."""

    grpc_ip_address: str = Field("127.0.0.1", description="Address that the gRPC server listens on.")
    grpc_port: Port = Field(50051, description="Port that the gRPC server listens on.")


class GetiSettings(LogSettings):
    """The Intel Geti that models are imported from; all but the last, or the registry is not connected to one."""

    geti_host: str | None = Field(None, description="URL of an Intel Geti server to import models from.")
    geti_token: SecretStr | None = Field(None, description="API key for it.")
    geti_server_api_version: str | None = Field(None, description="Version of its REST API, such as v1.")
    geti_organization_id: str | None = Field(None, description="Organization whose workspace it is.")
    geti_workspace_id: str | None = Field(None, description="Workspace with the projects.")
    geti_server_ssl_verify: bool = Field(True, description="Whether its certificate is checked.")

    @field_validator(
        "geti_host",
        "geti_token",
        "geti_server_api_version",
        "geti_organization_id",
        "geti_workspace_id",
        "geti_server_ssl_verify",
        mode="before",
    )
    @classmethod
    def _blank_is_unset(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str) and not value.strip():
            return cls.model_fields[str(info.field_name)].default
        return value.strip() if isinstance(value, str) else value

    @field_validator("geti_host")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        # What could stand in a URL besides would only be lost, or leak.
        if value is None or (
            re.fullmatch(r"https?://[^\s/?#@\\]+(/[^\s?#@\\]*)?", value) and _has_possible_port(value)
        ):
            return value
        raise ValueError("is not a URL such as https://geti.example.org")

    @field_validator("geti_token")
    @classmethod
    def _is_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("is not printable ASCII without spaces")
        return value

    @property
    def geti_missing(self) -> list[str]:
        """Names of the settings without which there is no connection, as far as they are not set."""
        return [name.upper() for name in _GETI_NEEDED if getattr(self, name) is None]

    @property
    def is_geti_begun(self) -> bool:
        """Whether one of them is set."""
        return len(self.geti_missing) < len(_GETI_NEEDED)


class Settings(ListenSettings, DatabaseSettings, GetiSettings):
    """Settings of `model-registry serve`, the gRPC server."""

    artifact_store: Literal["s3", "local"] = Field("s3", description="Where artifacts are kept.")
    artifact_dir: Path | None = Field(None, description="Folder of the artifacts, for ARTIFACT_STORE=local.")
    minio_hostname: str | None = Field(None, description="Host of MinIO or another S3.")
    minio_server_port: Port = Field(9000, description="Port of the S3.")
    minio_access_key: str | None = Field(None, description="Access key of the S3.")
    minio_secret_key: SecretStr | None = Field(None, description="Secret key of the S3.")
    minio_bucket_name: str = Field("model-registry", description="Bucket of the artifacts, made when missing.")
    minio_region: str = Field("us-east-1", description="Region of the bucket.")
    minio_secure: bool = Field(False, description="TLS towards the S3.")
    minio_ca_cert: FilePath | None = Field(
        None, description="File of the CA certificates that the S3's is checked with."
    )

    artifact_max_bytes: Positive = Field(64 * GIB, le=78 * GIB, description="Largest artifact, in bytes.")
    metadata_max_bytes: Positive = Field(MIB, description="Largest metadata of one model as JSON, in bytes.")
    zip_directory_max_bytes: Positive = Field(
        4 * MIB, description="Largest central directory of a ZIP that is read, in bytes."
    )
    max_unary_calls: Positive = Field(32, description="Short calls that run at once; more wait.")
    max_waiting_calls: Positive = Field(256, description="Calls that may wait; more get RESOURCE_EXHAUSTED.")
    max_streams: Positive = Field(
        32, description="Long calls (uploads, downloads, imports, …) at once; more get RESOURCE_EXHAUSTED."
    )
    max_watches: Positive = Field(32, description="Watches (WatchModels) at once; more get RESOURCE_EXHAUSTED.")
    watch_heartbeat_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        30, description="A watch with nothing to tell says so after so long; at most 60."
    )
    unary_timeout_seconds: Seconds = Field(30, description="Longest time of one short call's statement in Postgres.")
    stream_idle_seconds: Seconds = Field(60, description="A stream that moves nothing for so long is cancelled.")
    shutdown_grace_seconds: Seconds = Field(20, description="How long calls may finish after SIGTERM.")
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        0, description="How long it is served on after SIGTERM, as NOT_SERVING, until load balancers look elsewhere."
    )
    upload_ttl_seconds: Seconds = Field(86_400, description="How long an upload is kept after its last write.")
    registration_lease_seconds: Seconds = Field(
        300, description="How long bytes without a model are spared after the last sign of life of their writer."
    )
    gc_interval_seconds: Seconds = Field(60, description="Time between two sweeps of what is left over.")
    health_interval_seconds: Seconds = Field(1, description="Time between two looks at Postgres and the store.")

    @field_validator("minio_hostname")
    @classmethod
    def _is_host(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", value):
            raise ValueError(f"{value!r} is not a host, without scheme and port")
        return value

    @field_validator("minio_bucket_name")
    @classmethod
    def _is_bucket(cls, value: str) -> str:
        if not re.fullmatch(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
            raise ValueError(f"{value!r} is not the name of a bucket: 3 to 63 of a-z, 0-9, '-' and '.'")
        return value

    @model_validator(mode="after")
    def _store_is_complete(self) -> "Settings":
        needed = (
            ["artifact_dir"]
            if self.artifact_store == "local"
            else ["minio_hostname", "minio_access_key", "minio_secret_key"]
        )
        missing = [name.upper() for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)}: not set, but needed with ARTIFACT_STORE={self.artifact_store}")
        if self.stream_idle_seconds >= self.registration_lease_seconds:
            raise ValueError("REGISTRATION_LEASE_SECONDS: must be more than STREAM_IDLE_SECONDS")
        return self


def _has_possible_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:  # also where brackets are not closed
        return False


def loopback_of(address: str) -> str:
    """Returns where a server that listens on an address is reached from this machine, as a host of a URL."""
    try:
        ip = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return address
    if ip.is_unspecified:
        return "127.0.0.1" if ip.version == 4 else "[::1]"
    return str(ip) if ip.version == 4 else f"[{ip}]"


def load(kind: type[SettingsT], **overrides: object) -> SettingsT:
    """Reads settings from the environment; `overrides` go before it.

    Raises:
        SettingsError: Something is missing or invalid.
    """
    try:
        return kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(error) from None
