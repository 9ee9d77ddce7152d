"""Settings of the gRPC server."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from registry_service.settings.artifacts import ArtifactSettings
from registry_service.settings.auth import AuthSettings
from registry_service.settings.base import Port, Seconds, ShutdownSettings
from registry_service.settings.database import DatabaseSettings
from registry_service.settings.geti import GetiSettings
from registry_service.settings.limits import LimitSettings
from registry_service.settings.telemetry import TelemetrySettings
from registry_service.settings.tls import ListenSettings


class Settings(
    TelemetrySettings,
    ListenSettings,
    ShutdownSettings,
    DatabaseSettings,
    GetiSettings,
    AuthSettings,
    ArtifactSettings,
    LimitSettings,
):
    """Settings of `model-registry serve`."""

    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        0,
        description="How long the server continues to accept calls after SIGTERM, in seconds, while its health is "
        "NOT_SERVING. Set it to the time that load balancers take to notice.",
    )
    upload_ttl_seconds: Seconds = Field(
        86_400, description="How long an unfinished upload is kept after its last write, in seconds."
    )
    registration_lease_seconds: Seconds = Field(
        300, description="How long unreferenced bytes are kept after their writer's last heartbeat, in seconds."
    )
    gc_interval_seconds: Seconds = Field(60, description="Interval of garbage collection, in seconds.")
    metrics_port: Port | None = Field(
        None, description="Port of the server's metrics for Prometheus, at `/metrics`. If unset, there are none."
    )
    health_interval_seconds: Seconds = Field(
        1, description="Interval of the health checks of Postgres and the artifact store, in seconds."
    )

    @model_validator(mode="after")
    def _check_lease(self) -> Self:
        if self.stream_idle_seconds >= self.registration_lease_seconds:
            raise ValueError("REGISTRATION_LEASE_SECONDS: must be more than STREAM_IDLE_SECONDS")
        return self
