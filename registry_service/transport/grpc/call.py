"""One call, as the interceptors share it."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field

import grpc

from registry_service.methods import Method


@dataclass(slots=True, kw_only=True)
class Call:
    """A call from its first byte to its last; each field is set by one interceptor."""

    method: Method
    context: grpc.ServicerContext
    request_id: str
    started: float = field(default_factory=time.monotonic)
    """In seconds of the monotonic clock."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    """The status that the call ends with, set by `errors` and `authentication`."""
    actor: str = ""
    """The authenticated caller, empty where unknown."""
    limits_key: str = ""
    """What the call's share of the concurrency limits belongs to: the actor, or the client's address."""


current_call: ContextVar[Call] = ContextVar("current_call")
"""The call that the running code serves."""
