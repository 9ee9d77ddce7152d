from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelregistry.v1 import model_service_pb2 as _model_service_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Upload(_message.Message):
    __slots__ = ("id", "spec", "state", "committed_size", "create_time", "expire_time", "model_id", "creator")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[Upload.State]
        STATE_ACTIVE: _ClassVar[Upload.State]
        STATE_COMPLETING: _ClassVar[Upload.State]
        STATE_COMPLETED: _ClassVar[Upload.State]
    STATE_UNSPECIFIED: Upload.State
    STATE_ACTIVE: Upload.State
    STATE_COMPLETING: Upload.State
    STATE_COMPLETED: Upload.State
    ID_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_SIZE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    id: str
    spec: _model_service_pb2.ModelSpec
    state: Upload.State
    committed_size: int
    create_time: _timestamp_pb2.Timestamp
    expire_time: _timestamp_pb2.Timestamp
    model_id: str
    creator: str
    def __init__(self, id: _Optional[str] = ..., spec: _Optional[_Union[_model_service_pb2.ModelSpec, _Mapping]] = ..., state: _Optional[_Union[Upload.State, str]] = ..., committed_size: _Optional[int] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expire_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., model_id: _Optional[str] = ..., creator: _Optional[str] = ...) -> None: ...
