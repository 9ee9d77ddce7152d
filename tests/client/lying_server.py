"""A registry that was taken over: it has one model, and sends what it was told to."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any

import grpc
from modelreg._wire import methods
from modelreg._wire.methods import Method
from modelregistry.v1 import artifact_service_pb2, model_pb2, model_service_pb2

_PIECE_BYTES = 1 << 16


class LyingServer(grpc.GenericRpcHandler):
    """A server of one model. A context manager.

    Args:
        data: The artifact, whose size and SHA-256 the model has.
        artifact: Other fields of the artifact.
    """

    def __init__(self, data: bytes, **artifact: Any) -> None:
        fields = {
            "file_name": "m.onnx",
            "size_bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            **artifact,
        }
        self.model = model_pb2.Model(id="m" * 32, name="m", version="1", artifact=model_pb2.Artifact(**fields))
        self.described = self.model.artifact
        """What a download begins with."""
        self.data = data
        self.pieces: Iterable[bytes] | None = None
        """What a download sends. None: the artifact from the offset on."""
        self.send = threading.Event()
        """Not set: downloads send nothing yet."""
        self.send.set()
        self.files: dict[str, tuple[bytes, int]] = {}
        """The files inside the artifact, with their CRC-32, by their paths."""
        self.resolved = 0
        """The number of references that were resolved."""
        self.file_downloads = 0
        """The number of downloads of files inside the artifact."""
        self.downloads: list[int] = []
        """The offset of each download."""

    def __enter__(self) -> "LyingServer":
        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[self])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"grpc://127.0.0.1:{self.port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        unary, streams = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers: list[tuple[Method[Any, Any], Callable[..., Any], Callable[[Any], Any]]] = [
            (methods.RESOLVE_MODEL, unary, self._resolve),
            (methods.LIST_ARTIFACT_FILES, unary, lambda _: self._list()),
            (methods.DOWNLOAD_ARTIFACT, streams, self._download),
            (methods.DOWNLOAD_ARTIFACT_FILE, streams, self._download_file),
        ]
        for method, handler, function in handlers:
            if method.full_path == handler_call_details.method:
                return handler(
                    lambda request, _, function=function: function(request),
                    request_deserializer=method.request.FromString,
                    response_serializer=method.response.SerializeToString,
                )
        return None

    def _resolve(self, _: object) -> model_service_pb2.ResolveModelResponse:
        self.resolved += 1
        return model_service_pb2.ResolveModelResponse(model=self.model)

    def _download(
        self, request: artifact_service_pb2.DownloadArtifactRequest
    ) -> Iterator[artifact_service_pb2.DownloadArtifactResponse]:
        self.downloads.append(request.read_offset)
        yield artifact_service_pb2.DownloadArtifactResponse(artifact=self.described)
        self.send.wait(30)
        data = self.data[request.read_offset :]
        honest = (data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES))
        for piece in honest if self.pieces is None else self.pieces:
            yield artifact_service_pb2.DownloadArtifactResponse(chunk=piece)

    def _list(self) -> artifact_service_pb2.ListArtifactFilesResponse:
        return artifact_service_pb2.ListArtifactFilesResponse(artifact_files=map(self._file, self.files))

    def _download_file(
        self, request: artifact_service_pb2.DownloadArtifactFileRequest
    ) -> Iterator[artifact_service_pb2.DownloadArtifactFileResponse]:
        self.file_downloads += 1
        yield artifact_service_pb2.DownloadArtifactFileResponse(file=self._file(request.path))
        data = self.files[request.path][0][request.read_offset :]
        yield artifact_service_pb2.DownloadArtifactFileResponse(chunk=data)

    def _file(self, path: str) -> artifact_service_pb2.ArtifactFile:
        data, crc32 = self.files[path]
        return artifact_service_pb2.ArtifactFile(path=path, size_bytes=len(data), crc32=crc32)
