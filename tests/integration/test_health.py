"""gRPC's health service: its limits for unauthenticated callers, and its answers meanwhile."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, Never

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from registry_service.transport.grpc.health import MAX_HEALTH_WATCHES
from registry_service.transport.grpc.interceptors.watchdog import MAX_MESSAGES_EXPECTED
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import WrappedStore, expect, serving
from tests.stub_client import Client, refused

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
CHECK = "/grpc.health.v1.Health/Check"
GET_MODEL = "/modelregistry.v1.ModelService/GetModel"


@pytest.fixture
def guarded(start_registry: StartRegistry) -> RunningRegistry:
    """A registry with authentication; the tests here have no token."""
    return start_registry(auth_mode="token")


def health(client: Client) -> Any:
    """Return the stub of the health service, whose published types lack methods."""
    return health_pb2_grpc.HealthStub(client.channel)


def is_serving(client: Client) -> bool:
    return bool(health(client).Check(health_pb2.HealthCheckRequest(), timeout=5).status == SERVING)


def check_within_a_second(client: Client) -> None:
    started = time.monotonic()
    assert health(client).Check(health_pb2.HealthCheckRequest(), timeout=20).status == SERVING
    assert time.monotonic() - started < 1


def without_message(client: Client, method: str) -> Any:
    """Start a call that sends only headers."""
    ended = threading.Event()

    def no_requests() -> Iterator[Never]:
        ended.wait(60)
        yield from ()

    call: Any = client.channel.stream_unary(method).future(no_requests(), timeout=60)
    call.add_callback(ended.set)
    return call


def test_thousands_of_cancelled_watches_leave_the_server_answering(guarded: RunningRegistry) -> None:
    with serving(guarded, health_interval_seconds=0.001) as (server, client):
        stub = health(client)
        for _ in range(100):
            watches = [stub.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(50)]
            # Some run when they are cancelled, the others have hardly begun.
            for watch in watches[:10]:
                with suppress(grpc.RpcError):
                    next(watch)
            for watch in watches:
                watch.cancel()
        # grpcio refuses calls while too many are queued.
        eventually(lambda: is_serving(client), 60)
        check_within_a_second(client)
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        stopping.join(20)
        assert not stopping.is_alive()


def test_a_watch_receives_only_changes(registry: RunningRegistry) -> None:
    class Store(WrappedStore):
        is_well = True

        def check(self) -> None:
            if not self.is_well:
                raise OSError("away")

    store = Store(registry.parts.store)
    with serving(registry, store, health_interval_seconds=0.05) as (_, client):
        watch = health(client).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == SERVING
        store.is_well = False
        assert next(watch).status == NOT_SERVING
        store.is_well = True
        assert next(watch).status == SERVING


def test_an_unknown_service_can_be_watched_but_not_checked(registry: RunningRegistry) -> None:
    request = health_pb2.HealthCheckRequest(service="no.such.Service")
    watch = health(registry.client).Watch(request)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()
    with refused(grpc.StatusCode.NOT_FOUND):
        health(registry.client).Check(request)


def test_every_service_is_listed(registry: RunningRegistry) -> None:
    statuses = health(registry.client).List(health_pb2.HealthListRequest()).statuses  # type: ignore[attr-defined]
    assert {"", "modelregistry.v1.ModelService"} < statuses.keys()
    assert {answer.status for answer in statuses.values()} == {SERVING}


def test_watches_are_limited_and_do_not_affect_checks(guarded: RunningRegistry) -> None:
    stub = health(guarded.client)
    watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(MAX_HEALTH_WATCHES // 2)]
    for watch in watches:
        assert next(watch).status == SERVING
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
        next(stub.Watch(health_pb2.HealthCheckRequest()))
    check_within_a_second(guarded.client)
    for watch in watches:
        watch.cancel()
    eventually(lambda: _has_room(stub))


def _has_room(stub: Any) -> bool:
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    try:
        return bool(next(watch).status == SERVING)
    except grpc.RpcError as error:
        expect(error, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return False
    finally:
        watch.cancel()


def test_the_oldest_calls_without_a_message_are_cancelled_for_new_ones(guarded: RunningRegistry) -> None:
    with ExitStack() as stack:
        client = Client(guarded.client.address)
        stack.callback(client.close)
        calls = [without_message(client, CHECK) for _ in range(MAX_MESSAGES_EXPECTED + 20)]
        stack.callback(lambda: [call.cancel() for call in calls])
        eventually(lambda: sum(call.done() for call in calls) >= 20)
        assert {call.code() for call in calls if call.done()} == {grpc.StatusCode.CANCELLED}
        check_within_a_second(guarded.client)


def test_an_unauthenticated_call_is_refused_before_its_message_arrives(guarded: RunningRegistry) -> None:
    started = time.monotonic()
    call = without_message(guarded.client, GET_MODEL)
    assert call.code() is grpc.StatusCode.UNAUTHENTICATED
    assert time.monotonic() - started < 5
