"""Checksums of bytes that arrive in pieces."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Protocol

_PIECE_BYTES = 1 << 20


class Checksum(Protocol):
    """A checksum that bytes are expected to have."""

    expected: str
    """The algorithm and the expected value, for example `sha256:…`."""

    def update(self, data: bytes, /) -> None:
        """Add bytes."""

    def found(self) -> str:
        """Return the algorithm and the value of the bytes so far."""

    def fresh(self) -> Checksum:
        """Return the same without bytes."""


class Sha256:
    """A SHA-256.

    Args:
        digest: The expected digest, 64 lowercase hexadecimal digits.
    """

    def __init__(self, digest: str) -> None:
        self.expected = f"sha256:{digest}"
        self._digest = digest
        self._hash = hashlib.sha256()

    def update(self, data: bytes, /) -> None:
        """Add bytes."""
        self._hash.update(data)

    def found(self) -> str:
        """Return the algorithm and the digest of the bytes so far."""
        return f"sha256:{self._hash.hexdigest()}"

    def fresh(self) -> Sha256:
        """Return the same without bytes."""
        return Sha256(self._digest)


class Crc32:
    """A CRC-32, which finds accidental damage only.

    Args:
        value: The expected value.
    """

    def __init__(self, value: int) -> None:
        self.expected = f"crc32:{value:08x}"
        self._expected_value = value
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """Add bytes."""
        self._value = zlib.crc32(data, self._value)

    def found(self) -> str:
        """Return the algorithm and the value of the bytes so far."""
        return f"crc32:{self._value:08x}"

    def fresh(self) -> Crc32:
        """Return the same without bytes."""
        return Crc32(self._expected_value)


def parse_checksum(text: str) -> Checksum:
    """Return the checksum whose `expected` is the text.

    Raises:
        ValueError: The text is no checksum.
    """
    algorithm, _, value = text.partition(":")
    if algorithm == "sha256" and len(value) == 64:
        return Sha256(value)
    if algorithm == "crc32" and len(value) == 8:
        return Crc32(int(value, 16))
    raise ValueError(f"{text!r} is no checksum")


def has_checksum(path: Path, checksum: Checksum) -> bool:
    """Tell whether a file has a checksum. Reads the whole file.

    Raises:
        OSError: The file cannot be read.
    """
    # A FIFO would wait for a writer, and a device may have no end.
    if not path.is_file():
        return False
    checksum = checksum.fresh()
    with path.open("rb", buffering=0) as file:
        while data := file.read(_PIECE_BYTES):
            checksum.update(data)
    return checksum.found() == checksum.expected
