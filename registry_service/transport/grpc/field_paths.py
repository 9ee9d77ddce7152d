"""Paths of fields from the root of a request, as `google.rpc.BadRequest` names them (AIP-193).

The domain names a field from the resource that has it (`metrics.mAP50`) and doesn't know where a request holds that
resource (`upload.spec.model`). Here each request's own descriptor tells.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from modelregistry.v1 import model_group_pb2, model_pb2, model_service_pb2

from registry_service.domain.errors import FieldViolation, InvalidArgumentError, RegistryError

# What the domain names fields from.
_ROOTS = tuple(
    message.DESCRIPTOR for message in (model_service_pb2.ModelSpec, model_pb2.Model, model_group_pb2.ModelGroup)
)
_FIRST_NAME = re.compile(r"[^.\[]*")


def with_request_paths(error: RegistryError, method: str) -> RegistryError:
    """Return an error whose violations name fields by their paths from the request's root.

    Args:
        error: What an RPC failed with. Paths from the root, and names that no field has, such as those of headers,
            stay as they are.
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
        # The field is one of the upload's spec, which an earlier request has sent.
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
    """Return what the domain names fields from, each with its path; a spec before its model."""
    return tuple(_found(request, ""))


def _found(message: Descriptor, path: str) -> Iterator[tuple[str, Descriptor]]:
    for field in message.fields:
        inner = field.message_type
        # Others hold no resource; google.protobuf.Struct holds itself.
        if inner is None or field.is_repeated or inner.file.package != message.file.package:
            continue
        if inner in _ROOTS:
            yield f"{path}{field.name}", inner
        yield from _found(inner, f"{path}{field.name}.")
