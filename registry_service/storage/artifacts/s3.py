"""Artifacts in a bucket of MinIO or another S3, under their keys.

Objects in parts are S3's multipart uploads: the handle is the upload id, a
part's receipt its ETag. The text of what S3 or the network answers is logged
and never part of an error that leaves this module.
"""

import base64
import errno
import hashlib
import io
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast
from xml.etree.ElementTree import ParseError

import certifi
from minio import Minio
from minio.credentials.credentials import Credentials
from minio.datatypes import Part as S3Part
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import BaseHTTPResponse, PoolManager, Retry, Timeout
from urllib3.exceptions import HTTPError, ProtocolError

from registry_service.domain.artifact_store import CHUNK_SIZE, OBJECT_PREFIX, Construction, Part, Pieces
from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactStoreUnavailableError,
    StorageFullError,
    TooManyOpenFilesError,
    UnavailableError,
)
from registry_service.domain.legacy import SourceError
from registry_service.domain.parts import MOST, PartBuffer, PartsUnderWay
from registry_service.storage.artifacts import PART_SIZE, check_key, check_range, size_of_part, total_size

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# All that a store that is away, ill or none at all makes the SDK raise; the
# last two come from answers that are no XML or no text.
# MinIO's: its disks are full, or what it allows a bucket is used up.
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
_FAILURES = (MinioException, HTTPError, OSError, ParseError, UnicodeDecodeError)

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})

# What a completion answers when the upload, or a part of it, is not there (any more).
_PARTS_GONE = frozenset({"NoSuchUpload", "InvalidPart"})

# How often in a row a read goes on after a broken connection, and the pause
# before each try: 3.5 seconds in all, for a store that restarts.
_RESUME_PAUSES = (0.0, 0.5, 1.0, 2.0)

# A read that got so far, in bytes, since it was resumed counts as healthy again.
_HEALTHY_PROGRESS = PART_SIZE

# Pauses before each look for an object that somebody else may be finishing just now.
_APPEARANCE_PAUSES = (0.0, 0.5, 1.0)

_ABORT_ROUNDS = 5


def connect(
    *,
    host: str,
    port: int,
    access_key: str,
    secret_key: str,
    bucket: str,
    region: str = "us-east-1",
    secure: bool = False,
    ca_cert: Path | None = None,
    connections: int = 64,
) -> "S3ArtifactStore":
    """Makes the store without talking to it yet.

    Args:
        host: Name or address, without brackets for IPv6.
        port: Of the S3.
        access_key: Of the S3.
        secret_key: Of the S3.
        bucket: Where the objects are; see `S3ArtifactStore.ensure_bucket`.
        region: Of the bucket.
        secure: Whether to use TLS; the certificate is always verified.
        ca_cert: File of the only CA certificates to trust; None trusts the system's and certifi's.
        connections: As many are kept open; as many threads as that share the store at no cost.

    Raises:
        OSError: `ca_cert` cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    client = _clients(
        host=host,
        port=port,
        access_key=access_key,
        secret_key=secret_key,
        region=region,
        tls=_tls_context(ca_cert) if secure else None,
    )

    # An S3 that is away is told within 2 x 2.5 s. Every call may be repeated, POST
    # included: a second CreateMultipartUpload leaves one more upload for delete() to
    # abort. The store does not get to say how long we wait: it may ask for minutes.
    retries = _retries()
    # Only CompleteMultipartUpload is waited for patiently, and not repeated here. When the
    # client hangs up, MinIO stops at once, even between forgetting the parts and renaming
    # them, and the parts are lost: seen on every third try. Thousands of parts take their time.
    # A 503 is an answer: nothing has begun, as when the store is still starting.
    finishing = Retry(
        total=2,
        connect=1,
        read=0,
        other=0,
        allowed_methods=None,
        status_forcelist=(503,),
        backoff_factor=0.25,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    return S3ArtifactStore(
        client(Timeout(connect=2.5, read=30), retries, connections),
        bucket,
        finisher=client(Timeout(connect=2.5, read=300), finishing, 4),
        probe=client(Timeout(connect=2, read=4), Retry(total=0), 1),
    )


def connect_source(
    *,
    host: str,
    port: int,
    access_key: str,
    secret_key: str,
    bucket: str,
    region: str = "us-east-1",
    secure: bool = False,
    ca_cert: Path | None = None,
    connections: int = 16,
) -> "S3Bucket":
    """Makes a reader of somebody else's bucket without talking to it yet; arguments and errors as for `connect`."""
    client = _clients(
        host=host,
        port=port,
        access_key=access_key,
        secret_key=secret_key,
        region=region,
        tls=_tls_context(ca_cert) if secure else None,
    )
    return S3Bucket(client(Timeout(connect=2.5, read=30), _retries(), connections), bucket)


def _clients(
    *, host: str, port: int, access_key: str, secret_key: str, region: str, tls: ssl.SSLContext | None
) -> Callable[[Timeout, Retry, int], Minio]:
    """Returns what makes clients of one S3 from their timeouts, their retries and how many connections they keep."""
    endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def client(timeout: Timeout, retries: Retry, maxsize: int) -> Minio:
        pool = PoolManager(maxsize=maxsize, timeout=timeout, retries=retries, ssl_context=tls)
        return _Client(
            endpoint,
            access_key=access_key,
            secret_key=secret_key,
            secure=tls is not None,
            region=region,
            http_client=pool,
        )

    return client


def _retries() -> Retry:
    return Retry(
        total=2,
        connect=1,
        read=1,
        other=1,
        allowed_methods=None,
        status_forcelist=(429, 500, 502, 503, 504),
        backoff_factor=0.25,
        raise_on_status=False,
        respect_retry_after_header=False,
    )


def _tls_context(ca_cert: Path | None) -> ssl.SSLContext:
    if ca_cert is not None:
        return ssl.create_default_context(cafile=ca_cert)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class S3ArtifactStore:
    """Keeps artifacts in one bucket, for any number of processes."""

    part_size = PART_SIZE

    def __init__(
        self, client: Minio, bucket: str, *, finisher: Minio | None = None, probe: Minio | None = None
    ) -> None:
        """Takes clients whose timeouts and retries are bounded, as `connect` makes them.

        Args:
            client: For everything else.
            bucket: Where the objects are.
            finisher: For `finish`, more patient than `client`, which it defaults to.
            probe: For `check`, more impatient than `client`, which it defaults to.
        """
        self._client = client
        self._probe = probe or client
        self._bucket = bucket
        self._multipart = _Multipart(client, bucket)
        self._finishing = _Multipart(finisher or client, bucket)

    def ensure_bucket(self) -> None:
        """Makes the bucket when it is missing; another process may do so at the same time.

        Raises:
            ArtifactStoreUnavailableError: The store does not answer, or does not let us.
        """
        with _translated("make the bucket", self._bucket):
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                # The second code may also mean that the bucket is somebody else's.
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise
                if not self._client.bucket_exists(self._bucket):
                    raise

    def put(self, key: str, data: bytes) -> None:
        """See the port."""
        check_key(key)
        # A part size that holds all of it makes this one request, hence atomic.
        part_size = max(len(data), PART_SIZE)
        with _translated("write", key):
            self._in_bucket(
                lambda: self._client.put_object(self._bucket, key, io.BytesIO(data), len(data), part_size=part_size)
            )

    def write(self, key: str, pieces: Iterable[bytes]) -> None:
        """See the port. Holds the parts that are under way, and one more."""
        parts = _in_parts(pieces)
        begun = [next(parts, [])]
        if (second := next(parts, None)) is None:
            self.put(key, b"".join(begun[0]))
            return
        begun.insert(0, second)
        del second
        handle = self.begin(key)
        sent: list[Future[Part]] = []
        with PartsUnderWay() as under_way, ThreadPoolExecutor(MOST, thread_name_prefix="part-sender") as senders:
            for number, part_pieces in enumerate(chain(_taken(begun), parts)):
                under_way.make_room()
                part = senders.submit(
                    self.write_part, key, handle, number=number + 1, offset=number * PART_SIZE, pieces=part_pieces
                )
                under_way.add(part)
                sent.append(part)
        self.finish(key, handle, [part.result() for part in sent])
        self._abort_leftovers(key)

    def begin(self, key: str) -> str:
        """See the port."""
        check_key(key)
        with _translated("begin", key):
            return self._in_bucket(lambda: self._multipart.create(key))

    def write_part(self, key: str, handle: str, *, number: int, offset: int, pieces: Pieces) -> Part:
        """See the port.

        Raises:
            ArtifactLostError: Nothing is under construction by this handle.
        """
        check_key(key)
        size = size_of_part(number, offset, pieces)
        with _translated("write a part of", key, lost={"NoSuchUpload"}):
            receipt = self._multipart.upload(key, handle, number, pieces)
            pieces.clear()
        return Part(number=number, offset=offset, size=size, receipt=receipt)

    def finish(self, key: str, handle: str, parts: Sequence[Part]) -> None:
        """See the port. Unlike other calls, waits up to 300 s for a store that accepts it and says nothing.

        A process that dies while MinIO is at it may cost the parts: `ArtifactLostError` the next time.
        """
        check_key(key)
        total = total_size(parts)
        with _translated("finish", key, lost=_PARTS_GONE):
            try:
                complete = self._finishing.complete(key, handle, parts)
            except S3Error as error:
                # Completed before a crash, or by a call whose answer was lost, or just now by
                # one that goes on after we hung up: the verdict is final, so it is not rushed.
                if error.code not in _PARTS_GONE or not self._appears(key, total):
                    raise
                return
            # A completion that takes long may be answered 200 before it is done, and still fail.
            if not complete and self.size(key) != total:
                raise InvalidResponseError(200, "application/xml", "an error after the status")

    def abort(self, key: str, handle: str | None = None) -> None:
        """See the port."""
        check_key(key)
        with _translated("abort", key):
            if handle is not None:
                self._multipart.abort(key, handle)
            else:
                self._abort_all(key)

    def unfinished(self) -> Iterator[Construction]:
        """See the port. MinIO forgets them when it restarts, and removes them itself after a day."""
        with _translated("list what is unfinished in", self._bucket):
            yield from self._multipart.all_unfinished()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See the port."""
        check_key(key)
        check_range(offset, length)
        if length == 0:
            # HTTP has no empty range.
            if self.size(key) is None:
                raise ArtifactLostError
            return
        with closing(_Download(self._client, self._bucket, key).pieces(offset, length)) as pieces:
            yield from _regrouped(pieces)

    def size(self, key: str) -> int | None:
        """See the port."""
        check_key(key)
        with _translated("look at", key):
            try:
                return self._client.stat_object(self._bucket, key).size
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                # The answer to HEAD has no body: it does not tell a missing object from a missing bucket.
                if not self._client.bucket_exists(self._bucket):
                    raise
                return None

    def delete(self, key: str) -> None:
        """See the port."""
        check_key(key)
        with _translated("delete", key):
            self._abort_all(key)
            try:
                self._client.remove_object(self._bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise

    def keys(self, prefix: str = OBJECT_PREFIX) -> Iterator[str]:
        """See the port."""
        with _translated("list", prefix):
            for found in self._client.list_objects(self._bucket, prefix=prefix, recursive=True):
                if found.object_name is not None:
                    yield found.object_name

    def _abort_all(self, key: str) -> None:
        # A part that is being written meanwhile can outlive an abort, hence another look.
        for _ in range(_ABORT_ROUNDS):
            handles = self._multipart.unfinished(key)
            if not handles:
                return
            for handle in handles:
                self._multipart.abort(key, handle)
        raise ServerError("unfinished uploads remain after they were aborted", 200)

    def _abort_leftovers(self, key: str) -> None:
        """Abort what else was begun on the key of a whole object: by a request that was repeated, for example.

        Such a request may be carried out twice by a store that answers late. Raise nothing, as
        the object is there; `gc` looks for what remains.
        """
        with suppress(UnavailableError):
            self.abort(key)

    def _in_bucket(self, write: Callable[[], Result]) -> Result:
        """Writes; makes the bucket again where somebody has removed it."""
        try:
            return write()
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
        logger.warning("The bucket %s is gone; making it again", self._bucket)
        self.ensure_bucket()
        return write()

    def _appears(self, key: str, size: int) -> bool:
        for pause in _APPEARANCE_PAUSES:
            time.sleep(pause)
            if self.size(key) == size:
                return True
        return False

    def check(self) -> None:
        """See the port; whether the bucket can be written is not tried.

        Answers within about 4 s. Logs for debugging only, since it is asked every second; the caller logs changes.
        """
        try:
            exists = self._probe.bucket_exists(self._bucket)
        except _FAILURES as error:
            logger.debug("The artifact store is not well", exc_info=True)
            raise ArtifactStoreUnavailableError from error
        if not exists:
            logger.debug("The bucket %s is gone", self._bucket)
            raise ArtifactStoreUnavailableError


class S3Bucket:
    """`domain.legacy.LegacyBucket`: objects that another program has put into a bucket."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def size(self, key: str) -> int | None:
        """See the port."""
        with _translated("look at", key):
            try:
                return self._client.stat_object(self._bucket, key).size
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return None

    def read(self, key: str) -> Iterator[bytes]:
        """See the port."""
        with closing(_Download(self._client, self._bucket, key).pieces(0, None)) as pieces:
            yield from pieces

    def check(self) -> None:
        """See the port."""
        try:
            if not self._client.bucket_exists(self._bucket):
                raise SourceError(f"The S3 has no bucket {self._bucket!r}.")
        except S3Error as error:
            raise SourceError(f"The bucket {self._bucket!r} cannot be read: {error.code}.") from error
        except _FAILURES as error:
            logger.debug("The source's S3 is not well", exc_info=True)
            raise SourceError("The S3 of the source does not answer.") from error


class _Multipart:
    """S3's multipart calls, which the SDK has but does not make public.

    Its public `put_object` does them all in one go, so it can neither be taken up
    by another process nor wait for a client. This class is the only place to mend
    when an SDK changes them; the contract suite shows it.
    """

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create(self, key: str) -> str:
        return self._client._create_multipart_upload(self._bucket, key, {})  # noqa: SLF001

    def upload(self, key: str, handle: str, number: int, pieces: Pieces) -> str:
        body = cast("bytes", _BodyInPieces(pieces))
        return self._client._upload_part(self._bucket, key, body, None, handle, number)  # noqa: SLF001

    def complete(self, key: str, handle: str, parts: Sequence[Part]) -> bool:
        """Returns whether the answer is that of a success: its status does not say."""
        result = self._client._complete_multipart_upload(  # noqa: SLF001
            self._bucket, key, handle, [S3Part(part.number, part.receipt) for part in parts]
        )
        return result.etag is not None

    def abort(self, key: str, handle: str) -> None:
        try:
            self._client._abort_multipart_upload(self._bucket, key, handle)  # noqa: SLF001
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise

    def unfinished(self, key: str) -> list[str]:
        """Returns the handles on exactly this key, or the first thousand of them.

        S3 takes the prefix as one and sorts by key, so that the exact one comes first;
        MinIO answers only when the prefix is a whole key.
        """
        page = self._client._list_multipart_uploads(self._bucket, prefix=key)  # noqa: SLF001
        return [upload.upload_id for upload in page.uploads if upload.object_name == key and upload.upload_id]

    def all_unfinished(self) -> Iterator[Construction]:
        """Yield what is under construction on keys of ours."""
        # MinIO lists nothing by a prefix that is no whole key, and everything without one.
        for prefix in (OBJECT_PREFIX, ""):
            found = False
            marker: str | None = None
            while True:
                page = self._client._list_multipart_uploads(  # noqa: SLF001
                    self._bucket, prefix=prefix, key_marker=marker
                )
                for upload in page.uploads:
                    if upload.object_name.startswith(OBJECT_PREFIX) and upload.upload_id and upload.initiated_time:
                        found = True
                        yield Construction(
                            key=upload.object_name, handle=upload.upload_id, begin_time=upload.initiated_time
                        )
                # Of a key's uploads that go beyond the page, the next listing has the rest.
                if not page.is_truncated or page.next_key_marker in {None, marker}:
                    break
                marker = page.next_key_marker
            if found:
                return


class _BodyInPieces:
    """The body of a request to `_Client`, which urllib3 sends piece by piece."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._size = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes | bytearray | memoryview]:
        return iter(self._pieces)


class _Client(Minio):
    """Takes bodies in pieces, too: to join them takes CPU, and the memory of a part a second time."""

    def _build_headers(
        self,
        host: str,
        headers: dict[str, Any] | None = None,
        body: Any = None,
        creds: Credentials | None = None,
    ) -> tuple[dict[str, Any], datetime]:
        if not isinstance(body, _BodyInPieces):
            return super()._build_headers(host, headers, body, creds)
        built, date = super()._build_headers(host, headers, None, creds)
        # As the SDK does: one of the two vouches for the body.
        digest = hashlib.md5(usedforsecurity=False) if self._base_url.is_https else hashlib.sha256()
        for piece in body:
            digest.update(piece)
        if self._base_url.is_https:
            built["Content-MD5"] = base64.b64encode(digest.digest()).decode()
        else:
            built["x-amz-content-sha256"] = digest.hexdigest()
        built["Content-Length"] = str(len(body))
        return built, date


class _Body:
    """An answer to GetObject whose extent is known, so that a short one is not taken for a whole one."""

    def __init__(self, response: BaseHTTPResponse, offset: int, length: int | None) -> None:
        """Takes an answer to a request for this range, in bytes.

        Raises:
            InvalidResponseError: It is none.
        """
        self._response = response
        self.etag = response.headers.get("ETag")
        content_range = response.headers.get("Content-Range", "")
        content_length = response.headers.get("Content-Length", "")
        if response.status == 206 and (match := re.fullmatch(r"bytes (\d+)-(\d+)/\d+", content_range)):
            begin, end = int(match[1]), int(match[2]) + 1
        elif response.status == 200 and re.fullmatch(r"\d+", content_length):
            begin, end = 0, int(content_length)
        else:
            begin, end = -1, -1
        if begin != offset:
            raise InvalidResponseError(
                response.status, response.headers.get("Content-Type"), f"another range: {content_range!r}"
            )
        # A server may ignore the range and answer everything.
        self.end = end if length is None else min(end, offset + length)
        self._position = offset

    def read(self) -> bytes:
        """Returns the next bytes, at least one, up to CHUNK_SIZE.

        Raises:
            HTTPError: The connection broke, or the body ended early.
        """
        data = self._response.read(min(CHUNK_SIZE, self.end - self._position), decode_content=False)
        if not data:
            raise ProtocolError(f"The body ended at byte {self._position} instead of {self.end}")
        self._position += len(data)
        return data

    def close(self) -> None:
        """Frees the connection: for the next request when all was read, else by closing it, for the rest is long."""
        self._response.close()
        self._response.release_conn()


class _Download:
    """One read, which outlives the connections that break under it."""

    def __init__(self, client: Minio, bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key

    def pieces(self, offset: int, length: int | None) -> Generator[bytes]:
        """Reads a range (in bytes) in pieces of any size.

        Raises:
            ArtifactLostError: There is no such object, or no longer.
            ArtifactStoreUnavailableError: Nothing of this came, or it broke off once too often.
        """
        with _translated("read", self._key, lost={"NoSuchKey"}):
            try:
                body = self._open(offset, length, etag=None)
            except S3Error as error:
                if error.code != "InvalidRange":
                    raise
                return  # it begins past the end
        position, resumed_at, end, etag = offset, offset, body.end, body.etag
        pauses = iter(_RESUME_PAUSES)
        try:
            while position < end:
                try:
                    # In a list, from which it is taken with the yield: a slow reader keeps no second reference to it.
                    data = [body.read()]
                except (HTTPError, OSError) as error:
                    body.close()
                    if position - resumed_at >= _HEALTHY_PROGRESS:
                        pauses = iter(_RESUME_PAUSES)
                    logger.warning("The read of %s broke off at byte %d: %r", self._key, position, error)
                    with _translated("resume the read of", self._key, lost={"NoSuchKey"}):
                        body = self._resume(position, end, etag, pauses, error)
                    resumed_at = position
                else:
                    position += len(data[0])
                    yield data.pop()
        finally:
            body.close()

    def _open(self, offset: int, length: int | None, *, etag: str | None) -> _Body:
        response = self._client.get_object(
            self._bucket,
            self._key,
            offset=offset,
            length=length or 0,
            # Bytes of two contents must not end up in one download.
            request_headers={"If-Match": etag} if etag else None,
        )
        try:
            return _Body(response, offset, length)
        except InvalidResponseError:
            response.close()
            response.release_conn()
            raise

    def _resume(self, position: int, end: int, etag: str | None, pauses: Iterator[float], error: Exception) -> _Body:
        """Opens the rest of the range; raises the last error when the pauses are used up."""
        if etag is None:
            raise error
        for pause in pauses:
            time.sleep(pause)
            try:
                body = self._open(position, end - position, etag=etag)
            except _FAILURES as failure:
                if not _may_pass(failure):
                    raise
                error = failure
                continue
            if body.end == end:
                return body
            body.close()
            raise InvalidResponseError(206, None, f"the object ends at {body.end}, not {end}")
        raise error


def _taken(items: list[Result]) -> Iterator[Result]:
    """Yields the items, the last first, and holds none that it has yielded."""
    while items:
        yield items.pop()


def _in_parts(pieces: Iterable[bytes]) -> Iterator[Pieces]:
    """Regroups pieces of any size to parts of exactly PART_SIZE, the last excepted."""
    held = PartBuffer(PART_SIZE)
    for piece in pieces:
        yield from held.add(piece)
    if held:
        yield held.take()


def _regrouped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Makes pieces of exactly CHUNK_SIZE, the last excepted, of pieces of at most that."""
    pending = bytearray()
    for piece in pieces:
        if not pending and len(piece) == CHUNK_SIZE:
            whole = [piece]
            del piece
            yield whole.pop()  # as above
            continue
        pending += piece
        if len(pending) >= CHUNK_SIZE:
            yield bytes(pending[:CHUNK_SIZE])
            del pending[:CHUNK_SIZE]
    if pending:
        yield bytes(pending)


def _may_pass(error: Exception) -> bool:
    """Says whether the same request may succeed in a moment."""
    if isinstance(error, S3Error):
        return error.response.status >= 500
    return True


@contextmanager
def _translated(action: str, key: str, lost: Container[str] = ()) -> Iterator[None]:
    """Turns what the SDK raises into the port's errors.

    Args:
        action: What is done, for the log.
        key: To what, for the log.
        lost: S3's error codes that say that bytes are gone; all others say that the store is of no use now.
    """
    try:
        yield
    except _FAILURES as error:
        if isinstance(error, S3Error) and error.code in lost:
            logger.warning("The artifact store cannot %s %s: %s", action, key, error)
            raise ArtifactLostError from error
        if isinstance(error, S3Error) and (
            error.code in _FULL or error.response.status == HTTPStatus.INSUFFICIENT_STORAGE
        ):
            logger.error("The artifact store has no space to %s %s: %s", action, key, error)  # noqa: TRY400 (it is known)
            raise StorageFullError("the artifact store") from error
        logger.exception("The artifact store failed to %s %s", action, key)
        if _is_out_of_files(error):
            raise TooManyOpenFilesError from error
        raise ArtifactStoreUnavailableError from error


def _is_out_of_files(error: BaseException) -> bool:
    """Tell whether a request failed as this process, or the machine, may open no more files and connections."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        # The resolver, which opens files of its own, tells another error (EBUSY, EAI_AGAIN), or none.
        if isinstance(cause, OSError) and (cause.errno in _OUT_OF_FILES or not _may_open()):
            return True
        # urllib3 has what ended its tries in `reason` alone.
        causes = (cause.__cause__, cause.__context__, getattr(cause, "reason", None))
        pending += [found for found in causes if isinstance(found, BaseException)]
    return False


def _may_open() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _OUT_OF_FILES
    return True
