"""A full disk: reads are served, writes are refused, and everything works again once there is space."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from google.rpc import error_details_pb2

from registry_service.domain.errors import StorageFullError
from registry_service.storage.artifacts.local import LocalArtifactStore
from tests.polling import eventually
from tests.products import Product, running_up
from tests.registry import StartRegistry
from tests.stub_client import refused
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
RESERVE = 32 * MIB
NEVER = 2**62
"""A reserve that no disk has."""


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A folder that is its own file system."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount one")
    with accessible_folder() as folder:
        disk = folder / "disk"
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=256m,mode=0711", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            pytest.skip("may not mount here")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, left: int) -> None:
    """Fill a disk up to this many free bytes."""
    status = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - left)


def refuses_writes_and_serves_the_rest(product: Product, kept: str) -> None:
    client = product.client
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL") as refusal:
        client.register(b"new", name="new")
    assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 30
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"):
        client.update(kept, score=2)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"):
        client.create_upload(name="new")
    answer = httpx.patch(f"{product.rest_url}/v1/models/{kept}?update_mask=score", json={"score": 2})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    assert "No space is left in the database" in answer.text
    files = {"file": ("model.zip", b"new", "application/zip")}
    answer = httpx.post(f"{product.rest_url}/models", files=files, data={"name": "new", "version": "1"})
    assert (answer.status_code, answer.headers["retry-after"]) == (507, "30"), answer.text
    assert client.download(kept) == b"kept"
    assert httpx.get(f"{product.rest_url}/ready").status_code == 200


def test_up_serves_reads_on_a_full_disk_and_recovers_by_itself(small_disk: Path) -> None:
    with running_up(small_disk, disk_reserve_bytes=RESERVE) as product:
        client = product.client
        kept, gone = client.register(b"kept", name="kept"), client.register(b"gone", name="gone")
        fill(small_disk, RESERVE - MIB)
        refuses_writes_and_serves_the_rest(product, kept.id)
        client.delete(gone.id)
        (small_disk / "filler").unlink()
        assert client.register(b"new", name="new").name == "new"

        # Other programs fill the disk to its last byte, and Postgres exits.
        fill(small_disk, 0)
        assert product.server.process is not None
        up = psutil.Process(product.server.process.pid)
        (postgres,) = [child for child in up.children() if child.name() == "postgres"]
        postgres.kill()
        eventually(lambda: "PostgreSQL exited with -9" in product.server.output(), what="the message")
        assert f"no space is left on the disk of {small_disk / 'data'}" in product.server.output()
        (small_disk / "filler").unlink()
        eventually(lambda: client.download(kept.id) == b"kept", what="an answer")
        eventually(lambda: client.register(b"newer", name="newer").name == "newer", what="a registration")
        assert "Traceback" not in product.server.output()


def test_a_start_on_a_full_disk_names_the_cause(small_disk: Path) -> None:
    fill(small_disk, MIB)
    with pytest.raises(pytest.fail.Exception, match=r"(?i)no space"), running_up(small_disk, "first"):
        pass


def test_up_warns_at_its_start_that_the_disk_is_full() -> None:
    with accessible_folder() as folder, running_up(folder, disk_reserve_bytes=NEVER) as product:
        eventually(lambda: "so every write is refused: " in product.server.output())
        assert "DISK_RESERVE_BYTES reserves" in product.server.output()


def test_a_write_into_the_reserve_is_refused_and_leaves_nothing(start_registry: StartRegistry) -> None:
    registry = start_registry()
    kept = registry.client.register(b"kept", name="kept")
    objects = registry.objects()
    full = start_registry(disk_reserve_bytes=NEVER, psql_data_dir=registry.artifact_dir)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL") as refusal:
        full.client.register(b"new", name="new")
    assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.seconds == 30
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"):
        full.client.update(kept.id, score=2)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "STORAGE_FULL"):
        full.client.create_upload(name="new")
    assert registry.objects() == objects
    assert registry.count("unreferenced_objects") == registry.count("uploads") == 0
    assert full.client.download(kept.id) == b"kept"
    full.client.delete(kept.id)
    assert full.client.names() == []


def test_a_store_without_space_reports_it_and_still_serves_reads(small_disk: Path) -> None:
    store = LocalArtifactStore(small_disk)
    store.put("kept", b"kept")
    fill(small_disk, 0)
    store.check()
    with pytest.raises(StorageFullError, match="No space is left in the artifact folder"):
        store.put("new", bytes(MIB))
    with pytest.raises(StorageFullError):
        store.write("new", iter([bytes(MIB)] * 9))
    assert b"".join(store.read("kept")) == b"kept"
    store.delete("kept")
