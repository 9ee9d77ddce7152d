"""A gRPC client for tests: the stubs, and shorthands for common calls."""

import contextlib
import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from modelregistry.geti.v1 import geti_service_pb2_grpc
from modelregistry.v1 import (
    alias_service_pb2,
    alias_service_pb2_grpc,
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    audit_service_pb2_grpc,
    lineage_pb2,
    model_group_pb2,
    model_group_service_pb2,
    model_group_service_pb2_grpc,
    model_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    system_service_pb2_grpc,
    upload_pb2,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

DetailT = TypeVar("DetailT", bound=Message)

CHUNK = 256 * 1024


class Client:
    """The stubs of all services, on one channel."""

    def __init__(self, address: str, *interceptors: Any) -> None:
        self.address = address
        # Reconnect without a delay: tests stop servers and start them again.
        self.channel = grpc.insecure_channel(
            address,
            options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)],
        )
        if interceptors:
            self.channel = grpc.intercept_channel(self.channel, *interceptors)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.uploads = upload_service_pb2_grpc.UploadServiceStub(self.channel)
        self.artifacts = artifact_service_pb2_grpc.ArtifactServiceStub(self.channel)
        self.projects = geti_service_pb2_grpc.GetiServiceStub(self.channel)
        self.groups = model_group_service_pb2_grpc.ModelGroupServiceStub(self.channel)
        self.aliases = alias_service_pb2_grpc.AliasServiceStub(self.channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(self.channel)
        self.system = system_service_pb2_grpc.SystemServiceStub(self.channel)

    def register(self, data: bytes = b"weights", **fields: Any) -> model_pb2.Model:
        """Register a model in one call. See `spec` for the fields."""
        return self.models.RegisterModel(registration(spec(**fields), pieces(data))).model

    def get(self, model_id: str) -> model_pb2.Model:
        return self.models.GetModel(model_service_pb2.GetModelRequest(model_id=model_id))

    def all(self, filter: str = "", **fields: Any) -> list[model_pb2.Model]:  # noqa: A002
        """Return the items of all pages."""
        return list(self.iterate(filter, **fields))

    def iterate(self, filter: str = "", **fields: Any) -> Iterator[model_pb2.Model]:  # noqa: A002
        request = model_service_pb2.ListModelsRequest(filter=filter, **fields)
        while True:
            page = self.models.ListModels(request)
            yield from page.models
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def names(self, filter: str = "", **fields: Any) -> list[str]:  # noqa: A002
        return [model.name for model in self.iterate(filter, **fields)]

    def update(self, model_id: str, paths: Iterable[str] = (), **fields: Any) -> model_pb2.Model:
        return self.models.UpdateModel(
            model_service_pb2.UpdateModelRequest(
                model=model_pb2.Model(id=model_id, **fields), update_mask={"paths": list(paths)}
            )
        )

    def delete(self, model_id: str, **fields: Any) -> None:
        self.models.DeleteModel(model_service_pb2.DeleteModelRequest(model_id=model_id, **fields))

    def group(self, group_id: str) -> model_group_pb2.ModelGroup:
        return self.groups.GetModelGroup(model_group_service_pb2.GetModelGroupRequest(model_group_id=group_id))

    def all_groups(self, filter: str = "", **fields: Any) -> list[model_group_pb2.ModelGroup]:  # noqa: A002
        """Return the items of all pages."""
        request = model_group_service_pb2.ListModelGroupsRequest(filter=filter, **fields)
        found: list[model_group_pb2.ModelGroup] = []
        while True:
            page = self.groups.ListModelGroups(request)
            found += page.model_groups
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def update_group(self, group_id: str, paths: Iterable[str] = (), **fields: Any) -> model_group_pb2.ModelGroup:
        return self.groups.UpdateModelGroup(
            model_group_service_pb2.UpdateModelGroupRequest(
                model_group=model_group_pb2.ModelGroup(id=group_id, **fields), update_mask={"paths": list(paths)}
            )
        )

    def delete_group(self, group_id: str, **fields: Any) -> None:
        self.groups.DeleteModelGroup(model_group_service_pb2.DeleteModelGroupRequest(model_group_id=group_id, **fields))

    def set_alias(self, model_id: str, alias: str = "production", **fields: Any) -> alias_service_pb2.SetAliasResponse:
        """Set an alias of the model's group to the model."""
        request = alias_service_pb2.SetAliasRequest(alias=alias, model_id=model_id, **fields)
        request.model_group_id = request.model_group_id or self.get(model_id).model_group_id
        return self.aliases.SetAlias(request)

    def resolve(self, reference: str, **fields: Any) -> model_service_pb2.ResolveModelResponse:
        return self.models.ResolveModel(model_service_pb2.ResolveModelRequest(reference=reference, **fields))

    def compare(self, *ids: str, **fields: Any) -> model_service_pb2.CompareModelsResponse:
        return self.models.CompareModels(model_service_pb2.CompareModelsRequest(model_ids=ids, **fields))

    def lineage(self, model_id: str, direction: str, **fields: Any) -> model_service_pb2.GetLineageResponse:
        """Return one page. `direction` is "ancestors" or "descendants"."""
        return self.models.GetLineage(
            model_service_pb2.GetLineageRequest(model_id=model_id, direction=f"DIRECTION_{direction.upper()}", **fields)
        )

    def ancestors(self, model_id: str, **fields: Any) -> model_service_pb2.GetLineageResponse:
        """Return one page of up to 1,000 items."""
        return self.lineage(model_id, "ancestors", **{"page_size": 1000} | fields)

    def descendants(self, model_id: str, **fields: Any) -> model_service_pb2.GetLineageResponse:
        """Return one page of up to 1,000 items."""
        return self.lineage(model_id, "descendants", **{"page_size": 1000} | fields)

    def manifest(self, model_id: str) -> lineage_pb2.ModelManifest:
        return self.models.GetModelManifest(model_service_pb2.GetModelManifestRequest(model_id=model_id))

    def download(self, model_id: str, **fields: Any) -> bytes:
        answers = self.artifacts.DownloadArtifact(
            artifact_service_pb2.DownloadArtifactRequest(model_id=model_id, **fields)
        )
        return b"".join(answer.chunk for answer in answers)

    def verify(self, model_id: str) -> artifact_service_pb2.VerificationResult:
        """Return the last message of the stream."""
        *_, last = self.artifacts.VerifyArtifact(artifact_service_pb2.VerifyArtifactRequest(model_id=model_id))
        return last.result

    def files(self, model_id: str, **fields: Any) -> artifact_service_pb2.ListArtifactFilesResponse:
        return self.artifacts.ListArtifactFiles(
            artifact_service_pb2.ListArtifactFilesRequest(model_id=model_id, **fields)
        )

    def download_file(self, model_id: str, path: str) -> bytes:
        answers = self.artifacts.DownloadArtifactFile(
            artifact_service_pb2.DownloadArtifactFileRequest(model_id=model_id, path=path)
        )
        return b"".join(answer.chunk for answer in answers)

    def create_upload(self, **fields: Any) -> upload_pb2.Upload:
        return self.uploads.CreateUpload(
            upload_service_pb2.CreateUploadRequest(upload=upload_pb2.Upload(spec=spec(**fields)))
        )

    def write_upload(self, upload_id: str, offset: int, data: bytes, chunk: int = CHUNK) -> upload_pb2.Upload:
        return self.uploads.WriteUpload(writes(upload_id, offset, pieces(data, chunk))).upload

    def get_upload(self, upload_id: str) -> upload_pb2.Upload:
        return self.uploads.GetUpload(upload_service_pb2.GetUploadRequest(upload_id=upload_id))

    def list_uploads(self, **fields: Any) -> upload_service_pb2.ListUploadsResponse:
        return self.uploads.ListUploads(upload_service_pb2.ListUploadsRequest(**fields))

    def complete_upload(self, upload_id: str, **fields: Any) -> model_pb2.Model:
        return self.uploads.CompleteUpload(
            upload_service_pb2.CompleteUploadRequest(upload_id=upload_id, **fields)
        ).model

    def cancel_upload(self, upload_id: str) -> None:
        self.uploads.CancelUpload(upload_service_pb2.CancelUploadRequest(upload_id=upload_id))

    def close(self) -> None:
        self.channel.close()


def as_listed(model: model_pb2.Model) -> model_pb2.Model:
    """Return the model as lists show it: without its signature."""
    listed = model_pb2.Model()
    listed.CopyFrom(model)
    listed.ClearField("signature")
    return listed


def spec(
    name: str = "yolo", version: str = "1", artifact: dict[str, Any] | None = None, **fields: Any
) -> model_service_pb2.ModelSpec:
    """Return a spec. `artifact` holds the fields of ArtifactSpec; the others are the model's."""
    return model_service_pb2.ModelSpec(
        model=model_pb2.Model(name=name, version=version, **fields),
        artifact=model_service_pb2.ArtifactSpec(**(artifact or {})),
    )


def pieces(data: bytes, size: int = CHUNK) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def registration(
    model_spec: model_service_pb2.ModelSpec, chunks: Iterable[bytes]
) -> Iterator[model_service_pb2.RegisterModelRequest]:
    """Return the messages of RegisterModel."""
    yield model_service_pb2.RegisterModelRequest(spec=model_spec)
    for chunk in chunks:
        yield model_service_pb2.RegisterModelRequest(chunk=chunk)


def writes(upload_id: str, offset: int, chunks: Iterable[bytes]) -> Iterator[upload_service_pb2.WriteUploadRequest]:
    """Return the messages of WriteUpload."""
    yield upload_service_pb2.WriteUploadRequest(upload_id=upload_id, write_offset=offset)
    for chunk in chunks:
        yield upload_service_pb2.WriteUploadRequest(data=chunk)


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Refusal:
    """The error of a refused call."""

    error: grpc.RpcError

    @property
    def code(self) -> grpc.StatusCode:
        return self._call.code()

    @property
    def message(self) -> str:
        return self._call.details() or ""

    @property
    def reason(self) -> str:
        return str(self.detail(error_details_pb2.ErrorInfo).reason)

    @property
    def metadata(self) -> dict[str, str]:
        return dict(self.detail(error_details_pb2.ErrorInfo).metadata)

    @property
    def fields(self) -> list[str]:
        """Return the fields that the error names as invalid."""
        return [v.field for v in self.detail(error_details_pb2.BadRequest).field_violations]

    @property
    def status(self) -> Status:
        """Return the whole status, with its details."""
        status = rpc_status.from_call(self._call)
        assert status is not None, f"no details: {self.error}"
        return status

    def detail(self, kind: type[DetailT]) -> DetailT:
        """Return the first detail of a type."""
        found = self.details(kind)
        assert found, f"no {kind.__name__} in {self.status}"
        return found[0]

    def details(self, kind: type[DetailT]) -> list[DetailT]:
        """Return all details of a type."""
        found = []
        for packed in self.status.details:
            if packed.Is(kind.DESCRIPTOR):
                found.append(kind())
                packed.Unpack(found[-1])
        return found

    @property
    def _call(self) -> grpc.Call:
        return cast("grpc.Call", self.error)


@contextlib.contextmanager
def refused(code: grpc.StatusCode, reason: str | None = None) -> Iterator[Refusal]:
    """Fail unless the call in the block ends with this status."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    refusal.error = caught.value
    assert refusal.code is code, f"{refusal.code}: {refusal.message}"
    if reason is not None:
        assert refusal.reason == reason
