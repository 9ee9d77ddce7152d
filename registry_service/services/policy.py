"""What use cases keep to; `settings.Settings` says what each is for."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits, in bytes, and the name that artifacts' addresses bear."""

    artifact_max_bytes: int
    metadata_max_bytes: int
    zip_directory_max_bytes: int
    upload_ttl: timedelta
    registration_lease: timedelta
    bucket_name: str
    watch_heartbeat: timedelta
