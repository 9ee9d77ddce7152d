"""Calls of one registry: channels, tokens, repetitions, errors."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Hashable
from typing import Any, cast

import grpc

from modelreg._async import runtime
from modelreg._credentials import Credentials, check_token_may_be_sent
from modelreg._methods import Method, Request, Response
from modelreg._options import Options
from modelreg._retries import Retries
from modelreg._rpc_errors import FailedCall, Failure, failure_of, registry_error
from modelreg.errors import RegistryError

logger = logging.getLogger("modelreg")

STALLED = Failure(grpc.StatusCode.UNAVAILABLE, "the transfer made no progress for too long")


class Connection:
    """Calls of one registry. Connects at the first call; safe to use from several threads, and after a fork."""

    def __init__(self, options: Options, credentials: Credentials) -> None:
        self.options = options
        self._credentials = credentials
        self._channels: dict[Hashable, runtime.Channel] = {}

    async def close(self) -> None:
        """Close the channels. The next call would open another one."""
        channels, self._channels = self._channels, {}
        for key, channel in channels.items():
            if runtime.is_alive(key):
                await runtime.close_channel(channel)

    async def unary(
        self, method: Method[Request, Response], request: Request, *, timeout: float | None = None
    ) -> Response:
        """Call a unary method, repeatedly if that may help. A write must have an idempotency key.

        Args:
            method: The method.
            request: The request.
            timeout: Seconds for all attempts together. Default: that of the options.

        Raises:
            RegistryError: The call failed.
        """
        retries = Retries(self.options.timeout if timeout is None else timeout)
        refused: str | None = None
        while True:
            token = await self.token()
            try:
                return await runtime.call_unary(
                    self.channel(),
                    method,
                    request,
                    timeout=retries.remaining_seconds,
                    metadata=_metadata(token),
                )
            except runtime.RpcError as error:
                failure = failure_of(cast(FailedCall, error))
                if await self.may_sign_in_again(failure, token, refused):
                    refused = token
                    continue
                await self.pause_or_raise(failure, retries, method)

    async def pause_or_raise(self, failure: Failure, retries: Retries, method: Method[Any, Any]) -> None:
        """Wait until the next attempt.

        Raises:
            RegistryError: There is none.
        """
        pause = retries.pause_after(failure)
        if pause is None:
            raise self.error(failure) from None
        logger.debug("%s: %s; trying again in %.1f s", method.path, failure.message, pause)
        await runtime.sleep(pause)

    async def may_sign_in_again(self, failure: Failure, token: str | None, refused: str | None) -> bool:
        """Tell whether another token can be tried, once, in place of the one that was refused."""
        if failure.code != grpc.StatusCode.UNAUTHENTICATED or token is None or refused is not None:
            return False
        return await runtime.run_blocking(self._credentials.refresh, token)

    def error(self, failure: Failure) -> RegistryError:
        """Return the error that the caller gets."""
        return registry_error(failure, self.options.endpoint)

    async def token(self) -> str | None:
        """Return the token of the next call."""
        token = await runtime.run_blocking(self._credentials.token)
        if token is not None:
            check_token_may_be_sent(self.options)
        return token

    async def responses(self, method: Method[Request, Response], request: Request) -> runtime.ResponseStream[Response]:
        """Make one attempt of a call that streams responses."""
        return runtime.ResponseStream(
            self.channel(),
            method,
            request,
            metadata=_metadata(await self.token()),
            stall_timeout=self.options.stall_timeout,
        )

    async def send(self, method: Method[Request, Response], requests: AsyncIterator[Request]) -> Response:
        """Make one attempt of a call that streams requests, which must not raise."""
        return await runtime.call_request_stream(
            self.channel(),
            method,
            requests,
            metadata=_metadata(await self.token()),
            stall_timeout=self.options.stall_timeout,
        )

    def channel(self) -> runtime.Channel:
        """Return the channel of this process and event loop."""
        key = runtime.channel_key()
        channel = self._channels.get(key)
        if channel is None:
            for stale in [found for found in self._channels if not runtime.is_alive(found)]:
                del self._channels[stale]
            # Of two threads, the first one's channel counts. The other was not used, so nothing needs to be closed.
            channel = self._channels.setdefault(key, runtime.open_channel(self.options))
        return channel


def new_idempotency_key() -> str:
    """Return a key for one operation, the same for all its attempts."""
    return str(uuid.uuid4())


def failure_of_stream(error: BaseException) -> Failure | None:
    """Return the failure of an attempt of a stream, or None if the error is not one of the call."""
    if isinstance(error, runtime.StalledError):
        return STALLED
    if isinstance(error, runtime.RpcError):
        return failure_of(cast(FailedCall, error))
    return None


def _metadata(token: str | None) -> runtime.Metadata:
    return () if token is None else (("authorization", f"Bearer {token}"),)
