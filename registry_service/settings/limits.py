"""Settings of the server's concurrency limits and timeouts."""

from typing import Annotated

from pydantic import Field

from registry_service.settings.base import CommonSettings, Positive, Seconds


class LimitSettings(CommonSettings):
    """Settings of the server's concurrency limits and timeouts. Each limit is for one server process."""

    max_unary_calls: Positive = Field(32, description="Most short calls that run at the same time; further ones wait.")
    max_list_calls: Positive = Field(
        8,
        description="Most lists and searches that run at the same time, at most half of PSQL_POOL_SIZE, so that other "
        "calls find a connection; further ones wait.",
    )
    max_waiting_calls: Positive = Field(
        128,
        description="Most waiting calls of each kind (short calls, lists, streams); further ones fail with "
        "RESOURCE_EXHAUSTED.",
    )
    max_waiting_seconds: Seconds = Field(
        20, description="How long a call waits, in seconds, before it fails with RESOURCE_EXHAUSTED."
    )
    max_streams: Positive = Field(
        32,
        description="Most streams (uploads, downloads, imports) that run at the same time; further ones wait. Each "
        "takes a thread.",
    )
    max_watches: Positive = Field(
        32, description="Most watches (WatchAuditEvents) at the same time; further ones fail with RESOURCE_EXHAUSTED."
    )
    caller_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="Share of each of these limits that one caller may use, from 0 to 1. A caller is a token, or an "
        "address with AUTH_MODE=none.",
    )
    grpc_max_connections: Positive = Field(
        15_000,
        description="Most simultaneous connections to the gRPC port. The limit is lower if the process's limit of "
        "open files is.",
    )
    watch_heartbeat_seconds: Annotated[float, Field(gt=0, le=60)] = Field(
        30, description="Interval of the heartbeats of a watch without changes, in seconds, at most 60."
    )
    unary_timeout_seconds: Seconds = Field(
        30, description="Longest duration of one Postgres statement of a short call, in seconds."
    )
    search_timeout_seconds: Seconds = Field(
        10,
        description="Longest duration of one Postgres statement of a list or search, in seconds. The statement ends "
        "earlier if the client goes away.",
    )
    stream_idle_seconds: Seconds = Field(
        60,
        description="How long a stream may transfer nothing, in seconds, before it is cancelled. Must be less than "
        "REGISTRATION_LEASE_SECONDS.",
    )
