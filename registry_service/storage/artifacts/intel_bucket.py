"""The bucket of an Intel deployment that `import-intel` reads."""

import logging
from collections.abc import Iterator
from contextlib import closing

from minio import Minio
from minio.error import S3Error
from typing_extensions import override

from registry_service.domain.source_error import SourceError
from registry_service.intel_migration.source import IntelBucket
from registry_service.storage.artifacts.s3_connection import REQUESTS, S3Options, make_clients
from registry_service.storage.artifacts.s3_download import Download
from registry_service.storage.artifacts.s3_errors import FAILURES, translated

logger = logging.getLogger(__name__)


class S3IntelBucket(IntelBucket):
    """Reads objects that another program has stored in a bucket."""

    def __init__(self, client: Minio, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    @classmethod
    def connect(cls, options: S3Options) -> "S3IntelBucket":
        """Return a reader of a bucket without connecting yet. Raises as `s3_connection.make_clients` does."""
        [client] = make_clients(options, REQUESTS._replace(connections=16))
        return cls(client, options.bucket)

    @override
    def size(self, key: str) -> int | None:
        with translated("get the size of", key):
            try:
                return self._client.stat_object(self._bucket, key).size
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
                return None

    @override
    def read(self, key: str) -> Iterator[bytes]:
        with closing(Download(self._client, self._bucket, key).pieces(0, None)) as pieces:
            yield from pieces

    @override
    def check(self) -> None:
        try:
            if not self._client.bucket_exists(self._bucket):
                raise SourceError(f"The source has no bucket {self._bucket!r}.")
        except S3Error as error:
            raise SourceError(f"The bucket {self._bucket!r} of the source cannot be read: {error.code}.") from error
        except FAILURES as error:
            logger.debug("The source's S3 failed a check", exc_info=True)
            raise SourceError("The S3 of the source does not respond.") from error
