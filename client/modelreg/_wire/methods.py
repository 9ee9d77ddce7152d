"""The RPCs that the client calls. `tests/client/test_methods.py` holds them against the descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message
from modelregistry.v1 import (
    alias_pb2,
    alias_service_pb2,
    artifact_service_pb2,
    audit_service_pb2,
    lineage_pb2,
    model_group_pb2,
    model_group_service_pb2,
    model_pb2,
    model_service_pb2,
    system_service_pb2,
    upload_pb2,
    upload_service_pb2,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True)
class Method(Generic[Request, Response]):
    """An RPC and its messages."""

    path: str
    """The service and the method, for example `ModelService/GetModel`."""
    request: type[Request]
    response: type[Response]

    @property
    def full_path(self) -> str:
        """The path of the HTTP/2 request."""
        return f"/modelregistry.v1.{self.path}"


REGISTER_MODEL = Method(
    "ModelService/RegisterModel", model_service_pb2.RegisterModelRequest, model_service_pb2.RegisterModelResponse
)
GET_MODEL = Method("ModelService/GetModel", model_service_pb2.GetModelRequest, model_pb2.Model)
LIST_MODELS = Method(
    "ModelService/ListModels", model_service_pb2.ListModelsRequest, model_service_pb2.ListModelsResponse
)
UPDATE_MODEL = Method("ModelService/UpdateModel", model_service_pb2.UpdateModelRequest, model_pb2.Model)
DELETE_MODEL = Method(
    "ModelService/DeleteModel", model_service_pb2.DeleteModelRequest, model_service_pb2.DeleteModelResponse
)
RESOLVE_MODEL = Method(
    "ModelService/ResolveModel", model_service_pb2.ResolveModelRequest, model_service_pb2.ResolveModelResponse
)
COMPARE_MODELS = Method(
    "ModelService/CompareModels", model_service_pb2.CompareModelsRequest, model_service_pb2.CompareModelsResponse
)
GET_LINEAGE = Method(
    "ModelService/GetLineage", model_service_pb2.GetLineageRequest, model_service_pb2.GetLineageResponse
)
GET_MODEL_MANIFEST = Method(
    "ModelService/GetModelManifest", model_service_pb2.GetModelManifestRequest, lineage_pb2.ModelManifest
)

GET_MODEL_GROUP = Method(
    "ModelGroupService/GetModelGroup", model_group_service_pb2.GetModelGroupRequest, model_group_pb2.ModelGroup
)
LIST_MODEL_GROUPS = Method(
    "ModelGroupService/ListModelGroups",
    model_group_service_pb2.ListModelGroupsRequest,
    model_group_service_pb2.ListModelGroupsResponse,
)
UPDATE_MODEL_GROUP = Method(
    "ModelGroupService/UpdateModelGroup", model_group_service_pb2.UpdateModelGroupRequest, model_group_pb2.ModelGroup
)
DELETE_MODEL_GROUP = Method(
    "ModelGroupService/DeleteModelGroup",
    model_group_service_pb2.DeleteModelGroupRequest,
    model_group_service_pb2.DeleteModelGroupResponse,
)

SET_ALIAS = Method("AliasService/SetAlias", alias_service_pb2.SetAliasRequest, alias_service_pb2.SetAliasResponse)
GET_ALIAS = Method("AliasService/GetAlias", alias_service_pb2.GetAliasRequest, alias_pb2.Alias)
LIST_ALIASES = Method(
    "AliasService/ListAliases", alias_service_pb2.ListAliasesRequest, alias_service_pb2.ListAliasesResponse
)
LIST_ALIAS_MOVES = Method(
    "AliasService/ListAliasMoves", alias_service_pb2.ListAliasMovesRequest, alias_service_pb2.ListAliasMovesResponse
)
ROLLBACK_ALIAS = Method(
    "AliasService/RollbackAlias", alias_service_pb2.RollbackAliasRequest, alias_service_pb2.RollbackAliasResponse
)
DELETE_ALIAS = Method(
    "AliasService/DeleteAlias", alias_service_pb2.DeleteAliasRequest, alias_service_pb2.DeleteAliasResponse
)

CREATE_UPLOAD = Method("UploadService/CreateUpload", upload_service_pb2.CreateUploadRequest, upload_pb2.Upload)
GET_UPLOAD = Method("UploadService/GetUpload", upload_service_pb2.GetUploadRequest, upload_pb2.Upload)
LIST_UPLOADS = Method(
    "UploadService/ListUploads", upload_service_pb2.ListUploadsRequest, upload_service_pb2.ListUploadsResponse
)
WRITE_UPLOAD = Method(
    "UploadService/WriteUpload", upload_service_pb2.WriteUploadRequest, upload_service_pb2.WriteUploadResponse
)
COMPLETE_UPLOAD = Method(
    "UploadService/CompleteUpload", upload_service_pb2.CompleteUploadRequest, upload_service_pb2.CompleteUploadResponse
)
CANCEL_UPLOAD = Method(
    "UploadService/CancelUpload", upload_service_pb2.CancelUploadRequest, upload_service_pb2.CancelUploadResponse
)

DOWNLOAD_ARTIFACT = Method(
    "ArtifactService/DownloadArtifact",
    artifact_service_pb2.DownloadArtifactRequest,
    artifact_service_pb2.DownloadArtifactResponse,
)
DOWNLOAD_ARTIFACT_FILE = Method(
    "ArtifactService/DownloadArtifactFile",
    artifact_service_pb2.DownloadArtifactFileRequest,
    artifact_service_pb2.DownloadArtifactFileResponse,
)
LIST_ARTIFACT_FILES = Method(
    "ArtifactService/ListArtifactFiles",
    artifact_service_pb2.ListArtifactFilesRequest,
    artifact_service_pb2.ListArtifactFilesResponse,
)
VERIFY_ARTIFACT = Method(
    "ArtifactService/VerifyArtifact",
    artifact_service_pb2.VerifyArtifactRequest,
    artifact_service_pb2.VerifyArtifactResponse,
)

LIST_AUDIT_EVENTS = Method(
    "AuditService/ListAuditEvents", audit_service_pb2.ListAuditEventsRequest, audit_service_pb2.ListAuditEventsResponse
)
WATCH_AUDIT_EVENTS = Method(
    "AuditService/WatchAuditEvents",
    audit_service_pb2.WatchAuditEventsRequest,
    audit_service_pb2.WatchAuditEventsResponse,
)
VERIFY_AUDIT_LOG = Method(
    "AuditService/VerifyAuditLog", audit_service_pb2.VerifyAuditLogRequest, audit_service_pb2.VerifyAuditLogResponse
)

GET_SERVER_INFO = Method(
    "SystemService/GetServerInfo", system_service_pb2.GetServerInfoRequest, system_service_pb2.ServerInfo
)
WHO_AM_I = Method("SystemService/WhoAmI", system_service_pb2.WhoAmIRequest, system_service_pb2.WhoAmIResponse)
