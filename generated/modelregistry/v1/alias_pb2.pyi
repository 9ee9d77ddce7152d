from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Alias(_message.Message):
    __slots__ = ("alias", "model_group_id", "model_id", "version", "sha256", "etag", "revision", "update_time", "actor", "reason")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    alias: str
    model_group_id: str
    model_id: str
    version: str
    sha256: str
    etag: str
    revision: int
    update_time: _timestamp_pb2.Timestamp
    actor: str
    reason: str
    def __init__(self, alias: _Optional[str] = ..., model_group_id: _Optional[str] = ..., model_id: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ..., etag: _Optional[str] = ..., revision: _Optional[int] = ..., update_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class AliasTarget(_message.Message):
    __slots__ = ("model_id", "version", "sha256")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    version: str
    sha256: str
    def __init__(self, model_id: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class AliasMove(_message.Message):
    __slots__ = ("alias", "model_group_id", "revision", "kind", "before", "after", "move_time", "actor", "reason", "request_id")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[AliasMove.Kind]
        KIND_SET: _ClassVar[AliasMove.Kind]
        KIND_ROLLED_BACK: _ClassVar[AliasMove.Kind]
        KIND_DELETED: _ClassVar[AliasMove.Kind]
    KIND_UNSPECIFIED: AliasMove.Kind
    KIND_SET: AliasMove.Kind
    KIND_ROLLED_BACK: AliasMove.Kind
    KIND_DELETED: AliasMove.Kind
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MOVE_TIME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    alias: str
    model_group_id: str
    revision: int
    kind: AliasMove.Kind
    before: AliasTarget
    after: AliasTarget
    move_time: _timestamp_pb2.Timestamp
    actor: str
    reason: str
    request_id: str
    def __init__(self, alias: _Optional[str] = ..., model_group_id: _Optional[str] = ..., revision: _Optional[int] = ..., kind: _Optional[_Union[AliasMove.Kind, str]] = ..., before: _Optional[_Union[AliasTarget, _Mapping]] = ..., after: _Optional[_Union[AliasTarget, _Mapping]] = ..., move_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PromotionRequirements(_message.Message):
    __slots__ = ("verified", "max_verification_age", "metrics", "same_inputs", "same_outputs", "same_labels")
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    MAX_VERIFICATION_AGE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    SAME_INPUTS_FIELD_NUMBER: _ClassVar[int]
    SAME_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    SAME_LABELS_FIELD_NUMBER: _ClassVar[int]
    verified: bool
    max_verification_age: _duration_pb2.Duration
    metrics: _containers.RepeatedCompositeFieldContainer[MetricBound]
    same_inputs: bool
    same_outputs: bool
    same_labels: bool
    def __init__(self, verified: bool = ..., max_verification_age: _Optional[_Union[_duration_pb2.Duration, _Mapping]] = ..., metrics: _Optional[_Iterable[_Union[MetricBound, _Mapping]]] = ..., same_inputs: bool = ..., same_outputs: bool = ..., same_labels: bool = ...) -> None: ...

class MetricBound(_message.Message):
    __slots__ = ("metric", "min", "max")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    metric: str
    min: float
    max: float
    def __init__(self, metric: _Optional[str] = ..., min: _Optional[float] = ..., max: _Optional[float] = ...) -> None: ...

class RequirementCheck(_message.Message):
    __slots__ = ("requirement", "passed", "description")
    REQUIREMENT_FIELD_NUMBER: _ClassVar[int]
    PASSED_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    requirement: str
    passed: bool
    description: str
    def __init__(self, requirement: _Optional[str] = ..., passed: bool = ..., description: _Optional[str] = ...) -> None: ...
