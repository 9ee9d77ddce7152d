"""What differs between the two APIs: time, threads, channels and streams. This is the one on grpc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc

from modelreg._methods import Method, Request, Response
from modelreg._options import Options
from modelreg._results import SHOWN_ITEMS, html_table

Value = TypeVar("Value")
RpcError = grpc.RpcError
Channel = grpc.Channel
Lock = threading.Lock
Metadata = tuple[tuple[str, str], ...]

sleep = time.sleep


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


def call_request_stream(
    channel: Channel,
    method: Method[Request, Response],
    requests: Iterator[Request],
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
        stall_timeout: Seconds without progress after which the call is cancelled.

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

    def guarded() -> Iterator[Request]:
        for message in requests:
            if guard is not None:
                guard.progress()
            yield message
        if guard is not None:
            guard.progress()

    call = multicallable.future(guarded(), metadata=metadata)
    guard = StallGuard(call.cancel, stall_timeout)
    guard.progress()
    try:
        response: Response = call.result()
    except (RpcError, grpc.FutureCancelledError):
        if guard.is_stalled:
            raise StalledError from None
        raise
    else:
        return response
    finally:
        guard.close()
        # Ctrl-C, too, must end the call.
        call.cancel()


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


class Prefetch(Generic[Value]):
    """Runs a function ahead of the consumer of its result."""

    def __init__(self, function: Callable[..., Value], *arguments: Any) -> None:
        self._value: Value
        self._error: BaseException | None = None
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
        """Abandon the result."""

    def _run(self, function: Callable[..., Value], arguments: tuple[Any, ...]) -> None:
        try:
            self._value = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - the consumer gets it
            self._error = error


class Shown:
    """What notebooks show of a list: a table of its first items."""

    def to_list(self, limit: int | None = None) -> Sequence[Any]:
        """Return the items as a list."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return html_table(self.to_list(SHOWN_ITEMS + 1))
