"""Whether the client of a call still waits for it."""

import grpc

from registry_service.domain.errors import CallCancelledError


def is_cancelled(context: grpc.ServicerContext) -> bool:
    """Return whether the client has gone."""
    return not context.is_active()


def check_cancelled(context: grpc.ServicerContext) -> None:
    """Raise CallCancelledError if the client has gone or the call's deadline has passed.

    grpcio may report a request stream that was cut off as one that ended: it learns of the missing message a moment
    before it learns of the cancellation. Code that takes the end of a stream for the end of its input must call this
    before it commits, as late as possible. The milliseconds of writing in between are a thousand times what grpcio
    needs.
    """
    if not context.is_active() or context.time_remaining() <= 0:
        raise CallCancelledError
