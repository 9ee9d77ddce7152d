# Generated from modelreg/_async by `make generate`. Do not edit.
"""Pushing models, and the uploads that are not completed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from modelregistry.v1 import model_pb2, model_service_pb2, upload_service_pb2

from modelreg import _arguments
from modelreg._logging import logger
from modelreg._pushes.content import Content
from modelreg._pushes.sources import Opening, Pushable
from modelreg._pushes.upload_records import forget_upload
from modelreg._sync import runtime
from modelreg._sync.connection import new_idempotency_key
from modelreg._sync.listing import Listing, Page
from modelreg._sync.models import ModelCalls
from modelreg._sync.upload import PushOperation
from modelreg._wire import convert, methods
from modelreg.errors import InvalidArgument
from modelreg.metadata import Metadata, fill
from modelreg.models import Model
from modelreg.progress import Progress, ProgressOption
from modelreg.provenance import Provenance
from modelreg.references import confusion
from modelreg.server import Upload

if TYPE_CHECKING:
    from typing_extensions import Unpack

_KEYWORDS = ("provenance", "if_exists", "progress", "file_name", "media_type")
"""The arguments of `push` that are no metadata."""


class UploadCalls(ModelCalls):
    """The calls that register models."""

    def push(
        self,
        source: Pushable,
        *,
        name: str,
        version: str,
        provenance: Provenance | None = None,
        if_exists: Literal["error", "return"] = "error",
        progress: ProgressOption = None,
        file_name: str | None = None,
        media_type: str | None = None,
        **metadata: Unpack[Metadata],
    ) -> Model:
        """Register a model with its artifact: either the whole model, or nothing.

        Dropped connections and restarts of the registry are invisible, as long as the registry is back within
        `stall_timeout`. A push of a file or a folder that is interrupted or fails keeps its upload: the same push
        continues it, also from another process, if the source is unchanged. `uploads` lists what is kept.

        Memory does not grow with the size. Of a pipe, up to 32 MiB are kept, to send them again.

        Args:
            source: The path of a file or a folder; or a file object in binary mode, which is read from its position to
                its end and left open. A folder is packed as a ZIP while it is sent.
            name: Name of the model: any text, and no reference. The logger `modelreg` warns of one like `vad:3`.
            version: Version of the model.
            provenance: Where the model came from. Its parents may be models and references.
            if_exists: What to do if the registry has a model of this project, name, version and precisions. `error`
                raises AlreadyExists. `return` returns that model, with `created=False`, if its bytes are the same.
            progress: None shows a bar on a terminal and in a notebook; True and False decide it. A function is called
                with the bytes done, and the total or None.
            file_name: File name of the artifact. Default: that of the source.
            media_type: Media type of the artifact. Default: by the file name.
            metadata: More fields, which `Model` describes: `metrics`, `tags`, `precision` (one or several, for example
                `"int8"`), `format`, `description`, `labels`, `score`, `architecture`, `category`, `origin`,
                `target_device`, `target_device_type`, `project_id`, `project_name`, `overview`,
                `optimization_capabilities`.

        Raises:
            AlreadyExists: The registry has such a model, or one with other bytes. Nothing was sent.
            SourceChanged: The source was changed while it was read.
            InvalidArgument: A value is invalid, or the source is empty or cannot be pushed.
            Unavailable: The registry did not respond for `stall_timeout`. The upload is kept.
            OSError: The source cannot be read. What a file object raises is raised as it is.

        >>> model = reg.push("next.onnx", name="vad", version="7.0", metrics={"f1": 0.93}, tags={"team": "audio"})
        >>> model.reference, model.artifact.size_bytes, model.metrics["f1"]
        ('vad:7.0', 1, 0.93)
        >>> folder = reg.push("detector", name="detector", version="1", progress=False)
        >>> folder.artifact.kind
        'folder'
        >>> reg.push("next.onnx", name="vad", version="7.0", if_exists="return").created
        False
        """
        if if_exists not in ("error", "return"):
            raise InvalidArgument(f'if_exists: must be "error" or "return", not {if_exists!r}.')
        model = model_pb2.Model(name=_arguments.text(name, "name"), version=_arguments.text(version, "version"))
        fill(model, {key: value for key, value in metadata.items() if value is not None}, others=_KEYWORDS)
        file_name = None if file_name is None else _arguments.text(file_name, "file_name")
        media_type = None if media_type is None else _arguments.text(media_type, "media_type")
        if provenance is not None:
            model.provenance.CopyFrom(self._provenance_message(provenance))
        if warning := confusion(name, version):
            logger.warning(warning)
        opening = Opening(source)
        try:
            content = Content(runtime.run_blocking(opening.open))
            artifact = model_service_pb2.ArtifactSpec(
                file_name=_arguments.text(content.source.file_name, "file_name") if file_name is None else file_name,
                media_type=media_type or "",
                size_bytes=content.size_bytes,
            )
            if content.source.is_folder:
                artifact.kind = model_pb2.Artifact.KIND_FOLDER
            spec = model_service_pb2.ModelSpec(model=model, artifact=artifact)
            with Progress(progress, description=f"{name}:{version}", total=content.size_bytes) as shown:
                operation = PushOperation(self._connection, content, spec, shown, may_return=if_exists == "return")
                return operation.run()
        finally:
            runtime.run_blocking(opening.close)

    def uploads(self) -> Listing[Upload]:
        """Return the uploads that the caller began and did not complete, the newest first.

        Without authentication, those of all callers.
        """

        def fetch(token: str, page_size: int) -> Page:
            request = upload_service_pb2.ListUploadsRequest(page_size=page_size, page_token=token)
            response = self._connection.unary(methods.LIST_UPLOADS, request)
            return response.uploads, response.next_page_token

        return Listing(fetch, convert.upload, of="uploads")

    def cancel_upload(self, upload: Upload | str) -> None:
        """Delete an upload and its bytes.

        Args:
            upload: The upload or its id.

        Raises:
            NotFound: There is no such upload.
            PreconditionFailed: The upload is completed.
        """
        upload_id = upload.id if isinstance(upload, Upload) else _arguments.text(upload, "upload")
        request = upload_service_pb2.CancelUploadRequest(upload_id=upload_id, idempotency_key=new_idempotency_key())
        self._connection.unary(methods.CANCEL_UPLOAD, request)
        runtime.run_blocking(forget_upload, upload_id)
