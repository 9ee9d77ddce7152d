"""The RPCs that the client calls, held against the descriptors of the API."""

from typing import Any

import pytest
from modelreg._wire import methods
from modelreg._wire.methods import Method
from modelregistry.v1 import (
    alias_service_pb2,
    artifact_service_pb2,
    audit_service_pb2,
    model_group_service_pb2,
    model_service_pb2,
    system_service_pb2,
    upload_service_pb2,
)

MODULES = [
    alias_service_pb2,
    artifact_service_pb2,
    audit_service_pb2,
    model_group_service_pb2,
    model_service_pb2,
    system_service_pb2,
    upload_service_pb2,
]
METHODS: dict[str, Method[Any, Any]] = {
    name: found for name, found in vars(methods).items() if isinstance(found, Method)
}
NOT_CALLED = {
    "ArtifactService/DownloadArtifactContent": "for REST",
    "ArtifactService/DownloadArtifactFileContent": "for REST",
    "SystemService/GetHealth": "for probes",
    "SystemService/GetReadiness": "for probes",
    "UploadService/WriteUploadContent": "for REST",
}
"""RPCs that the client does not call, with the reason."""


def rpcs() -> dict[str, Any]:
    """Return the descriptors of all RPCs of the API."""
    return {
        f"{service.name}/{method.name}": method
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_what_the_api_says(name: str) -> None:
    method = METHODS[name]
    descriptor = rpcs()[method.path]
    assert method.full_path == f"/{descriptor.containing_service.full_name}/{descriptor.name}"
    assert method.request.DESCRIPTOR.full_name == descriptor.input_type.full_name
    assert method.response.DESCRIPTOR.full_name == descriptor.output_type.full_name


def test_every_rpc_is_called_or_left_out_for_a_reason() -> None:
    called = {method.path for method in METHODS.values()}
    assert called.isdisjoint(NOT_CALLED)
    assert set(rpcs()) == called | set(NOT_CALLED)


def test_every_write_takes_an_idempotency_key() -> None:
    # So a call that is repeated after a lost response does nothing twice.
    without = {
        path
        for path, descriptor in rpcs().items()
        if path not in NOT_CALLED
        and not path.split("/")[1].startswith(("Get", "List", "Download", "Resolve", "Compare", "Watch", "WhoAmI"))
        and "idempotency_key" not in {field.name for field in descriptor.input_type.fields}
    }
    assert without == {
        "ArtifactService/VerifyArtifact",
        "AuditService/VerifyAuditLog",
        "UploadService/WriteUpload",
    }
