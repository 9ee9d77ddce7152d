"""Artifacts, and a store that counts its reads, for the tests of ArtifactService."""

import random
from collections.abc import Iterator
from pathlib import Path

import grpc

from tests.registry import RunningRegistry
from tests.streams import WrappedStore

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
DATA_LOSS = grpc.StatusCode.DATA_LOSS
OUT_OF_RANGE = grpc.StatusCode.OUT_OF_RANGE
MIB = 1024 * 1024
ZIP = {"file_name": "model.zip"}


def some_bytes(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def stored(registry: RunningRegistry) -> Path:
    """Return the file of the only artifact."""
    [path] = registry.objects()
    return path


class CountingStore(WrappedStore):
    """Counts the bytes read."""

    bytes_read = 0

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        for piece in super().read(key, offset, length):
            self.bytes_read += len(piece)
            yield piece
