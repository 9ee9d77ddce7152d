"""Checks of arguments that all adapters share. A ValueError is a bug of the caller and reaches a client as INTERNAL."""

from collections.abc import Sequence

from registry_service.domain.artifact_store import Part, Pieces

PART_SIZE = 8 * 1024 * 1024
"""Size in bytes of every part but the last. S3 takes 10,000 parts of at least 5 MiB; 8 MiB allow objects of 78 GiB."""

MAX_PARTS = 10_000


def check_part(number: int, offset: int, pieces: Pieces) -> int:
    """Return the size of a part in bytes. Raises ValueError if number, offset and size contradict each other."""
    size = sum(map(len, pieces))
    if not 1 <= number <= MAX_PARTS or offset != (number - 1) * PART_SIZE or size > PART_SIZE:
        raise ValueError(
            f"invalid part {number}: {size} bytes at offset {offset}; "
            f"part n of 1 to {MAX_PARTS} has up to {PART_SIZE} bytes at offset (n - 1) * {PART_SIZE}"
        )
    return size


def check_parts(parts: Sequence[Part]) -> int:
    """Return the total size of an object's parts in bytes. Raises ValueError unless they follow on each other."""
    if not parts:
        raise ValueError("invalid parts: an object has at least one part")
    end = 0
    for number, part in enumerate(parts, start=1):
        if part.number != number or part.offset != end or end % PART_SIZE:
            raise ValueError(
                f"invalid parts: part {part.number} at offset {part.offset} follows {end} bytes; "
                f"expected part {number} at offset {end}, after parts of {PART_SIZE} bytes"
            )
        end += part.size
    return end


def check_range(offset: int, length: int | None) -> None:
    """Raise ValueError if the offset or the length of a range is negative."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"invalid range: {length} bytes at offset {offset}; neither may be negative")
