"""What every adapter of the artifact store promises.

An adapter's test file derives from `ArtifactStoreContract`, supplies the
fixture `store`, and adds what only it promises.
"""

import hashlib
import itertools
import random
import resource
import threading
import tracemalloc
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from registry_service.domain.artifact_store import (
    CHUNK_SIZE,
    ArtifactStore,
    ListableArtifactStore,
    Part,
    Pieces,
)
from registry_service.domain.errors import ArtifactLostError
from registry_service.domain.object_keys import new_object_key
from registry_service.domain.parts import MAX_PARTS_IN_FLIGHT
from registry_service.storage.artifacts.checks import PART_SIZE

MIB = 1024 * 1024


def some_bytes(size: int, seed: int = 0) -> bytes:
    """Bytes in which every place differs from its neighbourhood, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def read(store: ArtifactStore, key: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join(store.read(key, offset, length))


def write_parts(store: ArtifactStore, key: str, handle: str, data: bytes) -> list[Part]:
    """Writes parts, each in pieces of all kinds."""

    def pieces(part: bytes) -> Pieces:
        return [bytearray(part[:3]), part[3:10], memoryview(part)[10:]]

    return [
        store.write_part(key, handle, number=number, offset=offset, pieces=pieces(data[offset:][: store.part_size]))
        for number, offset in enumerate(range(0, len(data), store.part_size), start=1)
    ]


def put_in_parts(store: ArtifactStore, key: str, data: bytes) -> None:
    handle = store.begin(key)
    store.finish(key, handle, write_parts(store, key, handle, data))


@contextmanager
def no_more_open_files() -> Iterator[None]:
    """Lets this process open no files.

    The limit is the descriptors of the standard streams, which are always open. With a lower one, poll would fail in
    every thread, and end the servers of other tests.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class ArtifactStoreContract:
    __test__ = False

    @pytest.fixture
    def store(self) -> ArtifactStore:
        raise NotImplementedError

    @pytest.fixture
    def needs(self) -> Callable[[str], None]:
        """Skips the test when what is behind the adapter is known to lack a capability; by default nothing is."""
        return lambda _: None

    @pytest.fixture
    def key(self) -> str:
        return new_object_key()

    # Whole objects

    @pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE])
    def test_what_was_put_is_read(self, store: ArtifactStore, key: str, size: int) -> None:
        data = some_bytes(size)
        store.put(key, data)
        assert read(store, key) == data
        assert store.size(key) == size

    def test_a_put_larger_than_a_part_is_stored_whole(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(store.part_size + 1)
        store.put(key, data)
        assert read(store, key) == data

    def test_put_replaces(self, store: ArtifactStore, key: str) -> None:
        store.put(key, b"a longer old tail")
        store.put(key, b"new tail")
        assert read(store, key) == b"new tail"
        assert store.size(key) == 8

    @pytest.mark.parametrize("size", [0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE, 5 * PART_SIZE + 7])
    @pytest.mark.parametrize("piece", [1000 * 1000, PART_SIZE, 2 * PART_SIZE + 1])
    def test_what_was_written_in_pieces_is_read(self, store: ArtifactStore, key: str, size: int, piece: int) -> None:
        data = some_bytes(size)
        store.write(key, (data[start : start + piece] for start in range(0, size, piece)))
        assert store.size(key) == size
        assert read(store, key) == data

    def test_empty_pieces_are_nothing(self, store: ArtifactStore, key: str) -> None:
        store.write(key, [b"", b"some", b"", b" bytes", b""])
        assert read(store, key) == b"some bytes"

    @pytest.mark.parametrize("size", [3, 3 * PART_SIZE])
    def test_pieces_that_break_off_leave_nothing_visible(self, store: ArtifactStore, key: str, size: int) -> None:
        def pieces() -> Iterator[bytes]:
            yield bytes(size)
            raise InterruptedError("broken off")

        with pytest.raises(InterruptedError, match="broken off"):
            store.write(key, pieces())
        assert store.size(key) is None
        store.delete(key)
        store.write(key, [b"anew"])
        assert read(store, key) == b"anew"

    @pytest.mark.parametrize(("piece", "size"), [(MIB, 16 * PART_SIZE), (16, PART_SIZE)])
    def test_a_write_takes_flat_memory(self, store: ArtifactStore, key: str, piece: int, size: int) -> None:
        block = some_bytes(piece)
        tracemalloc.start()
        try:
            # Each piece an object of its own, as they come from the network.
            store.write(key, (bytes(bytearray(block)) for _ in range(size // piece)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # What is under way, the pieces of the next part, and the part that is made of them.
        assert peak < (MAX_PARTS_IN_FLIGHT + 2.5) * PART_SIZE

    def test_objects_under_different_keys_are_apart(self, store: ArtifactStore) -> None:
        one, other = "uploads/aaaa/tail", "uploads/aaaa/tail2"
        store.put(one, b"one")
        store.put(other, b"other")
        store.delete(one)
        assert store.size(one) is None
        assert read(store, other) == b"other"

    @pytest.mark.parametrize(
        "hostile",
        [
            "",
            "/",
            "/etc/passwd",
            ".",
            "..",
            "../outside",
            "artifacts/../../outside",
            "artifacts//twice",
            "artifacts/",
            ".partial/hidden",
            "artifacts/\0",
            "artifacts/new\nline",
            "a" * 201,
        ],
    )
    def test_a_hostile_key_is_refused(self, store: ArtifactStore, hostile: str) -> None:
        uses: list[Callable[[], object]] = [
            lambda: store.put(hostile, b"data"),
            lambda: store.write(hostile, [b"data"]),
            lambda: store.begin(hostile),
            lambda: store.write_part(hostile, "0" * 32, number=1, offset=0, pieces=[b"data"]),
            lambda: store.finish(hostile, "0" * 32, [Part(number=1, offset=0, size=4, receipt="0" * 64)]),
            lambda: next(store.read(hostile), None),
            lambda: store.size(hostile),
            lambda: store.delete(hostile),
        ]
        for use in uses:
            with pytest.raises(ValueError, match="invalid object key"):
                use()

    # Reading

    def test_every_range_has_its_bytes_in_pieces_of_the_promised_size(self, store: ArtifactStore, key: str) -> None:
        part = store.part_size
        data = some_bytes(2 * part + 12345)
        put_in_parts(store, key, data)
        size = len(data)
        offsets = [0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, part - 1, part, part + 1, 2 * part, size - 1, size, size + 1]
        lengths = [None, 0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, part + 1, size, size + 100]
        chance = random.Random(1)
        ranges: list[tuple[int, int | None]] = [
            *itertools.product(offsets, lengths),
            *((chance.randrange(size), chance.randrange(size)) for _ in range(20)),
        ]
        for offset, length in ranges:
            expected = data[offset:] if length is None else data[offset : offset + length]
            pieces = list(store.read(key, offset, length))
            assert b"".join(pieces) == expected, f"offset {offset}, length {length}"
            assert all(len(piece) == CHUNK_SIZE for piece in pieces[:-1]), f"offset {offset}, length {length}"
            assert all(0 < len(piece) <= CHUNK_SIZE for piece in pieces), f"offset {offset}, length {length}"

    @pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 0), (0, 5), (1, None), (1, 1)])
    def test_an_empty_object_reads_as_nothing(
        self, store: ArtifactStore, key: str, offset: int, length: int | None
    ) -> None:
        store.put(key, b"")
        assert list(store.read(key, offset, length)) == []

    @pytest.mark.parametrize(("offset", "length"), [(-1, None), (0, -1)])
    def test_a_range_before_the_beginning_is_refused(
        self, store: ArtifactStore, key: str, offset: int, length: int | None
    ) -> None:
        store.put(key, b"data")
        with pytest.raises(ValueError, match="invalid range"):
            next(store.read(key, offset, length))

    @pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 0), (5, 5)])
    def test_reading_what_is_not_there_is_a_loss_on_the_first_next(
        self, store: ArtifactStore, key: str, offset: int, length: int | None
    ) -> None:
        pieces = store.read(key, offset, length)
        with pytest.raises(ArtifactLostError):
            next(pieces)

    def test_closing_early_frees_what_the_read_holds(self, store: ArtifactStore, key: str) -> None:
        store.put(key, some_bytes(4 * MIB))

        def open_and_close() -> None:
            pieces = store.read(key)
            assert len(next(pieces)) == CHUNK_SIZE
            pieces.close()  # type: ignore[attr-defined] # every adapter's is a generator

        open_and_close()
        before = psutil.Process().num_fds()
        for _ in range(50):
            open_and_close()
        assert psutil.Process().num_fds() <= before + 1

    def test_reading_to_the_end_frees_what_the_read_holds(self, store: ArtifactStore, key: str) -> None:
        store.put(key, some_bytes(2 * MIB))
        read(store, key)
        before = psutil.Process().num_fds()
        for _ in range(50):
            read(store, key)
        assert psutil.Process().num_fds() <= before + 1

    def test_a_large_object_is_read_in_little_memory(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(64 * MIB)
        digest = hashlib.sha256(data).digest()
        put_in_parts(store, key, data)
        del data
        seen = hashlib.sha256()
        tracemalloc.start()
        try:
            for piece in store.read(key):
                seen.update(piece)
                del piece  # else it lives on while the next one is read
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert seen.digest() == digest
        assert peak < 6 * CHUNK_SIZE

    def test_size_of_what_is_not_there_is_none(self, store: ArtifactStore, key: str) -> None:
        assert store.size(key) is None

    # Objects in parts

    @pytest.mark.parametrize("size", [1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 24 * MIB])
    def test_an_object_in_parts_has_exactly_their_bytes(self, store: ArtifactStore, key: str, size: int) -> None:
        data = some_bytes(size)
        put_in_parts(store, key, data)
        assert store.size(key) == size
        assert hashlib.sha256(read(store, key)).digest() == hashlib.sha256(data).digest()

    def test_a_part_tells_where_it_is(self, store: ArtifactStore, key: str) -> None:
        handle = store.begin(key)
        parts = write_parts(store, key, handle, some_bytes(store.part_size + 7))
        assert [(part.number, part.offset, part.size) for part in parts] == [
            (1, 0, store.part_size),
            (2, store.part_size, 7),
        ]

    def test_an_unfinished_object_is_invisible(self, store: ArtifactStore, key: str) -> None:
        handle = store.begin(key)
        write_parts(store, key, handle, b"data")
        assert store.size(key) is None
        with pytest.raises(ArtifactLostError):
            read(store, key)

    def test_writing_a_number_again_replaces_the_part(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(2 * store.part_size + 5)
        handle = store.begin(key)
        parts = write_parts(store, key, handle, data)
        new = some_bytes(store.part_size, seed=1)
        parts[1] = store.write_part(key, handle, number=2, offset=store.part_size, pieces=[new])
        store.finish(key, handle, parts)
        assert read(store, key) == data[: store.part_size] + new + data[-5:]

    def test_a_last_part_written_again_may_be_shorter(self, store: ArtifactStore, key: str) -> None:
        handle = store.begin(key)
        store.write_part(key, handle, number=1, offset=0, pieces=[b"longer"])
        store.finish(key, handle, [store.write_part(key, handle, number=1, offset=0, pieces=[b"short"])])
        assert read(store, key) == b"short"

    def test_a_part_written_again_with_the_same_bytes_keeps_its_receipt(self, store: ArtifactStore, key: str) -> None:
        handle = store.begin(key)
        first = store.write_part(key, handle, number=1, offset=0, pieces=[b"data"])
        store.write_part(key, handle, number=1, offset=0, pieces=[b"data"])
        store.finish(key, handle, [first])
        assert read(store, key) == b"data"

    def test_parts_may_be_written_in_any_order(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(store.part_size + 5)
        handle = store.begin(key)
        last = store.write_part(key, handle, number=2, offset=store.part_size, pieces=[data[-5:]])
        first = store.write_part(key, handle, number=1, offset=0, pieces=[data[:-5]])
        store.finish(key, handle, [first, last])
        assert read(store, key) == data

    def test_finishing_can_be_repeated(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(store.part_size + 5)
        handle = store.begin(key)
        parts = write_parts(store, key, handle, data)
        store.finish(key, handle, parts)
        store.finish(key, handle, parts)
        assert read(store, key) == data

    def test_finishing_with_a_replaced_part_is_a_loss(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(store.part_size + 5)
        handle = store.begin(key)
        parts = write_parts(store, key, handle, data)
        store.write_part(key, handle, number=1, offset=0, pieces=[some_bytes(store.part_size, seed=1)])
        with pytest.raises(ArtifactLostError):
            store.finish(key, handle, parts)
        assert store.size(key) is None

    def test_finishing_with_a_part_that_was_never_written_is_a_loss(self, store: ArtifactStore, key: str) -> None:
        part_size = store.part_size
        handle = store.begin(key)
        first = store.write_part(key, handle, number=1, offset=0, pieces=[some_bytes(part_size)])
        never = Part(number=2, offset=part_size, size=5, receipt=first.receipt)
        with pytest.raises(ArtifactLostError):
            store.finish(key, handle, [first, never])
        assert store.size(key) is None

    def test_finishing_with_a_hole_is_a_loss(self, store: ArtifactStore, key: str) -> None:
        part_size = store.part_size
        handle = store.begin(key)
        first = store.write_part(key, handle, number=1, offset=0, pieces=[some_bytes(part_size)])
        third = store.write_part(key, handle, number=3, offset=2 * part_size, pieces=[b"third"])
        never = Part(number=2, offset=part_size, size=part_size, receipt=first.receipt)
        with pytest.raises(ArtifactLostError):
            store.finish(key, handle, [first, never, third])

    def test_finishing_with_fewer_parts_leaves_the_others_out(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(store.part_size + 5)
        handle = store.begin(key)
        store.finish(key, handle, write_parts(store, key, handle, data)[:1])
        assert read(store, key) == data[:-5]

    @pytest.mark.parametrize("pick", [[], [1], [1, 0], [0, 0]])
    def test_parts_that_do_not_follow_on_each_other_are_refused(
        self, store: ArtifactStore, key: str, pick: Sequence[int]
    ) -> None:
        handle = store.begin(key)
        parts = write_parts(store, key, handle, some_bytes(store.part_size + 5))
        with pytest.raises(ValueError, match="invalid parts"):
            store.finish(key, handle, [parts[index] for index in pick])

    @pytest.mark.parametrize(("number", "offset", "surplus"), [(0, 0, 0), (1, 5, 0), (2, 0, 0), (1, 0, 1)])
    def test_a_part_at_the_wrong_place_is_refused(
        self, store: ArtifactStore, key: str, number: int, offset: int, surplus: int
    ) -> None:
        handle = store.begin(key)
        with pytest.raises(ValueError, match=f"invalid part {number}"):
            store.write_part(key, handle, number=number, offset=offset, pieces=[bytes(store.part_size + surplus)])

    def test_two_unfinished_objects_of_one_key_are_apart(self, store: ArtifactStore, key: str) -> None:
        abandoned, current = store.begin(key), store.begin(key)
        write_parts(store, key, abandoned, b"abandoned")
        store.finish(key, current, write_parts(store, key, current, b"current"))
        assert read(store, key) == b"current"

    # Deleting

    def test_delete_removes_the_object(self, store: ArtifactStore, key: str) -> None:
        store.put(key, b"data")
        store.delete(key)
        assert store.size(key) is None
        with pytest.raises(ArtifactLostError):
            read(store, key)

    def test_delete_removes_unfinished_objects(
        self, store: ArtifactStore, key: str, needs: Callable[[str], None]
    ) -> None:
        needs("aborted uploads")
        handles = [store.begin(key) for _ in range(3)]
        for handle in handles:
            write_parts(store, key, handle, b"data")
        store.delete(key)
        for handle in handles:
            with pytest.raises(ArtifactLostError):
                write_parts(store, key, handle, b"data")

    def test_what_was_deleted_cannot_be_finished(
        self, store: ArtifactStore, key: str, needs: Callable[[str], None]
    ) -> None:
        needs("aborted uploads")
        handle = store.begin(key)
        parts = write_parts(store, key, handle, b"data")
        store.delete(key)
        with pytest.raises(ArtifactLostError):
            store.finish(key, handle, parts)
        assert store.size(key) is None

    def test_aborting_removes_one_unfinished_object_or_all_and_spares_the_finished_one(
        self, store: ArtifactStore, key: str, needs: Callable[[str], None]
    ) -> None:
        needs("aborted uploads")
        data = some_bytes(10)
        store.put(key, data)
        one, other, third = (store.begin(key) for _ in range(3))
        store.abort(key, one)
        with pytest.raises(ArtifactLostError):
            write_parts(store, key, one, data)
        write_parts(store, key, other, data)
        store.abort(key)
        for handle in (other, third):
            with pytest.raises(ArtifactLostError):
                write_parts(store, key, handle, data)
        assert read(store, key) == data
        store.abort(key)
        store.abort(key, one)

    def test_unfinished_objects_are_listed_until_they_are_finished(self, store: ArtifactStore, key: str) -> None:
        handle, other_key = store.begin(key), new_object_key()
        other = store.begin(other_key)
        parts = write_parts(store, key, handle, some_bytes(10))
        found = [(left.key, left.handle) for left in store.unfinished()]
        assert (key, handle) in found
        assert (other_key, other) in found
        store.finish(key, handle, parts)
        assert [left.handle for left in store.unfinished() if left.key in {key, other_key}] == [other]

    def test_delete_spares_unfinished_objects_of_a_longer_key(self, store: ArtifactStore) -> None:
        shorter = new_object_key()
        longer = f"{shorter}0"
        handle = store.begin(longer)
        parts = write_parts(store, longer, handle, b"data")
        store.delete(shorter)
        store.finish(longer, handle, parts)
        assert read(store, longer) == b"data"

    def test_deleting_what_is_not_there_is_fine(self, store: ArtifactStore, key: str) -> None:
        store.delete(key)
        store.put(key, b"data")
        store.delete(key)
        store.delete(key)
        assert store.size(key) is None

    def test_a_deleted_key_can_be_written_again(self, store: ArtifactStore, key: str) -> None:
        store.put(key, b"old")
        store.delete(key)
        put_in_parts(store, key, b"new")
        assert read(store, key) == b"new"

    # Several at a time

    def test_writers_of_different_keys_do_not_disturb_each_other(self, store: ArtifactStore) -> None:
        writers = 8
        together = threading.Barrier(writers)

        def write(seed: int) -> tuple[str, bytes]:
            key, tail = new_object_key(), f"uploads/{uuid.uuid4()}/tail"
            data = some_bytes(store.part_size + seed + 1, seed)
            together.wait()
            # Deep keys come and go, and their folders with them.
            for size in range(5):
                store.put(tail, data[:size])
                assert read(store, tail) == data[:size]
                store.delete(tail)
            put_in_parts(store, key, data)
            return key, data

        with ThreadPoolExecutor(writers) as pool:
            written = list(pool.map(write, range(writers)))
        for key, data in written:
            assert read(store, key) == data

    def test_readers_of_one_object_do_not_disturb_each_other(self, store: ArtifactStore, key: str) -> None:
        data = some_bytes(3 * MIB + 1)
        store.put(key, data)
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda offset: read(store, key, offset) == data[offset:], range(24)))
        assert all(results)

    def test_a_reader_keeps_the_content_that_it_began_with(self, store: ArtifactStore, key: str) -> None:
        old, new = some_bytes(4 * MIB), some_bytes(4 * MIB, seed=1)
        store.put(key, old)
        pieces = store.read(key)
        first = next(pieces)
        store.put(key, new)
        assert first + b"".join(pieces) == old

    def test_a_store_that_is_well_passes_the_check(self, store: ArtifactStore) -> None:
        store.check()

    # Listing

    def test_every_whole_object_is_listed_and_nothing_else(self, store: ListableArtifactStore, key: str) -> None:
        keys = {key, new_object_key(), new_object_key()}
        for whole in keys:
            store.put(whole, b"bytes")
        store.put("another-folder/model.zip", b"bytes")
        store.begin(new_object_key())
        listed = set(store.keys())
        assert listed >= keys
        assert all(found.startswith("artifacts/") for found in listed)
        assert set(store.keys("")) >= keys | {"another-folder/model.zip"}
        assert not [found for found in store.keys("") if store.size(found) is None]
        store.delete(key)
        assert key not in set(store.keys())

    def test_a_store_without_objects_lists_none(self, store: ListableArtifactStore) -> None:
        assert list(store.keys("nothing-here/")) == []
