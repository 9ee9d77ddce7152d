"""Give every call a request id, which logs, errors and the audit log show (`x-request-id`)."""

import random
import re
import uuid
from collections.abc import Generator
from contextlib import suppress
from typing import Any

import grpc

from registry_service import logs
from registry_service.methods import Method
from registry_service.transport.grpc.call import Call, current_call
from registry_service.transport.grpc.interceptors.behaviour import Behaviour

_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestContext:
    """Sets the context variables of a call, and returns the request id in its trailing metadata."""

    def wrap(self, _method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""

        def run(requests: Any, call: Call) -> Generator[Any]:
            token = logs.request_id.set(call.request_id)
            current_call.set(call)
            try:
                call.context.set_trailing_metadata(((_HEADER, call.request_id),))
                yield from behaviour(requests, call)
            finally:
                # A generator may be closed in another context than the one it began in.
                with suppress(ValueError):
                    logs.request_id.reset(token)

        return run


def request_id_of(context: grpc.ServicerContext) -> str:
    """Return the request id that the client sent, a new one where it sent none that is valid."""
    for key, value in context.invocation_metadata():
        if key == _HEADER and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    # Request ids are no secret, so they need no randomness of the system, which would cost a release of the GIL.
    return str(uuid.UUID(int=random.getrandbits(128), version=4))
