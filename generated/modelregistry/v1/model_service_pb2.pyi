from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelregistry.v1 import comparison_pb2 as _comparison_pb2
from modelregistry.v1 import lineage_pb2 as _lineage_pb2
from modelregistry.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ArtifactSpec(_message.Message):
    __slots__ = ("file_name", "media_type", "size_bytes", "sha256", "kind")
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    file_name: str
    media_type: str
    size_bytes: int
    sha256: str
    kind: _model_pb2.Artifact.Kind
    def __init__(self, file_name: _Optional[str] = ..., media_type: _Optional[str] = ..., size_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., kind: _Optional[_Union[_model_pb2.Artifact.Kind, str]] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("model", "artifact")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    artifact: ArtifactSpec
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., artifact: _Optional[_Union[ArtifactSpec, _Mapping]] = ...) -> None: ...

class RegisterModelRequest(_message.Message):
    __slots__ = ("spec", "chunk", "idempotency_key")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    spec: ModelSpec
    chunk: bytes
    idempotency_key: str
    def __init__(self, spec: _Optional[_Union[ModelSpec, _Mapping]] = ..., chunk: _Optional[bytes] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RegisterModelResponse(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model_id", "view")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    view: _model_pb2.ModelView
    def __init__(self, model_id: _Optional[str] = ..., view: _Optional[_Union[_model_pb2.ModelView, str]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter", "order_by", "view")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    order_by: str
    view: _model_pb2.ModelView
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ..., view: _Optional[_Union[_model_pb2.ModelView, str]] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_model_pb2.Model]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[_model_pb2.Model, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateModelRequest(_message.Message):
    __slots__ = ("model", "update_mask", "idempotency_key")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    update_mask: _field_mask_pb2.FieldMask
    idempotency_key: str
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DeleteModelRequest(_message.Message):
    __slots__ = ("model_id", "etag", "allow_missing", "force", "validate_only", "idempotency_key")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    etag: str
    allow_missing: bool
    force: bool
    validate_only: bool
    idempotency_key: str
    def __init__(self, model_id: _Optional[str] = ..., etag: _Optional[str] = ..., allow_missing: bool = ..., force: bool = ..., validate_only: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DeleteModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResolveModelRequest(_message.Message):
    __slots__ = ("reference", "precisions", "at_time", "view")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    PRECISIONS_FIELD_NUMBER: _ClassVar[int]
    AT_TIME_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    reference: str
    precisions: _containers.RepeatedScalarFieldContainer[str]
    at_time: _timestamp_pb2.Timestamp
    view: _model_pb2.ModelView
    def __init__(self, reference: _Optional[str] = ..., precisions: _Optional[_Iterable[str]] = ..., at_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., view: _Optional[_Union[_model_pb2.ModelView, str]] = ...) -> None: ...

class ResolveModelResponse(_message.Message):
    __slots__ = ("model", "alias")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    model: _model_pb2.Model
    alias: str
    def __init__(self, model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., alias: _Optional[str] = ...) -> None: ...

class CompareModelsRequest(_message.Message):
    __slots__ = ("model_ids", "diff_only", "hash_files")
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    DIFF_ONLY_FIELD_NUMBER: _ClassVar[int]
    HASH_FILES_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    diff_only: bool
    hash_files: bool
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ..., diff_only: bool = ..., hash_files: bool = ...) -> None: ...

class CompareModelsResponse(_message.Message):
    __slots__ = ("models", "fields", "metrics", "labels", "artifacts", "truncated")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_comparison_pb2.ComparedModel]
    fields: _containers.RepeatedCompositeFieldContainer[_comparison_pb2.FieldComparison]
    metrics: _containers.RepeatedCompositeFieldContainer[_comparison_pb2.MetricComparison]
    labels: _comparison_pb2.LabelComparison
    artifacts: _comparison_pb2.ArtifactComparison
    truncated: bool
    def __init__(self, models: _Optional[_Iterable[_Union[_comparison_pb2.ComparedModel, _Mapping]]] = ..., fields: _Optional[_Iterable[_Union[_comparison_pb2.FieldComparison, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[_comparison_pb2.MetricComparison, _Mapping]]] = ..., labels: _Optional[_Union[_comparison_pb2.LabelComparison, _Mapping]] = ..., artifacts: _Optional[_Union[_comparison_pb2.ArtifactComparison, _Mapping]] = ..., truncated: bool = ...) -> None: ...

class GetLineageRequest(_message.Message):
    __slots__ = ("model_id", "direction", "max_depth", "page_size", "page_token")
    class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DIRECTION_UNSPECIFIED: _ClassVar[GetLineageRequest.Direction]
        DIRECTION_ANCESTORS: _ClassVar[GetLineageRequest.Direction]
        DIRECTION_DESCENDANTS: _ClassVar[GetLineageRequest.Direction]
    DIRECTION_UNSPECIFIED: GetLineageRequest.Direction
    DIRECTION_ANCESTORS: GetLineageRequest.Direction
    DIRECTION_DESCENDANTS: GetLineageRequest.Direction
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    MAX_DEPTH_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    direction: GetLineageRequest.Direction
    max_depth: int
    page_size: int
    page_token: str
    def __init__(self, model_id: _Optional[str] = ..., direction: _Optional[_Union[GetLineageRequest.Direction, str]] = ..., max_depth: _Optional[int] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetLineageResponse(_message.Message):
    __slots__ = ("nodes", "edges", "next_page_token", "truncated")
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_lineage_pb2.LineageNode]
    edges: _containers.RepeatedCompositeFieldContainer[_lineage_pb2.LineageEdge]
    next_page_token: str
    truncated: bool
    def __init__(self, nodes: _Optional[_Iterable[_Union[_lineage_pb2.LineageNode, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[_lineage_pb2.LineageEdge, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., truncated: bool = ...) -> None: ...

class GetModelManifestRequest(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...
