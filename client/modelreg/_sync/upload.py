# Generated from modelreg/_async by `make generate`. Do not edit.
"""One push: the calls that send an artifact, whatever happens to connections, servers and this process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Generic

import grpc
from google.protobuf.message import Message
from modelregistry.v1 import model_service_pb2, upload_pb2, upload_service_pb2

from modelreg._pushes.content import Content
from modelreg._pushes.upload_records import SavedUpload, UploadRecord, open_record
from modelreg._sync import runtime
from modelreg._sync.connection import STALLED, Connection, failure_of_stream, new_idempotency_key
from modelreg._wire import convert, methods
from modelreg._wire.chunks import ChunkMessages, chunk_message
from modelreg._wire.methods import Method, Response
from modelreg._wire.retries import MAX_ATTEMPTS, Retries
from modelreg._wire.rpc_errors import Failure
from modelreg.errors import (
    AlreadyExists,
    IntegrityError,
    InvalidArgument,
    NotFound,
    RegistryError,
    SourceChanged,
)
from modelreg.models import Model
from modelreg.progress import Progress

SINGLE_CALL_BYTES = 4 * 1024 * 1024
"""Up to this size, an artifact is sent in one call instead of an upload.

Measured on loopback, a push of 64 KiB takes 0.4 of the time of an upload, and one of 4 MiB 0.6. What a dropped
connection loses stays small.
"""
_COMPLETION_SECONDS = 600.0
_COMPLETION_BYTES_PER_SECOND = 10_000_000
"""A registry that restarted reads the upload again, to hash it."""
_CANCEL_SECONDS = 5.0
_CHUNK_FIELD = model_service_pb2.RegisterModelRequest.CHUNK_FIELD_NUMBER
_DATA_FIELD = upload_service_pb2.WriteUploadRequest.DATA_FIELD_NUMBER
# With these codes, a stream was ended by its transport, a server that stops, or a writer of the same upload.
_ENDED = {
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
# After these errors, the upload can never be completed.
_FINAL = (AlreadyExists, IntegrityError, InvalidArgument, NotFound, SourceChanged)


class PushOperation:
    """One push.

    Args:
        connection: The registry.
        content: The artifact.
        spec: What to register.
        progress: What shows the progress.
        may_return: Whether a model that exists with the same bytes is a success.
    """

    def __init__(
        self,
        connection: Connection,
        content: Content,
        spec: model_service_pb2.ModelSpec,
        progress: Progress,
        *,
        may_return: bool,
    ) -> None:
        self._connection = connection
        self._content = content
        self._spec = spec
        self._progress = progress
        self._may_return = may_return
        self._upload_id = ""
        self._committed = 0

    def run(self) -> Model:
        """Register the model."""
        chunks = runtime.run_blocking(self._content.beginning, SINGLE_CALL_BYTES)
        if chunks == []:
            raise InvalidArgument("source: is empty. A model needs at least one byte.")
        try:
            return self._upload() if chunks is None else self._register(chunks)
        except AlreadyExists as error:
            if not self._may_return:
                raise
            return self._existing(error)

    def _existing(self, error: AlreadyExists) -> Model:
        """Return the model that exists, or raise the error if it has other bytes."""
        model_id = error.metadata.get("model_id", "")
        if not model_id:
            raise error
        request = model_service_pb2.GetModelRequest(model_id=model_id)
        try:
            found = convert.model(self._connection.unary(methods.GET_MODEL, request), created=False)
        except NotFound:
            # Deleted meanwhile, or of a project that the caller may not read.
            raise error from None
        size = self._content.size_bytes
        sha256 = ""
        if size is None or size == found.artifact.size_bytes:
            sha256 = runtime.run_blocking(self._content.sha256)
        if sha256 != found.artifact.sha256:
            own = f"the SHA-256 {sha256}" if sha256 else f"{size} bytes"
            other = f"the SHA-256 {found.artifact.sha256}" if sha256 else f"{found.artifact.size_bytes}"
            raise AlreadyExists(
                f"{found.reference} exists with other bytes: the source has {own}, and the model {other}.",
                hint="Choose another version.",
                reason=error.reason,
                request_id=error.request_id,
                metadata=error.metadata,
            )
        return found

    # ---- one call --------------------------------------------------------------

    def _register(self, chunks: list[bytes]) -> Model:
        """Register a small artifact with one call, which is repeated as a whole."""
        self._spec.artifact.sha256 = runtime.run_blocking(self._content.sha256)
        size = self._spec.artifact.size_bytes = sum(map(len, chunks))
        key = new_idempotency_key()
        messages: list[Message | bytes] = [
            model_service_pb2.RegisterModelRequest(spec=self._spec, idempotency_key=key),
            *(chunk_message(_CHUNK_FIELD, chunk) for chunk in chunks),
        ]

        def write(stream: runtime.RequestStream[model_service_pb2.RegisterModelResponse]) -> None:
            for message in messages:
                if not stream.send(message):
                    return

        calls = _Stream(self._connection, methods.REGISTER_MODEL, MAX_ATTEMPTS)
        while True:
            response = calls.attempt(write)
            if response is not None:
                self._progress.update(size, size)
                return convert.model(response.model)

    # ---- an upload -------------------------------------------------------------

    def _upload(self) -> Model:
        """Register an artifact with an upload, and keep what is needed to continue it."""
        model = self._spec.model
        identity = {
            "project": [model.project_id, model.project_name],
            "name": model.name,
            "version": model.version,
            "precisions": sorted(model.precisions),
        }
        url = self._connection.options.endpoint.url
        record = runtime.run_blocking(open_record, url, identity, self._content.source.identity)
        try:
            return self._recorded_upload(record, url)
        except BaseException as error:
            self._after(error, record)
            raise
        finally:
            runtime.run_blocking(record.close)

    def _recorded_upload(self, record: UploadRecord, url: str) -> Model:
        digest = hashlib.sha256(self._spec.SerializeToString(deterministic=True)).hexdigest()
        saved = runtime.run_blocking(record.load)
        identity = self._content.source.identity or {}
        if saved is not None and (saved.url, saved.spec_digest, dict(saved.source)) != (url, digest, dict(identity)):
            # The source or the metadata is another one now, so the upload is of no use.
            self._cancel(saved.upload_id)
            saved = None
        upload: upload_pb2.Upload | None = None
        if saved is not None and saved.upload_id:
            upload = self._find(saved.upload_id)
        if upload is None:
            if saved is None or saved.upload_id:
                saved = SavedUpload(url=url, spec_digest=digest, source=identity, idempotency_key=new_idempotency_key())
                # Before the upload exists: an interrupted call is repeated with the same key.
                runtime.run_blocking(record.save, saved)
            upload = self._create(saved.idempotency_key)
            saved = replace(saved, upload_id=upload.id)
            runtime.run_blocking(record.save, saved)
        assert saved is not None  # noqa: S101 - one of the branches above set it
        self._upload_id = upload.id
        self._send(upload)
        model = self._complete(saved.idempotency_key)
        runtime.run_blocking(record.remove)
        return model

    def _after(self, error: BaseException, record: UploadRecord) -> None:
        """Keep the upload after an error if it can be continued, and say so; else delete it."""
        if not self._upload_id:
            return
        if isinstance(error, _FINAL) or (isinstance(error, Exception) and not record.is_kept):
            runtime.run_blocking(record.remove)
            self._cancel(self._upload_id)
        elif record.is_kept:
            _say_how_to_go_on(error, self._upload_id)

    def _create(self, key: str) -> upload_pb2.Upload:
        request = upload_service_pb2.CreateUploadRequest(upload=upload_pb2.Upload(spec=self._spec), idempotency_key=key)
        return self._connection.unary(methods.CREATE_UPLOAD, request)

    def _find(self, upload_id: str) -> upload_pb2.Upload | None:
        """Return an upload, or None if it is gone."""
        request = upload_service_pb2.GetUploadRequest(upload_id=upload_id)
        try:
            return self._connection.unary(methods.GET_UPLOAD, request)
        except NotFound:
            return None

    def _send(self, upload: upload_pb2.Upload) -> None:
        """Send the content from where the registry has it, until it has all of it."""
        content = self._content
        calls = _Stream(self._connection, methods.WRITE_UPLOAD, max_attempts=None)
        write = partial(self._write, ChunkMessages(_DATA_FIELD))
        while upload.state == upload_pb2.Upload.STATE_ACTIVE:
            if upload.committed_size > self._committed:
                calls.note_progress()
            self._committed = upload.committed_size
            runtime.run_blocking(content.source.forget, self._committed)
            size = content.size_bytes
            if size is not None and self._committed >= size:
                if self._committed > size:
                    raise SourceChanged(
                        f"The upload has {self._committed} bytes, but the source only {size}. Push it again."
                    )
                return
            runtime.run_blocking(content.seek, self._committed)
            response = calls.attempt(write)
            upload = response.upload if response is not None else self._current()

    def _current(self) -> upload_pb2.Upload:
        """Return the upload as it is after a failed attempt."""
        options = self._connection.options
        return self._connection.unary(
            methods.GET_UPLOAD,
            upload_service_pb2.GetUploadRequest(upload_id=self._upload_id),
            retries=Retries(options.stall_timeout, max_attempts=None),
            # The server or the network may be silent rather than gone.
            attempt_timeout=min(options.timeout, options.stall_timeout / 2),
        )

    def _write(
        self, messages: ChunkMessages, stream: runtime.RequestStream[upload_service_pb2.WriteUploadResponse]
    ) -> None:
        """Send chunks until the content, the segment or the call ends."""
        content, segment = self._content, self._content.source.segment_bytes
        start = content.position
        self._progress.update(start)
        first = upload_service_pb2.WriteUploadRequest(upload_id=self._upload_id, write_offset=start)
        if not stream.send(first):
            return
        while message := runtime.run_blocking(content.message, messages):
            if not stream.send(message):
                return
            self._progress.update(content.position)
            if segment is not None and content.position - start >= segment:
                return

    def _complete(self, key: str) -> Model:
        sha256 = runtime.run_blocking(self._content.sha256)
        size = self._content.size_bytes or 0
        request = upload_service_pb2.CompleteUploadRequest(
            upload_id=self._upload_id, sha256=sha256, idempotency_key=key
        )
        retries = Retries(
            _COMPLETION_SECONDS + size / _COMPLETION_BYTES_PER_SECOND,
            max_attempts=None,
            failing_seconds=self._connection.options.stall_timeout,
        )
        response = self._connection.unary(methods.COMPLETE_UPLOAD, request, retries=retries)
        model = convert.model(response.model)
        if model.artifact.sha256 != sha256:
            # Completed earlier, with the bytes that the source had then.
            raise SourceChanged(
                f"{model.reference} was registered by the push that this one continues, and the source was changed "
                "since. Push it again as another version."
            )
        self._progress.update(size, size)
        return model

    def _cancel(self, upload_id: str) -> None:
        """Delete an upload that is of no use. If that fails, the registry deletes it some day."""
        if not upload_id:
            return
        request = upload_service_pb2.CancelUploadRequest(upload_id=upload_id)
        with suppress(RegistryError):
            self._connection.unary(methods.CANCEL_UPLOAD, request, retries=Retries(_CANCEL_SECONDS, 1))


class _Stream(Generic[Response]):
    """The attempts of one stream of requests.

    Args:
        connection: The registry.
        method: The method.
        max_attempts: The number of attempts without progress, all within the stall timeout. None: no limit, as a
            registry that restarts refuses connections at once.
    """

    def __init__(self, connection: Connection, method: Method[Any, Response], max_attempts: int | None) -> None:
        self._connection = connection
        self._method = method
        self._max_attempts = max_attempts
        self._retries: Retries | None = None
        self._refused_token: str | None = None

    def note_progress(self) -> None:
        """Count the attempts from the start again."""
        self._retries = None
        self._refused_token = None

    def attempt(self, write: Callable[[runtime.RequestStream[Response]], None]) -> Response | None:
        """Make one attempt, and after a failure that may pass, wait until the next one.

        Args:
            write: Sends the messages.

        Returns:
            The response, or None after a failure.

        Raises:
            RegistryError: There is no next attempt.
        """
        begin = time.monotonic()
        token, channel = self._connection.token(), self._connection.channel()
        with self._connection.requests(self._method, token=token) as stream:
            try:
                write(stream)
                return stream.response()
            except (runtime.RpcError, runtime.StalledError) as error:
                failure = failure_of_stream(error)
        if failure is STALLED:
            self._connection.replace(channel)
        if self._connection.may_sign_in_again(failure, token, self._refused_token):
            self._refused_token = token
            return None
        if failure.reason == "UPLOAD_NOT_ACTIVE":
            return None
        stall_timeout = self._connection.options.stall_timeout
        if self._retries is None or time.monotonic() - begin > stall_timeout:
            # From the first failure on. An attempt that took longer made progress.
            self._retries = Retries(stall_timeout, self._max_attempts)
        self._connection.pause_or_raise(failure, self._retries, self._method, is_transient=_is_transient(failure))
        return None


def _is_transient(failure: Failure) -> bool:
    """Tell whether a stream that failed may be repeated."""
    if failure.code == grpc.StatusCode.OUT_OF_RANGE:
        # An earlier attempt committed more bytes while this one began.
        return "committed_size" in failure.metadata
    return failure.is_transient or (failure.code in _ENDED and not failure.is_hopeless)


def _say_how_to_go_on(error: BaseException, upload_id: str) -> None:
    """Add to an error or an interruption that the upload is kept."""
    text = (
        f"The registry keeps what it has of the upload {upload_id}. The same push continues it; "
        f"`mreg uploads cancel {upload_id}` deletes it."
    )
    if isinstance(error, RegistryError):
        error.hint = f"{error.hint} {text}".lstrip()
        error.metadata["upload_id"] = upload_id
        error.args = (f"{error.message} {error.hint}",)
    elif isinstance(error, KeyboardInterrupt) and not error.args:
        error.args = (text,)
