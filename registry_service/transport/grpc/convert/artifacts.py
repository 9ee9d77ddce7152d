"""Convert files inside artifacts."""

from modelregistry.v1 import artifact_service_pb2

from registry_service.services.archives import ArchiveMember
from registry_service.transport.grpc.convert.values import printable, time_message


def file_message(member: ArchiveMember) -> artifact_service_pb2.ArtifactFile:
    """Return a file of an artifact as a message."""
    return artifact_service_pb2.ArtifactFile(
        path=printable(member.name),
        size_bytes=member.size,
        compressed_size_bytes=member.compressed_size,
        crc32=member.crc32,
        modify_time=None if member.modify_time is None else time_message(member.modify_time),
    )
