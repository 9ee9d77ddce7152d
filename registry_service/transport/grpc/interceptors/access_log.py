"""Write one log line per call."""

import logging
import time
from collections.abc import Generator
from typing import Any

import grpc

from registry_service.methods import Method
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.interceptors.behaviour import Behaviour

logger = logging.getLogger("registry_service.calls")

_EXPECTED = {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}


class AccessLog:
    """Logs how each call ended, and how long it took."""

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        # Of methods that anybody may call, only failures: probes would flood the log.
        is_quiet = method.is_open

        def run(requests: Any, call: Call) -> Generator[Any]:
            try:
                yield from behaviour(requests, call)
            except GeneratorExit:
                call.code = grpc.StatusCode.CANCELLED
                raise
            finally:
                if not is_quiet or call.code not in _EXPECTED:
                    logger.info(
                        "call",
                        extra={
                            "log": "access",
                            "method": method.path,
                            "code": call.code.name,
                            "duration_ms": round((time.monotonic() - call.started) * 1000, 3),
                            "peer": call.context.peer(),
                            "actor": call.actor,
                        },
                    )

        return run
