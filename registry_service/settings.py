"""Settings, and the only reader of the environment.

The names are those of the Intel-compatible API's service where it has them (PSQL_*,
MINIO_*, SERVER_*, GETI_*, MIN_LOG_LEVEL), so that an existing `.env` keeps working;
the others follow their style. The README has the table; a test compares the two.
"""

import contextlib
import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    DirectoryPath,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]
Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]

SettingsT = TypeVar("SettingsT", bound="LogSettings")

MIB = 1024 * 1024
GIB = 1024 * MIB

CIPHER_SUITES = ("ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384")
"""Of TLS 1.2, what the documented service offers; those of TLS 1.3 are not to be chosen, and all good."""

_TLS_FILES = ("server_cert", "server_private_key", "ca_cert", "client_ca_cert", "client_cert", "client_private_key")
OIDC_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key: with a shared secret, whoever can check tokens could make them."""

_GETI_NEEDED = ("geti_host", "geti_token", "geti_server_api_version", "geti_organization_id", "geti_workspace_id")


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


class TelemetrySettings(LogSettings):
    """What else the servers tell of their doings. OpenTelemetry's SDK reads further OTEL_* variables by itself."""

    metrics_ip_address: str = Field(
        "127.0.0.1", description="Address that METRICS_PORT and GATEWAY_METRICS_PORT are on."
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None, description="URL of an OpenTelemetry collector; set, calls are traced."
    )
    otel_exporter_otlp_traces_endpoint: str | None = Field(
        None, description="The same for traces alone, path included; goes before the other."
    )
    otel_exporter_otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        "http/protobuf", description="How the collector is talked to: http/protobuf or grpc."
    )
    otel_exporter_otlp_headers: SecretStr = Field(
        SecretStr(""), description="Headers for the collector, as name=value, separated by commas."
    )
    otel_exporter_otlp_certificate: FilePath | None = Field(
        None, description="File of the CA that an https collector's certificate is checked with, PEM."
    )
    otel_service_name: str | None = Field(
        None, description="Name in traces; without it model-registry, and model-registry-gateway."
    )
    otel_traces_exporter: Literal["otlp", "none"] = Field("otlp", description="`none` switches tracing off.")
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field("parentbased_always_on", description="Which calls are traced.")
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Fraction of them, for the two samplers by ratio."
    )
    otel_sdk_disabled: bool = Field(False, description="Switches tracing off, too.")

    @field_validator(
        "otel_exporter_otlp_endpoint",
        "otel_exporter_otlp_traces_endpoint",
        "otel_exporter_otlp_protocol",
        "otel_exporter_otlp_certificate",
        "otel_service_name",
        "otel_traces_exporter",
        "otel_traces_sampler",
        "otel_traces_sampler_arg",
        "otel_sdk_disabled",
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[str(info.field_name)].default if value == "" else value

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _is_collector(cls, value: str | None) -> str | None:
        if value is not None and not (
            re.fullmatch(r"https?://[^\s/?#@\\]+(/[^\s?#@\\]*)?", value) and _has_possible_port(value)
        ):
            raise ValueError("is not a URL such as http://collector:4318")
        return value

    @property
    def is_tracing(self) -> bool:
        """Whether calls are traced."""
        is_told_where = self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint
        return bool(is_told_where) and not self.otel_sdk_disabled and self.otel_traces_exporter != "none"


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
    client_ca_cert: Path | None = Field(
        None, description="File of CA certificates, PEM: clients must show a certificate of theirs."
    )
    client_cert: Path | None = Field(
        None, description="File of the certificate chain that the gateway and `check` show then, PEM."
    )
    client_private_key: Path | None = Field(None, description="File of its private key, PEM.")

    @field_validator(*_TLS_FILES, mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return _blank_is_none(value)

    @model_validator(mode="after")
    def _certificate_is_there(self) -> Self:
        if not self.enable_https_mode:
            if self.client_ca_cert is not None:
                raise ValueError("CLIENT_CA_CERT: needs ENABLE_HTTPS_MODE")
            return self
        needed = {"server_cert", "server_private_key"}
        if self.client_cert is not None or self.client_private_key is not None:
            needed |= {"client_cert", "client_private_key"}
        for name in _TLS_FILES:
            path: Path | None = getattr(self, name)
            if path is None and name in needed:
                raise ValueError(f"{name.upper()}: not set, but needed with ENABLE_HTTPS_MODE")
            if path is not None and not path.is_file():
                raise ValueError(f"{name.upper()}: there is no file {path}")
        return self


class ShutdownSettings(LogSettings):
    """How a server ends."""

    shutdown_grace_seconds: Seconds = Field(20, description="How long calls may finish after SIGTERM.")


class SharedSettings(LogSettings):
    """What the gateway and the servers behind it have to agree on."""

    auth_mode: Literal["none", "token", "oidc"] = Field(
        "none",
        description="Who may call: anybody (none); who has a token of the registry (token), or of OIDC_ISSUER (oidc). "
        "The same for server and gateway.",
    )
    metadata_max_bytes: Positive = Field(
        MIB,
        description="Largest metadata of one model as JSON, in bytes. The gateway takes JSON bodies of twice as much.",
    )

    @field_validator("auth_mode", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return (value.strip().lower() or "none") if isinstance(value, str) else value


class GatewaySettings(TelemetrySettings, TlsSettings, ShutdownSettings, SharedSettings):
    """Settings of `model-registry gateway`: Envoy."""

    server_ip_address: str = Field("127.0.0.1", description="Address that the REST gateway listens on.")
    server_port: Port = Field(32002, description="Port that the REST gateway listens on.")
    grpc_upstreams: Annotated[tuple[str, ...], NoDecode] = Field(
        ("127.0.0.1:50051",), description="gRPC servers behind the gateway, as host:port, separated by commas."
    )
    allowed_hosts: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        None,
        description="Names that the header Host may have beside localhost and IP addresses, as host or *.domain, "
        "separated by commas. Without it: with AUTH_MODE=none those without a dot, else all.",
    )
    gateway_max_connections: Positive = Field(
        10_500, description="Connections to the gateway at once; fewer where the limit of open files is low."
    )
    gateway_connections_per_address: Positive | None = Field(
        None,
        description="Connections to the gateway that one address (of IPv6: one /64) may have; it closes new ones "
        "beyond. No limit without it, as behind a proxy or NAT all clients have one address.",
    )
    gateway_heap_bytes: Annotated[int, Field(ge=128 * MIB)] = Field(
        512 * MIB,
        description="Largest heap of Envoy, in bytes; near it, the requests and answers that hold most are cut off.",
    )
    gateway_concurrency: Positive = Field(2, description="Worker threads of Envoy.")
    gateway_metrics_port: Port | None = Field(
        None, description="Port of Envoy's metrics, at /metrics; none without it."
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
    def _are_host_names(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for host in value or ():
            if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", host):
                raise ValueError(f"{host!r} is not a host name without a port, or *.domain, or *")
        return value

    @field_validator("grpc_upstreams")
    @classmethod
    def _host_and_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for upstream in value:
            host, _, port = upstream.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65536:
                raise ValueError(f"{upstream!r} is not host:port")
        return value

    @model_validator(mode="after")
    def _gateway_has_a_certificate(self) -> Self:
        if self.client_ca_cert is not None and self.client_cert is None:
            raise ValueError("CLIENT_CERT: not set, but needed with CLIENT_CA_CERT, as the gateway is a client, too")
        return self


class DatabaseSettings(LogSettings):
    """Where Postgres is: what `model-registry migrate` needs."""

    psql_hostname: str = Field(description="Host of Postgres, or the folder of its Unix socket.")
    psql_port: Port = Field(5432, description="Port of Postgres.")
    psql_database: str = Field("model_registry", description="Name of the database.")
    mr_user_name: str = Field("model_registry", description="User of the database.")
    psql_password: SecretStr = Field(SecretStr(""), description="Password of that user.")
    psql_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS towards Postgres, as libpq's sslmode; verify-full checks certificate and name."
    )
    psql_ca_cert: FilePath | None = Field(
        None, description="File of the CA certificates that Postgres's is checked with, for verify-ca and verify-full."
    )
    psql_client_cert: FilePath | None = Field(
        None, description="File of the certificate chain that Postgres may ask us for, PEM."
    )
    psql_client_private_key: FilePath | None = Field(
        None, description="File of its private key, PEM, that nobody else may read."
    )
    psql_pool_size: Positive = Field(
        16,
        description="Most connections to Postgres of one server process; one more for health checks, and one once"
        " somebody watches.",
    )
    startup_timeout_seconds: Seconds = Field(
        60, description="How long to wait at start for Postgres and the artifact store."
    )

    @field_validator("psql_ca_cert", "psql_client_cert", "psql_client_private_key", mode="before")
    @classmethod
    def _no_file(cls, value: object) -> object:
        return _blank_is_none(value)

    @model_validator(mode="after")
    def _files_are_used(self) -> Self:
        # libpq would take such a file, and check nothing with it.
        if self.psql_ca_cert is not None and self.psql_sslmode not in {"verify-ca", "verify-full"}:
            raise ValueError("PSQL_CA_CERT: needs PSQL_SSLMODE=verify-full, or verify-ca")
        if (self.psql_client_cert is None) != (self.psql_client_private_key is None):
            raise ValueError("PSQL_CLIENT_CERT, PSQL_CLIENT_PRIVATE_KEY: one needs the other")
        return self


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
        return _stripped_or_default(value, cls.model_fields[str(info.field_name)].default)

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


class AuthSettings(SharedSettings):
    """Who may call: nobody is asked, or bearer tokens are needed, the registry's own or also an OpenID provider's."""

    oidc_issuer: str | None = Field(None, description="Issuer of JSON Web Tokens, a URL, as their `iss` has it.")
    oidc_audience: str | None = Field(None, description="What their `aud` must name: this registry.")
    oidc_jwks_url: str | None = Field(
        None, description="Where the issuer's keys are; else its `/.well-known/openid-configuration` says."
    )
    oidc_ca_cert: FilePath | None = Field(
        None, description="File of the CA certificates that the issuer's is checked with."
    )
    oidc_algorithms: Annotated[tuple[str, ...], NoDecode] = Field(
        ("RS256", "ES256"), description="Signatures that count: of RS*, PS*, ES*, EdDSA, separated by commas."
    )
    oidc_leeway_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        30, description="How far the issuer's clock may be off."
    )
    oidc_roles_claim: str = Field("roles", description="Claim with the roles, or the way to it: `realm_access.roles`.")

    oidc_client_id: str | None = Field(
        None, description="Public client that command lines sign in as at the issuer; GetServerInfo names it."
    )
    oidc_scopes: Annotated[tuple[str, ...], NoDecode] = Field(
        ("openid",), description="Scopes that they ask the issuer for, separated by commas."
    )

    @field_validator(
        "oidc_issuer",
        "oidc_audience",
        "oidc_client_id",
        "oidc_jwks_url",
        "oidc_ca_cert",
        "oidc_leeway_seconds",
        "oidc_roles_claim",
        mode="before",
    )
    @classmethod
    def _blank_oidc_is_unset(cls, value: object, info: ValidationInfo) -> object:
        return _stripped_or_default(value, cls.model_fields[str(info.field_name)].default)

    @field_validator("oidc_issuer", "oidc_jwks_url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None or (re.fullmatch(r"https?://[^\s/?#@\\]+[^\s#@\\]*", value) and _has_possible_port(value)):
            return value
        raise ValueError("is not a URL such as https://login.example.org/realms/models")

    @field_validator("oidc_algorithms", mode="before")
    @classmethod
    def _split_algorithms(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(part.strip() for part in value.split(",") if part.strip()) or ("RS256", "ES256")

    @field_validator("oidc_scopes", mode="before")
    @classmethod
    def _split_scopes(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(value.replace(",", " ").split()) or ("openid",)

    @field_validator("oidc_algorithms")
    @classmethod
    def _are_of_public_keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for algorithm in value:
            if algorithm not in OIDC_ALGORITHMS:
                raise ValueError(f"{algorithm!r} is not one of {', '.join(OIDC_ALGORITHMS)}")
        return value

    @model_validator(mode="after")
    def _provider_is_named(self) -> Self:
        missing = [name.upper() for name in ("oidc_issuer", "oidc_audience") if getattr(self, name) is None]
        if self.auth_mode == "oidc" and missing:
            raise ValueError(f"{', '.join(missing)}: not set, but needed with AUTH_MODE=oidc")
        return self


class Settings(TelemetrySettings, ListenSettings, ShutdownSettings, DatabaseSettings, GetiSettings, AuthSettings):
    """Settings of `model-registry serve`, the gRPC server."""

    artifact_store: Literal["s3", "local"] = Field("s3", description="Where artifacts are kept.")
    artifact_dir: Path | None = Field(None, description="Folder of the artifacts, for ARTIFACT_STORE=local.")
    psql_data_dir: DirectoryPath | None = Field(
        None, description="Folder of Postgres' data, where that is on this machine (`up` sets it): see the next."
    )
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = Field(
        256 * MIB,
        description="Left free on the disks of ARTIFACT_DIR and PSQL_DATA_DIR: writes get RESOURCE_EXHAUSTED.",
    )
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
    zip_directory_max_bytes: Positive = Field(
        4 * MIB, description="Largest central directory of a ZIP that is read, in bytes."
    )
    max_unary_calls: Positive = Field(32, description="Short calls that run at once; more wait.")
    max_list_calls: Positive = Field(
        8,
        description="Lists and searches at once, and at most half of PSQL_POOL_SIZE, so that others find a connection.",
    )
    max_waiting_calls: Positive = Field(
        128, description="Short calls, lists, and long calls that may wait, each; more get RESOURCE_EXHAUSTED."
    )
    max_waiting_seconds: Seconds = Field(20, description="How long a call waits before it gets RESOURCE_EXHAUSTED.")
    max_streams: Positive = Field(32, description="Long calls (uploads, downloads, imports, …) at once; more wait.")
    max_watches: Positive = Field(32, description="Watches (WatchAuditEvents) at once; more get RESOURCE_EXHAUSTED.")
    caller_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Share of each of these limits that one token, or one address without tokens, may have."
    )
    grpc_max_connections: Positive = Field(
        15_000, description="Connections to the gRPC port at once; fewer where the limit of open files is low."
    )
    watch_heartbeat_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        30, description="A watch with nothing to tell says so after so long; at most 60."
    )
    unary_timeout_seconds: Seconds = Field(30, description="Longest time of one short call's statement in Postgres.")
    search_timeout_seconds: Seconds = Field(
        10, description="The same of a list or search, which ends before where its client goes."
    )
    stream_idle_seconds: Seconds = Field(60, description="A stream that moves nothing for so long is cancelled.")
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        0, description="How long it is served on after SIGTERM, as NOT_SERVING, until load balancers look elsewhere."
    )
    upload_ttl_seconds: Seconds = Field(86_400, description="How long an upload is kept after its last write.")
    registration_lease_seconds: Seconds = Field(
        300, description="How long bytes without a model are spared after the last sign of life of their writer."
    )
    gc_interval_seconds: Seconds = Field(60, description="Time between two sweeps of what is left over.")
    metrics_port: Port | None = Field(None, description="Port of the server's metrics, at /metrics; none without it.")
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


class SourceSettings(LogSettings):
    """The deployment of the original that `model-registry adopt` takes over."""

    source_psql_hostname: str = Field(description="Host of its Postgres, or the folder of a Unix socket.")
    source_psql_port: Port = Field(5432, description="Port of its Postgres.")
    source_psql_database: str = Field(description="Name of its database.")
    source_psql_user: str = Field("model_registry", description="User of its database; reading is enough.")
    source_psql_password: SecretStr = Field(SecretStr(""), description="Password of that user.")
    source_psql_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS towards its Postgres, as libpq's sslmode."
    )
    source_minio_hostname: str | None = Field(
        None, description="Host of its S3; unset, all but the bucket is as in MINIO_*."
    )
    source_minio_server_port: Port = Field(9000, description="Port of its S3.")
    source_minio_access_key: str | None = Field(None, description="Access key of its S3; unset, MINIO_ACCESS_KEY.")
    source_minio_secret_key: SecretStr | None = Field(
        None, description="Secret key of its S3; unset, MINIO_SECRET_KEY."
    )
    source_minio_bucket_name: str = Field("model-registry", description="Bucket of its artifacts.")
    source_minio_region: str = Field("us-east-1", description="Region of that bucket.")
    source_minio_secure: bool = Field(False, description="TLS towards its S3.")
    source_minio_ca_cert: FilePath | None = Field(
        None, description="File of the CA certificates that its S3's is checked with."
    )


def _stripped_or_default(value: object, default: object) -> object:
    """Returns a text without blanks around it, and the default for one that is blank."""
    return (value.strip() or default) if isinstance(value, str) else value


def _blank_is_none(value: object) -> object:
    """Returns None for a blank text: how containers leave a variable out."""
    return None if isinstance(value, str) and not value.strip() else value


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


def is_loopback(address: str) -> bool:
    """Tells whether only this machine reaches a server that listens on an address."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    return address == "localhost"


def load(kind: type[SettingsT], **overrides: object) -> SettingsT:
    """Reads settings from the environment; `overrides` go before it.

    Raises:
        SettingsError: Something is missing or invalid.
    """
    try:
        return kind(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(error) from None
