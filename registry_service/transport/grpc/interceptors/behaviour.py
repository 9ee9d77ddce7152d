"""What an interceptor wraps."""

from collections.abc import Callable, Generator
from typing import Any, Protocol

from registry_service.methods import Method
from registry_service.transport.grpc.call import Call

Behaviour = Callable[[Any, Call], Generator[Any]]
"""Serves a call: takes the request, or the iterator of requests, and yields the responses, exactly one if unary."""


class Interceptor(Protocol):
    """One concern of all calls."""

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """Return a behaviour that adds the concern; called once per method."""
