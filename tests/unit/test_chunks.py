"""Messages of bytes alone are read and written as protobuf does, without it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelregistry.v1 import artifact_service_pb2, model_service_pb2, upload_service_pb2

from registry_service.transport.grpc.chunks import ChunkDeserializer, chunk_message

Registration = model_service_pb2.RegisterModelRequest
Write = upload_service_pb2.WriteUploadRequest
Download = artifact_service_pb2.DownloadArtifactResponse

read_registration = ChunkDeserializer(Registration.FromString, Registration.CHUNK_FIELD_NUMBER)
read_write = ChunkDeserializer(Write.FromString, Write.DATA_FIELD_NUMBER)

SIZES = [0, 1, 127, 128, 16_383, 16_384, 2**20, 2**21 - 1, 2**21, 5 * 2**20]


@pytest.mark.parametrize("size", SIZES)
def test_a_message_of_bytes_alone_is_read_without_a_copy(size: int) -> None:
    wire = Registration(chunk=bytes(size)).SerializeToString()
    read = read_registration(wire)
    assert isinstance(read, memoryview)
    assert read.obj is wire
    assert read == bytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_a_message_is_written_as_protobuf_writes_it(size: int) -> None:
    assert chunk_message(Download.CHUNK_FIELD_NUMBER, bytes(size)) == Download(chunk=bytes(size)).SerializeToString()


def test_other_messages_are_parsed() -> None:
    for message in (
        Write(upload_id="u", write_offset=5, data=b"x"),
        Write(upload_id="u"),
        Write(write_offset=0),
        Write(),
    ):
        assert read_write(message.SerializeToString()) == message


def test_bytes_that_another_field_follows_are_parsed() -> None:
    wire = Write(data=b"first").SerializeToString() + Write(upload_id="u").SerializeToString()
    assert read_write(wire) == Write(data=b"first", upload_id="u")
    twice = Write(data=b"first").SerializeToString() + Write(data=b"last").SerializeToString()
    assert read_write(twice) == Write(data=b"last")


@given(st.binary(max_size=40) | st.binary(max_size=12).map(lambda rest: bytes([0x12]) + rest))
def test_whatever_comes_is_read_as_protobuf_reads_it(wire: bytes) -> None:
    try:
        expected = Registration.FromString(wire)
    except Exception as error:  # noqa: BLE001 - protobuf's own, whatever its class
        with pytest.raises(type(error)):
            read_registration(wire)
        return
    read = read_registration(wire)
    if isinstance(read, memoryview):
        read = Registration(chunk=bytes(read))
    assert read == expected
