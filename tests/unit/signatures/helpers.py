"""Reads signatures from files in memory."""

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from registry_service.domain.models import ArtifactSpec
from registry_service.domain.signature import Signature, Tensor
from registry_service.services.signature_reading import HEAD_BYTES, read_signature
from registry_service.signatures import limits

MIB = 1024 * 1024


class OneObject:
    """A store with one object that counts the bytes read."""

    part_size = 8 * MIB

    def __init__(self, data: Any) -> None:
        self.data = data
        self.bytes_read = 0
        self.reads = 0

    def read(self, _key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        assert length is not None
        self.reads += 1
        self.bytes_read += length
        yield bytes(self.data[offset : offset + length])


def read(data: Any, file_name: str = "model.bin", media_type: str = "", store: OneObject | None = None) -> Any:
    store = store or OneObject(data)
    spec = ArtifactSpec(file_name=file_name, media_type=media_type)
    return read_signature(store, spec, "key", len(data), bytes(data[:HEAD_BYTES]))  # type: ignore[arg-type]


def signature_of(data: Any, file_name: str = "model.bin") -> Signature:
    signature = read(data, file_name)
    assert isinstance(signature, Signature)
    return signature


def tensor(name: str, element_type: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, element_type=element_type, shape=shape)


@contextmanager
def bounded(mebibytes: float, seconds: float = limits.SECONDS + 5) -> Iterator[None]:
    """Fails if the block takes more memory at its peak, or more time."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * MIB, f"{peak / MIB:.1f} MiB"
    assert time.monotonic() - started < seconds


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])
