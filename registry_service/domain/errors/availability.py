"""Errors of the server and of the systems that it depends on."""

from registry_service.domain.errors.base import ResourceExhaustedError, UnavailableError


class DatabaseUnavailableError(UnavailableError):
    """Postgres does not respond."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The database does not respond. Try again later.")


class DatabaseBusyError(UnavailableError):
    """A concurrent change held a lock for longer than this one waits."""

    reason = "DATABASE_BUSY"

    def __init__(self) -> None:
        super().__init__("A concurrent change held a lock for too long. Try again in a moment.")


class ArtifactStoreUnavailableError(UnavailableError):
    """The artifact store does not respond."""

    reason = "ARTIFACT_STORE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The artifact store does not respond. Try again later.")


class IdentityProviderUnavailableError(UnavailableError):
    """The keys that verify bearer tokens are not available."""

    reason = "IDENTITY_PROVIDER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The identity provider does not respond, or its response is invalid. Try again later.")


class ServerStoppingError(UnavailableError):
    """The server is shutting down and ends calls that have no end of their own."""

    reason = "SERVER_STOPPING"

    def __init__(self) -> None:
        super().__init__("The server is shutting down. Try again in a moment; another server may answer.")


class TooManyOpenFilesError(UnavailableError):
    """The server has reached its limit of open files."""

    reason = "TOO_MANY_OPEN_FILES"

    def __init__(self) -> None:
        super().__init__("The server has reached its limit of open files and connections. Try again later.")


class StorageFullError(ResourceExhaustedError):
    """The disk is full. Reads and deletions still work."""

    reason = "STORAGE_FULL"
    retry_seconds = 30.0

    def __init__(self, place: str, reserve_bytes: int | None = None) -> None:
        kept = "" if reserve_bytes is None else f" beyond the reserve of {reserve_bytes} bytes (DISK_RESERVE_BYTES)"
        super().__init__(f"No space is left in {place}{kept}. Writes fail until space is freed.", place=place)
