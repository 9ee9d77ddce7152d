"""A client of watches. A thread reads the messages, so that a test can wait for each."""

import queue
import threading
from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc.status_pb2 import Status
from modelregistry.v1 import audit_pb2, audit_service_pb2

from tests.stub_client import Client

SECONDS = 30


class Watch:
    """A call of WatchAuditEvents. A context manager that cancels the call on exit."""

    def __init__(self, client: Client, **fields: Any) -> None:
        self.call: Any = client.audit.WatchAuditEvents(audit_service_pb2.WatchAuditEventsRequest(**fields))
        self._messages: queue.Queue[audit_service_pb2.WatchAuditEventsResponse | grpc.RpcError] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.token = ""
        """The resume token of the last message that was taken."""
        self.error: Status | None = None
        """The error with which the server ended the watch."""

    def message(self) -> audit_service_pb2.WatchAuditEventsResponse:
        """Return the next message, except one with an error. Raise the error that ended the call."""
        found = self._messages.get(timeout=SECONDS)
        if isinstance(found, grpc.RpcError):
            self._messages.put(found)
            raise found
        if found.HasField("error"):
            self.error = found.error
            self.token = found.resume_token
            return self.message()
        self.token = found.resume_token
        return found

    def event(self) -> audit_pb2.AuditEvent:
        """Return the event of the next message that has one."""
        while True:
            message = self.message()
            if message.HasField("event"):
                return message.event

    def events(self, count: int) -> list[audit_pb2.AuditEvent]:
        return [self.event() for _ in range(count)]

    def read_to_end(self) -> None:
        """Read until the call ends, and raise its error."""
        while self.message() is not None:
            pass

    def cancel(self) -> None:
        self.call.cancel()
        self._thread.join(SECONDS)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def _read(self) -> None:
        try:
            for message in self.call:
                self._messages.put(message)
        except grpc.RpcError as error:
            self._messages.put(error)


def sequences(events: Iterable[audit_pb2.AuditEvent]) -> list[int]:
    return [event.sequence for event in events]
