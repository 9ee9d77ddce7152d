"""A watch for tests: messages read by a thread, so that a test can wait for them."""

import queue
import threading
from collections.abc import Iterable
from typing import Any

import grpc
from modelregistry.v1 import audit_pb2, model_service_pb2

from tests.client import Client

SECONDS = 30


class Watch:
    """A call of WatchModels. A context manager: cancelled on exit."""

    def __init__(self, client: Client, **fields: Any) -> None:
        self.call: Any = client.models.WatchModels(model_service_pb2.WatchModelsRequest(**fields))
        self._messages: queue.Queue[model_service_pb2.WatchModelsResponse | grpc.RpcError] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.token = ""
        """Of the last message that was taken."""

    def message(self) -> model_service_pb2.WatchModelsResponse:
        """Takes the next message; raises what the call ended with."""
        found = self._messages.get(timeout=SECONDS)
        if isinstance(found, grpc.RpcError):
            self._messages.put(found)
            raise found
        self.token = found.resume_token
        return found

    def event(self) -> audit_pb2.AuditEvent:
        """Takes the next message with an event."""
        while True:
            message = self.message()
            if message.HasField("event"):
                return message.event

    def events(self, count: int) -> list[audit_pb2.AuditEvent]:
        return [self.event() for _ in range(count)]

    def read_to_end(self) -> None:
        """Takes what comes until the call ends, and raises what it ended with."""
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
