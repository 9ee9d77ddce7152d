"""A download from S3 that resumes after broken connections."""

import logging
import re
import time
from collections.abc import Generator, Iterable, Iterator
from http import HTTPStatus

from minio import Minio
from minio.error import InvalidResponseError, S3Error
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ProtocolError

from registry_service.domain.artifact_store import CHUNK_SIZE
from registry_service.storage.artifacts.checks import PART_SIZE
from registry_service.storage.artifacts.s3_errors import FAILURES, is_transient, translated

logger = logging.getLogger(__name__)

# Pauses in seconds before each attempt to resume: 3.5 s in all, enough for a restart of the store.
_RESUME_PAUSES = (0.0, 0.5, 1.0, 2.0)

# The pauses start over once a resumed download has progressed by this many bytes.
_HEALTHY_PROGRESS = PART_SIZE


class Download:
    """A range of an object, which outlives the connections that break meanwhile."""

    def __init__(self, client: Minio, bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    def pieces(self, offset: int, length: int | None) -> Generator[bytes]:
        """Yield a range, in bytes, in pieces of any size up to CHUNK_SIZE.

        Raises:
            ArtifactLostError: The object does not exist, or was removed meanwhile.
            ArtifactStoreUnavailableError: No attempt succeeded, or the object was replaced meanwhile.
        """
        with translated("read", self._key, lost={"NoSuchKey"}):
            try:
                body = self._open(offset, length, etag=None)
            except S3Error as error:
                if error.code != "InvalidRange":
                    raise
                return  # the range begins past the end
        position, resumed_at, end, etag = offset, offset, body.end, body.etag
        pauses = iter(_RESUME_PAUSES)
        try:
            while position < end:
                try:
                    # The list gives up its reference in the yield, so that only a slow reader holds the piece.
                    data = [body.read()]
                except (HTTPError, OSError) as error:
                    body.close()
                    if position - resumed_at >= _HEALTHY_PROGRESS:
                        pauses = iter(_RESUME_PAUSES)
                    logger.warning("The download of %s broke at byte %d: %r", self._key, position, error)
                    with translated("resume the download of", self._key, lost={"NoSuchKey"}):
                        body = self._resume(position, end, etag, pauses, error)
                    resumed_at = position
                else:
                    position += len(data[0])
                    yield data.pop()
        finally:
            body.close()

    def _open(self, offset: int, length: int | None, *, etag: str | None) -> "_Body":
        response = self._client.get_object(
            self._bucket,
            self._key,
            offset=offset,
            length=length or 0,
            # One download must not mix the bytes of an object with those of its replacement.
            request_headers={"If-Match": etag} if etag else None,
        )
        try:
            return _Body(response, offset, length)
        except InvalidResponseError:
            response.close()
            response.release_conn()
            raise

    def _resume(self, position: int, end: int, etag: str | None, pauses: Iterator[float], error: Exception) -> "_Body":
        """Open the rest of the range. Raises the last error when no pause is left."""
        if etag is None:
            raise error
        for pause in pauses:
            time.sleep(pause)
            try:
                body = self._open(position, end - position, etag=etag)
            except FAILURES as failure:
                if not is_transient(failure):
                    raise
                error = failure
                continue
            if body.end == end:
                return body
            body.close()
            raise InvalidResponseError(
                HTTPStatus.PARTIAL_CONTENT, None, f"the object ends at byte {body.end} instead of {end}"
            )
        raise error


class _Body:
    """The body of an answer to GetObject, with a known end: a truncated body is never taken for a whole one."""

    def __init__(self, response: BaseHTTPResponse, offset: int, length: int | None) -> None:
        """Take the answer to a request for a range, in bytes.

        Raises:
            InvalidResponseError: The answer has another range.
        """
        self._response = response
        self.etag = response.headers.get("ETag")
        content_range = response.headers.get("Content-Range", "")
        content_length = response.headers.get("Content-Length", "")
        if response.status == HTTPStatus.PARTIAL_CONTENT and (
            match := re.fullmatch(r"bytes (\d+)-(\d+)/\d+", content_range)
        ):
            begin, end = int(match[1]), int(match[2]) + 1
        elif response.status == HTTPStatus.OK and re.fullmatch(r"\d+", content_length):
            begin, end = 0, int(content_length)
        else:
            begin, end = -1, -1
        if begin != offset:
            raise InvalidResponseError(
                response.status, response.headers.get("Content-Type"), f"unexpected range: {content_range!r}"
            )
        # A server may ignore the range of a request and send the whole object.
        self.end = end if length is None else min(end, offset + length)
        self._position = offset

    def read(self) -> bytes:
        """Return the next 1 to CHUNK_SIZE bytes.

        Raises:
            HTTPError: The connection broke, or the body is truncated.
        """
        data = self._response.read(min(CHUNK_SIZE, self.end - self._position), decode_content=False)
        if not data:
            raise ProtocolError(f"the body ended at byte {self._position} instead of {self.end}")
        self._position += len(data)
        return data

    def close(self) -> None:
        """Release the connection: to the pool after a complete read, else by closing it, as the rest may be long."""
        self._response.close()
        self._response.release_conn()


def in_chunks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Regroup pieces of up to CHUNK_SIZE to pieces of exactly that; the last may be smaller."""
    pending = bytearray()
    for piece in pieces:
        if not pending and len(piece) == CHUNK_SIZE:
            whole = [piece]
            del piece
            yield whole.pop()  # gives up all references, as in `Download.pieces`
            continue
        pending += piece
        if len(pending) >= CHUNK_SIZE:
            yield bytes(pending[:CHUNK_SIZE])
            del pending[:CHUNK_SIZE]
    if pending:
        yield bytes(pending)
