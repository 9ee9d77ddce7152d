from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ComparedModel(_message.Message):
    __slots__ = ("model_id", "name", "version", "etag", "sha256", "create_time")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    name: str
    version: str
    etag: str
    sha256: str
    create_time: _timestamp_pb2.Timestamp
    def __init__(self, model_id: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., etag: _Optional[str] = ..., sha256: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FieldComparison(_message.Message):
    __slots__ = ("path", "values", "equal")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    path: str
    values: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Value]
    equal: bool
    def __init__(self, path: _Optional[str] = ..., values: _Optional[_Iterable[_Union[_struct_pb2.Value, _Mapping]]] = ..., equal: bool = ...) -> None: ...

class MetricValue(_message.Message):
    __slots__ = ("value", "delta")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    value: float
    delta: float
    def __init__(self, value: _Optional[float] = ..., delta: _Optional[float] = ...) -> None: ...

class MetricComparison(_message.Message):
    __slots__ = ("name", "values", "equal")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedCompositeFieldContainer[MetricValue]
    equal: bool
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[_Union[MetricValue, _Mapping]]] = ..., equal: bool = ...) -> None: ...

class ModelLabels(_message.Message):
    __slots__ = ("only", "lacking")
    ONLY_FIELD_NUMBER: _ClassVar[int]
    LACKING_FIELD_NUMBER: _ClassVar[int]
    only: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Value]
    lacking: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Value]
    def __init__(self, only: _Optional[_Iterable[_Union[_struct_pb2.Value, _Mapping]]] = ..., lacking: _Optional[_Iterable[_Union[_struct_pb2.Value, _Mapping]]] = ...) -> None: ...

class LabelComparison(_message.Message):
    __slots__ = ("common", "models", "equal")
    COMMON_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    common: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Value]
    models: _containers.RepeatedCompositeFieldContainer[ModelLabels]
    equal: bool
    def __init__(self, common: _Optional[_Iterable[_Union[_struct_pb2.Value, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelLabels, _Mapping]]] = ..., equal: bool = ...) -> None: ...

class ComparedArtifact(_message.Message):
    __slots__ = ("file_name", "size_bytes", "sha256", "problem")
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    file_name: str
    size_bytes: int
    sha256: str
    problem: str
    def __init__(self, file_name: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., problem: _Optional[str] = ...) -> None: ...

class FileVersion(_message.Message):
    __slots__ = ("present", "size_bytes", "digest", "change")
    class Change(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CHANGE_UNSPECIFIED: _ClassVar[FileVersion.Change]
        CHANGE_SAME: _ClassVar[FileVersion.Change]
        CHANGE_CHANGED: _ClassVar[FileVersion.Change]
        CHANGE_ADDED: _ClassVar[FileVersion.Change]
        CHANGE_REMOVED: _ClassVar[FileVersion.Change]
    CHANGE_UNSPECIFIED: FileVersion.Change
    CHANGE_SAME: FileVersion.Change
    CHANGE_CHANGED: FileVersion.Change
    CHANGE_ADDED: FileVersion.Change
    CHANGE_REMOVED: FileVersion.Change
    PRESENT_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    present: bool
    size_bytes: int
    digest: str
    change: FileVersion.Change
    def __init__(self, present: bool = ..., size_bytes: _Optional[int] = ..., digest: _Optional[str] = ..., change: _Optional[_Union[FileVersion.Change, str]] = ...) -> None: ...

class FileComparison(_message.Message):
    __slots__ = ("path", "versions")
    PATH_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    path: str
    versions: _containers.RepeatedCompositeFieldContainer[FileVersion]
    def __init__(self, path: _Optional[str] = ..., versions: _Optional[_Iterable[_Union[FileVersion, _Mapping]]] = ...) -> None: ...

class ArtifactComparison(_message.Message):
    __slots__ = ("artifacts", "equal", "files", "file_count", "truncated")
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    FILE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    artifacts: _containers.RepeatedCompositeFieldContainer[ComparedArtifact]
    equal: bool
    files: _containers.RepeatedCompositeFieldContainer[FileComparison]
    file_count: int
    truncated: bool
    def __init__(self, artifacts: _Optional[_Iterable[_Union[ComparedArtifact, _Mapping]]] = ..., equal: bool = ..., files: _Optional[_Iterable[_Union[FileComparison, _Mapping]]] = ..., file_count: _Optional[int] = ..., truncated: bool = ...) -> None: ...
