from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Project(_message.Message):
    __slots__ = ("id", "name", "create_time", "task_types", "model_groups")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    TASK_TYPES_FIELD_NUMBER: _ClassVar[int]
    MODEL_GROUPS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    create_time: _timestamp_pb2.Timestamp
    task_types: _containers.RepeatedScalarFieldContainer[str]
    model_groups: _containers.RepeatedCompositeFieldContainer[ProjectModelGroup]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., task_types: _Optional[_Iterable[str]] = ..., model_groups: _Optional[_Iterable[_Union[ProjectModelGroup, _Mapping]]] = ...) -> None: ...

class ProjectModelGroup(_message.Message):
    __slots__ = ("id", "name", "versions")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    versions: _containers.RepeatedCompositeFieldContainer[ProjectModelVersion]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[ProjectModelVersion, _Mapping]]] = ...) -> None: ...

class ProjectModelVersion(_message.Message):
    __slots__ = ("id", "name", "number", "openvino_models")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPENVINO_MODELS_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    number: int
    openvino_models: _containers.RepeatedCompositeFieldContainer[ProjectModel]
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., number: _Optional[int] = ..., openvino_models: _Optional[_Iterable[_Union[ProjectModel, _Mapping]]] = ...) -> None: ...

class ProjectModel(_message.Message):
    __slots__ = ("id", "name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
