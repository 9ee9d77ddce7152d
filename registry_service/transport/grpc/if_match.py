"""Conditional HTTP requests (RFC 9110): the `If-Match` header of writes, and the status of failed conditions.

An entity tag in the header is equivalent to the field `etag`.
"""

import re

import grpc

from registry_service.domain.errors import (
    AliasChangedError,
    ArtifactEtagMismatchError,
    EtagMismatchError,
    InvalidArgumentError,
    RangeNotSatisfiableError,
    RegistryError,
)

HEADER = "if-match"

# No resource has the empty tag, which a client sends for an unset variable.
_TAG = re.compile(r'\*|"([!#-~]+)"')
_PRECONDITION_FAILED = (("x-http-status", "412"),)


def etag_of(field: str, context: grpc.ServicerContext) -> str:
    """Return the etag that a call expects; empty if it accepts any.

    Args:
        field: The etag in the request.
        context: Context of the call.

    Raises:
        InvalidArgumentError: The header is not a single strong entity tag, or differs from the field.
    """
    tags = [str(value) for name, value in context.invocation_metadata() if name == HEADER]
    if not tags:
        return field
    found = _TAG.fullmatch(tags[0]) if len(tags) == 1 else None
    if found is None:
        raise InvalidArgumentError.of(HEADER, 'must be * or one entity tag in double quotes, such as "etag".')
    tag = found[1] or ""
    if field and tag and field != tag:
        raise InvalidArgumentError.of(HEADER, "must be the same as the field etag.")
    return tag or field


def expects_existence(context: grpc.ServicerContext) -> bool:
    """Return whether a call must not create a resource: `If-Match: *` fails if none exists."""
    return (HEADER, "*") in context.invocation_metadata()


def http_metadata_of(error: RegistryError, context: grpc.ServicerContext) -> tuple[tuple[str, str], ...]:
    """Return the metadata of an error whose HTTP status differs from that of its code; none for others."""
    match error:
        case ArtifactEtagMismatchError():
            return (*_PRECONDITION_FAILED, ("etag", error.etag))
        case RangeNotSatisfiableError():
            return (("x-http-status", "416"), ("content-range", f"bytes */{error.size}"))
        case EtagMismatchError() | AliasChangedError() if any(n == HEADER for n, _ in context.invocation_metadata()):
            return _PRECONDITION_FAILED
        case _:
            return ()
