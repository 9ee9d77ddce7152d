from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetHealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHealthResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...

class GetReadinessRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetReadinessResponse(_message.Message):
    __slots__ = ("status", "clock_skew")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SKEW_FIELD_NUMBER: _ClassVar[int]
    status: str
    clock_skew: _duration_pb2.Duration
    def __init__(self, status: _Optional[str] = ..., clock_skew: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "limits", "features", "authentication")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    AUTHENTICATION_FIELD_NUMBER: _ClassVar[int]
    version: str
    limits: ServerLimits
    features: _containers.RepeatedScalarFieldContainer[str]
    authentication: Authentication
    def __init__(self, version: _Optional[str] = ..., limits: _Optional[_Union[ServerLimits, _Mapping]] = ..., features: _Optional[_Iterable[str]] = ..., authentication: _Optional[_Union[Authentication, _Mapping]] = ...) -> None: ...

class ServerLimits(_message.Message):
    __slots__ = ("max_artifact_bytes", "max_metadata_bytes", "max_message_bytes", "recommended_chunk_bytes", "default_page_size", "max_page_size", "max_filter_characters", "upload_ttl", "stream_idle_timeout", "watch_heartbeat_interval", "idempotency_key_ttl")
    MAX_ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_METADATA_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_FILTER_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_TTL_FIELD_NUMBER: _ClassVar[int]
    STREAM_IDLE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    WATCH_HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_TTL_FIELD_NUMBER: _ClassVar[int]
    max_artifact_bytes: int
    max_metadata_bytes: int
    max_message_bytes: int
    recommended_chunk_bytes: int
    default_page_size: int
    max_page_size: int
    max_filter_characters: int
    upload_ttl: _duration_pb2.Duration
    stream_idle_timeout: _duration_pb2.Duration
    watch_heartbeat_interval: _duration_pb2.Duration
    idempotency_key_ttl: _duration_pb2.Duration
    def __init__(self, max_artifact_bytes: _Optional[int] = ..., max_metadata_bytes: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., recommended_chunk_bytes: _Optional[int] = ..., default_page_size: _Optional[int] = ..., max_page_size: _Optional[int] = ..., max_filter_characters: _Optional[int] = ..., upload_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., stream_idle_timeout: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., watch_heartbeat_interval: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., idempotency_key_ttl: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Authentication(_message.Message):
    __slots__ = ("mode", "oidc_issuer", "oidc_client_id", "oidc_scopes", "oidc_audience")
    class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        MODE_UNSPECIFIED: _ClassVar[Authentication.Mode]
        MODE_NONE: _ClassVar[Authentication.Mode]
        MODE_TOKEN: _ClassVar[Authentication.Mode]
        MODE_OIDC: _ClassVar[Authentication.Mode]
    MODE_UNSPECIFIED: Authentication.Mode
    MODE_NONE: Authentication.Mode
    MODE_TOKEN: Authentication.Mode
    MODE_OIDC: Authentication.Mode
    MODE_FIELD_NUMBER: _ClassVar[int]
    OIDC_ISSUER_FIELD_NUMBER: _ClassVar[int]
    OIDC_CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    OIDC_SCOPES_FIELD_NUMBER: _ClassVar[int]
    OIDC_AUDIENCE_FIELD_NUMBER: _ClassVar[int]
    mode: Authentication.Mode
    oidc_issuer: str
    oidc_client_id: str
    oidc_scopes: _containers.RepeatedScalarFieldContainer[str]
    oidc_audience: str
    def __init__(self, mode: _Optional[_Union[Authentication.Mode, str]] = ..., oidc_issuer: _Optional[str] = ..., oidc_client_id: _Optional[str] = ..., oidc_scopes: _Optional[_Iterable[str]] = ..., oidc_audience: _Optional[str] = ...) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("subject", "grants", "expire_time")
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    subject: str
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, subject: _Optional[str] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("role", "project_id", "permissions")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    role: str
    project_id: str
    permissions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, role: _Optional[str] = ..., project_id: _Optional[str] = ..., permissions: _Optional[_Iterable[str]] = ...) -> None: ...
