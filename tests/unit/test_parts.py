"""Cutting a stream into parts, and the number of parts in flight."""

import random
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from itertools import count

import pytest

from registry_service.domain.parts import GUARANTEED_PARTS, MAX_PARTS_IN_FLIGHT, PartBuffer, PartsInFlight

PART = 1_000_000


def done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


def pieces_of(data: bytes, numbers: random.Random) -> Iterator[bytes]:
    offset = 0
    while offset < len(data):
        size = numbers.choice([1, 70, 60_000, 70_000, 999_999, 2_500_000])
        yield data[offset : offset + size]
        offset += size


@pytest.mark.parametrize("seed", range(10))
def test_pieces_of_any_size_become_parts_of_one_size(seed: int) -> None:
    numbers = random.Random(seed)
    data = numbers.randbytes(7 * PART + 12_345)
    held = PartBuffer(PART)
    parts = [b"".join(part) for piece in pieces_of(data, numbers) for part in held.add(piece)]
    assert [len(part) for part in parts] == [PART] * 7
    assert len(held) == 12_345
    assert b"".join(parts) + b"".join(held.take()) == data
    assert not held
    assert not held.take()


def test_a_million_tiny_pieces_take_the_memory_of_their_bytes() -> None:
    held = PartBuffer(2 * PART)
    for _ in range(PART):
        assert not list(held.add(b"x"))
    assert held.take() == [b"x" * PART]


def room(in_flight: PartsInFlight) -> int:
    """Adds parts that do not settle until there is no room. Returns their number."""
    for number in count():
        marked = Settled()
        in_flight.make_room()
        if Settled.asked:
            return number
        in_flight.add(marked)
    raise AssertionError("unreachable")


class Settled(Future[None]):
    """A part whose result is requested only when there is no room for another."""

    asked = False

    def result(self, timeout: float | None = None) -> None:  # noqa: ARG002 - as the base has it
        Settled.asked = True


@pytest.fixture(autouse=True)
def nobody_asked() -> None:
    Settled.asked = False


def test_one_object_alone_has_the_most_parts_in_flight() -> None:
    with PartsInFlight() as in_flight:
        assert room(in_flight) == MAX_PARTS_IN_FLIGHT


def test_each_of_many_objects_has_its_guaranteed_parts_and_few_have_more() -> None:
    found = []
    with ExitStack() as stack:
        for _ in range(20):
            Settled.asked = False
            found.append(room(stack.enter_context(PartsInFlight())))
    assert found == [MAX_PARTS_IN_FLIGHT] * 4 + [GUARANTEED_PARTS] * 16
    Settled.asked = False
    with PartsInFlight() as in_flight:
        assert room(in_flight) == MAX_PARTS_IN_FLIGHT, "all was given back"


def test_a_part_that_failed_raises_and_releases_its_slot() -> None:
    for _ in range(20):
        with PartsInFlight() as in_flight:
            for _ in range(MAX_PARTS_IN_FLIGHT):
                in_flight.make_room()
                failed: Future[None] = Future()
                failed.set_exception(ValueError("the disk is full"))
                in_flight.add(failed)
            with pytest.raises(ValueError, match="the disk is full"):
                in_flight.make_room()
    with PartsInFlight() as in_flight:
        assert room(in_flight) == MAX_PARTS_IN_FLIGHT


def test_settled_parts_make_room() -> None:
    with PartsInFlight() as in_flight:
        for _ in range(100):
            in_flight.make_room()
            in_flight.add(done())
        while in_flight:
            in_flight.settle()
