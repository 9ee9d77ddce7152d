"""Limits of the services; `settings.Settings` documents each of them."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits of the services, and the bucket name in the URLs of artifacts."""

    artifact_max_bytes: int
    metadata_max_bytes: int
    zip_directory_max_bytes: int
    upload_ttl: timedelta
    registration_lease: timedelta
    bucket_name: str
    watch_heartbeat: timedelta
