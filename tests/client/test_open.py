"""Reading artifacts, and files inside them, where they are."""

import asyncio
import hashlib
import io
import random
import zipfile

import grpc
import modelreg
import pytest
from modelreg import InvalidArgument, NotFound, PreconditionFailed, Registry
from modelreg._wire import methods as rpc
from modelregistry.v1 import artifact_service_pb2, model_pb2, model_service_pb2

from tests.client.fake_server import FakeServer, refusal
from tests.registry import RunningRegistry

MIB = 1 << 20


def noise(size: int) -> bytes:
    return random.Random(0).randbytes(size)


def packed(**files: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        writer.writestr("folder/", b"")
        for name, data in files.items():
            writer.writestr(f"folder/{name}", data)
    return archive.getvalue()


def test_an_artifact_is_read_like_a_file(server: RunningRegistry, registry: Registry, name: str) -> None:
    data = noise(5 * MIB + 3)
    server.client.register(data, name=name, version="1.0")
    random_places = random.Random(1)

    with registry.open(name) as file:
        assert (file.read(10), file.tell()) == (data[:10], 10)
        for _ in range(50):
            place, size = random_places.randrange(len(data)), random_places.randrange(2 * MIB)
            assert file.seek(place) == place
            assert file.read(size) == data[place : place + size]
        assert file.seek(-4, io.SEEK_END) == len(data) - 4
        assert file.read() == data[-4:]
        assert file.read(1) == b""
        file.seek(0)
        assert file.read() == data
    assert file.closed


def test_lines_of_a_file_inside_a_zip_are_read(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(packed(labels=b"cat\ndog\n", other=noise(1000)), name=name, version="1.0")

    with registry.open(name, file="folder/labels") as file:
        assert list(io.TextIOWrapper(file)) == ["cat\n", "dog\n"]


def test_what_is_open_stays_the_model_that_the_reference_named(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    data = noise(3 * MIB)
    first = server.client.register(data, name=name, version="1.0")
    server.client.set_alias(first.id, model_group_id=first.model_group_id)

    with registry.open(f"{name}@production") as file:
        assert file.read(4) == data[:4]
        second = server.client.register(b"other", name=name, version="2.0")
        server.client.set_alias(second.id, model_group_id=first.model_group_id)
        file.seek(2 * MIB)
        assert file.read() == data[2 * MIB :]


def test_reads_go_on_after_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelreg._wire.retries._FIRST_SECONDS", 0.01)
    monkeypatch.setattr("modelreg._wire.retries._MAX_SECONDS", 0.01)
    data = noise(1000)
    artifact = model_pb2.Artifact(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    found = model_service_pb2.ResolveModelResponse(model=model_pb2.Model(name="vad", version="1", artifact=artifact))
    with FakeServer() as fake, Registry(fake.url) as registry:
        fake.answer(rpc.RESOLVE_MODEL, found)
        head = artifact_service_pb2.DownloadArtifactResponse(artifact=artifact)
        away = refusal(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        whole = [head, artifact_service_pb2.DownloadArtifactResponse(chunk=data)]
        fake.answer(rpc.DOWNLOAD_ARTIFACT, *[away] * 20, whole, stream=True)

        with registry.open("vad") as file:
            assert file.read() == data


def test_a_missing_file_is_not_found_when_it_is_opened(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(packed(labels=b"cat"), name=name, version="1.0")

    with pytest.raises(NotFound):
        registry.open(name, file="labels")


def test_a_path_that_cannot_be_sent_is_named(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(packed(a=b"1"), name=name)

    with pytest.raises(InvalidArgument, match=r"file: .* has lone surrogates"):
        registry.open(name, file="\ud800")


def test_a_zip_is_read_with_zipfile_where_it_is(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(packed(weights=noise(2 * MIB), labels=b"cat"), name=name, version="1.0")

    with registry.open(name) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("folder/labels") == b"cat"
        assert archive.testzip() is None


def test_the_files_of_a_zip_are_listed_without_its_folders(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    server.client.register(packed(weights=noise(100), labels=b"cat"), name=name, version="1.0")

    files = registry.files(name).to_list()

    assert [(file.path, file.size_bytes) for file in files] == [("folder/weights", 100), ("folder/labels", 3)]


def test_an_artifact_without_files_says_so(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"no zip", name=name, version="1.0")

    with pytest.raises(PreconditionFailed):
        registry.files(name).to_list()
    with pytest.raises(PreconditionFailed):
        registry.open(name, file="labels")


def test_the_registry_verifies_what_it_stores(server: RunningRegistry, registry: Registry, name: str) -> None:
    data = noise(MIB + 4321)
    server.client.register(data, name=name, version="1.0")
    done: list[int] = []

    intact = registry.verify(name, progress=lambda bytes_done, _: done.append(bytes_done))
    stored = next(path for path in server.objects() if path.stat().st_size == len(data))
    stored.chmod(0o644)
    stored.write_bytes(b"damaged")
    damaged = registry.verify(name)

    assert (intact.intact, intact.actual_size_bytes) == (True, len(data))
    assert intact.verify_time is not None
    assert done
    assert (damaged.intact, damaged.actual_size_bytes) == (False, 7)


def test_the_same_works_with_asyncio(server: RunningRegistry, url: str, name: str) -> None:
    data = packed(weights=noise(2 * MIB), labels=b"cat\ndog\n")
    server.client.register(data, name=name, version="1.0")

    async def use() -> None:
        async with modelreg.aio.Registry(url) as registry:
            path = await registry.pull(name)
            assert path.read_bytes() == data
            assert await registry.pull(name, offline=True) == path
            async with await registry.open(name, file="folder/labels") as labels:
                assert await labels.seek(4) == 4
                assert await labels.read() == b"dog\n"
            async with await registry.open(name) as file:
                assert await file.read() == data
            assert len(await registry.files(name).to_list()) == 2
            assert (await registry.verify(name)).intact

    asyncio.run(use())
