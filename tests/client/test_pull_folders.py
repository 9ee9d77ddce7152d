"""Pulling folders, and some files of an artifact."""

import asyncio
import io
import os
import stat
import zipfile
from pathlib import Path

import modelreg
import pytest
from modelreg import InvalidArgument, NotCached, NotFound, PreconditionFailed, Registry

from tests.registry import RunningRegistry

FILES = {
    "model.xml": b"<net/>",
    "model.bin": bytes(range(256)) * 5000,
    "labels/de.txt": b"Katze\n",
    "labels/en.txt": b"cat\n",
}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def make(folder: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def zipped(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as writer:
        for path, data in files.items():
            writer.writestr(path, data)
    return archive.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make(tmp_path / "detector", FILES)


@pytest.fixture
def pushed(registry: Registry, name: str, source: Path) -> modelreg.Model:
    """A model with the folder of `FILES`."""
    return registry.push(source, name=name, version="1.0")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target/here"


def test_a_folder_is_unpacked_in_the_cache_and_its_zip_is_not_kept(registry: Registry, pushed: modelreg.Model) -> None:
    path = registry.pull(pushed)

    assert tree(path) == FILES
    assert path == registry.cache.directory / "folders" / pushed.artifact.sha256 / "detector"
    assert not os.access(path / "model.xml", os.W_OK) or os.geteuid() == 0
    assert (path / "model.xml").stat().st_mode & 0o777 == 0o444
    assert not list((registry.cache.directory / "downloads").iterdir())
    assert registry.pull(pushed.reference) == path
    assert registry.pull(pushed.reference, offline=True) == path


def test_a_file_that_is_missing_in_a_cached_folder_is_made_again(registry: Registry, pushed: modelreg.Model) -> None:
    path = registry.pull(pushed)
    (path / "labels/en.txt").unlink()

    with pytest.raises(NotCached):
        registry.pull(pushed, offline=True)
    assert tree(registry.pull(pushed)) == FILES


@pytest.mark.parametrize("offline", [False, True])
def test_files_that_are_not_of_the_model_do_not_stay_in_a_cached_folder(
    registry: Registry, pushed: modelreg.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture, offline: bool
) -> None:
    path = registry.pull(pushed)
    before = (path / "model.bin").stat().st_ino
    make(path, {"evil.py": b"import os", "labels/new/fr.txt": b"chat"})
    (path / "link").symlink_to(make(tmp_path / "other", {"mine.txt": b"mine"}))

    assert registry.pull(pushed, offline=offline) == path

    assert tree(path) == FILES
    assert not (path / "link").is_symlink()
    assert tree(tmp_path / "other") == {"mine.txt": b"mine"}
    # Nothing was downloaded or copied for that.
    assert (path / "model.bin").stat().st_ino == before
    assert "3 files that are not in the model" in caplog.text


def test_a_cached_folder_with_foreign_files_that_stay_is_made_again(
    registry: Registry, pushed: modelreg.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(registry.pull(pushed), {"evil.py": b"import os"})
    monkeypatch.setattr("modelreg._pulls.cache_entries.remove_path", lambda _: False)

    assert tree(registry.pull(pushed)) == FILES


def test_nothing_is_pulled_into_the_cache_itself(registry: Registry, pushed: modelreg.Model) -> None:
    path = registry.pull(pushed)

    for inside in (path / "sub", registry.cache.directory, path.parent / "other/../sub"):
        for more in ({}, {"files": "*.xml"}, {"overwrite": True}):
            with pytest.raises(InvalidArgument, match=r"to: .* is in the cache"):
                registry.pull(pushed, to=inside, **more)

    assert tree(registry.pull(pushed)) == FILES


def test_verify_finds_damage_in_a_cached_folder(registry: Registry, pushed: modelreg.Model) -> None:
    path = registry.pull(pushed) / "labels/en.txt"
    times = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"dog\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert tree(registry.pull(pushed, verify=True)) == FILES


def test_a_folder_becomes_the_folder_of_the_caller(registry: Registry, pushed: modelreg.Model, target: Path) -> None:
    assert registry.pull(pushed, to=target) == target

    assert tree(target) == FILES
    assert list(target.parent.iterdir()) == [target]
    assert not (registry.cache.directory / "folders").exists()
    # It is there already, so nothing is to be overwritten.
    assert registry.pull(pushed, to=target) == target
    (target / "model.xml").write_bytes(b"<NET/>")
    with pytest.raises(FileExistsError):
        registry.pull(pushed, to=target)


def test_a_cached_folder_is_copied_without_the_registry(
    registry: Registry, pushed: modelreg.Model, target: Path
) -> None:
    cached = registry.pull(pushed)

    registry.pull(pushed, to=target, offline=True)

    assert tree(target) == FILES
    (target / "model.xml").write_bytes(b"mine")
    assert (cached / "model.xml").read_bytes() == FILES["model.xml"]


def test_other_files_in_the_folder_are_kept_unless_overwrite_is_set(
    registry: Registry, pushed: modelreg.Model, target: Path
) -> None:
    make(target, {"mine.txt": b"mine", "labels": b"a file, where the model has a folder"})

    with pytest.raises(FileExistsError):
        registry.pull(pushed, to=target)
    assert tree(target)["mine.txt"] == b"mine"
    registry.pull(pushed, to=target, overwrite=True)

    assert tree(target) == FILES
    assert list(target.parent.iterdir()) == [target]


def test_the_current_directory_stays_the_same_folder(
    registry: Registry, pushed: modelreg.Model, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.mkdir(parents=True)
    inode = target.stat().st_ino
    monkeypatch.chdir(target)

    registry.pull(pushed, to=".")
    Path("mine.txt").write_bytes(b"mine")
    registry.pull(pushed, to=".", overwrite=True)

    assert tree(target) == FILES
    assert sorted(found.name for found in target.iterdir()) == ["labels", "model.bin", "model.xml"]
    assert target.stat().st_ino == inode


def test_overwrite_refuses_folders_that_nobody_means(
    registry: Registry, pushed: modelreg.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home/me"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))

    for folder in ("/", home, home.parent):
        with pytest.raises(InvalidArgument, match="would lose everything"):
            registry.pull(pushed, to=folder, overwrite=True)


def test_some_files_are_pulled_without_the_others(registry: Registry, pushed: modelreg.Model) -> None:
    done: list[tuple[int, int | None]] = []

    path = registry.pull(pushed, files=["*.xml", "labels/*"], progress=lambda *now: done.append(now))

    expected = {inside: data for inside, data in FILES.items() if inside != "model.bin"}
    assert tree(path) == expected
    assert done[-1] == (sum(map(len, expected.values())),) * 2
    # Not the whole model.
    assert tree(registry.pull(pushed)) == FILES
    assert registry.pull(pushed, files=["labels/*", "*.xml"], offline=True) == path


def test_some_files_of_a_cached_folder_need_no_registry(registry: Registry, pushed: modelreg.Model) -> None:
    registry.pull(pushed)

    assert tree(registry.pull(pushed, files="**/en.txt", offline=True)) == {"labels/en.txt": b"cat\n"}
    with pytest.raises(NotFound):
        registry.pull(pushed, files="*.pt", offline=True)


def test_some_files_of_any_zip_are_pulled(server: RunningRegistry, registry: Registry, name: str, target: Path) -> None:
    server.client.register(zipped(FILES), name=name, version="1.0", artifact={"file_name": "pack.zip"})

    assert tree(registry.pull(name, files="labels/en.txt")) == {"labels/en.txt": b"cat\n"}
    assert registry.pull(name).name == "pack.zip"
    assert tree(registry.pull(name, files="labels/de.txt", offline=True)) == {"labels/de.txt": b"Katze\n"}
    registry.cache.prune(max_bytes=0)
    assert registry.pull(name, files="model.*", to=target) == target
    assert set(tree(target)) == {"model.xml", "model.bin"}


def test_an_artifact_without_files_has_none_to_choose(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.register(b"no zip", name=name, version="1.0")

    with pytest.raises(PreconditionFailed):
        registry.pull(name, files="labels.txt")
    registry.pull(name)
    for offline in (False, True):
        with pytest.raises(PreconditionFailed):
            registry.pull(name, files="labels.txt", offline=offline)


def test_some_files_land_beside_others(registry: Registry, pushed: modelreg.Model, target: Path) -> None:
    make(target, {"mine.txt": b"mine", "labels/en.txt": b"old"})

    registry.pull(pushed, files=["labels/*.txt"], to=target)
    registry.pull(pushed, files=["model.xml"])
    registry.pull(pushed, files=["model.xml"], to=target, offline=True)

    expected = {inside: data for inside, data in FILES.items() if inside != "model.bin"}
    assert tree(target) == {"mine.txt": b"mine", **expected}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_some_files_of_what_is_cached_land_without_a_write_to_the_cache(
    server: RunningRegistry, registry: Registry, pushed: modelreg.Model, name: str, target: Path, kind: str
) -> None:
    if kind == "zip":
        server.client.register(zipped(FILES), name=name, version="2.0")
    reference = pushed.reference if kind == "folder" else f"{name}:2.0"
    registry.pull(reference)
    registry.pull(reference, to=target / "first", files="labels/*")  # makes the folder of the locks
    before = sorted(registry.cache.directory.rglob("*"))
    make(target, {"mine.txt": b"mine"})

    assert registry.pull(reference, files=["labels/*", "*.xml"], to=target, offline=True) == target

    labels = {"labels/de.txt": FILES["labels/de.txt"], "labels/en.txt": FILES["labels/en.txt"]}
    first = {f"first/{path}": data for path, data in labels.items()}
    assert tree(target) == {"mine.txt": b"mine", "model.xml": FILES["model.xml"], **labels, **first}
    assert sorted(registry.cache.directory.rglob("*")) == before
    # They belong to the caller: a change of them must not change the cache.
    (target / "model.xml").write_bytes(b"changed")
    assert registry.pull(reference, verify=True, offline=True).exists()
    with pytest.raises(NotFound, match="matches no file"):
        registry.pull(reference, files="*.txt", to=target, offline=True)


@pytest.mark.parametrize("to", [False, True])
def test_a_pattern_without_a_match_raises_and_leaves_nothing(
    registry: Registry, pushed: modelreg.Model, target: Path, to: bool
) -> None:
    with pytest.raises(NotFound, match=r"'\*\.txt' matches no file"):
        registry.pull(pushed, files=["model.xml", "*.txt"], to=target if to else None)

    assert not target.exists() or not tree(target)
    assert not (registry.cache.directory / "selections").exists()


def test_a_folder_with_the_longest_name_is_filled(registry: Registry, pushed: modelreg.Model, tmp_path: Path) -> None:
    for folder in (tmp_path / ("\u6a21" * 85), tmp_path / ("\U0001f600" * 63)):
        assert tree(registry.pull(pushed, to=folder)) == FILES


def test_a_file_in_place_of_the_target_is_named(
    server: RunningRegistry, registry: Registry, pushed: modelreg.Model, name: str, target: Path
) -> None:
    file = server.client.register(b"one", name=name, version="2.0")
    make(target.parent, {target.name: b"mine"})

    for cached in (False, True):
        if cached:
            registry.pull(pushed)
            registry.pull(f"{name}:2.0")
        for model, files in ((pushed.reference, None), (pushed.reference, "*.xml"), (file.id, None)):
            with pytest.raises(NotADirectoryError, match="A file has the name of the folder") as raised:
                registry.pull(model, to=target, files=files)
            assert raised.value.filename == str(target)
    assert target.read_bytes() == b"mine"


def test_the_same_works_with_asyncio(registry: Registry, pushed: modelreg.Model, url: str, target: Path) -> None:
    async def use() -> None:
        async with modelreg.aio.Registry(url) as aio:
            assert tree(await aio.pull(pushed, to=target)) == FILES
            assert tree(await aio.pull(pushed, files="*.xml")) == {"model.xml": FILES["model.xml"]}
            assert tree(await aio.pull(pushed.reference)) == FILES

    asyncio.run(use())
    assert tree(registry.pull(pushed.reference, offline=True)) == FILES


@pytest.mark.parametrize("other", ["fifo", "device"])
def test_what_is_no_file_is_not_taken_for_an_empty_one(
    registry: Registry, name: str, tmp_path: Path, other: str
) -> None:
    target = make(tmp_path / "to", {"full": b"full"})
    source = make(tmp_path / "source", {"empty": b"", "full": b"full"})
    pushed = registry.push(source, name=name, version="1.0")
    if other == "fifo":
        os.mkfifo(target / "empty")
    else:
        (target / "empty").symlink_to(os.devnull)

    with pytest.raises(FileExistsError):
        registry.pull(pushed, to=target)
    registry.pull(pushed, to=target, files="*")

    assert (target / "empty").lstat().st_size == 0
    assert stat.S_ISREG((target / "empty").lstat().st_mode)


def test_many_files_that_are_there_are_not_compared_with_one_another(
    registry: Registry, pushed: modelreg.Model, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.pull(pushed, files="**", to=target)

    def compare(*_: object) -> bool:
        raise AssertionError("for each file with each other one")

    monkeypatch.setattr(modelreg.ArtifactFile, "__eq__", compare)
    registry.pull(pushed, files="**", to=target)
    (target / "model.xml").unlink()
    registry.pull(pushed, files="**", to=target)

    assert tree(target) == FILES
