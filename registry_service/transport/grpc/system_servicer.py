"""SystemService."""

from dataclasses import dataclass

import grpc
from google.protobuf import duration_pb2
from modelregistry.v1 import system_service_pb2 as pb
from modelregistry.v1 import system_service_pb2_grpc

from registry_service.domain import filter as filters
from registry_service.domain.caller import current_caller
from registry_service.domain.idempotency import KEPT_FOR
from registry_service.domain.listing import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from registry_service.transport.grpc.convert.values import time_message
from registry_service.transport.grpc.health import HealthMonitor

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Maximum size of a message to the server; what the gateway lets through, too."""
_CHUNK_BYTES = 1024 * 1024
_MODES = {
    "none": pb.Authentication.MODE_NONE,
    "token": pb.Authentication.MODE_TOKEN,
    "oidc": pb.Authentication.MODE_OIDC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The settings of a server that clients may read; `settings.Settings` documents each one."""

    version: str
    max_artifact_bytes: int
    max_metadata_bytes: int
    upload_ttl_seconds: float
    stream_idle_seconds: float
    watch_heartbeat_seconds: float
    has_geti: bool = False
    """Whether a Geti is connected."""
    auth_mode: str = "none"
    """`none`, `token` or `oidc`."""
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_audience: str | None = None
    oidc_scopes: tuple[str, ...] = ()


class SystemServicer(system_service_pb2_grpc.SystemServiceServicer):
    """Reports health, limits and the caller's identity."""

    def __init__(self, monitor: HealthMonitor, info: ServerInfo) -> None:
        self._monitor = monitor
        self._info = _info_message(info)

    def GetHealth(self, request: pb.GetHealthRequest, context: grpc.ServicerContext) -> pb.GetHealthResponse:
        return pb.GetHealthResponse(status="ok")

    def GetReadiness(self, request: pb.GetReadinessRequest, context: grpc.ServicerContext) -> pb.GetReadinessResponse:
        if self._monitor.error is not None:
            raise self._monitor.error
        offset = self._monitor.clock_offset
        return pb.GetReadinessResponse(status="ok", clock_skew=None if offset is None else _duration(offset))

    def GetServerInfo(self, request: pb.GetServerInfoRequest, context: grpc.ServicerContext) -> pb.ServerInfo:
        return self._info

    def WhoAmI(self, request: pb.WhoAmIRequest, context: grpc.ServicerContext) -> pb.WhoAmIResponse:
        caller = current_caller.get()
        return pb.WhoAmIResponse(
            subject=caller.actor,
            grants=[
                pb.Grant(role=grant.role.value, project_id=grant.project_id, permissions=sorted(grant.role.permissions))
                for grant in caller.grants
            ],
            expire_time=None if caller.expire_time is None else time_message(caller.expire_time),
        )


def _info_message(info: ServerInfo) -> pb.ServerInfo:
    authentication = pb.Authentication(mode=_MODES[info.auth_mode])
    if info.auth_mode == "oidc":
        authentication.oidc_issuer = info.oidc_issuer or ""
        authentication.oidc_client_id = info.oidc_client_id or ""
        authentication.oidc_audience = info.oidc_audience or ""
        authentication.oidc_scopes.extend(info.oidc_scopes)
    return pb.ServerInfo(
        version=info.version,
        limits=pb.ServerLimits(
            max_artifact_bytes=info.max_artifact_bytes,
            max_metadata_bytes=info.max_metadata_bytes,
            max_message_bytes=MAX_MESSAGE_BYTES,
            recommended_chunk_bytes=_CHUNK_BYTES,
            default_page_size=DEFAULT_PAGE_SIZE,
            max_page_size=MAX_PAGE_SIZE,
            max_filter_characters=filters.MAX_LENGTH,
            upload_ttl=_duration(info.upload_ttl_seconds),
            stream_idle_timeout=_duration(info.stream_idle_seconds),
            watch_heartbeat_interval=_duration(info.watch_heartbeat_seconds),
            idempotency_key_ttl=_duration(KEPT_FOR.total_seconds()),
        ),
        features=[*(["geti"] if info.has_geti else []), "idempotency_keys"],
        authentication=authentication,
    )


def _duration(seconds: float) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message
