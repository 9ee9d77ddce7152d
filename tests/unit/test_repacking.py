"""Repacking the ZIPs of Geti under one folder, without unsafe members."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from registry_service.domain.errors import ArtifactTooLargeError, GetiDeploymentError, RegistryError
from registry_service.domain.object_keys import new_object_key
from registry_service.services.archives import open_archive
from registry_service.services.repacking import folder_name, repacked
from registry_service.storage.artifacts.local import LocalArtifactStore
from tests.stub_client import zip_of


def repack(folder: Path, data: bytes, name: str = "folder", max_bytes: int = 10_000_000) -> zipfile.ZipFile:
    store = LocalArtifactStore(folder)
    key = new_object_key()
    store.put(key, data)
    with open_archive(store, key, len(data), directory_max_bytes=1_000_000) as archive:
        return zipfile.ZipFile(io.BytesIO(b"".join(repacked(archive, name, max_bytes=max_bytes))))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Cattle Detection v1.2", "cattle-detection-v12"),
        ("Weld Defects (Line 2)", "weld-defects-(line-2)"),
        ("...", "project"),
        ("../../etc/passwd", "--etc-passwd"),
        ("a\\b/c\x00d\n", "a-b-c-d-"),
        ("C: models", "c--models"),
        ("v1:final", "v1:final"),
        ("Ä Ü", "ä-ü"),
        ("é" * 300, "é" * 125),
    ],
)
def test_a_folder_is_named_after_the_project(name: str, expected: str) -> None:
    assert folder_name(name) == expected
    assert len(f"{expected}.zip".encode()) <= 255


def test_everything_is_under_one_folder_and_each_folder_has_an_entry(tmp_path: Path) -> None:
    members = {
        "README.md": b"text",
        "deployment/a/model.bin": bytes(3_000_000),
        "deployment/b/": b"",
        "deployment/z": b"",
    }
    archive = repack(tmp_path, zip_of(members), "cattle")
    assert archive.namelist() == [
        "cattle/",
        "cattle/README.md",
        "cattle/deployment/",
        "cattle/deployment/a/",
        "cattle/deployment/a/model.bin",
        "cattle/deployment/b/",
        "cattle/deployment/z",
    ]
    assert archive.testzip() is None
    assert archive.read("cattle/deployment/a/model.bin") == bytes(3_000_000)
    assert all(info.is_dir() == info.filename.endswith("/") for info in archive.infolist())


def test_a_link_becomes_a_plain_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    info = repack(tmp_path, buffer.getvalue()).getinfo("folder/link")
    assert stat.S_IFMT(info.external_attr >> 16) == stat.S_IFREG


@pytest.mark.parametrize(
    "name", ["../up", "a/../../up", "/absolute", "C:\\windows", "..\\up", "\\\\host\\share", "a\nb"]
)
def test_an_unsafe_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(GetiDeploymentError, match="unsafe name"):
        repack(tmp_path, zip_of({"good": b"1", name: b"2"}))


def test_members_that_are_too_large_unpacked_are_refused(tmp_path: Path) -> None:
    bomb = zip_of({f"{n}": bytes(1_000_000) for n in range(5)})
    assert len(bomb) < 10_000
    with pytest.raises(ArtifactTooLargeError):
        repack(tmp_path, bomb, max_bytes=4_999_999)
    repack(tmp_path, bomb, max_bytes=5_000_000)


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    for members in ({}, {"folder/": b""}):
        with pytest.raises(GetiDeploymentError, match="empty"):
            repack(tmp_path, zip_of(members))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model", "1")
        archive.writestr("model", "2")
    with pytest.raises(GetiDeploymentError, match="same name"):
        repack(tmp_path, buffer.getvalue())


def test_damage_is_refused(tmp_path: Path) -> None:
    data = bytearray(zip_of({"model": b"weights" * 1000}, zipfile.ZIP_STORED))
    data[1000] ^= 0xFF
    with pytest.raises(GetiDeploymentError):
        repack(tmp_path, bytes(data))


def test_an_unreadable_member_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        repack(tmp_path, zip_of({"model": b"weights"}, zipfile.ZIP_LZMA))
    assert isinstance(caught.value, GetiDeploymentError)
