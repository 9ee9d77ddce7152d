"""Messages whose bytes are read in place: as protobuf writes them, and never changed afterwards."""

import tracemalloc
from io import BytesIO

import pytest
from modelreg._wire.chunks import CHUNK_BYTES, ChunkMessages
from modelregistry.v1.upload_service_pb2 import WriteUploadRequest

FIELD = WriteUploadRequest.DATA_FIELD_NUMBER


def chunk(number: int, size: int = CHUNK_BYTES) -> bytes:
    return number.to_bytes(2, "big") * (size // 2)


@pytest.mark.parametrize("size", [2, 126, 128, 16_384, CHUNK_BYTES - 2, CHUNK_BYTES])
def test_a_message_is_written_as_protobuf_writes_it(size: int) -> None:
    message = ChunkMessages(FIELD).read(BytesIO(chunk(1, size)).readinto)
    assert message == WriteUploadRequest(data=chunk(1, size)).SerializeToString()


def test_there_is_no_message_after_the_last_byte() -> None:
    messages, source = ChunkMessages(FIELD), BytesIO(chunk(1))
    assert messages.read(source.readinto)
    assert messages.read(source.readinto) == b""


def test_a_message_that_is_kept_is_never_changed() -> None:
    messages = ChunkMessages(FIELD)
    kept = [messages.read(BytesIO(chunk(number)).readinto) for number in range(20)]
    assert [WriteUploadRequest.FromString(message).data for message in kept] == [chunk(number) for number in range(20)]


def test_messages_that_were_sent_give_their_memory_to_the_next_ones() -> None:
    messages = ChunkMessages(FIELD)

    def fill(buffer: memoryview) -> int:
        return len(buffer)

    for _ in range(20):
        messages.read(fill)
    tracemalloc.start()
    try:
        for _ in range(20):
            messages.read(fill)
        assert tracemalloc.get_traced_memory()[1] < CHUNK_BYTES
    finally:
        tracemalloc.stop()
