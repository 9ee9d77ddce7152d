"""The service config of gRPC for clients of the API: what they may retry, from the methods' idempotency levels.

Run as a program by `make generate`: prints the JSON (https://github.com/grpc/grpc/blob/master/doc/service_config.md).
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions

# UNAVAILABLE alone: it is temporary, whatever the method. An overloaded server tells when to come back (RetryInfo).
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_PACKAGES = ("modelregistry.v1", "modelregistry.geti.v1")
_SAFE = (MethodOptions.NO_SIDE_EFFECTS, MethodOptions.IDEMPOTENT)


def service_config(descriptors: FileDescriptorSet) -> Mapping[str, object]:
    """Return the service config: a retry policy for the methods that say they may be repeated, no policy for others."""
    names = [
        {"service": f"{file.package}.{service.name}", "method": method.name}
        for file in descriptors.file
        if file.package in _PACKAGES
        for service in file.service
        for method in service.method
        if method.options.idempotency_level in _SAFE
    ]
    return {"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}]}


if __name__ == "__main__":
    found = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes())
    sys.stdout.write(json.dumps(service_config(found), indent=2) + "\n")
