from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from modelregistry.v1 import model_group_pb2 as _model_group_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetModelGroupRequest(_message.Message):
    __slots__ = ("model_group_id",)
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    def __init__(self, model_group_id: _Optional[str] = ...) -> None: ...

class ListModelGroupsRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "filter", "order_by", "show_empty")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    SHOW_EMPTY_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    filter: str
    order_by: str
    show_empty: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ..., show_empty: bool = ...) -> None: ...

class ListModelGroupsResponse(_message.Message):
    __slots__ = ("model_groups", "next_page_token", "total_size")
    MODEL_GROUPS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    model_groups: _containers.RepeatedCompositeFieldContainer[_model_group_pb2.ModelGroup]
    next_page_token: str
    total_size: int
    def __init__(self, model_groups: _Optional[_Iterable[_Union[_model_group_pb2.ModelGroup, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class UpdateModelGroupRequest(_message.Message):
    __slots__ = ("model_group", "update_mask", "idempotency_key")
    MODEL_GROUP_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model_group: _model_group_pb2.ModelGroup
    update_mask: _field_mask_pb2.FieldMask
    idempotency_key: str
    def __init__(self, model_group: _Optional[_Union[_model_group_pb2.ModelGroup, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DeleteModelGroupRequest(_message.Message):
    __slots__ = ("model_group_id", "etag", "allow_missing", "validate_only", "idempotency_key")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    etag: str
    allow_missing: bool
    validate_only: bool
    idempotency_key: str
    def __init__(self, model_group_id: _Optional[str] = ..., etag: _Optional[str] = ..., allow_missing: bool = ..., validate_only: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DeleteModelGroupResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
