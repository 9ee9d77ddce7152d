"""Messages that consist of one bytes field, serialized without protobuf's copies of the bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from io import BytesIO

from google.protobuf.message import Message

CHUNK_BYTES = 1024 * 1024
"""Bytes per message of a transfer."""
MAX_QUEUED = 2
"""Messages that wait to be sent."""
_BUFFERS = MAX_QUEUED + 3
"""One is filled, one is sent, and gRPC may hold the previous one for a moment longer."""


def chunk_message(field_number: int, chunk: bytes | memoryview) -> bytes:
    """Return the serialized message that has only this bytes field.

    Measured with messages of 1 MiB, in CPU time: 1,900 µs with protobuf and 25 µs here.

    Args:
        field_number: Number of the field, at most 15.
        chunk: The bytes.
    """
    return b"".join((_head(field_number, len(chunk)), chunk))


class ChunkMessages:
    """Serialized messages like those of `chunk_message`, whose bytes are read in place.

    `BytesIO` makes this possible: its value is its buffer, which it writes to again when nothing else references the
    value, and copies otherwise. Measured, a push of 256 MiB takes the client 0.42 s of CPU time instead of 0.45 to 0.49
    with a new message for each chunk.

    Args:
        field_number: Number of the field, at most 15.
    """

    def __init__(self, field_number: int) -> None:
        self._field_number = field_number
        self._head = _head(field_number, CHUNK_BYTES)
        empty = b"".join((self._head, bytes(CHUNK_BYTES)))
        self._buffers = deque(BytesIO(empty) for _ in range(_BUFFERS))

    def read(self, read_into: Callable[[memoryview], int]) -> bytes:
        """Return the next message, or b"" if there are no more bytes.

        Args:
            read_into: Reads up to as many bytes as the buffer takes, and returns their number.
        """
        buffer = self._buffers[0]
        self._buffers.rotate(-1)
        with buffer.getbuffer() as whole, whole[len(self._head) :] as chunk:
            size = read_into(chunk)
            if size < CHUNK_BYTES:
                return chunk_message(self._field_number, chunk[:size]) if size else b""
        return buffer.getvalue()


def _head(field_number: int, length: int) -> bytes:
    head = bytearray([field_number << 3 | 2])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def serialized(message: Message | bytes) -> bytes:
    """Serialize a message, unless it is serialized already."""
    return message if isinstance(message, bytes) else message.SerializeToString()
