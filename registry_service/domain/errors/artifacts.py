"""Errors of artifacts and uploads."""

from registry_service.domain.errors.base import (
    AbortedError,
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
)
from registry_service.domain.errors.models import EtagMismatchError


class ArtifactFileNotFoundError(NotFoundError):
    """The ZIP artifact has no file of this name."""

    reason = "ARTIFACT_FILE_NOT_FOUND"

    def __init__(self, model_id: str, reference: str, name: str) -> None:
        super().__init__(f"The artifact of the model {reference} has no file {name!r}.", model_id=model_id, path=name)


class ArtifactMismatchError(InvalidArgumentError):
    """The received bytes differ from the declared size or digest."""

    reason = "ARTIFACT_MISMATCH"


class InvalidArtifactError(InvalidArgumentError):
    """The artifact is declared as a ZIP, but is not one or is unsafe to extract."""

    reason = "INVALID_ARTIFACT"


class NotAnArchiveError(FailedPreconditionError):
    """The artifact, or a file in it, cannot be read as a ZIP."""

    reason = "NOT_AN_ARCHIVE"


class ArtifactTooLargeError(ResourceExhaustedError):
    """The artifact is larger than ARTIFACT_MAX_BYTES."""

    reason = "ARTIFACT_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The artifact is larger than {limit} bytes.", limit=str(limit))


class ArtifactEtagMismatchError(EtagMismatchError):
    """The artifact does not meet the condition of the request."""

    def __init__(self, model_id: str, etag: str) -> None:
        AbortedError.__init__(
            self,
            f"The artifact of the model {model_id!r} does not meet the condition of the request.",
            model_id=model_id,
        )
        self.etag = etag
        """The etag of the stored bytes."""


class RangeNotSatisfiableError(OutOfRangeError):
    """The artifact has no bytes in the range."""

    reason = "RANGE_NOT_SATISFIABLE"

    def __init__(self, model_id: str, size: int) -> None:
        super().__init__(f"The range has none of the {size} bytes.", model_id=model_id, size=str(size))
        self.size = size


class UploadNotFoundError(NotFoundError):
    """No upload has this id. It never existed, expired, or was cancelled."""

    reason = "UPLOAD_NOT_FOUND"

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"No upload has the id {upload_id!r}. It may have expired.", upload_id=upload_id)


class UploadNotActiveError(FailedPreconditionError):
    """The upload accepts no more bytes."""

    reason = "UPLOAD_NOT_ACTIVE"

    def __init__(self, upload_id: str, state: str) -> None:
        super().__init__(
            f"The upload {upload_id!r} is {state} and accepts no more bytes.", upload_id=upload_id, state=state
        )


class WriterDisplacedError(AbortedError):
    """A newer writer, or the completion of the upload, has taken the upload over."""

    reason = "WRITER_DISPLACED"
    retry_seconds = None

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"A newer call has taken over the upload {upload_id!r}.", upload_id=upload_id)


class LeaseLostError(AbortedError):
    """The registration sent no heartbeat for so long that garbage collection deleted its bytes."""

    reason = "LEASE_LOST"
    retry_seconds = None


class ArtifactLostError(DataLossError):
    """The artifact store no longer has (all of) the bytes."""

    reason = "ARTIFACT_LOST"

    def __init__(self, message: str = "The artifact store no longer has these bytes.") -> None:
        super().__init__(message)


class ArtifactDamagedError(DataLossError):
    """The artifact store has other bytes than were registered."""

    reason = "ARTIFACT_DAMAGED"

    def __init__(self, model_id: str, reference: str) -> None:
        super().__init__(
            f"The stored bytes of the model {reference} differ from those that were registered.", model_id=model_id
        )
