"""Artifacts larger than the allowed memory, uploaded and downloaded over every API."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from modelregistry.v1 import artifact_service_pb2, upload_service_pb2

from registry_service.embedded.postgres import PostgresAddress
from tests.postgres_server import create_database, drop_database
from tests.products import Product, running_serve, running_up, s3_settings
from tests.s3_server import S3Server, minio_binary
from tests.stub_client import registration, spec, writes
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
SIZE = int(os.environ.get("LARGE_ARTIFACT_BYTES", 512 * MIB))
MOST_MEMORY = 200 * MIB
# moto takes 20 s of CPU time for each GiB, and HTTP/2 in httpx is slow. This exceeds the allowed memory, too.
SMALLER_SIZE = min(SIZE, 256 * MIB)
MORE_THAN_31_BITS = 2**31 + 7

# Gigabytes take long on a slow disk.
pytestmark = pytest.mark.timeout(1200)


class LargeArtifact:
    """Random bytes, generated while they are sent, with no two equal blocks. The digest is known afterwards."""

    def __init__(self, size: int) -> None:
        self._block = os.urandom(MIB)
        self.size = size
        self.sha256 = ""

    def chunks(self) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for start in range(0, self.size, MIB):
            chunk = self.chunk(start)
            digest.update(chunk)
            yield chunk
        self.sha256 = digest.hexdigest()

    def chunk(self, start: int) -> bytes:
        return (start.to_bytes(8, "big") + self._block[8:])[: self.size - start]


def digest_of(pieces: Iterable[bytes]) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for piece in pieces:
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


@pytest.fixture(params=["embedded", "s3"])
def fresh_product(request: pytest.FixtureRequest) -> Iterator[Product]:
    """A product for one test, so that its peak memory is caused by this test."""
    with ExitStack() as stack:
        folder = stack.enter_context(accessible_folder(on_disk=True))
        if request.param == "embedded":
            yield stack.enter_context(running_up(folder))
            return
        postgres: PostgresAddress = request.getfixturevalue("postgres")
        s3: S3Server = request.getfixturevalue("s3_server")
        create_database(postgres, "large", "template1")
        stack.callback(drop_database, postgres, "large")
        yield stack.enter_context(running_serve(folder, s3_settings(postgres, "large", s3, "large")))


@pytest.fixture
def size(fresh_product: Product) -> int:
    """The size of artifacts in bytes."""
    return SMALLER_SIZE if fresh_product.kind == "s3" and minio_binary() is None else SIZE


@contextmanager
def timed(product: Product, what: str, size: int) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    print(f"{product.kind}, {what}: {size / MIB / seconds:.0f} MiB/s")  # noqa: T201 (prints a measurement)


def assert_little_memory(product: Product) -> None:
    """Assert the limit for the processes of the server and of Envoy; Postgres does not count."""
    peaks = {f"{p.name()} {p.pid}": peak_memory(p) for p in product.processes() if p.name() != "postgres"}
    print(f"{product.kind}, peaks in MiB: { ({name: peak // MIB for name, peak in peaks.items()}) }")  # noqa: T201 (prints a measurement)
    # `up` has a supervisor, and a separate gateway has a parent process.
    assert len(peaks) == 3
    assert max(peaks.values()) < MOST_MEMORY


def peak_memory(process: psutil.Process) -> int:
    """Return the peak memory in bytes, or the present memory where the system has no peak."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except FileNotFoundError:
        return process.memory_info().rss


def test_a_large_artifact_is_uploaded_and_downloaded_over_grpc(fresh_product: Product, size: int) -> None:
    client, artifact = fresh_product.client, LargeArtifact(size)
    with timed(fresh_product, "RegisterModel", size):
        answer = client.models.RegisterModel(registration(spec(artifact={"size_bytes": size}), artifact.chunks()))
    assert (answer.model.artifact.size_bytes, answer.model.artifact.sha256) == (size, artifact.sha256)
    request = artifact_service_pb2.DownloadArtifactRequest(model_id=answer.model.id)
    with timed(fresh_product, "DownloadArtifact", size):
        received = digest_of(message.chunk for message in client.artifacts.DownloadArtifact(request))
    assert received == (size, artifact.sha256)
    with timed(fresh_product, "VerifyArtifact", size):
        assert client.verify(answer.model.id).intact
    client.delete(answer.model.id)
    assert_little_memory(fresh_product)


def test_a_large_upload_becomes_a_model(fresh_product: Product, size: int) -> None:
    if fresh_product.kind == "embedded":
        size = max(size, MORE_THAN_31_BITS)
    client, artifact = fresh_product.client, LargeArtifact(size)
    upload = client.create_upload(artifact={"size_bytes": size})
    with timed(fresh_product, "WriteUpload", size):
        written = client.uploads.WriteUpload(writes(upload.id, 0, artifact.chunks())).upload
    assert written.committed_size == size
    with timed(fresh_product, "CompleteUpload", size):
        completion = upload_service_pb2.CompleteUploadRequest(upload_id=upload.id, sha256=artifact.sha256)
        model = client.uploads.CompleteUpload(completion).model
    assert (model.artifact.size_bytes, model.artifact.sha256) == (size, artifact.sha256)
    end = artifact.chunk((size - 1) // MIB * MIB)
    assert client.download(model.id, read_offset=size - len(end)) == end
    url = f"{fresh_product.rest_url}/v1/models/{model.id}/artifact"
    assert httpx.get(url, headers={"range": f"bytes={size - len(end)}-"}).content == end
    client.delete(model.id)
    assert_little_memory(fresh_product)


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_a_large_artifact_is_uploaded_and_downloaded_over_http(fresh_product: Product, size: int, http2: bool) -> None:
    artifact = LargeArtifact(SMALLER_SIZE if http2 else size)
    with httpx.Client(
        base_url=fresh_product.rest_url, http1=not http2, http2=http2, timeout=600, trust_env=False
    ) as http:
        answer = http.post("/v1/uploads", json={"spec": {"model": {"name": "large", "version": "1"}}})
        path = f"/v1/uploads/{answer.json()['id']}"
        with timed(fresh_product, f"PUT {answer.http_version}", artifact.size):
            written = http.put(f"{path}/content", content=artifact.chunks())
        assert written.json()["upload"]["committed_size"] == str(artifact.size)
        with timed(fresh_product, "complete", artifact.size):
            completed = http.post(f"{path}:complete", json={"sha256": artifact.sha256})
        model = completed.json()["model"]
        path = f"/v1/models/{model['id']}/artifact"
        with timed(fresh_product, f"GET {answer.http_version}", artifact.size), http.stream("GET", path) as download:
            assert download.headers["content-length"] == str(artifact.size)
            received = digest_of(download.iter_raw())
        assert received == (artifact.size, artifact.sha256)
        assert http.delete(f"/v1/models/{model['id']}").status_code == 200
    assert_little_memory(fresh_product)
