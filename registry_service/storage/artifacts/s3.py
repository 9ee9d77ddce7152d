"""The artifact store in a bucket of MinIO or another S3.

An object in parts is a multipart upload of S3: its handle is the upload id, the receipt of a part its ETag.
"""

import io
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain
from typing import TypeVar

from minio import Minio
from minio.error import InvalidResponseError, S3Error, ServerError
from typing_extensions import override

from registry_service.domain.artifact_store import ListableArtifactStore, Part, Pieces, UnfinishedObject
from registry_service.domain.errors import ArtifactLostError, ArtifactStoreUnavailableError, UnavailableError
from registry_service.domain.object_keys import ARTIFACT_PREFIX, check_object_key
from registry_service.domain.parts import MAX_PARTS_IN_FLIGHT, PartBuffer, PartsInFlight
from registry_service.storage.artifacts.checks import PART_SIZE, check_part, check_parts, check_range
from registry_service.storage.artifacts.minio_internals import MultipartUploads
from registry_service.storage.artifacts.s3_connection import CHECKS, COMPLETIONS, REQUESTS, S3Options, make_clients
from registry_service.storage.artifacts.s3_download import Download, in_chunks
from registry_service.storage.artifacts.s3_errors import FAILURES, translated

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# What CompleteMultipartUpload answers when the upload, or one of its parts, does not exist (any more).
_PARTS_GONE = frozenset({"NoSuchUpload", "InvalidPart"})

# Pauses in seconds before each look for an object that another call may be finishing.
_APPEARANCE_PAUSES = (0.0, 0.5, 1.0)

_ABORT_ROUNDS = 5


class S3ArtifactStore(ListableArtifactStore):
    """Stores artifacts in one bucket. Any number of processes may share the bucket."""

    part_size = PART_SIZE

    def __init__(self, bucket: str, location: str, *, client: Minio, completer: Minio, checker: Minio) -> None:
        """Take clients with bounded timeouts and retries; `connect` makes them.

        Args:
            bucket: Name of the bucket.
            location: See the port.
            client: For all requests but the following.
            completer: For `finish`, which may take long and must not be repeated.
            checker: For `check`, which answers soon.
        """
        self.location = location
        self._bucket = bucket
        self._client = client
        self._checker = checker
        self._uploads = MultipartUploads(client, bucket)
        self._joining = threading.Lock()
        self._completions = MultipartUploads(completer, bucket)

    @classmethod
    def connect(cls, options: S3Options, *, connections: int = 64) -> "S3ArtifactStore":
        """Return a store without connecting yet. Call `ensure_bucket` before the first use.

        Args:
            options: The bucket.
            connections: How many connections stay open. More threads than that open connections of their own.

        Raises:
            OSError: The CA file cannot be read or contains no certificate (`ssl.SSLError`).
        """
        client, completer, checker = make_clients(
            options, REQUESTS._replace(connections=connections), COMPLETIONS, CHECKS
        )
        return cls(options.bucket, options.location, client=client, completer=completer, checker=checker)

    def ensure_bucket(self) -> None:
        """Create the bucket if it is missing. Other processes may do so at the same time.

        Raises:
            ArtifactStoreUnavailableError: The store does not answer, or denies access.
        """
        with translated("create the bucket", self._bucket):
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                # BucketAlreadyExists may also mean that another account owns the bucket.
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise
                if not self._client.bucket_exists(self._bucket):
                    raise

    @override
    def put(self, key: str, data: bytes) -> None:
        check_object_key(key)
        # A part size of at least the object's makes this one request, which is atomic.
        part_size = max(len(data), PART_SIZE)
        with translated("write", key):
            self._in_bucket(
                lambda: self._client.put_object(self._bucket, key, io.BytesIO(data), len(data), part_size=part_size)
            )

    @override
    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        # Holds the parts in flight and one more.
        parts = _in_parts(pieces)
        first = [next(parts, [])]
        if (second := next(parts, None)) is None:
            self.put(key, b"".join(first[0]))
            return
        first.insert(0, second)
        del second
        handle = self.begin(key)
        sent: list[Future[Part]] = []
        with (
            PartsInFlight() as in_flight,
            ThreadPoolExecutor(MAX_PARTS_IN_FLIGHT, thread_name_prefix="part-sender") as senders,
        ):
            for number, part_pieces in enumerate(chain(_drained(first), parts)):
                in_flight.make_room()
                part = senders.submit(
                    self.write_part, key, handle, number=number + 1, offset=number * PART_SIZE, pieces=part_pieces
                )
                in_flight.add(part)
                sent.append(part)
        self.finish(key, handle, [part.result() for part in sent])
        self._abort_leftovers(key)

    @override
    def begin(self, key: str) -> str:
        check_object_key(key)
        with translated("begin", key):
            return self._in_bucket(lambda: self._uploads.create(key))

    @override
    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        check_object_key(key)
        size = check_part(number, offset, pieces)
        # The SDK takes a part as one `bytes`. Clearing the list frees the pieces, so that the part is held once while
        # it is sent. Sending the pieces themselves saved 5 to 13 % of the CPU and a sixth of the memory, too little
        # to override private methods of the SDK. One at a time, so that all uploads together hold one part twice.
        with self._joining:
            data = b"".join(pieces)
            pieces.clear()
        with translated("write a part of", key, lost={"NoSuchUpload"}):
            receipt = self._uploads.upload(key, handle, number, data)
        return Part(number=number, offset=offset, size=size, receipt=receipt)

    @override
    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        # Waits up to 300 s for a store that accepts the request and sends nothing. If this process dies
        # meanwhile, MinIO may lose the parts: the next attempt raises ArtifactLostError.
        check_object_key(key)
        total = check_parts(parts)
        with translated("finish", key, lost=_PARTS_GONE):
            try:
                is_complete = self._completions.complete(key, handle, parts)
            except S3Error as error:
                # The upload may be complete: since before a crash, by a call whose answer was lost, or soon by a
                # call that continues after its client disconnected. A loss is final, so this waits to be sure.
                if error.code not in _PARTS_GONE or not self._appears(key, total):
                    raise
                return
            # S3 may answer 200 before a long completion ends, which can still fail.
            if not is_complete and self.size(key) != total:
                raise InvalidResponseError(200, "application/xml", "an error after the status")

    @override
    def abort(self, key: str, handle: str | None = None) -> None:
        check_object_key(key)
        with translated("abort", key):
            if handle is not None:
                self._uploads.abort(key, handle)
            else:
                self._abort_all(key)

    @override
    def unfinished(self) -> Iterator[UnfinishedObject]:
        # MinIO forgets unfinished uploads when it restarts, and removes them after a day.
        with translated("list the unfinished objects of", self._bucket):
            yield from self._uploads.all_unfinished()

    @override
    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_object_key(key)
        check_range(offset, length)
        if length == 0:
            # HTTP cannot express an empty range.
            if self.size(key) is None:
                raise ArtifactLostError
            return
        with closing(Download(self._client, self._bucket, key).pieces(offset, length)) as pieces:
            yield from in_chunks(pieces)

    @override
    def size(self, key: str) -> int | None:
        check_object_key(key)
        with translated("get the size of", key):
            try:
                return self._client.stat_object(self._bucket, key).size
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                # An answer to HEAD has no body, so a missing bucket looks like a missing object.
                if not self._client.bucket_exists(self._bucket):
                    raise
                return None

    @override
    def delete(self, key: str) -> None:
        check_object_key(key)
        with translated("delete", key):
            self._abort_all(key)
            try:
                self._client.remove_object(self._bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise

    @override
    def keys(self, prefix: str = ARTIFACT_PREFIX) -> Iterator[str]:
        with translated("list", prefix):
            for found in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if found.object_name is not None:
                    yield found.object_name

    @override
    def check(self) -> None:
        # Answers within about 4 s and does not try to write. Logs at DEBUG only: health checks call this
        # every second, and log changes.
        try:
            exists = self._checker.bucket_exists(self._bucket)
        except FAILURES as error:
            logger.debug("The check of the artifact store failed", exc_info=True)
            raise ArtifactStoreUnavailableError from error
        if not exists:
            logger.debug("The bucket %s does not exist", self._bucket)
            raise ArtifactStoreUnavailableError

    def _abort_all(self, key: str) -> None:
        # A part that is being written can survive an abort, so this looks again.
        for _ in range(_ABORT_ROUNDS):
            handles = self._uploads.unfinished(key)
            if not handles:
                return
            for handle in handles:
                self._uploads.abort(key, handle)
        raise ServerError(f"unfinished uploads remain after {_ABORT_ROUNDS} attempts to abort them", 200)

    def _abort_leftovers(self, key: str) -> None:
        """Abort the other uploads of a finished object's key, which repeated requests may have created.

        A store that answers late may carry out a repeated request twice. Raises nothing, as the object
        is stored; garbage collection removes what remains.
        """
        with suppress(UnavailableError):
            self.abort(key)

    def _in_bucket(self, write: Callable[[], Result]) -> Result:
        """Call a function that writes. If the bucket was removed, create it again and repeat the call."""
        try:
            return write()
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
        logger.warning("The bucket %s is missing; creating it again", self._bucket)
        self.ensure_bucket()
        return write()

    def _appears(self, key: str, size: int) -> bool:
        """Wait a moment for an object, and return whether it has this size."""
        for pause in _APPEARANCE_PAUSES:
            time.sleep(pause)
            if self.size(key) == size:
                return True
        return False


def _drained(items: list[Result]) -> Iterator[Result]:
    """Yield the items from the last to the first, without keeping a reference to them."""
    while items:
        yield items.pop()


def _in_parts(pieces: Iterable[bytes]) -> Iterator[Pieces]:
    """Regroup pieces of any size to parts of exactly PART_SIZE; the last may be smaller."""
    held = PartBuffer(PART_SIZE)
    for piece in pieces:
        yield from held.add(piece)
    if held:
        yield held.take()
