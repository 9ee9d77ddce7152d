from google.api import annotations_pb2 as _annotations_pb2
from google.api import field_behavior_pb2 as _field_behavior_pb2
from google.rpc import status_pb2 as _status_pb2
from modelregistry.geti.v1 import project_pb2 as _project_pb2
from modelregistry.v1 import model_pb2 as _model_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListProjectsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListProjectsResponse(_message.Message):
    __slots__ = ("projects", "next_page_token")
    PROJECTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    projects: _containers.RepeatedCompositeFieldContainer[_project_pb2.Project]
    next_page_token: str
    def __init__(self, projects: _Optional[_Iterable[_Union[_project_pb2.Project, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetProjectRequest(_message.Message):
    __slots__ = ("project_id",)
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    def __init__(self, project_id: _Optional[str] = ...) -> None: ...

class ModelToImport(_message.Message):
    __slots__ = ("model_id", "group_id")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    group_id: str
    def __init__(self, model_id: _Optional[str] = ..., group_id: _Optional[str] = ...) -> None: ...

class ImportModelsRequest(_message.Message):
    __slots__ = ("project_id", "models")
    PROJECT_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    project_id: str
    models: _containers.RepeatedCompositeFieldContainer[ModelToImport]
    def __init__(self, project_id: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelToImport, _Mapping]]] = ...) -> None: ...

class ImportModelsResponse(_message.Message):
    __slots__ = ("progress", "result", "error")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    progress: ImportProgress
    result: ImportResult
    error: _status_pb2.Status
    def __init__(self, progress: _Optional[_Union[ImportProgress, _Mapping]] = ..., result: _Optional[_Union[ImportResult, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ImportProgress(_message.Message):
    __slots__ = ("model_id", "state", "downloaded_bytes", "model", "error")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STATE_UNSPECIFIED: _ClassVar[ImportProgress.State]
        STATE_PREPARING: _ClassVar[ImportProgress.State]
        STATE_DOWNLOADING: _ClassVar[ImportProgress.State]
        STATE_REGISTERED: _ClassVar[ImportProgress.State]
        STATE_FAILED: _ClassVar[ImportProgress.State]
    STATE_UNSPECIFIED: ImportProgress.State
    STATE_PREPARING: ImportProgress.State
    STATE_DOWNLOADING: ImportProgress.State
    STATE_REGISTERED: ImportProgress.State
    STATE_FAILED: ImportProgress.State
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DOWNLOADED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    state: ImportProgress.State
    downloaded_bytes: int
    model: _model_pb2.Model
    error: _status_pb2.Status
    def __init__(self, model_id: _Optional[str] = ..., state: _Optional[_Union[ImportProgress.State, str]] = ..., downloaded_bytes: _Optional[int] = ..., model: _Optional[_Union[_model_pb2.Model, _Mapping]] = ..., error: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ImportResult(_message.Message):
    __slots__ = ("registered_model_ids", "failed_model_ids")
    REGISTERED_MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    FAILED_MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    registered_model_ids: _containers.RepeatedScalarFieldContainer[str]
    failed_model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, registered_model_ids: _Optional[_Iterable[str]] = ..., failed_model_ids: _Optional[_Iterable[str]] = ...) -> None: ...
