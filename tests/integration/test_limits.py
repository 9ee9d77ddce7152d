"""Concurrency limits, timeouts and size limits, and their effect on other clients."""

import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, cast

import grpc
import h2.connection
import h2.events
import h2.settings
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from modelregistry.v1 import artifact_service_pb2, model_service_pb2, upload_service_pb2
from sqlalchemy import text

from registry_service.domain.errors import TooManyCallsError
from registry_service.transport.grpc.concurrency_limit import ConcurrencyLimit
from tests.polling import eventually
from tests.registry import RunningRegistry, StartRegistry
from tests.streams import Feed, WrappedStore, expect, serving
from tests.stub_client import Client, pieces, refused, registration, spec, writes, zip_of

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
MIB = 1024 * 1024


def open_registration(client: Client, name: str) -> tuple[Feed[model_service_pb2.RegisterModelRequest], Any]:
    """Start a registration that occupies a stream until its feed ends."""
    feed = Feed(*registration(spec(name=name), [b"x"]))
    return feed, client.models.RegisterModel.future(feed)


def retry_seconds(error: grpc.RpcError) -> float:
    """Return the delay in a refusal's google.rpc.RetryInfo."""
    for detail in rpc_status.from_call(cast(Any, error)).details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return float(info.retry_delay.ToMilliseconds() / 1000)
    raise AssertionError("a refusal has a delay")


class From(grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor):
    """Makes calls as the gateway does for a client of another address."""

    def __init__(self, address: str) -> None:
        self._metadata = [("x-forwarded-for", address)]

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(client_call_details._replace(metadata=self._metadata), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(client_call_details._replace(metadata=self._metadata), request_iterator)


class ActiveContext:
    """The context of a call whose client waits without a deadline."""

    def add_callback(self, _callback: Callable[[], None]) -> bool:
        return True

    def is_active(self) -> bool:
        return True

    def time_remaining(self) -> float:
        return math.inf


def has_free_stream(client: Client, model_id: str) -> bool:
    """Return whether a stream is free: a verification needs one."""
    try:
        return client.verify(model_id).intact
    except grpc.RpcError as error:
        expect(error, EXHAUSTED)
        return False


class TestStreams:
    @pytest.fixture
    def small(self, start_registry: StartRegistry) -> RunningRegistry:
        return start_registry(max_streams=2, max_unary_calls=2, max_waiting_seconds=0.2)

    def fill(self, small: RunningRegistry) -> list[tuple[Feed[model_service_pb2.RegisterModelRequest], Any]]:
        streams = [open_registration(small.client, f"filling {number}") for number in range(2)]
        eventually(lambda: small.count("unreferenced_objects") == 2)
        return streams

    def test_one_stream_too_many_is_refused_and_short_calls_are_not(self, small: RunningRegistry) -> None:
        client = small.client
        model = client.register(name="other")
        upload = client.create_upload(name="upload")
        streams = self.fill(small)
        started = time.monotonic()
        for call in (
            lambda: client.register(name="one too many"),
            lambda: client.download(model.id),
            lambda: client.verify(model.id),
            lambda: client.download_file(model.id, "a"),
            lambda: client.write_upload(upload.id, 0, b"x"),
            lambda: client.complete_upload(upload.id),
        ):
            with refused(EXHAUSTED, "TOO_MANY_STREAMS") as refusal:
                call()
            assert refusal.metadata == {"limit": "2"}
        for _ in range(20):
            assert client.get(model.id) == model
        assert time.monotonic() - started < 10
        for feed, call in streams:
            feed.end()
            assert call.result().model.artifact.size_bytes == 1
        client.register(name="now there is a stream")

    def test_a_stream_is_free_after_an_error(self, small: RunningRegistry) -> None:
        model = small.client.register(name="other")
        bad_messages = (
            model_service_pb2.RegisterModelRequest(),
            model_service_pb2.RegisterModelRequest(spec=spec()),
        )
        for (feed, call), bad in zip(self.fill(small), bad_messages, strict=True):
            feed.send(bad)
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        eventually(lambda: has_free_stream(small.client, model.id))
        self.fill(small)

    def test_a_stream_is_free_after_a_cancellation(self, small: RunningRegistry) -> None:
        model = small.client.register(bytes(64 * MIB), name="other")
        for _, call in self.fill(small):
            call.cancel()
        eventually(lambda: has_free_stream(small.client, model.id))
        downloads = [
            small.client.artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest(model_id=model.id))
            for _ in range(2)
        ]
        for download in downloads:
            next(download)
        assert not has_free_stream(small.client, model.id)
        for download in downloads:
            download.cancel()
        eventually(lambda: has_free_stream(small.client, model.id))
        eventually(lambda: len(self.fill(small)) == 2)

    def test_a_stream_is_free_after_its_client_is_gone(self, small: RunningRegistry) -> None:
        model = small.client.register(name="other")
        other = Client(small.client.address)
        calls = [open_registration(other, f"gone {number}") for number in range(2)]
        eventually(lambda: small.count("unreferenced_objects") == 2)
        other.close()
        eventually(lambda: has_free_stream(small.client, model.id))
        assert all(call.done() for _, call in calls)


class TestIdleTimeout:
    @pytest.fixture
    def with_idle_timeout(self, start_registry: StartRegistry) -> RunningRegistry:
        return start_registry(max_streams=2, stream_idle_seconds=1, max_waiting_seconds=0.2)

    def test_idle_uploads_are_cancelled(self, with_idle_timeout: RunningRegistry) -> None:
        client = with_idle_timeout.client
        model = client.register(name="other")
        upload = client.create_upload(name="upload")
        started = time.monotonic()
        calls = [
            open_registration(client, "silent")[1],
            client.uploads.WriteUpload.future(Feed(*writes(upload.id, 0, [b"abc"]))),
        ]
        eventually(lambda: not has_free_stream(client, model.id))
        while not all(call.done() for call in calls):
            assert client.get(model.id) == model
            assert time.monotonic() - started < 20
        assert [call.code() for call in calls] == [grpc.StatusCode.CANCELLED] * 2
        assert time.monotonic() - started > 0.9
        eventually(lambda: has_free_stream(client, model.id))
        eventually(lambda: with_idle_timeout.count("unreferenced_objects") == 0)
        assert eventually(lambda: client.get_upload(upload.id).committed_size) == 3

    def test_a_stalled_download_is_cancelled(
        self, with_idle_timeout: RunningRegistry, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = with_idle_timeout.client
        model = client.register(bytes(64 * MIB))
        downloads = [
            client.artifacts.DownloadArtifact(artifact_service_pb2.DownloadArtifactRequest(model_id=model.id))
            for _ in range(2)
        ]
        for download in downloads:
            next(download)
        assert not has_free_stream(client, model.id)
        started = time.monotonic()
        eventually(lambda: client.get(model.id) == model and has_free_stream(client, model.id))
        assert time.monotonic() - started < 20
        # A stream is free when the first download has ended; the other may time out a moment later.
        eventually(lambda: caplog.text.count("kept the call waiting") >= len(downloads))
        for download in downloads:
            with refused(grpc.StatusCode.CANCELLED):
                for _ in download:
                    pass

    def test_a_slow_but_active_client_is_not_cancelled(self, with_idle_timeout: RunningRegistry) -> None:
        feed, call = open_registration(with_idle_timeout.client, "slow")
        ticks = threading.Event()
        for _ in range(8):
            ticks.wait(0.3)
            feed.send(model_service_pb2.RegisterModelRequest(chunk=b"x"))
        feed.end()
        assert call.result().model.artifact.size_bytes == 9

    def test_a_short_unread_answer_times_out(self, with_idle_timeout: RunningRegistry) -> None:
        model = with_idle_timeout.client.register(name="listed")
        host, _, port = with_idle_timeout.client.address.rpartition(":")
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        method = "/modelregistry.compat.v1.CompatService/ListModels"
        headers = [(":method", "POST"), (":path", method), (":scheme", "http"), (":authority", "x")]
        connection.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
        connection.send_data(1, bytes(5), end_stream=True)
        started = time.monotonic()
        with socket.create_connection((host, int(port)), timeout=30) as client:
            ended = False
            while not ended:
                client.sendall(connection.data_to_send())
                data = client.recv(65_536)
                assert data, "the stream is to end, not the connection"
                events = connection.receive_data(data)
                ended = any(isinstance(event, h2.events.StreamReset | h2.events.TrailersReceived) for event in events)
        assert 0.9 < time.monotonic() - started < 20
        assert with_idle_timeout.client.get(model.id) == model

    def test_slow_work_of_the_server_does_not_count_as_idle(self, registry: RunningRegistry) -> None:
        class SlowStore(WrappedStore):
            def write(self, key: str, pieces: Iterable[bytes]) -> None:
                super().write(key, pieces)
                threading.Event().wait(2)

        with serving(registry, SlowStore(registry.parts.store), stream_idle_seconds=0.5) as (_, client):
            assert client.register().artifact.size_bytes == 7


class TestShortCalls:
    def test_calls_beyond_the_queue_are_refused_and_queued_ones_are_served(self, registry: RunningRegistry) -> None:
        model = registry.client.register(zip_of({"a": b"b"}), artifact={"media_type": "application/zip"})
        begun, may_end = threading.Semaphore(0), threading.Event()

        class SlowStore(WrappedStore):
            def read(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
                begun.release()
                assert may_end.wait(30)
                return super().read(key, offset, length)

        request = artifact_service_pb2.ListArtifactFilesRequest(model_id=model.id)
        with serving(registry, SlowStore(registry.parts.store), max_unary_calls=1, max_waiting_calls=2) as (
            server,
            client,
        ):
            calls = [client.artifacts.ListArtifactFiles.future(request) for _ in range(3)]
            assert begun.acquire(timeout=30)
            eventually(lambda: server.waiting_calls == 2)
            with refused(EXHAUSTED, "TOO_MANY_CALLS") as refusal:
                client.get(model.id)
            assert refusal.metadata == {"limit": "1"}
            may_end.set()
            assert {call.code() for call in calls} == {grpc.StatusCode.OK}
            assert client.get(model.id) == model


class TestCallersShare:
    """Each caller has its share, and short bursts are queued."""

    def test_a_burst_of_registrations_is_queued(self, registry: RunningRegistry) -> None:
        with ThreadPoolExecutor(64) as pool:
            names = [f"burst {number}" for number in range(64)]
            models = list(pool.map(lambda name: registry.client.register(name=name), names))
        assert [model.name for model in models] == names

    def test_a_refused_call_succeeds_after_its_retry_delay(self, registry: RunningRegistry) -> None:
        refusals: list[float] = []

        def register(client: Client, number: int) -> None:
            try:
                client.register(name=f"refused {number}")
            except grpc.RpcError as error:
                expect(error, EXHAUSTED)
                delay = retry_seconds(error)
                refusals.append(delay)
                threading.Event().wait(delay)
                client.register(name=f"refused {number}")

        with (
            serving(registry, max_streams=2, max_waiting_calls=4) as (_, client),
            ThreadPoolExecutor(40) as pool,
        ):
            list(pool.map(lambda number: register(client, number), range(40)))
        assert refusals
        assert min(refusals) >= 1
        assert registry.count("models") == 40

    def test_http_clients_receive_the_retry_delay(self, registry: RunningRegistry) -> None:
        with serving(registry, max_streams=1, max_waiting_seconds=0.05) as (_, client):
            feed, call = open_registration(client, "uses the only stream")
            eventually(lambda: registry.count("unreferenced_objects") == 1)
            with pytest.raises(grpc.RpcError) as raised:
                client.register(name="refused")
            trailers: dict[str, Any] = dict(cast(Any, raised.value).trailing_metadata())
            assert int(trailers["retry-after"]) == math.ceil(retry_seconds(raised.value)) >= 1
            feed.end()
            assert call.result()

    def test_a_caller_at_its_share_leaves_streams_to_others(self, registry: RunningRegistry) -> None:
        with serving(registry, max_streams=4, caller_share=0.5, max_waiting_seconds=0.2) as (_, client):
            streams = [open_registration(client, f"greedy {number}") for number in range(2)]
            eventually(lambda: registry.count("unreferenced_objects") == 2)
            with refused(EXHAUSTED, "TOO_MANY_STREAMS") as refusal:
                client.register(name="one too many")
            assert refusal.metadata == {"limit": "2"}
            for address in ("192.0.2.1", "2001:db8::1"):
                with closing(Client(client.address, From(address))) as other:
                    assert other.register(name=address).name == address
            for feed, call in streams:
                feed.end()
                assert call.result()

    def test_callers_take_turns(self) -> None:
        limit = ConcurrencyLimit(
            max_running=1,
            max_running_per_caller=1,
            max_waiting=20,
            max_waiting_per_caller=10,
            wait_seconds=30,
            refuse=TooManyCallsError,
        )
        order: list[str] = []
        context = cast(grpc.ServicerContext, ActiveContext())

        def run(caller: str) -> None:
            limit.acquire(caller, context)
            order.append(caller)
            limit.release(caller, 0.01)

        limit.acquire("first", context)

        def waits(calls: int) -> bool:
            return limit.waiting == calls

        waiting = 0
        with ThreadPoolExecutor(8) as pool:
            for caller in ("greedy", "greedy", "greedy", "modest"):
                pool.submit(run, caller)
                waiting += 1
                eventually(partial(waits, waiting))
            limit.release("first", 0.01)
        assert order == ["greedy", "modest", "greedy", "greedy"]
        assert limit.running == limit.waiting == 0

    def test_a_queued_call_whose_client_leaves_is_removed_from_the_queue(self, registry: RunningRegistry) -> None:
        with serving(registry, max_streams=1) as (server, client):
            feed, call = open_registration(client, "first")
            eventually(lambda: registry.count("unreferenced_objects") == 1)
            _, gone = open_registration(client, "gone")
            eventually(lambda: server.waiting_calls == 1)
            gone.cancel()
            eventually(lambda: server.waiting_calls == 0)
            feed.end()
            assert call.result()
            assert client.register(name="next").name == "next"

    def test_slow_searches_of_one_caller_do_not_delay_reads_and_readiness(self, start_registry: StartRegistry) -> None:
        registry = start_registry(caller_share=0.5, psql_pool_size=4, search_timeout_seconds=1.5, max_waiting_seconds=1)
        model = registry.client.register(labels=[str(number) for number in range(100_000)])
        # Each restriction reads every label, which takes seconds in total.
        slow = model_service_pb2.ListModelsRequest(filter=" OR ".join(f'labels = "*x{n}"' for n in range(100)))
        with ExitStack() as stack:
            greedy = stack.enter_context(closing(Client(registry.client.address)))
            other = stack.enter_context(closing(Client(registry.client.address, From("192.0.2.1"))))
            searches = [greedy.models.ListModels.future(slow) for _ in range(40)]
            stub: Any = health_pb2_grpc.HealthStub(registry.client.channel)
            while not any(search.done() for search in searches):
                started = time.monotonic()
                assert other.all(page_size=1)[0].id == model.id
                assert other.get(model.id).id == model.id
                assert time.monotonic() - started < 3
                assert stub.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
            assert {search.code() for search in searches} <= {EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}


class TestSearches:
    """Limits of searches. Each restriction here reads every label, which takes seconds in total."""

    SLOW = " OR ".join(f'labels = "*x{number}"' for number in range(100))

    @pytest.fixture
    def labelled(self, start_registry: StartRegistry) -> RunningRegistry:
        registry = start_registry(psql_pool_size=1, search_timeout_seconds=1.5)
        registry.client.register(labels=[str(number) for number in range(100_000)])
        return registry

    def processes(self, registry: RunningRegistry) -> dict[int, bool]:
        """Return the Postgres processes of the registry's pool, each with whether it is active."""
        with registry.engine.connect() as connection:
            found = connection.execute(
                text(
                    "SELECT pid, state = 'active' FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND query LIKE '%labels%'"
                )
            )
            return {pid: bool(is_active) for pid, is_active in found}

    def test_a_search_that_times_out_ends_with_its_process(self, labelled: RunningRegistry) -> None:
        with ThreadPoolExecutor(1) as thread:
            search = thread.submit(labelled.client.all, self.SLOW)
            before = eventually(lambda: self.processes(labelled))
            started = time.monotonic()
            with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "QUERY_TOO_SLOW"):
                search.result()
        assert time.monotonic() - started < 5
        # Its memory is freed with it; the pool opens another connection.
        eventually(lambda: not before.keys() & self.processes(labelled).keys())
        assert labelled.client.all(page_size=1)

    def test_a_search_with_a_large_plan_leaves_no_postgres_process_behind(self, start_registry: StartRegistry) -> None:
        client = (registry := start_registry(psql_pool_size=1)).client
        client.register(labels=["a"])
        assert client.all('labels = "a"')
        process = self.processes(registry).keys()
        assert len(process) == 1
        assert client.all(" OR ".join(f'labels = "{letter}"' for letter in "bcdefgha"))
        assert self.processes(registry).keys() == process
        either = " OR ".join(f'labels = "x{number}"' for number in range(50))
        assert not client.all(f"({either}) AND ({either})")
        eventually(lambda: not self.processes(registry))

    def test_a_search_whose_client_leaves_is_cancelled(self, start_registry: StartRegistry) -> None:
        registry = start_registry(psql_pool_size=1)
        registry.client.register(labels=[str(number) for number in range(100_000)])
        search = registry.client.models.ListModels.future(model_service_pb2.ListModelsRequest(filter=self.SLOW))
        eventually(lambda: any(self.processes(registry).values()))
        search.cancel()
        started = time.monotonic()
        eventually(lambda: not any(self.processes(registry).values()))
        assert time.monotonic() - started < 2


class TestSizes:
    def test_an_artifact_over_the_limit_is_refused(self, start_registry: StartRegistry) -> None:
        registry = start_registry(artifact_max_bytes=10 * MIB)
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            while True:
                sent += MIB
                yield bytes(MIB)

        with refused(EXHAUSTED, "ARTIFACT_TOO_LARGE") as refusal:
            registry.client.models.RegisterModel(registration(spec(), endless()), timeout=60)
        assert refusal.metadata == {"limit": str(10 * MIB)}
        assert sent < 500 * MIB
        assert registry.count("models") == registry.count("unreferenced_objects") == 0
        assert registry.objects() == []
        assert registry.client.register(bytes(10 * MIB)).artifact.size_bytes == 10 * MIB

    def test_a_declared_size_over_the_limit_is_refused_at_once(self, start_registry: StartRegistry) -> None:
        registry = start_registry(artifact_max_bytes=10)
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
            registry.client.register(b"", artifact={"size_bytes": 11})
        assert refusal.fields == ["spec.artifact.size_bytes"]

    def test_a_message_over_the_limit_is_refused(self, registry: RunningRegistry) -> None:
        with refused(EXHAUSTED):
            registry.client.models.RegisterModel(registration(spec(), [bytes(17 * MIB)]))
        eventually(lambda: registry.count("unreferenced_objects") == 0)
        assert registry.objects() == []
        assert registry.client.register(bytes(7 * MIB)).artifact.size_bytes == 7 * MIB


class TestDraining:
    def test_running_calls_finish_during_the_drain_which_probes_see(self, registry: RunningRegistry) -> None:
        data = bytes(20 * MIB)
        with serving(registry, shutdown_grace_seconds=30) as (server, client), ThreadPoolExecutor(1) as thread:
            health = health_pb2_grpc.HealthStub(client.channel)
            states = health.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]  # its stub lacks it
            assert next(states).status == health_pb2.HealthCheckResponse.SERVING
            upload = client.create_upload()
            feed = Feed(*writes(upload.id, 0, pieces(data[: 10 * MIB])))
            call = client.uploads.WriteUpload.future(feed)
            eventually(lambda: client.get_upload(upload.id).committed_size > 0)
            stopping = thread.submit(server.stop)
            assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
            states.cancel()
            eventually(lambda: _refuses(client))
            assert not stopping.done()
            for piece in pieces(data[10 * MIB :]):
                feed.send(upload_service_pb2.WriteUploadRequest(data=piece))
            feed.end()
            assert call.result().upload.committed_size == len(data)
            stopping.result(timeout=30)
        registry.client.complete_upload(upload.id)
        assert registry.client.verify(upload.model_id).intact

    def test_calls_that_outlast_the_drain_are_cancelled(self, registry: RunningRegistry) -> None:
        with serving(registry, shutdown_grace_seconds=0.5) as (server, client):
            _, call = open_registration(client, "never ends")
            eventually(lambda: registry.count("unreferenced_objects") == 1)
            server.stop()
            assert call.code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        eventually(lambda: registry.count("unreferenced_objects") == 0)
        assert registry.objects() == []


def _refuses(client: Client) -> bool:
    other = Client(client.address)
    try:
        other.models.ListModels(model_service_pb2.ListModelsRequest(), timeout=1)
    except grpc.RpcError as error:
        expect(error, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        return True
    finally:
        other.close()
    return False
