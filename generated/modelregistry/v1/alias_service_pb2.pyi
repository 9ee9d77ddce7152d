from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelregistry.v1 import alias_pb2 as _alias_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SetAliasRequest(_message.Message):
    __slots__ = ("model_group_id", "alias", "model_id", "expected_model_id", "etag", "reason", "requirements", "validate_only", "idempotency_key")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    alias: str
    model_id: str
    expected_model_id: str
    etag: str
    reason: str
    requirements: _alias_pb2.PromotionRequirements
    validate_only: bool
    idempotency_key: str
    def __init__(self, model_group_id: _Optional[str] = ..., alias: _Optional[str] = ..., model_id: _Optional[str] = ..., expected_model_id: _Optional[str] = ..., etag: _Optional[str] = ..., reason: _Optional[str] = ..., requirements: _Optional[_Union[_alias_pb2.PromotionRequirements, _Mapping]] = ..., validate_only: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class SetAliasResponse(_message.Message):
    __slots__ = ("alias", "before", "changed", "checks")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    alias: _alias_pb2.Alias
    before: _alias_pb2.AliasTarget
    changed: bool
    checks: _containers.RepeatedCompositeFieldContainer[_alias_pb2.RequirementCheck]
    def __init__(self, alias: _Optional[_Union[_alias_pb2.Alias, _Mapping]] = ..., before: _Optional[_Union[_alias_pb2.AliasTarget, _Mapping]] = ..., changed: bool = ..., checks: _Optional[_Iterable[_Union[_alias_pb2.RequirementCheck, _Mapping]]] = ...) -> None: ...

class GetAliasRequest(_message.Message):
    __slots__ = ("model_group_id", "alias", "at_time")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    AT_TIME_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    alias: str
    at_time: _timestamp_pb2.Timestamp
    def __init__(self, model_group_id: _Optional[str] = ..., alias: _Optional[str] = ..., at_time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ListAliasesRequest(_message.Message):
    __slots__ = ("model_group_id", "page_size", "page_token")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    page_size: int
    page_token: str
    def __init__(self, model_group_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAliasesResponse(_message.Message):
    __slots__ = ("aliases", "next_page_token")
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    aliases: _containers.RepeatedCompositeFieldContainer[_alias_pb2.Alias]
    next_page_token: str
    def __init__(self, aliases: _Optional[_Iterable[_Union[_alias_pb2.Alias, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class ListAliasMovesRequest(_message.Message):
    __slots__ = ("model_group_id", "alias", "page_size", "page_token")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    alias: str
    page_size: int
    page_token: str
    def __init__(self, model_group_id: _Optional[str] = ..., alias: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListAliasMovesResponse(_message.Message):
    __slots__ = ("alias_moves", "next_page_token")
    ALIAS_MOVES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    alias_moves: _containers.RepeatedCompositeFieldContainer[_alias_pb2.AliasMove]
    next_page_token: str
    def __init__(self, alias_moves: _Optional[_Iterable[_Union[_alias_pb2.AliasMove, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RollbackAliasRequest(_message.Message):
    __slots__ = ("model_group_id", "alias", "to_model_id", "expected_model_id", "etag", "reason", "validate_only", "idempotency_key")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    TO_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    alias: str
    to_model_id: str
    expected_model_id: str
    etag: str
    reason: str
    validate_only: bool
    idempotency_key: str
    def __init__(self, model_group_id: _Optional[str] = ..., alias: _Optional[str] = ..., to_model_id: _Optional[str] = ..., expected_model_id: _Optional[str] = ..., etag: _Optional[str] = ..., reason: _Optional[str] = ..., validate_only: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class RollbackAliasResponse(_message.Message):
    __slots__ = ("alias", "before", "changed")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    alias: _alias_pb2.Alias
    before: _alias_pb2.AliasTarget
    changed: bool
    def __init__(self, alias: _Optional[_Union[_alias_pb2.Alias, _Mapping]] = ..., before: _Optional[_Union[_alias_pb2.AliasTarget, _Mapping]] = ..., changed: bool = ...) -> None: ...

class DeleteAliasRequest(_message.Message):
    __slots__ = ("model_group_id", "alias", "etag", "allow_missing", "reason", "validate_only", "idempotency_key")
    MODEL_GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    model_group_id: str
    alias: str
    etag: str
    allow_missing: bool
    reason: str
    validate_only: bool
    idempotency_key: str
    def __init__(self, model_group_id: _Optional[str] = ..., alias: _Optional[str] = ..., etag: _Optional[str] = ..., allow_missing: bool = ..., reason: _Optional[str] = ..., validate_only: bool = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class DeleteAliasResponse(_message.Message):
    __slots__ = ("before",)
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    before: _alias_pb2.AliasTarget
    def __init__(self, before: _Optional[_Union[_alias_pb2.AliasTarget, _Mapping]] = ...) -> None: ...
