"""Field paths from the root of a request, as in `google.rpc.BadRequest` (AIP-193).

The domain names a field relative to its resource (`metrics.mAP50`), without knowing where a request contains the
resource (`upload.spec.model`). This module finds the place in the request's descriptor.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from modelregistry.v1 import model_group_pb2, model_pb2, model_service_pb2

from registry_service.domain.errors import FieldViolation, InvalidArgumentError, RegistryError

# The resources to which the domain's field names are relative.
_ROOTS = tuple(
    message.DESCRIPTOR for message in (model_service_pb2.ModelSpec, model_pb2.Model, model_group_pb2.ModelGroup)
)
_FIRST_NAME = re.compile(r"[^.\[]*")


def with_request_paths(error: RegistryError, method: str) -> RegistryError:
    """Return an error whose violations name fields by their paths from the request's root.

    Args:
        error: The error of an RPC. Paths from the root, and names of other things than fields, such as headers,
            stay unchanged.
        method: The path of the RPC.
    """
    if not isinstance(error, InvalidArgumentError):
        return error
    request = _request(method)
    if request is None:
        return error
    return error.with_violations([_placed(violation, request) for violation in error.violations])


def _placed(violation: FieldViolation, request: Descriptor) -> FieldViolation:
    found = _FIRST_NAME.match(violation.field)
    name = found[0] if found else ""
    if name in request.fields_by_name:
        return violation
    for prefix, root in _roots(request):
        if name in root.fields_by_name:
            return FieldViolation(f"{prefix}.{violation.field}", violation.description)
    if "upload_id" in request.fields_by_name and any(name in root.fields_by_name for root in _ROOTS):
        # The field is in the upload's spec, which an earlier request has sent.
        return FieldViolation("upload_id", f"{violation.field} {violation.description}")
    return violation


@cache
def _request(method: str) -> Descriptor | None:
    service, _, name = method.removeprefix("/").rpartition("/")
    try:
        request: Descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{name}").input_type
    except KeyError:
        return None
    return request


@cache
def _roots(request: Descriptor) -> Sequence[tuple[str, Descriptor]]:
    """Return the resources in a request with their paths; a spec before its model."""
    return tuple(_found(request, ""))


def _found(message: Descriptor, path: str) -> Iterator[tuple[str, Descriptor]]:
    for field in message.fields:
        inner = field.message_type
        # Other messages contain no resource; google.protobuf.Struct contains itself.
        if inner is None or field.is_repeated or inner.file.package != message.file.package:
            continue
        if inner in _ROOTS:
            yield f"{path}{field.name}", inner
        yield from _found(inner, f"{path}{field.name}.")
