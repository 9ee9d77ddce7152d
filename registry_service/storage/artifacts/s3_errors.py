"""Translation of what the minio SDK raises to the errors of `domain.artifact_store`.

The text of an answer of S3 or of a network error is logged, and is never part of a translated error.
"""

import errno
import logging
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from xml.etree.ElementTree import ParseError

from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactStoreUnavailableError,
    StorageFullError,
    TooManyOpenFilesError,
)

logger = logging.getLogger(__name__)

FAILURES = (MinioException, HTTPError, OSError, ParseError, UnicodeDecodeError)
"""What the SDK raises when the store fails or is unreachable. The last two mean an answer that is not XML or text."""

# MinIO's codes for full disks and for an exhausted bucket quota.
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}

_OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, S3Error):
        return error.response.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return True


@contextmanager
def translated(action: str, key: str, lost: Container[str] = ()) -> Iterator[None]:
    """Translate FAILURES to errors of the port.

    Args:
        action: What the block does, for the log.
        key: Key or bucket that it does this to, for the log.
        lost: Error codes of S3 that mean lost bytes. All other codes mean that the store is unavailable.
    """
    try:
        yield
    except FAILURES as error:
        if isinstance(error, S3Error) and error.code in lost:
            logger.warning("The artifact store cannot %s %s: %s", action, key, error)
            raise ArtifactLostError from error
        if isinstance(error, S3Error) and (
            error.code in _FULL or error.response.status == HTTPStatus.INSUFFICIENT_STORAGE
        ):
            logger.error("The artifact store has no space to %s %s: %s", action, key, error)  # noqa: TRY400 - the cause is known
            raise StorageFullError("the artifact store") from error
        logger.exception("The artifact store failed to %s %s", action, key)
        if _is_out_of_files(error):
            raise TooManyOpenFilesError from error
        raise ArtifactStoreUnavailableError from error


def _is_out_of_files(error: BaseException) -> bool:
    """Return whether a request failed because this process, or the machine, has too many open files."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending:
        cause = pending.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        # The resolver opens files too, and reports their lack as another error (EBUSY, EAI_AGAIN) or as none.
        if isinstance(cause, OSError) and (cause.errno in _OUT_OF_FILES or not _can_open_files()):
            return True
        # urllib3 keeps the error of its last attempt in `reason` only.
        causes = (cause.__cause__, cause.__context__, getattr(cause, "reason", None))
        pending += [found for found in causes if isinstance(found, BaseException)]
    return False


def _can_open_files() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _OUT_OF_FILES
    return True
