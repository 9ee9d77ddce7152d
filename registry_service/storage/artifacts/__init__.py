"""Adapters of the `domain.artifact_store` port, and the checks that they share.

The checks raise ValueError: what they refuse is a mistake of our own code, and
never reaches a client as anything but an internal error.
"""

import re
from collections.abc import Sequence

from registry_service.domain.artifact_store import Part, Pieces

PART_SIZE = 8 * 1024 * 1024
"""Size in bytes of every part but the last. S3 allows 10,000 parts of at least 5 MiB: 78 GiB in all."""

MAX_PARTS = 10_000

# No segment begins with a dot, so that a key can neither climb out of a folder
# nor meet the adapters' own files; 200 characters leave room for their suffixes.
_KEY = re.compile(r"(?!.{201})[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


def is_key(text: str) -> bool:
    """Tells whether the stores take a key."""
    return _KEY.fullmatch(text) is not None


def check_key(key: str) -> None:
    """Refuses a key that `domain.artifact_store` does not know.

    Raises:
        ValueError: It is one.
    """
    if not is_key(key):
        raise ValueError(f"{key!r} is no key of the artifact store")


def size_of_part(number: int, offset: int, pieces: Pieces) -> int:
    """Returns the size of a part; refuses one whose number, offset and size (bytes) do not fit together.

    Raises:
        ValueError: They do not.
    """
    size = sum(map(len, pieces))
    if not 1 <= number <= MAX_PARTS or offset != (number - 1) * PART_SIZE or size > PART_SIZE:
        raise ValueError(f"part {number} cannot be {size} bytes at {offset}")
    return size


def check_range(offset: int, length: int | None) -> None:
    """Refuses a range (in bytes) that begins or ends before its beginning.

    Raises:
        ValueError: It does.
    """
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"{length} bytes at {offset} is no range")


def total_size(parts: Sequence[Part]) -> int:
    """Adds up the parts of a whole object, in bytes.

    Raises:
        ValueError: There are none, or they leave a gap, overlap or are out of order.
    """
    if not parts:
        raise ValueError("an object has at least one part")
    end = 0
    for number, part in enumerate(parts, start=1):
        if part.number != number or part.offset != end or end % PART_SIZE:
            raise ValueError(f"part {part.number} at {part.offset} does not follow on {end} bytes")
        end += part.size
    return end
