"""Settings of the artifact store and of artifacts."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import DirectoryPath, Field, FilePath, SecretStr, field_validator, model_validator

from registry_service.settings.base import GIB, MIB, CommonSettings, Port, Positive


class ArtifactSettings(CommonSettings):
    """Settings of the artifact store and of artifacts."""

    artifact_store: Literal["s3", "local"] = Field(
        "s3",
        description="Where artifacts are stored: in a bucket (`s3`) or in a folder (`local`). `local` requires that "
        "all server processes see the same folder.",
    )
    artifact_dir: Path | None = Field(None, description="Folder of the artifacts, with ARTIFACT_STORE=local.")
    psql_data_dir: DirectoryPath | None = Field(
        None,
        description="Data folder of a Postgres on this machine, for DISK_RESERVE_BYTES. `up` sets it.",
    )
    disk_reserve_bytes: Annotated[int, Field(ge=0)] = Field(
        256 * MIB,
        description="Space to leave free on the disks of ARTIFACT_DIR and PSQL_DATA_DIR, in bytes. With less, writes "
        "fail with RESOURCE_EXHAUSTED, so that Postgres can go on.",
    )
    minio_hostname: str | None = Field(
        None, description="Host of MinIO or another S3-compatible store, without scheme and port."
    )
    minio_server_port: Port = Field(9000, description="Port of the S3-compatible store.")
    minio_access_key: str | None = Field(None, description="Access key of the S3-compatible store.")
    minio_secret_key: SecretStr | None = Field(None, description="Secret key of the S3-compatible store.")
    minio_bucket_name: str = Field(
        "model-registry", description="Bucket of the artifacts. Created at the start if missing."
    )
    minio_region: str = Field("us-east-1", description="Region of the bucket.")
    minio_secure: bool = Field(False, description="Whether to use TLS towards the S3-compatible store.")
    minio_ca_cert: FilePath | None = Field(
        None, description="PEM file of the CA for the store's certificate. If unset, the default CAs apply."
    )
    artifact_max_bytes: Positive = Field(64 * GIB, le=78 * GIB, description="Largest artifact, in bytes.")
    zip_directory_max_bytes: Positive = Field(
        4 * MIB,
        description="Largest central directory of a ZIP file that is read, in bytes. Raise it for archives of more "
        "than about 40,000 files.",
    )

    @field_validator("minio_hostname")
    @classmethod
    def _check_host(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+", value):
            raise ValueError(f"{value!r} must be a host without scheme and port")
        return value

    @field_validator("minio_bucket_name")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        if not re.fullmatch(r"(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
            raise ValueError(f"{value!r} must be a bucket name: 3 to 63 characters of a-z, 0-9, '-' and '.'")
        return value

    @model_validator(mode="after")
    def _check_store(self) -> Self:
        required = {"local": ("artifact_dir",), "s3": ("minio_hostname", "minio_access_key", "minio_secret_key")}
        missing = [name.upper() for name in required[self.artifact_store] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)}: must be set with ARTIFACT_STORE={self.artifact_store}")
        return self
