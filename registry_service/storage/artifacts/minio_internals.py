"""What the minio SDK does not offer, on top of its private methods. Only this module calls them.

Works with minio 7.2.15 to 7.2.20. After an update run
tests/contracts/test_s3_artifact_store.py, which covers every method below.

- `MultipartUploads`: the public `put_object` runs a whole multipart upload in
  one call. An upload that another process resumes needs the single requests.
- `PieceClient`: the SDK takes the body of a part as one `bytes`. Joining its
  pieces costs the memory of the part a second time.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, cast

from minio import Minio
from minio.credentials.credentials import Credentials
from minio.datatypes import Part as S3Part
from minio.error import S3Error

from registry_service.domain.artifact_store import Part, Pieces, UnfinishedObject
from registry_service.domain.object_keys import ARTIFACT_PREFIX


class MultipartUploads:
    """The multipart uploads of a bucket. The handle of an object is S3's upload id, the receipt of a part its ETag."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create(self, key: str) -> str:
        """Create an upload and return its handle."""
        return self._client._create_multipart_upload(self._bucket, key, {})  # noqa: SLF001

    def upload(self, key: str, handle: str, number: int, pieces: Pieces) -> str:
        """Upload a part and return its receipt."""
        body = cast("bytes", _BodyInPieces(pieces))
        return self._client._upload_part(self._bucket, key, body, None, handle, number)  # noqa: SLF001

    def complete(self, key: str, handle: str, parts: Sequence[Part]) -> bool:
        """Complete an upload. Returns whether the body of the answer reports success, as its status 200 does not."""
        result = self._client._complete_multipart_upload(  # noqa: SLF001
            self._bucket, key, handle, [S3Part(part.number, part.receipt) for part in parts]
        )
        return result.etag is not None

    def abort(self, key: str, handle: str) -> None:
        """Abort an upload. An absent one counts as aborted."""
        try:
            self._client._abort_multipart_upload(self._bucket, key, handle)  # noqa: SLF001
        except S3Error as error:
            if error.code != "NoSuchUpload":
                raise

    def unfinished(self, key: str) -> list[str]:
        """Return the handles of a key's uploads, at most the first thousand.

        S3 lists by prefix in the order of the keys, so that uploads of the exact key come first.
        MinIO lists only the uploads of the exact key.
        """
        page = self._client._list_multipart_uploads(self._bucket, prefix=key)  # noqa: SLF001
        return [upload.upload_id for upload in page.uploads if upload.object_name == key and upload.upload_id]

    def all_unfinished(self) -> Iterator[UnfinishedObject]:
        """Yield the uploads under ARTIFACT_PREFIX."""
        # MinIO lists nothing for a prefix that is not a whole key, and all uploads without a prefix.
        for prefix in (ARTIFACT_PREFIX, ""):
            found = False
            marker: str | None = None
            while True:
                page = self._client._list_multipart_uploads(  # noqa: SLF001
                    self._bucket, prefix=prefix, key_marker=marker
                )
                for upload in page.uploads:
                    if upload.object_name.startswith(ARTIFACT_PREFIX) and upload.upload_id and upload.initiated_time:
                        found = True
                        yield UnfinishedObject(
                            key=upload.object_name, handle=upload.upload_id, begin_time=upload.initiated_time
                        )
                # Uploads of one key that continue on the next page are skipped; the next listing has them.
                if not page.is_truncated or page.next_key_marker in {None, marker}:
                    break
                marker = page.next_key_marker
            if found:
                return


class _BodyInPieces:
    """A request body that urllib3 sends piece by piece. For `PieceClient` only."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._size = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes | bytearray | memoryview]:
        return iter(self._pieces)


class PieceClient(Minio):
    """A client that also takes a `_BodyInPieces`."""

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
        # The SDK sends MD5 with TLS, and a signed SHA-256 without.
        digest = hashlib.md5(usedforsecurity=False) if self._base_url.is_https else hashlib.sha256()
        for piece in body:
            digest.update(piece)
        if self._base_url.is_https:
            built["Content-MD5"] = base64.b64encode(digest.digest()).decode()
        else:
            built["x-amz-content-sha256"] = digest.hexdigest()
        built["Content-Length"] = str(len(body))
        return built, date
