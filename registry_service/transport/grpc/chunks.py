"""Messages that are nothing but bytes, without protobuf's copies of them.

Almost all messages of an upload or a download hold one field, of up to a
megabyte. protobuf copies it twice on its way in and twice on its way out, into
memory that is fresh each time; the wire format
(https://protobuf.dev/programming-guides/encoding/) lets us do with none and one.
"""

from collections.abc import Callable
from typing import Any

_LENGTH_DELIMITED = 2
_MAX_VARINT_BYTES = 5


class ChunkDeserializer:
    """Reads messages; what holds nothing but the bytes field comes as those bytes, a view of what arrived.

    Args:
        parse: Reads all other messages.
        field_number: Of the bytes field, at most 15.
    """

    def __init__(self, parse: Callable[[bytes], Any], field_number: int) -> None:
        self._parse = parse
        self._tag = field_number << 3 | _LENGTH_DELIMITED

    def __call__(self, message: bytes) -> Any:
        """Returns a memoryview, or a message."""
        if len(message) > 1 and message[0] == self._tag:
            length = shift = 0
            for position, byte in enumerate(message[1 : 1 + _MAX_VARINT_BYTES], start=2):
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    if len(message) - position == length:
                        return memoryview(message)[position:]
                    break
        return self._parse(message)


def chunk_message(field_number: int, chunk: bytes) -> bytes:
    """Returns a message that holds nothing but these bytes, serialized."""
    head = bytearray([field_number << 3 | _LENGTH_DELIMITED])
    length = len(chunk)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return b"".join((head, chunk))
