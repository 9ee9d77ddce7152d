"""ZIPs with a few wrong bytes, for tests of what reads them."""

from hypothesis import strategies as st

from tests.stub_client import zip_of

_ARCHIVE = zip_of({"ä": b"abc" * 100, "b/": b"", "stored": b"xyz"})
_DIRECTORY = _ARCHIVE.index(b"PK\1\2")


def _damaged(changes: list[tuple[int, int]]) -> bytes:
    archive = bytearray(_ARCHIVE)
    for place, value in changes:
        archive[place] = value
    return bytes(archive)


def _changes(start: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.integers(start, len(_ARCHIVE) - 1), st.integers(0, 255)), min_size=1, max_size=6)


DAMAGED_ARCHIVES = (_changes(0) | _changes(_DIRECTORY)).map(_damaged)
"""ZIPs that are wrong in up to six bytes, half of them only in the directory."""
