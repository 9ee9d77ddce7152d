"""What differs between the two APIs: time, threads, channels and streams. This is the one on grpc."""

from __future__ import annotations

import io
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from modelreg._results import SHOWN_ITEMS, html_table
from modelreg._wire.chunks import MAX_QUEUED, serialized
from modelreg._wire.methods import Method, Request, Response
from modelreg._wire.options import Options

Value = TypeVar("Value")
RpcError = grpc.RpcError
Channel = grpc.Channel
Lock = threading.Lock
Metadata = tuple[tuple[str, str], ...]
BinaryFile = io.BufferedReader

_BUFFER_BYTES = 1024 * 1024


class _OfThread(threading.local):
    prefetch: Prefetch[Any] | None = None


_of_thread = _OfThread()


def sleep(seconds: float) -> None:
    """Wait."""
    if (prefetch := _of_thread.prefetch) is not None:
        prefetch.sleep(seconds)
    else:
        time.sleep(seconds)


_INTERRUPTIBLE_SECONDS = 0.5


def run_blocking(function: Callable[..., Value], *arguments: Any) -> Value:
    """Run a function that reads or writes files."""
    return function(*arguments)


def channel_key() -> Hashable:
    """Return what a channel belongs to: this process. A forked child must not use the channel of its parent."""
    return os.getpid()


def is_alive(key: Hashable) -> bool:
    """Tell whether channels of a key can still be used, or closed."""
    return key == os.getpid()


def open_channel(options: Options) -> Channel:
    """Open a channel. The first call connects."""
    endpoint, channel_options = options.endpoint, options.channel_options()
    if not endpoint.is_encrypted:
        return grpc.insecure_channel(endpoint.target, options=channel_options)
    ca, key, certificate = options.tls_files()
    credentials = grpc.ssl_channel_credentials(ca, key, certificate)
    return grpc.secure_channel(endpoint.target, credentials, options=channel_options)


def close_channel(channel: Channel) -> None:
    """Close a channel, and end its calls."""
    channel.close()


def call_unary(
    channel: Channel, method: Method[Request, Response], request: Request, *, timeout: float | None, metadata: Metadata
) -> Response:
    """Make one attempt of a unary call. Raises RpcError."""
    multicallable = channel.unary_unary(
        method.full_path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
    if (prefetch := _of_thread.prefetch) is not None:
        # Only a call in the background can be cancelled from another thread.
        return prefetch.wait_for(multicallable.future(request, timeout=timeout, metadata=metadata))
    response: Response = multicallable(request, timeout=timeout, metadata=metadata)
    return response


class ResponseStream(Iterator[Response]):
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
        self._guard = StallGuard(self._call.cancel, stall_timeout)

    def __next__(self) -> Response:
        self._guard.progress()
        try:
            response: Response = next(self._call)
        except RpcError:
            if self._guard.is_stalled:
                raise StalledError from None
            raise
        else:
            return response
        finally:
            # The time that the consumer takes is no stall.
            self._guard.pause()

    def __enter__(self) -> ResponseStream[Response]:
        return self

    def __exit__(
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
        self._changed = threading.Condition()
        self._is_closed = False
        self._call: Any = None
        self._guard = StallGuard(self._cancel, stall_timeout)
        multicallable = channel.stream_unary(
            method.full_path,
            request_serializer=serialized,
            response_deserializer=method.response.FromString,
        )
        self._call = multicallable.future(self._requests(), metadata=metadata)
        self._call.add_done_callback(lambda _: self._close())

    def send(self, message: Message | bytes) -> bool:
        """Queue a message, or a serialized one, as soon as there is room.

        Returns:
            Whether it was queued. If not, the call takes no more messages, and `response` says why.
        """
        with self._changed:
            while len(self._queue) >= MAX_QUEUED and not self._is_closed:
                # Without a timeout, Ctrl-C could not interrupt it on Windows.
                self._changed.wait(_INTERRUPTIBLE_SECONDS)
            if self._is_closed:
                return False
            self._queue.append(message)
            self._changed.notify_all()
            return True

    def response(self) -> Response:
        """End the requests, and wait for the response.

        Raises:
            StalledError: The call made no progress for `stall_timeout`.
            RpcError: The call failed.
        """
        self._close()
        try:
            response: Response = self._call.result()
        except (RpcError, grpc.FutureCancelledError):
            if self._guard.is_stalled:
                raise StalledError from None
            raise
        else:
            return response

    def __enter__(self) -> RequestStream[Response]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._guard.close()
        # Before the requests end: a message that is missing at the end must not look like the end.
        self._call.cancel()
        self._close()

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _requests(self) -> Iterator[Any]:
        # A thread of grpc runs this. The previous message is sent when it asks for the next one.
        while True:
            with self._changed:
                if not self._queue and not self._is_closed:
                    # The time that the caller takes is no stall.
                    self._guard.pause()
                    if not self._changed.wait(self._idle_timeout):
                        self._is_closed = True
                    continue
                self._guard.progress()
                if not self._queue:
                    return
                message = self._queue.popleft()
                self._changed.notify_all()
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
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        self.is_stalled = False
        threading.Thread(target=self._watch, name="modelreg-stall-guard", daemon=True).start()

    def progress(self) -> None:
        """Note that the call made progress, and waits for more."""
        self._waiting_since = time.monotonic()

    def pause(self) -> None:
        """Note that the call waits for nothing."""
        self._waiting_since = None

    def close(self) -> None:
        """Stop guarding."""
        self._closed.set()

    def _watch(self) -> None:
        remaining = self._seconds
        while not self._closed.wait(remaining):
            since = self._waiting_since
            elapsed = 0.0 if since is None else time.monotonic() - since
            if elapsed >= self._seconds:
                self.is_stalled = True
                self._cancel()
                return
            remaining = self._seconds - elapsed


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


class Prefetch(Generic[Value]):
    """Runs a function ahead of the consumer of its result."""

    def __init__(self, function: Callable[..., Value], *arguments: Any) -> None:
        self._value: Value
        self._error: BaseException | None = None
        self._cancelled = threading.Event()
        self._call: grpc.Future[Any] | None = None
        self._thread = threading.Thread(
            target=self._run, args=(function, arguments), name="modelreg-prefetch", daemon=True
        )
        self._thread.start()

    def result(self) -> Value:
        """Return the result, or raise the error."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Abandon the result: end the call that runs, and let none begin."""
        self._cancelled.set()
        if self._call is not None:
            self._call.cancel()

    def wait_for(self, call: grpc.Future[Response]) -> Response:
        """Return the response of a call, unless the prefetch is cancelled."""
        self._call = call
        # Either `cancel` sees the call, or it was there before.
        if self._cancelled.is_set():
            call.cancel()
        response: Response = call.result()
        return response

    def sleep(self, seconds: float) -> None:
        """Wait, unless the prefetch is cancelled."""
        if self._cancelled.wait(seconds):
            raise AbandonedError

    def _run(self, function: Callable[..., Value], arguments: tuple[Any, ...]) -> None:
        _of_thread.prefetch = self
        try:
            self._value = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - the consumer gets it
            self._error = error
        finally:
            del _of_thread.prefetch


class Shown:
    """What notebooks show of a list: a table of its first items."""

    def to_list(self, limit: int | None = None) -> Sequence[Any]:
        """Return the items as a list."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html_table(self.to_list(SHOWN_ITEMS + 1))


class ReadableFile(Protocol):
    """A file of the registry."""

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes: so many, or fewer at the end."""

    def read_some(self, size: int) -> bytes:
        """Return at least one and at most so many of the next bytes. Empty at the end."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position of the next read, and return it."""

    def tell(self) -> int:
        """Return the position of the next read."""

    def close(self) -> None:
        """End the transfer."""


def opened(file: ReadableFile) -> BinaryFile:
    """Return a file of the registry as users get it."""
    return io.BufferedReader(_RawFile(file), _BUFFER_BYTES)


class _RawFile(io.RawIOBase):
    """A file of the registry as a raw file of Python."""

    def __init__(self, file: ReadableFile) -> None:
        super().__init__()
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._file.read_some(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._file.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
