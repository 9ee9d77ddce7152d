"""What differs between the two APIs: time, threads, channels and streams. This is the one on grpc.aio."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from modelreg._wire.chunks import MAX_QUEUED, serialized
from modelreg._wire.methods import Method, Request, Response
from modelreg._wire.options import Options
from modelreg._wire.rpc_errors import registry_closed
from modelreg.errors import RegistryError

Value = TypeVar("Value")
RpcError = grpc.aio.AioRpcError
Channel = grpc.aio.Channel
Lock = asyncio.Lock
Metadata = tuple[tuple[str, str], ...]

sleep = asyncio.sleep


_open_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
_closed_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
_channels_of_parent: list[Channel] = []
"""Channels that were open when this process was forked. What grpc.aio polls with does not survive that.

They are kept, because their deallocation would wait for ever, too.
"""


def _note_fork() -> None:
    _channels_of_parent.extend(_open_channels)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


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
    """Open a channel. The first call connects.

    Raises:
        RegistryError: This process was forked while a channel was open. Calls would wait for ever.
    """
    if _channels_of_parent:
        raise RegistryError(
            "This process was forked while a modelreg.aio.Registry was open, which grpc.aio does not survive. Close "
            'the Registry before the fork, start processes with multiprocessing.get_context("spawn"), or use '
            "modelreg.Registry here."
        )
    endpoint, channel_options = options.endpoint, options.channel_options()
    if endpoint.is_encrypted:
        ca, key, certificate = options.tls_files()
        credentials = grpc.ssl_channel_credentials(ca, key, certificate)
        channel = grpc.aio.secure_channel(endpoint.target, credentials, options=channel_options)
    else:
        channel = grpc.aio.insecure_channel(endpoint.target, options=channel_options)
    _open_channels.add(channel)
    return channel


async def close_channel(channel: Channel) -> None:
    """Close a channel, and end its calls."""
    _closed_channels.add(channel)
    await channel.close()
    _open_channels.discard(channel)


def _closed(channel: Channel) -> RegistryError | None:
    """Return the error of a call that ended because its channel was closed. None: its task was cancelled.

    grpc.aio raises CancelledError for both. In a task that nobody cancelled, that would pass for an end without fault.
    """
    task = asyncio.current_task()
    # Python 3.10 does not tell.
    is_cancelled = task is not None and hasattr(task, "cancelling") and task.cancelling() > 0
    return registry_closed() if channel in _closed_channels and not is_cancelled else None


async def call_unary(
    channel: Channel, method: Method[Request, Response], request: Request, *, timeout: float | None, metadata: Metadata
) -> Response:
    """Make one attempt of a unary call. Raises RpcError."""
    multicallable = channel.unary_unary(
        method.full_path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    try:
        response: Response = await multicallable(request, timeout=timeout, metadata=metadata)
    except asyncio.CancelledError:
        if error := _closed(channel):
            raise error from None
        raise
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
        self._channel = channel
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
            if error := _closed(self._channel):
                raise error from None
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


class RequestStream(Generic[Response]):
    """One attempt of a call that streams requests. Use it as a context manager, which ends the call.

    A few messages are queued, so the caller can prepare the next ones while one is sent. If the caller queues none for
    `idle_timeout`, the requests end as if `response` was called, because servers and gateways cut idle streams.

    Args:
        channel: The channel.
        method: The method.
        metadata: The metadata.
        stall_timeout: Seconds after which the call is cancelled if it can send no queued message, or does not respond
            after the last one.
        idle_timeout: Seconds without a message from the caller after which the requests end.
    """

    def __init__(
        self,
        channel: Channel,
        method: Method[Any, Response],
        *,
        metadata: Metadata,
        stall_timeout: float,
        idle_timeout: float,
    ) -> None:
        self._idle_timeout = idle_timeout
        self._queue: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._is_closed = False
        self._guard = StallGuard(self._cancel, stall_timeout)
        multicallable = channel.stream_unary(
            method.full_path,
            request_serializer=serialized,
            response_deserializer=method.response.FromString,
        )
        self._channel = channel
        self._call = multicallable(self._requests(), metadata=metadata)
        self._call.add_done_callback(lambda _: self._close())

    async def send(self, message: Message | bytes) -> bool:
        """Queue a message, or a serialized one, as soon as there is room.

        Returns:
            Whether it was queued. If not, the call takes no more messages, and `response` says why.
        """
        while len(self._queue) >= MAX_QUEUED and not self._is_closed:
            self._changed.clear()
            await self._changed.wait()
        if self._is_closed:
            return False
        self._queue.append(message)
        self._changed.set()
        # The queue is drained by another task.
        await asyncio.sleep(0)
        return True

    async def response(self) -> Response:
        """End the requests, and wait for the response.

        Raises:
            StalledError: The call made no progress for `stall_timeout`.
            RpcError: The call failed.
        """
        self._close()
        try:
            response: Response = await self._call
        except asyncio.CancelledError:
            if self._guard.is_stalled:
                raise StalledError from None
            if error := _closed(self._channel):
                raise error from None
            raise
        except RpcError:
            if self._guard.is_stalled:
                raise StalledError from None
            raise
        else:
            return response

    async def __aenter__(self) -> RequestStream[Response]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.close()
        # Before the requests end: a message that is missing at the end must not look like the end.
        self._call.cancel()
        self._close()

    def _cancel(self) -> None:
        self._call.cancel()

    def _close(self) -> None:
        self._is_closed = True
        self._changed.set()

    async def _requests(self) -> AsyncIterator[Any]:
        # The previous message is sent when the call asks for the next one.
        while True:
            if not self._queue and not self._is_closed:
                # The time that the caller takes is no stall.
                self._guard.pause()
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), self._idle_timeout)
                except asyncio.TimeoutError:
                    self._is_closed = True
                continue
            self._guard.progress()
            if not self._queue:
                return
            message = self._queue.popleft()
            self._changed.set()
            yield message


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


class BinaryFile(Protocol):
    """A file of the registry that is open for reading. Not for several readers at the same time."""

    async def read(self, size: int = -1) -> bytes:
        """Return the next bytes: so many, or fewer at the end. A negative size means to the end."""

    async def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position of the next read, as of io.IOBase, and return it."""

    async def tell(self) -> int:
        """Return the position of the next read."""

    async def close(self) -> None:
        """End the transfer."""

    async def __aenter__(self) -> BinaryFile: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def opened(file: BinaryFile) -> BinaryFile:
    """Return a file of the registry as users get it."""
    return file
