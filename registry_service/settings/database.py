"""Settings of Postgres."""

from typing import Self

from pydantic import Field, SecretStr, model_validator

from registry_service.settings.base import CommonSettings, OptionalFile, Port, Positive, Seconds, SslMode


class DatabaseSettings(CommonSettings):
    """Settings of Postgres, which `model-registry migrate` needs."""

    psql_hostname: str = Field(description="Host of Postgres, or the folder of its Unix socket.")
    psql_port: Port = Field(5432, description="Port of Postgres.")
    psql_database: str = Field("model_registry", description="Name of the database.")
    mr_user_name: str = Field("model_registry", description="Database user.")
    psql_password: SecretStr = Field(SecretStr(""), description="Password of the database user.")
    psql_sslmode: SslMode = Field(
        "prefer",
        description="TLS towards Postgres, as libpq's `sslmode`. Set `verify-full` on an untrusted network: only it "
        "checks both certificate and host name.",
    )
    psql_ca_cert: OptionalFile = Field(
        None,
        description="PEM file of the CA for Postgres's certificate, with PSQL_SSLMODE `verify-ca` or `verify-full`.",
    )
    psql_client_cert: OptionalFile = Field(
        None, description="PEM file of the certificate chain to present if Postgres requires one."
    )
    psql_client_private_key: OptionalFile = Field(
        None, description="PEM file of the private key of PSQL_CLIENT_CERT. Only its owner may have read permission."
    )
    psql_pool_size: Positive = Field(
        16,
        description="Most connections to Postgres of one server process. Health checks take one more, and watches "
        "take one more. Keep the sum over all processes below Postgres's `max_connections`.",
    )
    startup_timeout_seconds: Seconds = Field(
        60,
        description="How long the start waits for each of Postgres and the artifact store, in seconds, before it "
        "fails.",
    )

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        # libpq would accept such a CA, and verify nothing with it.
        if self.psql_ca_cert is not None and self.psql_sslmode not in {"verify-ca", "verify-full"}:
            raise ValueError("PSQL_CA_CERT: requires PSQL_SSLMODE=verify-full or PSQL_SSLMODE=verify-ca")
        if (self.psql_client_cert is None) != (self.psql_client_private_key is None):
            raise ValueError("PSQL_CLIENT_CERT, PSQL_CLIENT_PRIVATE_KEY: set both or neither")
        return self
