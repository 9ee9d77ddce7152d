"""Uploads and downloads of artifacts, compared with the same bytes without the registry.

The reference is what a client would do without the registry: with S3, put and get
the object with the SDK on the same MinIO; embedded, copy the file with SHA-256 and
fsync. A second reference sends the same chunks through plain gRPC.

The written bytes of an operation are removed before the next one begins. So each
operation writes new bytes, and all use recently freed memory: on a virtual machine,
pages that the host has yet to provide cost more than anything else, and an operation
that overwrites its last file would need none.
"""

import hashlib
import http.client
import os
import queue
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from minio import Minio
from modelregistry.v1 import artifact_service_pb2, model_service_pb2

from benchmarks.memory import PeakMemory
from benchmarks.results import Result
from tests.products import Product
from tests.stub_client import registration, spec, writes

MIB = 2**20
_MEMORY_GOAL = 250.0
_BOUNDARY = "9f1c27b0a6d34e5b8c21f07d6a93e4c5"
"""A multipart boundary of the length that clients use (urllib3)."""
_OBJECT = ("baseline", "object")
"""Bucket and key."""

Removal = Callable[[], object]
"""Removes the written bytes of an operation."""


class Transfers:
    """All transfers of one file to and from one product."""

    def __init__(self, product: Product, path: Path, folder: Path, minio: Minio | None) -> None:
        self._product = product
        self._path = path
        self._received = folder / "received"
        self._copy = folder / "copy"
        self._minio = minio
        self._number = 0
        self._model_id = ""
        """The id of the last registered model."""
        self.size = path.stat().st_size

    def results(self) -> Iterator[Result]:
        """Measure everything in turns, so that disturbances affect all operations."""
        up = {
            "RegisterModel": self._register,
            "resumable upload": self._upload,
            "POST /models": self._post,
        }
        down = {"DownloadArtifact": self._download, "GET /models/{id}/files": self._get}
        with PeakMemory(self._product) as memory:
            up_seconds = self._typical({"baseline": self._put_without_us, **up})
            remove_ours, remove_without_us = self._register(), self._put_without_us()
            down_seconds = self._typical({"baseline": self._get_without_us, **down})
            remove_ours()
            remove_without_us()
        with empty_stream(MIB) as (send, receive):
            stream = self._typical({"up": lambda: send(self._chunks()), "down": lambda: receive(self.size)})
        kind, size = self._product.kind, f"{self.size // MIB} MiB"
        instead = "the SDK alone" if self._minio else "a copy with SHA-256 and fsync"
        for direction, found in (("up", up_seconds), ("down", down_seconds)):
            for name, seconds in found.items():
                if name != "baseline":
                    yield Result.of(
                        f"{name}, {size}, {kind}",
                        found["baseline"] / seconds,
                        f"bytes per second, ours to those of {instead}",
                        at_least=0.7,
                        mib_per_s=self.size / MIB / seconds,
                        baseline_mib_per_s=self.size / MIB / found["baseline"],
                        ratio_to_an_empty_stream=stream[direction] / seconds,
                    )
        for name, peak in memory.peaks().items():
            yield Result.of(
                f"peak memory of {name}, {size}, {kind}",
                peak / MIB / _MEMORY_GOAL,
                f"peak resident memory to {_MEMORY_GOAL:g} MiB",
                at_most=1,
                mib=peak / MIB,
            )

    def _typical(self, operations: Mapping[str, Callable[[], Removal | None]]) -> dict[str, float]:
        """Run all operations in turns, and return the median of each one's seconds.

        Not the best, which would favor the operation with more variation.
        """
        seconds: dict[str, list[float]] = {name: [] for name in operations}
        for _ in range(5 if self.size < 512 * MIB else 3):
            for name, operation in operations.items():
                started = time.perf_counter()
                remove = operation()
                seconds[name].append(time.perf_counter() - started)
                if remove:
                    remove()
        return {name: statistics.median(all_) for name, all_ in seconds.items()}

    def _chunks(self) -> Iterator[bytes]:
        with self._path.open("rb", buffering=0) as file:
            while chunk := file.read(MIB):
                yield chunk

    def _new_version(self) -> str:
        self._number += 1
        return f"{self._path.name}-{self._number}"

    def _register(self) -> Removal:
        wanted = spec(name="transfer", version=self._new_version(), artifact={"media_type": "application/octet-stream"})
        model = self._product.client.models.RegisterModel(registration(wanted, self._chunks())).model
        self._model_id = model.id
        return self._removal_of(model.id)

    def _upload(self) -> Removal:
        client = self._product.client
        upload = client.create_upload(name="transfer", version=self._new_version())
        client.uploads.WriteUpload(writes(upload.id, 0, self._chunks()))
        return self._removal_of(client.complete_upload(upload.id).id)

    def _removal_of(self, model_id: str) -> Removal:
        request = model_service_pb2.DeleteModelRequest(model_id=model_id)
        return lambda: self._product.client.models.DeleteModel(request)

    def _post(self) -> Removal:
        head = "".join(
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in (("name", "transfer"), ("version", self._new_version()))
        ) + (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="model.zip"\r\n'
            "Content-Type: application/zip\r\n\r\n"
        )
        tail = f"\r\n--{_BOUNDARY}--\r\n"
        connection = http.client.HTTPConnection("127.0.0.1", self._product.rest_port, timeout=600)
        connection.putrequest("POST", "/models")
        connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
        connection.putheader("Content-Length", str(len(head) + self.size + len(tail)))
        connection.endheaders(head.encode())
        with self._path.open("rb") as file:
            connection.sock.sendfile(file)
        connection.send(tail.encode())
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 201:
            raise RuntimeError(f"{answer.status} {said!r}")
        connection.close()
        return self._removal_of(said.decode())

    def _download(self) -> Removal:
        request = artifact_service_pb2.DownloadArtifactRequest(model_id=self._model_id)
        self._receive(message.chunk for message in self._product.client.artifacts.DownloadArtifact(request))
        return self._received.unlink

    def _get(self) -> Removal:
        connection = http.client.HTTPConnection("127.0.0.1", self._product.rest_port, timeout=600)
        connection.request("GET", f"/models/{self._model_id}/files")
        answer = connection.getresponse()
        self._receive(iter(lambda: answer.read(MIB), b""))
        connection.close()
        return self._received.unlink

    def _receive(self, pieces: Iterator[bytes]) -> None:
        """Download over the network: one thread writes the bytes that another receives, like downloaders do."""
        waiting: queue.Queue[bytes | None] = queue.Queue(8)
        with futures.ThreadPoolExecutor(1) as writer:
            written = writer.submit(self._write, iter(waiting.get, None), self._received)
            try:
                for piece in pieces:
                    waiting.put(piece)
            finally:
                waiting.put(None)
            written.result()

    def _write(self, pieces: Iterable[bytes], path: Path) -> None:
        """Write into a file; embedded, with SHA-256 and fsync, like the copy."""
        digest = None if self._minio else hashlib.sha256()
        size = 0
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                if digest is not None:
                    digest.update(piece)
                size += file.write(piece)
            if digest is not None:
                os.fsync(file)
        if size != self.size:
            raise RuntimeError(f"{size} bytes came, not {self.size}")

    def _put_without_us(self) -> Removal:
        if self._minio is None:
            self._write(self._chunks(), self._copy)
            return self._copy.unlink
        minio = self._minio
        minio.fput_object(*_OBJECT, str(self._path))
        return lambda: minio.remove_object(*_OBJECT)

    def _get_without_us(self) -> Removal:
        if self._minio is None:
            self._write(self._chunks(), self._received)
        else:
            self._minio.fget_object(*_OBJECT, str(self._received))
        return self._received.unlink


@contextmanager
def empty_stream(chunk: int) -> Iterator[tuple[Callable[[Iterator[bytes]], Any], Callable[[int], Any]]]:
    """Run a gRPC server that ignores bytes, and yield a call that sends some and one that receives a number of them."""

    def swallow(requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        for _request in requests:
            pass
        return b""

    def give(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        piece = bytes(chunk)
        for _number in range(int(request) // chunk):
            yield piece

    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Up": grpc.stream_unary_rpc_method_handler(swallow),
        "Down": grpc.unary_stream_rpc_method_handler(give),
    }
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Empty", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        up: Any = channel.stream_unary("/Empty/Up")
        down: Any = channel.unary_stream("/Empty/Down")

        def receive(size: int) -> None:
            for _piece in down(str(size).encode()):
                pass

        yield up, receive
    server.stop(None)
