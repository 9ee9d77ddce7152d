"""Establish who calls, and whether the caller may call the method at all.

`services.authentication` and `oidc.authenticator` check the token. `services.authorization` decides in which projects
the caller may act.
"""

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from functools import partial
from typing import Any

import grpc

from registry_service.domain.access import (
    EVERYTHING,
    NOTHING,
    Access,
    Authenticator,
    Grant,
    Identity,
    Role,
    access_of,
)
from registry_service.domain.caller import AccessRecheck, Caller, current_caller
from registry_service.domain.errors import (
    AccessDeniedError,
    InvalidCredentialsError,
    RegistryError,
    RoleMissingError,
    UnauthenticatedError,
    UnavailableError,
)
from registry_service.methods import Method, OpenTo
from registry_service.transport.grpc.call import Call
from registry_service.transport.grpc.cancellation import is_cancelled
from registry_service.transport.grpc.errors import status_code
from registry_service.transport.grpc.interceptors.behaviour import Behaviour
from registry_service.transport.grpc.peers import client_address

_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,8192}=*)", re.IGNORECASE | re.ASCII)
_MAX_ACTOR_LENGTH = 256

Refusal = Callable[[RegistryError, grpc.ServicerContext], Any]
"""Makes the response that refuses a call, for the Intel-compatible API, which reports errors as ordinary responses."""


class Authentication:
    """Sets `current_caller`, or refuses the call.

    Args:
        authenticate: Turns a bearer token into an identity; None allows every caller everything (AUTH_MODE=none).
        refusals: By the full names of services that report errors as ordinary responses.
    """

    def __init__(
        self, authenticate: Authenticator | None = None, *, refusals: Mapping[str, Refusal] | None = None
    ) -> None:
        self._authenticate = authenticate
        self._refusals = refusals or {}

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""
        refuse = self._refusals.get(method.service)

        def run(requests: Any, call: Call) -> Generator[Any]:
            try:
                self._set_caller(method, call)
            except RegistryError as error:
                if refuse is None:
                    raise
                call.code = status_code(error)
                yield refuse(error, call.context)
                return
            yield from behaviour(requests, call)

        return run

    def _set_caller(self, method: Method, call: Call) -> None:
        """Set the caller, for the code that serves the call and for the limits.

        Raises:
            UnauthenticatedError: The credentials are missing or invalid.
            AccessDeniedError: The caller's roles do not allow the method.
            UnavailableError: The credentials cannot be checked at present.
        """
        authenticate = self._authenticate
        if authenticate is None:
            current_caller.set(_anybody(call))
            call.limits_key = client_address(call.context)
            return
        # Code that runs before the caller is known may touch nothing.
        current_caller.set(Caller(request_id=call.request_id, is_authenticated=True))
        try:
            caller = _authenticated(authenticate, method, call)
        except AccessDeniedError as error:
            call.actor = error.actor
            raise
        current_caller.set(caller)
        call.actor = caller.actor
        # The prefix tells actors from addresses.
        call.limits_key = f"actor {caller.actor}"


class StreamAccess:
    """Ends a response stream when its caller loses access.

    A unary call has no such check: its change may be committed by the time it responds.
    """

    def wrap(self, _method: Method, behaviour: Behaviour) -> Behaviour:
        """See Interceptor."""

        def run(requests: Any, call: Call) -> Generator[Any]:
            recheck = AccessRecheck()
            with closing(behaviour(requests, call)) as responses:
                for response in responses:
                    yield response
                    recheck()

        return run


def _anybody(call: Call) -> Caller:
    return Caller(
        actor=_claimed_actor(call.context),
        request_id=call.request_id,
        access=EVERYTHING,
        grants=(Grant(Role.ADMIN),),
        is_gone=partial(is_cancelled, call.context),
    )


def _authenticated(authenticate: Authenticator, method: Method, call: Call) -> Caller:
    if method.is_open:
        return Caller(request_id=call.request_id, is_authenticated=True)
    identity = authenticate(_bearer_token(call.context))
    try:
        access = _access_to(method, identity)
    except AccessDeniedError as error:
        error.actor = identity.actor
        raise

    def check_access() -> None:
        # If the credentials cannot be checked at present, the last result holds.
        with suppress(UnavailableError):
            _access_to(method, authenticate(_bearer_token(call.context)))

    return Caller(
        actor=identity.actor,
        request_id=call.request_id,
        access=access,
        grants=identity.grants,
        expire_time=identity.expire_time,
        is_authenticated=True,
        check_access=check_access,
        is_gone=partial(is_cancelled, call.context),
    )


def _access_to(method: Method, identity: Identity) -> Access:
    """Return the access that a method gives a caller (`AccessDeniedError`)."""
    if method.access is OpenTo.AUTHENTICATED:
        return NOTHING
    if isinstance(method.access, OpenTo):
        raise AccessDeniedError("No role allows this method.")
    access = access_of(identity.grants, method.access)
    if access is None:
        raise RoleMissingError(method.access.value)
    return access


def _bearer_token(context: grpc.ServicerContext) -> str:
    values = [value for key, value in context.invocation_metadata() if key == "authorization"]
    if not values:
        raise UnauthenticatedError
    # Two headers are refused: a proxy may have checked the one that is ignored here.
    found = _BEARER.fullmatch(values[0]) if len(values) == 1 and isinstance(values[0], str) else None
    if found is None:
        raise InvalidCredentialsError
    return found[1]


def _claimed_actor(context: grpc.ServicerContext) -> str:
    """Return the actor that the caller claims to be in `x-actor`; empty where that cannot be a name."""
    for key, value in context.invocation_metadata():
        if key == "x-actor" and isinstance(value, str) and len(value) <= _MAX_ACTOR_LENGTH and value.isprintable():
            return value
    return ""
