from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_VIEW_UNSPECIFIED: _ClassVar[ModelView]
    MODEL_VIEW_BASIC: _ClassVar[ModelView]
    MODEL_VIEW_FULL: _ClassVar[ModelView]
MODEL_VIEW_UNSPECIFIED: ModelView
MODEL_VIEW_BASIC: ModelView
MODEL_VIEW_FULL: ModelView

class Model(_message.Message):
    __slots__ = ("id", "model_group_id", "name", "version", "project_id", "project_name", "precisions", "target_device", "target_device_type", "format", "origin", "category", "architecture", "description", "score", "overview", "optimization_capabilities", "labels", "metrics", "tags", "provenance", "artifact", "signature", "warnings", "aliases", "creator", "create_time", "update_time", "revision", "etag")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PROJECT_NAME_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    TARGET_DEVICE_FIELD_NUMBER: _ClassVar[int]
    TARGET_DEVICE_TYPE_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    OVERVIEW_FIELD_NUMBER: _ClassVar[int]
    OPTIMIZATION_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    CREATOR_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    id: str
    model_group_id: str
    name: str
    version: str
    project_id: str
    project_name: str
    precisions: _containers.RepeatedScalarFieldContainer[str]
    target_device: str
    target_device_type: str
    format: str
    origin: str
    category: str
    architecture: str
    description: str
    score: float
    overview: _struct_pb2.Value
    optimization_capabilities: _struct_pb2.Value
    labels: _struct_pb2.ListValue
    metrics: _containers.ScalarMap[str, float]
    tags: _containers.ScalarMap[str, str]
    provenance: Provenance
    artifact: Artifact
    signature: ModelSignature
    warnings: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    creator: str
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    revision: int
    etag: str
    def __init__(self, id: _Optional[str] = ..., model_group_id: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., project_id: _Optional[str] = ..., project_name: _Optional[str] = ..., precisions: _Optional[_Iterable[str]] = ..., target_device: _Optional[str] = ..., target_device_type: _Optional[str] = ..., format: _Optional[str] = ..., origin: _Optional[str] = ..., category: _Optional[str] = ..., architecture: _Optional[str] = ..., description: _Optional[str] = ..., score: _Optional[float] = ..., overview: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., optimization_capabilities: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ..., labels: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., tags: _Optional[_Mapping[str, str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., artifact: _Optional[_Union[Artifact, _Mapping]] = ..., signature: _Optional[_Union[ModelSignature, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Iterable[str]] = ..., creator: _Optional[str] = ..., create_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., etag: _Optional[str] = ...) -> None: ...

class ModelSignature(_message.Message):
    __slots__ = ("format", "path", "inputs", "outputs", "weights", "weight_count", "precisions", "producer", "opsets", "metadata", "problems")
    class OpsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_COUNT_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    PRODUCER_FIELD_NUMBER: _ClassVar[int]
    OPSETS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    format: str
    path: str
    inputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    weights: _containers.RepeatedCompositeFieldContainer[Tensor]
    weight_count: int
    precisions: _containers.RepeatedScalarFieldContainer[str]
    producer: str
    opsets: _containers.ScalarMap[str, int]
    metadata: _containers.ScalarMap[str, str]
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, format: _Optional[str] = ..., path: _Optional[str] = ..., inputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., weights: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., weight_count: _Optional[int] = ..., precisions: _Optional[_Iterable[str]] = ..., producer: _Optional[str] = ..., opsets: _Optional[_Mapping[str, int]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("name", "element_type", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ELEMENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    element_type: str
    shape: _struct_pb2.ListValue
    def __init__(self, name: _Optional[str] = ..., element_type: _Optional[str] = ..., shape: _Optional[_Union[_struct_pb2.ListValue, _Mapping]] = ...) -> None: ...

class Artifact(_message.Message):
    __slots__ = ("file_name", "media_type", "size_bytes", "sha256", "kind", "verify_time")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Artifact.Kind]
        KIND_FILE: _ClassVar[Artifact.Kind]
        KIND_FOLDER: _ClassVar[Artifact.Kind]
    KIND_UNSPECIFIED: Artifact.Kind
    KIND_FILE: Artifact.Kind
    KIND_FOLDER: Artifact.Kind
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    VERIFY_TIME_FIELD_NUMBER: _ClassVar[int]
    file_name: str
    media_type: str
    size_bytes: int
    sha256: str
    kind: Artifact.Kind
    verify_time: _timestamp_pb2.Timestamp
    def __init__(self, file_name: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., kind: _Optional[_Union[Artifact.Kind, str]] = ..., verify_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("source_repository", "source_commit", "training_run", "datasets", "parent_model_ids", "framework", "framework_version", "hyperparameters", "environment", "seed")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SOURCE_REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_COMMIT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_RUN_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    PARENT_MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_VERSION_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    source_repository: str
    source_commit: str
    training_run: str
    datasets: _containers.RepeatedCompositeFieldContainer[Dataset]
    parent_model_ids: _containers.RepeatedScalarFieldContainer[str]
    framework: str
    framework_version: str
    hyperparameters: _struct_pb2.Struct
    environment: _containers.ScalarMap[str, str]
    seed: int
    def __init__(self, source_repository: _Optional[str] = ..., source_commit: _Optional[str] = ..., training_run: _Optional[str] = ..., datasets: _Optional[_Iterable[_Union[Dataset, _Mapping]]] = ..., parent_model_ids: _Optional[_Iterable[str]] = ..., framework: _Optional[str] = ..., framework_version: _Optional[str] = ..., hyperparameters: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., environment: _Optional[_Mapping[str, str]] = ..., seed: _Optional[int] = ...) -> None: ...

class Dataset(_message.Message):
    __slots__ = ("name", "uri", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    uri: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., uri: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...
