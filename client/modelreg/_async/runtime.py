"""What differs between the two APIs: time, threads, channels and streams. This is the one on grpc.aio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from modelreg._methods import Method, Request, Response
from modelreg._options import Options

Value = TypeVar("Value")
RpcError = grpc.aio.AioRpcError
Channel = grpc.aio.Channel
Lock = asyncio.Lock
Metadata = tuple[tuple[str, str], ...]

sleep = asyncio.sleep


async def run_blocking(function: Callable[..., Value], *arguments: Any) -> Value:
    """Run a function that reads or writes files without blocking the loop."""
    return await asyncio.to_thread(function, *arguments)


def channel_key() -> Hashable:
    """Return what a channel belongs to: this process, and the running event loop."""
    return os.getpid(), asyncio.get_running_loop()


def is_alive(key: Hashable) -> bool:
    """Tell whether channels of a key can still be used, or closed."""
    pid, loop = key  # type: ignore[misc]
    return pid == os.getpid() and not loop.is_closed()  # type: ignore[has-type]


def open_channel(options: Options) -> Channel:
    """Open a channel. The first call connects."""
    endpoint, channel_options = options.endpoint, options.channel_options()
    if not endpoint.is_encrypted:
        return grpc.aio.insecure_channel(endpoint.target, options=channel_options)
    ca, key, certificate = options.tls_files()
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.aio.secure_channel(endpoint.target, credentials, options=channel_options)


async def close_channel(channel: Channel) -> None:
    """Close a channel, and end its calls."""
    await channel.close()


async def call_unary(
    channel: Channel, method: Method[Request, Response], request: Request, *, timeout: float | None, metadata: Metadata
) -> Response:
    """Make one attempt of a unary call. Raises RpcError."""
    multicallable = channel.unary_unary(
        method.full_path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    response: Response = await multicallable(request, timeout=timeout, metadata=metadata)
    return response


class ResponseStream(AsyncIterator[Response]):
    """One attempt of a call that streams responses. Use it as a context manager, which ends the call.

    Args:
        channel: The channel.
        method: The method.
        request: The request.
        metadata: The metadata.
        stall_timeout: Seconds without a message after which the iteration ends with StalledError.
    """

    def __init__(
        self,
        channel: Channel,
        method: Method[Request, Response],
        request: Request,
        *,
        metadata: Metadata,
        stall_timeout: float,
    ) -> None:
        multicallable = channel.unary_stream(
            method.full_path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        self._call = multicallable(request, metadata=metadata)
        self._iterator = self._call.__aiter__()
        self._guard = StallGuard(self._call.cancel, stall_timeout)

    async def __anext__(self) -> Response:
        self._guard.progress()
        try:
            return await self._iterator.__anext__()
        except asyncio.CancelledError:
            if self._guard.is_stalled:
                raise StalledError from None
            raise
        finally:
            # The time that the consumer takes is no stall.
            self._guard.pause()

    async def __aenter__(self) -> ResponseStream[Response]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.close()
        self._call.cancel()


async def call_request_stream(
    channel: Channel,
    method: Method[Request, Response],
    requests: AsyncIterator[Request],
    *,
    metadata: Metadata,
    stall_timeout: float,
) -> Response:
    """Make one attempt of a call that streams requests.

    Args:
        channel: The channel.
        method: The method.
        requests: The messages. Must not raise: the error would be lost.
        metadata: The metadata.
        stall_timeout: Seconds without progress after which the call ends with DEADLINE_EXCEEDED or CANCELLED.

    Raises:
        StalledError: No message could be sent, and no response arrived, for `stall_timeout` seconds.
        RpcError: The call failed.
    """
    multicallable = channel.stream_unary(
        method.full_path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    guard: StallGuard | None = None

    async def guarded() -> AsyncIterator[Request]:
        async for message in requests:
            if guard is not None:
                guard.progress()
            yield message
        if guard is not None:
            guard.progress()

    call = multicallable(guarded(), metadata=metadata)
    guard = StallGuard(call.cancel, stall_timeout)
    guard.progress()
    try:
        response: Response = await call
    except asyncio.CancelledError:
        if guard.is_stalled:
            raise StalledError from None
        call.cancel()
        raise
    except RpcError:
        if guard.is_stalled:
            raise StalledError from None
        raise
    else:
        return response
    finally:
        guard.close()


class StalledError(Exception):
    """A stream made no progress for too long."""


class StallGuard:
    """Cancels a call that makes no progress.

    Args:
        cancel: Cancels the call.
        seconds: How long the call may wait for progress.
    """

    def __init__(self, cancel: Callable[[], object], seconds: float) -> None:
        self._cancel = cancel
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self.is_stalled = False
        self._timer = self._loop.call_later(seconds, self._check)

    def progress(self) -> None:
        """Note that the call made progress, and waits for more."""
        self._waiting_since = self._loop.time()

    def pause(self) -> None:
        """Note that the call waits for nothing."""
        self._waiting_since = None

    def close(self) -> None:
        """Stop guarding."""
        self._timer.cancel()

    def _check(self) -> None:
        since = self._waiting_since
        elapsed = 0.0 if since is None else self._loop.time() - since
        if elapsed >= self._seconds:
            self.is_stalled = True
            self._cancel()
        else:
            self._timer = self._loop.call_later(self._seconds - elapsed, self._check)


class Prefetch(Generic[Value]):
    """Runs a function ahead of the consumer of its result."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Value]], *arguments: Any) -> None:
        self._task = asyncio.ensure_future(function(*arguments))

    async def result(self) -> Value:
        """Return the result, or raise the error."""
        return await self._task

    def cancel(self) -> None:
        """Abandon the result."""
        self._task.cancel()


class Shown:
    """What notebooks show of a list. Nothing: that would need a call, which cannot be awaited there."""
