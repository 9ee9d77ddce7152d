from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelregistry.v1 import artifact_service_pb2 as _artifact_service_pb2
from modelregistry.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LineageNode(_message.Message):
    __slots__ = ("model_id", "depth", "model")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    depth: int
    model: _model_pb2.Model
    def __init__(self, model_id: _Optional[str] = ..., depth: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...

class LineageEdge(_message.Message):
    __slots__ = ("child_model_id", "parent_model_id")
    CHILD_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    child_model_id: str
    parent_model_id: str
    def __init__(self, child_model_id: _Optional[str] = ..., parent_model_id: _Optional[str] = ...) -> None: ...

class ModelManifest(_message.Message):
    __slots__ = ("api_version", "make_time", "model", "files", "file_count", "artifact_problem", "ancestors", "edges", "unknown_model_ids", "ancestors_truncated")
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    MAKE_TIME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    ANCESTORS_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    api_version: str
    make_time: _timestamp_pb2.Timestamp
    model: _model_pb2.Model
    files: _containers.RepeatedCompositeFieldContainer[_artifact_service_pb2.ArtifactFile]
    file_count: int
    artifact_problem: str
    ancestors: _containers.RepeatedCompositeFieldContainer[LineageNode]
    edges: _containers.RepeatedCompositeFieldContainer[LineageEdge]
    unknown_model_ids: _containers.RepeatedScalarFieldContainer[str]
    ancestors_truncated: bool
    def __init__(self, api_version: _Optional[str] = ..., make_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., files: _Optional[_Iterable[_Union[_artifact_service_pb2.ArtifactFile, _Mapping]]] = ..., file_count: _Optional[int] = ..., artifact_problem: _Optional[str] = ..., ancestors: _Optional[_Iterable[_Union[LineageNode, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[LineageEdge, _Mapping]]] = ..., unknown_model_ids: _Optional[_Iterable[str]] = ..., ancestors_truncated: bool = ...) -> None: ...
