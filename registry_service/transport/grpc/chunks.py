"""Read and write messages that consist of one bytes field without protobuf's copies of the bytes.

Nearly all messages of an upload or a download are one bytes field of up to a megabyte. protobuf copies it twice when it
parses and twice when it serializes, into newly allocated memory each time. The wire format
(https://protobuf.dev/programming-guides/encoding/) makes do with no copy and one.

Measured with protobuf 7.36 and messages of 1 MiB, in CPU time: parsing 50 µs with protobuf and 0.7 µs here, serializing
1,900 µs and 25 µs. The wire format never changes, so this holds for every version of protobuf.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from google.api import httpbody_pb2

_Item = TypeVar("_Item")

_LENGTH_DELIMITED = 2
_MAX_VARINT_BYTES = 5


class ChunkDeserializer:
    """Parses messages; one that holds only the bytes field becomes a view of its bytes.

    Args:
        parse: Parses all other messages.
        field_number: Number of the bytes field, at most 15.
    """

    def __init__(self, parse: Callable[[bytes], Any], field_number: int) -> None:
        self._parse = parse
        self._tag = field_number << 3 | _LENGTH_DELIMITED

    def __call__(self, message: bytes) -> Any:
        """Return a memoryview or a message."""
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


def chunk_messages(field_number: int, pieces: Iterable[bytes], head: bytes = b"") -> Iterator[bytes]:
    """Yield the serialized messages of a download, one for each piece.

    For a client that stops reading, the server keeps three messages of up to a megabyte in memory: the current one, its
    copy in grpcio, and the one before. To keep no more, neither this function nor the source of `pieces` may reference
    a piece while its message is sent, as the variable of a loop does.

    Args:
        field_number: Number of the bytes field, at most 15.
        pieces: The bytes.
        head: Other fields of the first message, serialized. With it, a message is sent even without pieces.
    """
    messages = map(partial(chunk_message, field_number), pieces)
    if head:
        yield head + next(messages, b"")
    yield from messages


def body_messages(content_type: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the serialized messages (`google.api.HttpBody`) of an HTTP download; see `chunk_messages`."""
    head = httpbody_pb2.HttpBody(content_type=content_type).SerializeToString()
    return chunk_messages(httpbody_pb2.HttpBody.DATA_FIELD_NUMBER, pieces, head)


def read_first(items: Iterator[_Item]) -> Iterator[_Item]:
    """Return an iterator over the same items, and read the first one now, so that its errors are raised now."""
    return _all_of(list(islice(items, 1)), items)


def _all_of(first: list[_Item], others: Iterator[_Item]) -> Iterator[_Item]:
    # Removed from the list, so that it is not referenced: see `chunk_messages`.
    while first:
        yield first.pop()
    yield from others


def chunk_message(field_number: int, chunk: bytes) -> bytes:
    """Return a serialized message that holds only these bytes."""
    head = bytearray([field_number << 3 | _LENGTH_DELIMITED])
    length = len(chunk)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return b"".join((head, chunk))
