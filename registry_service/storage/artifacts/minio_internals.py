"""The single requests of a multipart upload, which the minio SDK has only as private methods.

The public `put_object` runs a whole multipart upload in one call. An upload that
another process resumes needs the requests one by one. No other module calls
private methods of the SDK.

Works with minio 7.2.15 to 7.2.20. After an update, run
tests/contracts/test_s3_artifact_store.py, which covers every method.
"""

from collections.abc import Iterator, Sequence

from minio import Minio
from minio.datatypes import Part as S3Part
from minio.error import S3Error

from registry_service.domain.artifact_store import Part, UnfinishedObject
from registry_service.domain.object_keys import ARTIFACT_PREFIX


class MultipartUploads:
    """The multipart uploads of a bucket. The handle of an object is S3's upload id, the receipt of a part its ETag."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def create(self, key: str) -> str:
        """Create an upload and return its handle."""
        return self._client._create_multipart_upload(self._bucket, key, {})  # noqa: SLF001

    def upload(self, key: str, handle: str, number: int, data: bytes) -> str:
        """Upload a part and return its receipt."""
        return self._client._upload_part(self._bucket, key, data, None, handle, number)  # noqa: SLF001

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
