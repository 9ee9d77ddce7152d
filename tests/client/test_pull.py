"""Pulling artifacts that are files."""

import errno
import hashlib
import os
import random
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from modelreg import IntegrityError, NotCached, NotFound, Registry

from tests.registry import RunningRegistry

PIECE = 1 << 20


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_pull_returns_the_cached_file_read_only_under_its_digest(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    data = noise(3 * PIECE + 17)
    server.client.register(data, name=name, version="1.0", artifact={"file_name": "vad.onnx"})

    path = registry.pull(f"{name}:1.0")

    assert path.read_bytes() == data
    assert path == registry.cache.directory / "artifacts" / hashlib.sha256(data).hexdigest() / "vad.onnx"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert not list((registry.cache.directory / "downloads").iterdir())


def test_a_second_pull_downloads_nothing(server: RunningRegistry, registry: Registry, name: str) -> None:
    model = server.client.register(noise(PIECE), name=name, version="1.0")
    path = registry.pull(name)
    # Were it downloaded, it would be another file.
    before = path.stat()

    for reference in (name, f"{name}:1.0", model.id):
        assert registry.pull(reference) == path

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_models_with_the_same_bytes_share_them_under_both_file_names(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    data = noise(1000)
    server.client.register(data, name=name, version="1.0", artifact={"file_name": "a.onnx"})
    server.client.register(data, name=name, version="2.0", artifact={"file_name": "b.onnx"})

    first, second = registry.pull(f"{name}:1.0"), registry.pull(f"{name}:2.0")

    assert (first.name, second.name) == ("a.onnx", "b.onnx")
    assert first.parent == second.parent
    assert first.read_bytes() == second.read_bytes() == data
    assert registry.pull(f"{name}:1.0") == first


def test_progress_ends_at_the_total(server: RunningRegistry, registry: Registry, name: str) -> None:
    data = noise(2 * PIECE + 1)
    server.client.register(data, name=name, version="1.0")
    calls: list[tuple[int, int | None]] = []

    registry.pull(name, progress=lambda done, total: calls.append((done, total)))
    registry.pull(name, progress=lambda done, total: calls.append((-done, total)))

    assert calls[0][0] == 0
    assert (len(data), len(data)) in calls
    assert calls[-1] == (-len(data), len(data))


def test_a_missing_model_is_not_found_and_leaves_nothing(registry: Registry, name: str) -> None:
    with pytest.raises(NotFound):
        registry.pull(name)

    assert not registry.cache.directory.exists()


def test_an_offline_pull_returns_what_the_reference_last_meant(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    first = server.client.register(b"one", name=name, version="1.0")
    server.client.set_alias(first.id, model_group_id=first.model_group_id)
    path = registry.pull(f"{name}@production")
    second = server.client.register(b"two", name=name, version="2.0")
    server.client.set_alias(second.id, model_group_id=first.model_group_id)

    assert registry.pull(f"{name}@production", offline=True) == path
    assert registry.pull(f"{name}@production").read_bytes() == b"two"
    assert registry.pull(f"{name}@production", offline=True).read_bytes() == b"two"


def test_an_offline_pull_needs_no_registry(server: RunningRegistry, registry: Registry, name: str, url: str) -> None:
    server.client.register(b"one", name=name, version="1.0")
    path = registry.pull(name)
    resolutions = list((registry.cache.directory / "resolutions").rglob("*.json"))

    # Another registry can have other models of the same names.
    with Registry("grpc://127.0.0.1:1") as other, pytest.raises(NotCached):
        other.pull(name, offline=True)

    assert resolutions
    assert registry.pull(registry.model(name), offline=True) == path


def test_offline_without_the_bytes_is_not_cached(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"one", name=name, version="1.0")
    with pytest.raises(NotCached, match="was not pulled"):
        registry.pull(name, offline=True)
    registry.pull(name)
    registry.cache.prune(max_bytes=0)

    with pytest.raises(NotCached, match="not in the cache") as caught:
        registry.pull(name, offline=True)

    assert isinstance(caught.value, FileNotFoundError)


def test_a_file_lands_in_a_new_folder_and_replaces_an_old_one(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
) -> None:
    server.client.register(b"one", name=name, version="1.0", artifact={"file_name": "m.onnx"})
    server.client.register(b"two", name=name, version="2.0", artifact={"file_name": "m.onnx"})
    folder = tmp_path / "new/models"

    first = registry.pull(f"{name}:1.0", to=folder)
    assert (first, first.read_bytes()) == (folder / "m.onnx", b"one")
    first.write_bytes(b"xxx")  # as an editor would: the file belongs to the user
    assert registry.pull(f"{name}:1.0", to=folder).read_bytes() == b"one"
    assert registry.pull(f"{name}:2.0", to=str(folder)).read_bytes() == b"two"

    assert [path.name for path in folder.iterdir()] == ["m.onnx"]
    assert not (registry.cache.directory / "artifacts").exists()


@pytest.mark.parametrize("file_name", ["\u6a21" * 85, "\U0001f600" * 63, "\xe9" * 127, "a" * 255])
def test_a_file_with_the_longest_name_lands_in_a_folder(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path, file_name: str
) -> None:
    server.client.register(b"one", name=name, version="1.0", artifact={"file_name": file_name})

    downloaded = registry.pull(name, to=tmp_path / "downloaded")
    cached = registry.pull(name)
    copied = registry.pull(name, to=tmp_path / "copied", offline=True)

    assert [path.name for path in (downloaded, cached, copied)] == [file_name] * 3
    assert [path.read_bytes() for path in (downloaded, cached, copied)] == [b"one"] * 3


def test_a_file_in_the_cache_is_copied_to_the_folder(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
) -> None:
    server.client.register(b"one", name=name, version="1.0", artifact={"file_name": "m.onnx"})
    cached = registry.pull(name)

    landed = registry.pull(name, to=tmp_path / "models", offline=True)

    assert landed.read_bytes() == b"one"
    assert landed.stat().st_ino != cached.stat().st_ino
    assert os.access(landed, os.W_OK)


def test_a_changed_cached_file_is_downloaded_again(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"one", name=name, version="1.0")
    path = registry.pull(name)
    path.chmod(0o644)
    path.write_bytes(b"two")

    with pytest.raises(NotCached):
        registry.pull(name, offline=True)
    assert registry.pull(name).read_bytes() == b"one"


def test_verify_finds_damage_that_left_size_and_time(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"one", name=name, version="1.0")
    path = registry.pull(name)
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert registry.pull(name).read_bytes() == b"two"
    assert registry.pull(name, verify=True).read_bytes() == b"one"


def test_a_copy_of_the_cache_with_other_times_is_served(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"one", name=name, version="1.0")
    path = registry.pull(name)
    os.utime(path, (1, 1))
    inode = path.stat().st_ino

    assert registry.pull(name).stat().st_ino == inode


def test_damage_in_the_registry_raises_and_leaves_nothing(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
) -> None:
    data = noise(2 * PIECE)
    server.client.register(data, name=name, version="1.0")
    stored = next(path for path in server.objects() if path.stat().st_size == len(data))
    stored.chmod(0o644)
    with stored.open("r+b") as file:
        file.seek(PIECE)
        file.write(b"damaged")

    for target in (None, tmp_path / "to"):
        with pytest.raises(IntegrityError):
            registry.pull(name, to=target)

    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    assert not left


_CACHED_PULL = """
import sys
from modelreg import Registry
registry = Registry(sys.argv[1])
registry.pull(sys.argv[2], progress=True)
print("tqdm" in sys.modules)
"""


def test_a_pull_from_the_cache_imports_no_bar(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(noise(3 * PIECE), name=name, version="1.0")

    found = [
        subprocess.run(
            [sys.executable, "-c", _CACHED_PULL, registry.url, name], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    ]

    assert found == ["True", "False"]


def test_what_does_not_fit_on_the_disk_leaves_nothing(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client.register(b"one", name=name, version="1.0")

    def fail(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("modelreg._pulls.resolutions.replace", fail)
    registry.pull(name)
    assert not list((registry.cache.directory / "downloads").iterdir())
    registry.cache.prune(max_bytes=0)

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10, used=9, free=1))
    for to in (None, tmp_path / "to"):
        with pytest.raises(OSError, match=r"Not enough space: 3 B are needed, and 1 B are free. `mreg cache prune`"):
            registry.pull(name, to=to)
    assert not list((tmp_path / "to").iterdir())
