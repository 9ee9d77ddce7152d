# Generated from modelreg/_async by `make generate`. Do not edit.
"""Watching the audit log across interruptions."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import cast

import grpc
from modelregistry.v1 import audit_service_pb2, system_service_pb2

from modelreg._logging import logger
from modelreg._resume_files import ResumeFile
from modelreg._sync import runtime
from modelreg._sync.connection import Connection, failure_of_stream
from modelreg._wire import convert, methods
from modelreg._wire.retries import MAX_ATTEMPTS, Retries
from modelreg._wire.rpc_errors import Failure, failure_of_status
from modelreg._wire.values import duration_of
from modelreg.audit import Event
from modelreg.errors import RegistryError, Unavailable

_DEFAULT_HEARTBEAT_SECONDS = 30.0
"""Of a server that does not say how often it sends heartbeats."""
_MISSED_HEARTBEATS = 3
_CUT_OFF = Failure(grpc.StatusCode.UNAVAILABLE, "the stream was cut off")
_CODES_OF_CUTS = {grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}


class Watch:
    """One watch: a stream of events that is opened again, after the last event, as often as needed.

    Args:
        connection: The connection.
        request: What to watch, and from where.
        file: Where the position is kept, if anywhere.
    """

    def __init__(
        self,
        connection: Connection,
        request: audit_service_pb2.WatchAuditEventsRequest,
        file: ResumeFile | None,
    ) -> None:
        self._connection = connection
        self._request = request
        self._file = file
        self._heartbeat_seconds: float | None = None
        self._was_connected = False
        self._retries = Retries(None, MAX_ATTEMPTS)
        self._lost_at: float | None = None
        """When the connection was lost; None while there is one."""

    def events(self) -> Generator[Event, None, None]:
        """Yield the events. The position moves past an event when the next one is asked for.

        Raises:
            RegistryError: The watch cannot go on: it failed for good, or never began.
        """
        try:
            if self._file is not None:
                self._move_to(runtime.run_blocking(self._file.open))
            with closing(self._messages()) as messages:
                for message in messages:
                    if message.HasField("event"):
                        yield convert.event(message.event, resume_token=message.resume_token)
                    self._advance(message.resume_token)
        finally:
            if self._file is not None:
                runtime.run_blocking(self._file.close)

    def _move_to(self, token: str) -> None:
        if token:
            self._request.resume_token = token
            # Refused together with a token.
            self._request.from_beginning = False

    def _advance(self, token: str) -> None:
        if token and token != self._request.resume_token:
            self._move_to(token)
            if self._file is not None:
                runtime.run_blocking(self._file.save, token)

    def _messages(self) -> Generator[audit_service_pb2.WatchAuditEventsResponse, None, None]:
        """Yield the messages of one stream after the other, each from the position on."""
        refused: str | None = None
        while True:
            failure, token = _CUT_OFF, None
            count = 0
            try:
                token = self._connection.token()
                seconds = self._stall_seconds()
                stream = self._connection.responses(methods.WATCH_AUDIT_EVENTS, self._request, stall_timeout=seconds)
                with stream:
                    for message in stream:
                        if message.HasField("error"):
                            failure = failure_of_status(message.error)
                            break
                        count += 1
                        self._note_progress(count)
                        yield message
            except Unavailable as error:
                # The token could not be refreshed.
                self._pause_or_raise(Failure(grpc.StatusCode.UNAVAILABLE, error.message), error)
                continue
            except (runtime.RpcError, runtime.StalledError) as error:
                failure = failure_of_stream(error)
            if count:
                refused = None
            if self._connection.may_sign_in_again(failure, token, refused):
                refused = token
                continue
            self._pause_or_raise(failure, self._error(failure))

    def _note_progress(self, count: int) -> None:
        """Note that a stream had its first message, or another one."""
        if count == 1:
            self._was_connected = True
            if self._lost_at is not None:
                logger.info("The watch goes on after %.0f s.", time.monotonic() - self._lost_at)
                self._lost_at = None
        else:
            # The first one comes at once, also from a server that then fails each time.
            self._retries.reset()

    def _pause_or_raise(self, failure: Failure, error: RegistryError) -> None:
        """Wait until the next attempt, or raise the error if there is none.

        A watch that has a position goes on for as long as the registry is away: a deployment agent must not end with
        an outage. A watch that has none yet fails as any call, since its URL may be wrong.
        """
        is_transient = failure.is_transient
        if self._was_connected:
            # The name of the host was known before. A cut without a reason comes from something on the way.
            is_cut = failure.code in _CODES_OF_CUTS and not failure.reason
            is_transient = is_transient or is_cut or failure.is_hopeless
        if self._request.resume_token:
            self._retries.max_attempts = None
        pause = self._retries.pause_after(failure, is_transient=is_transient)
        if pause is None:
            raise error from None
        if self._lost_at is None:
            self._lost_at = time.monotonic()
            logger.warning("The watch lost the registry and tries again until it answers: %s", error.message)
        else:
            logger.debug("The watch is still without the registry: %s", error.message)
        runtime.sleep(pause)

    def _stall_seconds(self) -> float:
        """Return how long a connection may be silent. Asks the server once how often it sends heartbeats.

        Raises:
            RpcError: The server did not answer.
        """
        if self._heartbeat_seconds is None:
            request = system_service_pb2.GetServerInfoRequest()
            self._heartbeat_seconds = _DEFAULT_HEARTBEAT_SECONDS
            try:
                info = self._connection.attempt(methods.GET_SERVER_INFO, request)
            except runtime.RpcError as error:
                if cast(grpc.Call, error).code() != grpc.StatusCode.UNIMPLEMENTED:
                    self._heartbeat_seconds = None
                    raise
            else:
                if interval := duration_of(info.limits, "watch_heartbeat_interval"):
                    self._heartbeat_seconds = interval.total_seconds()
        return max(self._connection.options.stall_timeout, _MISSED_HEARTBEATS * self._heartbeat_seconds)

    def _error(self, failure: Failure) -> RegistryError:
        error = self._connection.error(failure)
        if self._file is not None and error.reason == "OUT_OF_RANGE":
            # Of another database, or of one that was restored from a backup since.
            hint = f"Delete {self._file.path} to start with the next event, or set from_beginning as well."
            error.message = f"{error.message} {hint}"
            error.args = (error.message,)
        return error
