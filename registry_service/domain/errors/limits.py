"""Errors of limits and idempotency keys."""

from registry_service.domain.errors.base import (
    AbortedError,
    DeadlineExceededError,
    FailedPreconditionError,
    ResourceExhaustedError,
)


class TooManyStreamsError(ResourceExhaustedError):
    """The limit of concurrent streams, of all callers or of this one, is reached."""

    reason = "TOO_MANY_STREAMS"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(
            f"The limit of {limit} concurrent streams is reached. Try again in {retry_seconds:.0f} s.", limit=str(limit)
        )
        self.retry_seconds = retry_seconds


class TooManyCallsError(ResourceExhaustedError):
    """The limit of short calls that run or wait, of all callers or of this one, is reached."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(
            f"The limit of {limit} concurrent calls is reached. Try again in {retry_seconds:.0f} s.", limit=str(limit)
        )
        self.retry_seconds = retry_seconds


class TooManyIdempotencyKeysError(ResourceExhaustedError):
    """The limit of new idempotency keys of one caller is reached."""

    reason = "TOO_MANY_IDEMPOTENCY_KEYS"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(
            f"The limit of {limit} new idempotency keys of one caller in 24 hours is reached. Try again in"
            f" {retry_seconds:.0f} s, or send the request without a key.",
            limit=str(limit),
        )
        self.retry_seconds = retry_seconds


class IdempotencyKeyReusedError(FailedPreconditionError):
    """The caller has used this idempotency key for another request."""

    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The idempotency key {key!r} was used for another request. Use a new key for each request.",
            idempotency_key=key,
        )


class IdempotentCallRunningError(AbortedError):
    """A call with the same idempotency key is still running."""

    reason = "IDEMPOTENT_CALL_RUNNING"
    retry_seconds = 1.0

    def __init__(self, key: str) -> None:
        super().__init__(
            f"A call with the idempotency key {key!r} is still running. Try again in a moment.", idempotency_key=key
        )


class QueryTooSlowError(DeadlineExceededError):
    """The database query took longer than UNARY_TIMEOUT_SECONDS."""

    reason = "QUERY_TOO_SLOW"

    def __init__(self) -> None:
        super().__init__("The database query took too long. Use a narrower filter.")
