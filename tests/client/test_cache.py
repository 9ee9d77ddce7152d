"""The cache of pulled artifacts: its limit, what it deletes and keeps, and caches that cannot be written."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from modelreg import Cache, InvalidArgument, Model, NotCached, Registry
from modelreg._pulls.cache_entries import Slot
from modelreg._pulls.local_names import local_file_name
from modelreg._sizes import format_size, parse_size

from tests.client.lying_server import LyingServer
from tests.client.test_pull_folders import zipped
from tests.registry import RunningRegistry

SIZE = 10_000
HOUR = 3600


@pytest.fixture
def models(server: RunningRegistry, registry: Registry, name: str) -> list[Model]:
    """Three models of 10,000 bytes each."""
    for number in (1, 2, 3):
        data = f"{name} {number} ".encode().ljust(SIZE, b".")
        server.client.register(data, name=name, version=f"{number}.0", artifact={"file_name": "m.onnx"})
    return [registry.model(f"{name}:{number}.0") for number in (1, 2, 3)]


def slot_of(cache: Cache, model: Model) -> Slot:
    return cache.slot("artifacts", model.artifact.sha256)


def pull_long_ago(registry: Registry, models: list[Model]) -> None:
    """Pull models, the first one the longest time ago."""
    for age, model in enumerate(reversed(models), 2):
        registry.pull(model)
        when = time.time() - age * HOUR
        os.utime(slot_of(registry.cache, model).record_path, (when, when))


def are_cached(registry: Registry, models: list[Model]) -> list[bool]:
    def is_cached(model: Model) -> bool:
        try:
            return registry.pull(model, offline=True).stat().st_size == SIZE
        except NotCached:
            return False

    return [is_cached(model) for model in models]


def test_usage_lists_what_is_there_the_least_recently_used_first(registry: Registry, models: list[Model]) -> None:
    pull_long_ago(registry, models)
    registry.pull(models[0])

    usage = registry.cache.usage()

    assert usage.size_bytes == 3 * SIZE
    assert [entry.sha256 for entry in usage.entries] == [models[place].artifact.sha256 for place in (1, 2, 0)]
    assert {(entry.kind, entry.size_bytes, entry.path.name) for entry in usage.entries} == {("file", SIZE, "m.onnx")}
    assert usage.max_bytes
    assert usage.directory == registry.cache.directory


def test_prune_deletes_the_least_recently_used_until_the_limit(registry: Registry, models: list[Model]) -> None:
    pull_long_ago(registry, models)
    registry.pull(models[0])

    removed = registry.cache.prune(max_bytes="25kB")

    assert [entry.sha256 for entry in removed] == [models[1].artifact.sha256]
    assert are_cached(registry, models) == [True, False, True]
    registry.cache.prune(max_bytes=0)
    assert are_cached(registry, models) == [False] * 3
    assert registry.cache.usage().entries == ()
    assert not [path for path in registry.cache.directory.rglob("*") if path.suffix == ".onnx"]


def test_prune_without_a_limit_keeps_to_that_of_the_cache(registry: Registry, models: list[Model]) -> None:
    pull_long_ago(registry, models)

    assert registry.cache.prune() == []
    assert len(Cache(max_bytes=SIZE).prune()) == 2
    assert are_cached(registry, models) == [False, False, True]


def test_a_pull_that_downloads_deletes_what_is_too_much_and_old(
    registry: Registry, models: list[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREG_CACHE_MAX_BYTES", "15 kB")
    pull_long_ago(registry, models[:2])
    with Registry(registry.url) as limited:
        limited.pull(models[2])
    assert are_cached(registry, models) == [False, False, True]

    # What was used just now may be about to be opened, so the limit has to wait.
    registry.pull(models[0])
    registry.pull(models[1])
    assert are_cached(registry, models) == [True, True, True]


def test_what_another_one_is_pulling_is_kept(registry: Registry, models: list[Model]) -> None:
    pull_long_ago(registry, models)
    lock = slot_of(registry.cache, models[0]).lock()
    assert lock.acquire()

    registry.cache.prune(max_bytes=0)
    assert are_cached(registry, models) == [True, False, False]

    lock.release()
    registry.cache.prune(max_bytes=0)
    assert are_cached(registry, models) == [False, False, False]


def test_downloads_that_were_abandoned_a_day_ago_are_deleted(registry: Registry, models: list[Model]) -> None:
    registry.pull(models[0])
    downloads = registry.cache.directory / "downloads"
    for name in (f"artifacts-{'0' * 64}.part", "private-123.part"):
        for age in (0, 2):
            path = downloads / (name if age else name.replace("0", "1").replace("23", "24"))
            path.write_bytes(b"half")
            os.utime(path, (time.time() - age * 24 * HOUR,) * 2)
    orphan = slot_of(registry.cache, models[1]).directory
    orphan.mkdir()
    (orphan / "m.onnx").write_bytes(b"without a record")

    removed = registry.cache.prune()

    assert sorted(entry.path.name for entry in removed) == [f"artifacts-{'0' * 64}.part", "private-123.part"]
    assert {entry.kind for entry in registry.cache.usage().entries} == {"file", "partial"}
    registry.cache.prune(max_bytes=0)
    assert [path.name for path in downloads.iterdir()] == ["private-124.part"]  # its process may still run
    assert not orphan.exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 2}', b'{"version": 1, "files": 3}'])
def test_a_damaged_record_is_no_hit(registry: Registry, models: list[Model], content: bytes) -> None:
    registry.pull(models[0])
    slot_of(registry.cache, models[0]).record_path.write_bytes(content)

    assert are_cached(registry, models[:1]) == [False]
    assert registry.pull(models[0]).stat().st_size == SIZE
    assert are_cached(registry, models[:1]) == [True]


def test_a_pull_keeps_what_it_just_made_whatever_the_limit(
    registry: Registry, models: list[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREG_CACHE_MAX_BYTES", "1")

    with Registry(registry.url) as limited:
        assert limited.pull(models[0]).stat().st_size == SIZE


@pytest.mark.parametrize("limit", ["much", "-1", "1 XB", "1e9", "GB"])
def test_a_limit_that_is_no_size_is_refused_with_its_name(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("MODELREG_CACHE_MAX_BYTES", limit)

    with pytest.raises(InvalidArgument, match=r"MODELREG_CACHE_MAX_BYTES.*50GB"):
        _ = registry.cache


def test_a_cache_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELREG_CACHE_MAX_BYTES", "none")

    assert Cache().max_bytes is None
    assert Cache(max_bytes="2 GiB").max_bytes == 2**31


@pytest.mark.parametrize(
    ("text", "size"),
    [(0, 0), ("17", 17), ("17 B", 17), ("50GB", 50 * 10**9), ("1.5 kB", 1500), ("2GiB", 2**31), (" 3 tb ", 3 * 10**12)],
)
def test_sizes_are_read_as_people_write_them(text: int | str, size: int) -> None:
    assert parse_size(text, "limit") == size


@pytest.mark.parametrize("size", [float("nan"), float("inf"), b"1"])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"max_bytes: .* is no size"):
        Cache(max_bytes=0).prune(max_bytes=size)


def test_sizes_are_written_for_people() -> None:
    assert [format_size(size) for size in (999, 1500, 2 * 10**9)] == ["999 B", "1.5 kB", "2.0 GB"]


@pytest.mark.parametrize(
    ("name", "on_windows"),
    [("m.onnx", "m.onnx"), ("a:b?.onnx", "a_b_.onnx"), ("con.txt", "con_.txt"), ("LPT1", "LPT1_"), ("m. ", "m._")],
)
def test_names_that_windows_forbids_are_replaced_there(name: str, on_windows: str) -> None:
    assert local_file_name(name, is_windows=True) == on_windows
    assert local_file_name(name, is_windows=False) == name


# ---- other processes ------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


_OTHER_USER = 65_534
_PULL = """
import os, sys
url, cache, user = sys.argv[1:]
import filelock  # the other user may not be able to import modules
from modelreg import Registry
"".encode("cp437")
if int(user):
    os.setgroups([]), os.setgid(int(user)), os.setuid(int(user))
os.environ["MODELREG_CACHE"] = cache
registry = Registry(url)
print(registry.pull("m"))
print(registry.pull("m", verify=True))
try:
    registry.pull("m", files=["*.txt"])
except PermissionError as error:
    print("PermissionError")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not read-only there")
def test_a_cache_that_cannot_be_written_serves_what_it_has(elsewhere: Path) -> None:
    with LyingServer(zipped({"labels.txt": b"cat"})) as server:
        os.environ["MODELREG_CACHE"] = str(elsewhere / "cache")
        try:
            with Registry(server.url) as registry:
                path = registry.pull("m")
        finally:
            del os.environ["MODELREG_CACHE"]
        for folder in [elsewhere / "cache", *(elsewhere / "cache").rglob("*")]:
            folder.chmod(0o555 if folder.is_dir() else 0o444)

        # Root may write everywhere.
        user = 0 if os.geteuid() else _OTHER_USER
        found = subprocess.run(
            [sys.executable, "-c", _PULL, server.url, elsewhere / "cache", str(user)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert found.stdout.split() == [str(path), str(path), "PermissionError"], found.stderr
    assert len(server.downloads) == 1


_MEASURED_PULL = """
import re, sys
from pathlib import Path
from modelreg import Registry
registry = Registry(sys.argv[1])
model = registry.model("m")
def peak():
    return int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) * 1024
before = peak()
path = registry.pull(model)
assert path.stat().st_size == model.artifact.size_bytes
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_the_memory_of_a_pull_does_not_grow_with_the_artifact() -> None:
    piece, count = bytes(range(256)) * 4096, 256
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(piece)
    with LyingServer(b"", size_bytes=count * len(piece), sha256=digest.hexdigest()) as server:
        server.pieces = (piece for _ in range(count))

        found = subprocess.run(
            [sys.executable, "-c", _MEASURED_PULL, server.url], capture_output=True, text=True, check=True
        )

    assert int(found.stdout) < 64 * 2**20
