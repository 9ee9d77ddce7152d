"""Settings of the Intel deployment that `import-intel` imports."""

from pydantic import Field, FilePath, SecretStr

from registry_service.settings.base import CommonSettings, Port, SslMode


class IntelSourceSettings(CommonSettings):
    """Settings of the deployment of Intel's Model Registry that `model-registry import-intel` imports."""

    source_psql_hostname: str = Field(
        description="Host of the Intel deployment's Postgres, or the folder of its Unix socket."
    )
    source_psql_port: Port = Field(5432, description="Port of the Intel deployment's Postgres.")
    source_psql_database: str = Field(description="Name of the Intel deployment's database.")
    source_psql_user: str = Field("model_registry", description="User of that database; needs read permission only.")
    source_psql_password: SecretStr = Field(SecretStr(""), description="Password of that user.")
    source_psql_sslmode: SslMode = Field(
        "prefer", description="TLS towards the Intel deployment's Postgres, as libpq's `sslmode`."
    )
    source_minio_hostname: str | None = Field(
        None,
        description="Host of the Intel deployment's MinIO. If unset, MINIO_* apply, except for the bucket.",
    )
    source_minio_server_port: Port = Field(9000, description="Port of the Intel deployment's MinIO.")
    source_minio_access_key: str | None = Field(
        None, description="Access key of the Intel deployment's MinIO. If unset, MINIO_ACCESS_KEY applies."
    )
    source_minio_secret_key: SecretStr | None = Field(
        None, description="Secret key of the Intel deployment's MinIO. If unset, MINIO_SECRET_KEY applies."
    )
    source_minio_bucket_name: str = Field("model-registry", description="Bucket of the Intel deployment's artifacts.")
    source_minio_region: str = Field("us-east-1", description="Region of that bucket.")
    source_minio_secure: bool = Field(False, description="Whether to use TLS towards the Intel deployment's MinIO.")
    source_minio_ca_cert: FilePath | None = Field(
        None, description="PEM file of the CA for that MinIO's certificate. If unset, the default CAs apply."
    )
