"""Bytes of the registry, read from an offset on, whatever happens to the connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import grpc
from modelregistry.v1 import artifact_service_pb2

from modelreg._async import runtime
from modelreg._async.connection import Connection, failure_of_stream
from modelreg._logging import logger
from modelreg._pulls.receiver import Receiver
from modelreg._wire import methods
from modelreg._wire.methods import Method
from modelreg._wire.retries import MAX_ATTEMPTS, Retries
from modelreg._wire.rpc_errors import Failure
from modelreg.errors import IntegrityError

# Until there was no progress for `stall_timeout`: a restart of the registry must not end a long transfer.
_MANY_ATTEMPTS = 1000
_ENDED_EARLY = Failure(grpc.StatusCode.UNAVAILABLE, "the transfer ended early")


@dataclass(frozen=True)
class Remote:
    """Bytes that the registry has."""

    label: str
    """What they are, for messages."""
    method: Method[Any, Any]
    request: Callable[[int, int], Any]
    """Makes a request of an offset, and of a number of bytes; 0 means to the end."""
    check: Callable[[Any], None]
    """Checks the first message. Raises IntegrityError if it describes something else."""
    size: int


def remote_artifact(label: str, model_id: str, size: int, sha256: str) -> Remote:
    """Return the artifact of a model."""

    def request(offset: int, limit: int) -> artifact_service_pb2.DownloadArtifactRequest:
        return artifact_service_pb2.DownloadArtifactRequest(model_id=model_id, read_offset=offset, read_limit=limit)

    def check(message: artifact_service_pb2.DownloadArtifactResponse) -> None:
        found = message.artifact
        if (found.size_bytes, found.sha256) != (size, sha256):
            raise IntegrityError(
                f"The registry sent {found.size_bytes} bytes with the SHA-256 {found.sha256} for {label}, but "
                f"described the artifact as {size} bytes with the SHA-256 {sha256}."
            )

    return Remote(label, methods.DOWNLOAD_ARTIFACT, request, check, size)


def remote_file(label: str, model_id: str, path: str, size: int, crc32: int) -> Remote:
    """Return a file inside the artifact of a model."""

    def request(offset: int, limit: int) -> artifact_service_pb2.DownloadArtifactFileRequest:
        return artifact_service_pb2.DownloadArtifactFileRequest(
            model_id=model_id,
            path=path,
            read_offset=offset,
            read_limit=limit,
        )

    def check(message: artifact_service_pb2.DownloadArtifactFileResponse) -> None:
        found = message.file
        if (found.size_bytes, found.crc32) != (size, crc32):
            raise IntegrityError(
                f"The registry sent {found.size_bytes} bytes with the CRC-32 {found.crc32:08x} for {label}, but "
                f"described the file as {size} bytes with the CRC-32 {crc32:08x}."
            )

    return Remote(label, methods.DOWNLOAD_ARTIFACT_FILE, request, check, size)


async def pieces_of(
    connection: Connection, remote: Remote, start: int, end: int, *, is_begun: bool
) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a range in pieces. Connects anew, where it was, as often as that makes progress.

    Args:
        connection: The connection.
        remote: The bytes.
        start: The offset of the first byte.
        end: The offset after the last byte.
        is_begun: Whether the registry has sent something of the whole transfer before. If so, it is tried again for
            `stall_timeout` from the beginning; else an unreachable registry is reported soon.

    Raises:
        RegistryError: The registry refused, or did not respond until the retries ended.
        IntegrityError: The registry sent something else.
    """
    offset = start
    retries = Retries(connection.options.stall_timeout, _MANY_ATTEMPTS if is_begun else MAX_ATTEMPTS)
    refused: str | None = None
    while offset < end:
        before = offset
        token, channel = await connection.token(), connection.channel()
        failure = _ENDED_EARLY
        try:
            async with aclosing(_attempt(connection, remote, offset, end)) as pieces:
                async for piece in pieces:
                    offset += len(piece)
                    yield piece
        except (runtime.RpcError, runtime.StalledError) as error:
            failure = failure_of_stream(error)
            if isinstance(error, runtime.StalledError):
                connection.replace(channel)
            if await connection.may_sign_in_again(failure, token, refused if offset == before else None):
                refused = token
                continue
        else:
            if offset == before:
                raise IntegrityError(
                    f"The registry has fewer bytes of {remote.label} than it says: {offset} of {remote.size}."
                )
        if offset > before:
            retries = Retries(connection.options.stall_timeout, _MANY_ATTEMPTS)
        if offset < end:
            await connection.pause_or_raise(failure, retries, remote.method)


async def _attempt(connection: Connection, remote: Remote, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """Return the bytes of a range in pieces, as far as one call returns them."""
    # Without a limit, the server compares the checksum before it sends the last bytes.
    request = remote.request(start, 0 if end == remote.size else end - start)
    rest = end - start
    async with await connection.responses(remote.method, request) as stream:
        async for message in stream:
            if message.WhichOneof("payload") != "chunk":
                remote.check(message)
                continue
            piece = message.chunk
            if not 0 < len(piece) <= rest:
                raise IntegrityError(f"The registry sent other bytes of {remote.label} than it was asked for.")
            rest -= len(piece)
            yield piece


async def receive(
    connection: Connection, remote: Remote, receiver: Receiver, report: Callable[[int], None], *, is_begun: bool
) -> None:
    """Complete a file with bytes of the registry.

    Args:
        connection: The connection.
        remote: All bytes of the file.
        receiver: The file. What it has already is kept, unless the checksum shows that it is damaged.
        report: Called with the number of bytes that the file has.
        is_begun: As of `pieces_of`.

    Raises:
        RegistryError: The registry refused, or did not respond until the retries ended.
        IntegrityError: The bytes do not have the checksum.
        OSError: The file cannot be written.
    """
    while True:
        while await runtime.run_blocking(receiver.prepare):
            report(receiver.offset)
        report(receiver.offset)
        async with aclosing(pieces_of(connection, remote, receiver.offset, receiver.size, is_begun=is_begun)) as pieces:
            async for piece in pieces:
                if not receiver.offer(piece):
                    await runtime.run_blocking(receiver.put, piece)
                report(receiver.offset)
        is_begun = True
        if await runtime.run_blocking(receiver.finish):
            return
        if not receiver.is_continued:
            raise IntegrityError(
                f"The bytes of {remote.label} are not the registered ones: their checksum is wrong. Pull again; if the "
                "error stays, let the registry read its copy: mreg verify."
            )
        logger.warning("The unfinished download of %s is damaged; starting again", remote.label)
        await runtime.run_blocking(receiver.restart)
