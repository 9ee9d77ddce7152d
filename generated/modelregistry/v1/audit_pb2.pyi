from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AuditEvent(_message.Message):
    __slots__ = ("sequence", "event_time", "actor", "request_id", "action", "project_id", "project_name", "name", "model_id", "model_group_id", "alias", "reason", "before", "after", "details_omitted", "previous_hash", "hash", "damaged", "moved_away")
    class Action(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTION_UNSPECIFIED: _ClassVar[AuditEvent.Action]
        ACTION_MODEL_REGISTERED: _ClassVar[AuditEvent.Action]
        ACTION_MODEL_UPDATED: _ClassVar[AuditEvent.Action]
        ACTION_MODEL_DELETED: _ClassVar[AuditEvent.Action]
        ACTION_ALIAS_SET: _ClassVar[AuditEvent.Action]
        ACTION_ALIAS_ROLLED_BACK: _ClassVar[AuditEvent.Action]
        ACTION_ALIAS_DELETED: _ClassVar[AuditEvent.Action]
        ACTION_TOKEN_CREATED: _ClassVar[AuditEvent.Action]
        ACTION_TOKEN_REVOKED: _ClassVar[AuditEvent.Action]
        ACTION_MODEL_GROUP_UPDATED: _ClassVar[AuditEvent.Action]
        ACTION_MODEL_GROUP_DELETED: _ClassVar[AuditEvent.Action]
    ACTION_UNSPECIFIED: AuditEvent.Action
    ACTION_MODEL_REGISTERED: AuditEvent.Action
    ACTION_MODEL_UPDATED: AuditEvent.Action
    ACTION_MODEL_DELETED: AuditEvent.Action
    ACTION_ALIAS_SET: AuditEvent.Action
    ACTION_ALIAS_ROLLED_BACK: AuditEvent.Action
    ACTION_ALIAS_DELETED: AuditEvent.Action
    ACTION_TOKEN_CREATED: AuditEvent.Action
    ACTION_TOKEN_REVOKED: AuditEvent.Action
    ACTION_MODEL_GROUP_UPDATED: AuditEvent.Action
    ACTION_MODEL_GROUP_DELETED: AuditEvent.Action
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    DETAILS_OMITTED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_HASH_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    DAMAGED_FIELD_NUMBER: _ClassVar[int]
    MOVED_AWAY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    event_time: _timestamp_pb2.Timestamp
    actor: str
    request_id: str
    action: AuditEvent.Action
    project_id: str
    project_name: str
    name: str
    model_id: str
    model_group_id: str
    alias: str
    reason: str
    before: _struct_pb2.Struct
    after: _struct_pb2.Struct
    details_omitted: bool
    previous_hash: str
    hash: str
    damaged: bool
    moved_away: bool
    def __init__(self, sequence: _Optional[int] = ..., event_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., request_id: _Optional[str] = ..., action: _Optional[_Union[AuditEvent.Action, str]] = ..., project_id: _Optional[str] = ..., project_name: _Optional[str] = ..., name: _Optional[str] = ..., model_id: _Optional[str] = ..., model_group_id: _Optional[str] = ..., alias: _Optional[str] = ..., reason: _Optional[str] = ..., before: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., after: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., details_omitted: bool = ..., previous_hash: _Optional[str] = ..., hash: _Optional[str] = ..., damaged: bool = ..., moved_away: bool = ...) -> None: ...

class AuditLogPosition(_message.Message):
    __slots__ = ("sequence", "hash")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    hash: str
    def __init__(self, sequence: _Optional[int] = ..., hash: _Optional[str] = ...) -> None: ...

class BrokenAuditLink(_message.Message):
    __slots__ = ("sequence", "description")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    description: str
    def __init__(self, sequence: _Optional[int] = ..., description: _Optional[str] = ...) -> None: ...
