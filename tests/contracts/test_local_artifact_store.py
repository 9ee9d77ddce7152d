import os
import resource
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from registry_service.domain.artifact_store import ArtifactStore, Part
from registry_service.domain.errors import ArtifactLostError, ArtifactStoreUnavailableError, TooManyOpenFilesError
from registry_service.domain.object_keys import new_object_key
from registry_service.storage.artifacts.local import LocalArtifactStore
from tests.contracts.artifact_store import (
    ArtifactStoreContract,
    no_more_open_files,
    put_in_parts,
    read,
    some_bytes,
    write_parts,
)

# Writes for ever, and says so after every object and part; the test kills it.
WRITER = """
import pathlib, sys
from registry_service.storage.artifacts.local import LocalArtifactStore
store = LocalArtifactStore(pathlib.Path(sys.argv[1]))
handle = store.begin("artifacts/parts")
for number in range(1, 10_000):
    store.put("uploads/abandoned/tail", bytes([number % 256]) * 3_000_000)
    part = store.write_part("artifacts/parts", handle, number=number, offset=(number - 1) * store.part_size,
                            pieces=[bytes([number % 256]) * store.part_size])
    print(handle, part.number, part.offset, part.size, part.receipt, flush=True)
"""


def visible_files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """Makes the kernel refuse to let a file grow past so many bytes, much as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


class TestLocalArtifactStore(ArtifactStoreContract):
    __test__ = True

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path / "not made yet" / "artifacts"

    @pytest.fixture
    def store(self, root: Path) -> ArtifactStore:
        return LocalArtifactStore(root)

    def test_too_many_open_files_are_not_taken_for_a_store_that_is_away(self, store: ArtifactStore) -> None:
        key = new_object_key()
        store.put(key, b"abc")
        with no_more_open_files():
            with pytest.raises(TooManyOpenFilesError):
                store.put(new_object_key(), b"abc")
            with pytest.raises(TooManyOpenFilesError):
                list(store.read(key))
        assert b"".join(store.read(key)) == b"abc"

    @pytest.mark.usefixtures("store")
    def test_the_folder_is_made_for_its_owner_alone(self, root: Path) -> None:
        assert root.stat().st_mode & 0o777 == 0o700

    def test_an_object_is_a_file_at_its_key(self, store: ArtifactStore, root: Path) -> None:
        data = some_bytes(store.part_size + 5)
        put_in_parts(store, "artifacts/parts", data)
        store.put("uploads/some-upload-0001/tail", b"tail")
        assert visible_files(root) == ["artifacts/parts", "uploads/some-upload-0001/tail"]
        assert (root / "artifacts/parts").read_bytes() == data
        assert (root / "uploads/some-upload-0001/tail").read_bytes() == b"tail"

    def test_small_pieces_are_written_together(
        self, store: ArtifactStore, key: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = some_bytes(200_000)
        written: list[int] = []

        def pwritev(file: int, buffers: Sequence[memoryview], offset: int) -> int:
            written.append(sum(map(len, buffers)))
            return os_pwritev(file, buffers, offset)

        os_pwritev = os.pwritev
        monkeypatch.setattr(os, "pwritev", pwritev)
        store.write(key, [data[start : start + 100] for start in range(0, len(data), 100)])
        assert len(written) <= 4
        assert sum(written) == len(data)
        assert read(store, key) == data

    def test_a_new_process_finds_everything(self, store: ArtifactStore, root: Path, key: str) -> None:
        done = new_object_key()
        store.put(done, b"done")
        handle = store.begin(key)
        parts = write_parts(store, key, handle, b"data")
        again = LocalArtifactStore(root)
        assert read(again, done) == b"done"
        again.finish(key, handle, parts)
        assert read(again, key) == b"data"

    def test_a_process_that_is_killed_leaves_nothing_half_written(self, store: ArtifactStore, root: Path) -> None:
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as lines:
            said = [next(lines) for _ in range(3)]
            process.kill()
            said += list(lines)
        process.wait()

        visible = [name for name in visible_files(root) if not name.startswith(".partial/")]
        assert visible == ["uploads/abandoned/tail"]
        tail = read(store, "uploads/abandoned/tail")
        assert tail == tail[:1] * 3_000_000

        # What it said to have written is there; what it was at is not in the way.
        parts = []
        for line in said:
            if line.endswith("\n"):
                handle, number, offset, size, receipt = line.split()
                parts.append(Part(number=int(number), offset=int(offset), size=int(size), receipt=receipt))
        store.finish("artifacts/parts", handle, parts)
        assert read(store, "artifacts/parts") == b"".join(bytes([part.number % 256]) * part.size for part in parts)

        store.delete("artifacts/parts")
        store.delete("uploads/abandoned/tail")
        assert visible_files(root) == []

    def test_a_finish_that_died_after_the_rename_is_repeated(self, store: ArtifactStore, root: Path, key: str) -> None:
        handle = store.begin(key)
        parts = write_parts(store, key, handle, b"data")
        [construction] = (root / ".partial").glob("*.data")
        (root / key).parent.mkdir()
        construction.rename(root / key)
        store.finish(key, handle, parts)
        assert visible_files(root) == [key]

    def test_a_part_whose_write_died_is_a_loss(self, store: ArtifactStore, key: str) -> None:
        handle = store.begin(key)
        parts = write_parts(store, key, handle, some_bytes(store.part_size))
        # Large enough to get its bytes partly written, then no more: as a crash in the middle would.
        with file_size_limit(100), pytest.raises(ArtifactStoreUnavailableError):
            store.write_part(key, handle, number=1, offset=0, pieces=[some_bytes(store.part_size, seed=1)])
        with pytest.raises(ArtifactLostError):
            store.finish(key, handle, parts)

    def test_receipts_that_a_crash_of_the_machine_lost_are_not_needed(
        self, store: ArtifactStore, root: Path, key: str
    ) -> None:
        data = some_bytes(3 * store.part_size + 5)
        handle = store.begin(key)
        parts = write_parts(store, key, handle, data)
        [receipts] = (root / ".partial").glob("*.receipts")
        # Of the first the disk has nothing, of the third not even a hole.
        receipts.write_bytes(bytes(32) + receipts.read_bytes()[32:64])
        store.finish(key, handle, parts)
        assert read(store, key) == data

    def test_bytes_without_a_receipt_that_are_not_those_of_the_part_are_a_loss(
        self, store: ArtifactStore, root: Path, key: str
    ) -> None:
        handle = store.begin(key)
        parts = write_parts(store, key, handle, some_bytes(store.part_size))
        [receipts] = (root / ".partial").glob("*.receipts")
        [bytes_] = (root / ".partial").glob("*.data")
        receipts.write_bytes(b"")
        bytes_.write_bytes(some_bytes(store.part_size, seed=1))
        with pytest.raises(ArtifactLostError):
            store.finish(key, handle, parts)

    def test_a_write_that_finds_no_space_is_unavailable_and_leaves_nothing(
        self, store: ArtifactStore, root: Path, key: str
    ) -> None:
        store.put(key, b"old")
        with file_size_limit(100_000), pytest.raises(ArtifactStoreUnavailableError) as raised:
            store.put(key, some_bytes(200_000))
        assert isinstance(raised.value.__cause__, OSError)
        assert str(root) not in str(raised.value)
        assert visible_files(root) == [key]
        assert read(store, key) == b"old"

    def test_delete_leaves_no_file_and_no_empty_folder(self, store: ArtifactStore, root: Path) -> None:
        key = f"uploads/{uuid.uuid4()}/tail"
        store.put(key, b"tail")
        handle = store.begin(key)
        write_parts(store, key, handle, b"data")
        (root / ".partial" / f"{key.replace('/', '+')}~{'0' * 32}.put").write_bytes(b"of a process that died")
        store.delete(key)
        assert visible_files(root) == []
        assert list((root / "uploads").iterdir()) == []

    def test_pruning_spares_a_folder_that_is_written_into(self, store: ArtifactStore) -> None:
        # Two keys of one folder, so that the deletions of one keep taking the folder from under the other.
        done = threading.Event()

        def come_and_go() -> None:
            while not done.is_set():
                store.put("uploads/shared-upload-01/other", b"other")
                store.delete("uploads/shared-upload-01/other")

        thread = threading.Thread(target=come_and_go)
        thread.start()
        try:
            for _ in range(200):
                store.put("uploads/shared-upload-01/tail", b"tail")
                assert read(store, "uploads/shared-upload-01/tail") == b"tail"
                store.delete("uploads/shared-upload-01/tail")
        finally:
            done.set()
            thread.join()

    def test_a_handle_of_another_store_is_a_loss(self, store: ArtifactStore, key: str) -> None:
        for handle in ("", "../../outside", "an S3's upload id"):
            with pytest.raises(ArtifactLostError):
                store.write_part(key, handle, number=1, offset=0, pieces=[b"data"])

    def test_a_folder_that_is_away_is_not_a_loss(self, store: ArtifactStore, root: Path, key: str) -> None:
        store.put(key, b"data")
        handle = store.begin(key)
        parts = write_parts(store, key, handle, b"data")
        root.rename(root.with_name("elsewhere"))
        uses = (
            store.check,
            lambda: store.put(key, b"data"),
            lambda: store.begin(key),
            lambda: write_parts(store, key, handle, b"data"),
            lambda: store.finish(key, handle, parts),
            lambda: read(store, key),
            lambda: store.size(key),
            lambda: store.delete(key),
        )
        for use in uses:
            with pytest.raises(ArtifactStoreUnavailableError):
                use()
        root.with_name("elsewhere").rename(root)
        assert read(store, key) == b"data"

    def test_the_check_leaves_nothing_behind(self, store: ArtifactStore, root: Path) -> None:
        store.check()
        assert visible_files(root) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a folder that is read-only")
    def test_a_folder_that_is_read_only_fails_the_check(self, store: ArtifactStore, root: Path) -> None:
        (root / ".partial").chmod(0o500)
        try:
            with pytest.raises(ArtifactStoreUnavailableError):
                store.check()
        finally:
            (root / ".partial").chmod(0o700)
