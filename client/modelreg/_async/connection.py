"""Calls of one registry: channels, tokens, repetitions, errors."""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from typing import Any, cast

import grpc

from modelreg._access.credentials import Credentials, check_token_may_be_sent
from modelreg._async import runtime
from modelreg._logging import logger
from modelreg._wire.diagnosis import Diagnosis, diagnose
from modelreg._wire.methods import Method, Request, Response
from modelreg._wire.options import Options
from modelreg._wire.retries import Retries
from modelreg._wire.rpc_errors import FailedCall, Failure, failure_of, registry_closed, registry_error
from modelreg.errors import ConnectionFailed, RegistryError

_MAX_IDLE_SECONDS = 20.0
"""Server and gateway cut streams that are idle for 60 s."""
STALLED = Failure(grpc.StatusCode.UNAVAILABLE, "the transfer made no progress for too long")


class Connection:
    """Calls of one registry. Connects at the first call; safe to use from several threads, and after a fork."""

    def __init__(self, options: Options, credentials: Credentials) -> None:
        self.options = options
        self._credentials = credentials
        self._channels: dict[Hashable, runtime.Channel] = {}
        self._replaced: list[tuple[Hashable, runtime.Channel]] = []
        self._diagnosis: Diagnosis | None = None
        self._is_closed = False

    def open(self) -> None:
        """Allow calls again after `close`."""
        self._is_closed = False

    async def close(self) -> None:
        """Close the channels, and refuse calls from now on."""
        self._is_closed = True
        channels = [*self._channels.items(), *self._replaced]
        self._channels, self._replaced = {}, []
        for key, channel in channels:
            if runtime.is_alive(key):
                await runtime.close_channel(channel)

    async def unary(
        self,
        method: Method[Request, Response],
        request: Request,
        *,
        retries: Retries | None = None,
        attempt_timeout: float | None = None,
        signs_in: bool = True,
    ) -> Response:
        """Call a unary method, repeatedly if that may help. A write must have an idempotency key.

        Args:
            method: The method.
            request: The request.
            retries: The attempts. Default: the usual number, within the timeout of the options.
            attempt_timeout: Seconds after which an attempt is repeated, on another channel. Default: an attempt may
                take all the time that is left.
            signs_in: Whether the token is sent.

        Raises:
            RegistryError: The call failed.
        """
        retries = retries or Retries(self.options.timeout)
        refused: str | None = None
        while True:
            token = await self.token() if signs_in else None
            channel = self.channel()
            limits = [seconds for seconds in (retries.remaining_seconds, attempt_timeout) if seconds is not None]
            try:
                return await runtime.call_unary(
                    channel, method, request, timeout=min(limits, default=None), metadata=_metadata(token)
                )
            except runtime.RpcError as error:
                failure = failure_of(cast(FailedCall, error))
                if attempt_timeout is not None and failure.code == grpc.StatusCode.DEADLINE_EXCEEDED:
                    failure = STALLED
                    self.replace(channel)
                if await self.may_sign_in_again(failure, token, refused):
                    refused = token
                    continue
                await self.pause_or_raise(failure, retries, method)

    async def pause_or_raise(
        self, failure: Failure, retries: Retries, method: Method[Any, Any], *, is_transient: bool | None = None
    ) -> None:
        """Wait until the next attempt.

        Args:
            failure: The failure of the last attempt.
            retries: The attempts.
            method: The method.
            is_transient: Whether another attempt may succeed. Default: as the failure says.

        Raises:
            RegistryError: There is none.
        """
        await self._diagnose(failure)
        pause = retries.pause_after(failure, is_transient=is_transient)
        if pause is None:
            raise self.error(failure) from None
        logger.debug("%s: %s; trying again in %.1f s", method.path, failure.message, pause)
        await runtime.sleep(pause)

    async def _diagnose(self, failure: Failure) -> None:
        """Find out, once, why a server closes each connection, which grpc does not tell.

        Raises:
            ConnectionFailed: No repetition can help.
        """
        if not failure.is_closed_connection or self._diagnosis is not None:
            return
        self._diagnosis = await runtime.run_blocking(diagnose, self.options)
        if self._diagnosis.is_certain:
            error = self.error(failure)
            if isinstance(error, ConnectionFailed):
                error.is_permanent = True
            raise error from None

    async def may_sign_in_again(self, failure: Failure, token: str | None, refused: str | None) -> bool:
        """Tell whether another token can be tried, once, in place of the one that was refused."""
        if failure.code != grpc.StatusCode.UNAUTHENTICATED or token is None or refused is not None:
            return False
        return await runtime.run_blocking(self._credentials.refresh, token)

    def error(self, failure: Failure) -> RegistryError:
        """Return the error that the caller gets."""
        diagnosed = self._diagnosis.hint if self._diagnosis is not None and failure.is_closed_connection else ""
        return registry_error(failure, self.options.endpoint, diagnosed or self._credentials.note)

    async def token(self) -> str | None:
        """Return the token of the next call."""
        credentials = self._credentials
        token = await runtime.run_blocking(credentials.token) if credentials.may_block else credentials.token()
        if token is not None:
            check_token_may_be_sent(self.options)
        return token

    async def attempt(self, method: Method[Request, Response], request: Request) -> Response:
        """Make one attempt of a unary call. Raises RpcError."""
        metadata = _metadata(await self.token())
        return await runtime.call_unary(
            self.channel(), method, request, timeout=self.options.timeout, metadata=metadata
        )

    async def responses(
        self, method: Method[Request, Response], request: Request, *, stall_timeout: float | None = None
    ) -> runtime.ResponseStream[Response]:
        """Make one attempt of a call that streams responses.

        Args:
            method: The method.
            request: The request.
            stall_timeout: Seconds without a message after which the stream ends. Default: that of the options.
        """
        metadata = _metadata(await self.token())
        return runtime.ResponseStream(
            self.channel(),
            method,
            request,
            metadata=metadata,
            stall_timeout=self.options.stall_timeout if stall_timeout is None else stall_timeout,
        )

    async def requests(self, method: Method[Any, Response], *, token: str | None) -> runtime.RequestStream[Response]:
        """Begin one attempt of a call that streams requests.

        Args:
            method: The method.
            token: The token: what `token` returned.
        """
        return runtime.RequestStream(
            self.channel(),
            method,
            metadata=_metadata(token),
            stall_timeout=self.options.stall_timeout,
            idle_timeout=min(_MAX_IDLE_SECONDS, self.options.stall_timeout / 2),
        )

    def channel(self) -> runtime.Channel:
        """Return the channel of this process and event loop.

        Raises:
            RegistryError: The registry is closed.
        """
        if self._is_closed:
            raise registry_closed()
        key = runtime.channel_key()
        channel = self._channels.get(key)
        if channel is None:
            for stale in [found for found in self._channels if not runtime.is_alive(found)]:
                del self._channels[stale]
            # Of two threads, the first one's channel counts. The other was not used, so nothing needs to be closed.
            channel = self._channels.setdefault(key, runtime.open_channel(self.options))
        return channel

    def replace(self, channel: runtime.Channel) -> None:
        """Let the next calls open another channel, because calls on this one make no progress.

        It stays open until `close`, because other threads may have calls on it that do.
        """
        key = runtime.channel_key()
        if self._channels.get(key) is channel:
            del self._channels[key]
            self._replaced.append((key, channel))


def new_idempotency_key() -> str:
    """Return a key for one operation, the same for all its attempts."""
    return str(uuid.uuid4())


def failure_of_stream(error: runtime.RpcError | runtime.StalledError) -> Failure:
    """Return the failure of an attempt of a stream."""
    return STALLED if isinstance(error, runtime.StalledError) else failure_of(cast(FailedCall, error))


def _metadata(token: str | None) -> runtime.Metadata:
    return () if token is None else (("authorization", f"Bearer {token}"),)
