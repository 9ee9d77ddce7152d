"""Watching: every event, across interruptions and restarts."""

import asyncio
import errno
import itertools
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import grpc
import modelreg
import pytest
from google.rpc.status_pb2 import Status
from modelreg import Conflict, ConnectionFailed, Event, InvalidArgument, Registry, Unsupported
from modelreg._wire.methods import GET_SERVER_INFO, WATCH_AUDIT_EVENTS
from modelregistry.v1 import audit_pb2, system_service_pb2
from modelregistry.v1.audit_service_pb2 import WatchAuditEventsResponse

from tests.client.fake_server import FakeServer, refusal
from tests.hanging_proxy import HangingProxy
from tests.polling import eventually
from tests.registry import RunningRegistry

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
AWAY = refusal(UNAVAILABLE, "DATABASE_UNAVAILABLE", "Postgres does not respond.")


def names(events: Iterator[Event], count: int) -> list[str]:
    return [event.name for event in itertools.islice(events, count)]


def token_in(path: Path) -> str:
    return str(json.loads(path.read_text())["resume_token"])


class TestOfARealServer:
    def test_events_arrive_with_what_changed(self, server: RunningRegistry, registry: Registry, name: str) -> None:
        server.client.register(name=name, version="1")
        server.client.register(name=name, version="2")
        registry.promote(f"{name}@production", f"{name}:2", reason="gate 42")
        with closing(registry.watch(f"name = {name}", from_beginning=True)) as events:
            first, _, third = itertools.islice(events, 3)
        assert (first.action, first.name, third.action, third.reason) == (
            "model_registered",
            name,
            "alias_set",
            "gate 42",
        )
        assert first == registry.log(f"name = {name}").to_list()[-1]

    def test_a_watch_starts_with_the_next_change(self, server: RunningRegistry, registry: Registry, name: str) -> None:
        server.client.register(name=name, version="1")
        seen: list[Event] = []
        with closing(registry.watch(f"name = {name}")) as events:
            thread = threading.Thread(target=lambda: seen.append(next(events)))
            thread.start()
            registrations = (server.client.register(name=name, version=f"2.{number}") for number in itertools.count())
            eventually(lambda: next(registrations).id and seen)
            thread.join()
        assert seen[0].after is not None
        assert seen[0].after["version"].startswith("2.")

    def test_a_consumer_that_restarts_gets_the_event_again_that_it_was_busy_with(
        self, server: RunningRegistry, url: str, name: str, tmp_path: Path
    ) -> None:
        models = [server.client.register(name=name, version=f"{number}") for number in range(4)]
        file = tmp_path / "folder" / "deploy.token"

        def run(count: int) -> list[str]:
            with Registry(url) as registry:
                found = registry.watch(f"name = {name}", resume_file=file, from_beginning=True)
                with closing(found) as events:
                    return [event.model_id for event in itertools.islice(events, count)]

        ids = [model.id for model in models]
        assert run(2) == ids[:2]
        assert run(2) == ids[1:3]
        assert run(2) == ids[2:4]

    def test_an_event_is_done_when_the_next_one_is_asked_for(
        self, server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
    ) -> None:
        for number in range(2):
            server.client.register(name=name, version=f"{number}")
        file = tmp_path / "token"
        with closing(registry.watch(f"name = {name}", resume_file=file, from_beginning=True)) as events:
            first = next(events)
            assert token_in(file) != first.resume_token
            next(events)
            assert token_in(file) == first.resume_token
        assert list(tmp_path.glob(".modelreg-*")) == []

    def test_a_token_continues_after_its_event(self, server: RunningRegistry, registry: Registry, name: str) -> None:
        for number in range(2):
            server.client.register(name=name, version=f"{number}")
        with closing(registry.watch(f"name = {name}", from_beginning=True)) as events:
            first, second = itertools.islice(events, 2)
        with closing(registry.watch(f"name = {name}", resume_token=first.resume_token)) as events:
            assert next(events) == second

    def test_a_full_disk_is_said_of_the_file(
        self,
        server: RunningRegistry,
        registry: Registry,
        name: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        server.client.register(name=name)
        file = tmp_path / "token"

        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with closing(registry.watch(f"name = {name}", resume_file=file, from_beginning=True)) as events:
            next(events)
            monkeypatch.setattr("os.fsync", fail)
            with pytest.raises(OSError, match=f"No space left on device: '{file}'"):
                next(events)
        assert list(tmp_path.glob(".modelreg-*")) == []

    def test_two_watches_do_not_share_a_file(
        self, server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
    ) -> None:
        server.client.register(name=name)
        file = tmp_path / "token"
        with closing(registry.watch(f"name = {name}", resume_file=file, from_beginning=True)) as events:
            next(events)
            with pytest.raises(Conflict, match="Another watch uses"):
                next(registry.watch(f"name = {name}", resume_file=file))
        with closing(registry.watch(f"name = {name}", resume_file=file)) as events:
            next(events)

    def test_a_file_of_another_filter_is_refused(
        self, server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
    ) -> None:
        server.client.register(name=name)
        file = tmp_path / "token"
        with closing(registry.watch(f"name = {name}", resume_file=file, from_beginning=True)) as events:
            next(events)
        with pytest.raises(InvalidArgument, match="belongs to a watch with the filter"):
            next(registry.watch(resume_file=file))

    @pytest.mark.parametrize(
        "content", ["", "x", "[]", "[" * 100_000, '{"version": 1, "filter": ""}', '{"version": 2}', "\0" * 100]
    )
    def test_a_damaged_file_is_refused(self, registry: Registry, tmp_path: Path, content: str) -> None:
        file = tmp_path / "token"
        file.write_text(content)
        with pytest.raises(InvalidArgument, match="is damaged, or is not the resume file"):
            next(registry.watch(resume_file=file))
        assert file.read_text() == content

    def test_a_wrong_filter_ends_the_watch(self, registry: Registry) -> None:
        with pytest.raises(InvalidArgument) as raised:
            next(registry.watch("name == x"))
        assert raised.value.position == 7

    def test_a_token_excludes_the_other_ways_to_begin(self, registry: Registry, tmp_path: Path) -> None:
        with pytest.raises(InvalidArgument, match="resume_token"):
            registry.watch(resume_token="x", from_beginning=True)
        with pytest.raises(InvalidArgument, match="resume_token"):
            registry.watch(resume_token="x", resume_file=tmp_path / "token")

    def test_a_cut_connection_loses_and_repeats_nothing(self, server: RunningRegistry, name: str) -> None:
        host, _, port = server.address.partition(":")
        with (
            HangingProxy(host, int(port)) as proxy,
            Registry(f"grpc://127.0.0.1:{proxy.port}") as registry,
            closing(registry.watch(f"name = {name}", from_beginning=True)) as events,
        ):
            found = []
            for number in range(5):
                server.client.register(name=name, version=f"{number}")
                found.append(next(events))
                proxy.cut()
            assert [event.after and event.after["version"] for event in found] == ["0", "1", "2", "3", "4"]

    def test_a_watch_on_asyncio_does_the_same(
        self, server: RunningRegistry, url: str, name: str, tmp_path: Path
    ) -> None:
        models = [server.client.register(name=name, version=f"{number}") for number in range(3)]

        async def run() -> list[str]:
            found = []
            async with modelreg.aio.Registry(url) as registry:
                events = registry.watch(f"name = {name}", resume_file=tmp_path / "token", from_beginning=True)
                async for event in events:
                    found.append(event.model_id)
                    if len(found) == 2:
                        break
                await events.aclose()
            return found

        assert asyncio.run(run()) == [models[0].id, models[1].id]
        assert asyncio.run(run()) == [models[1].id, models[2].id]

    def test_a_cancelled_watch_on_asyncio_ends(self, url: str) -> None:
        async def run() -> None:
            async with modelreg.aio.Registry(url) as registry:
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(anext(registry.watch("name = never")), 0.2)

        asyncio.run(run())

    def test_ctrl_c_ends_a_silent_watch(self, url: str) -> None:
        program = (
            "import modelreg\n"
            f"registry = modelreg.Registry({url!r})\n"
            "print(registry.server_info().version, flush=True)\n"
            "for event in registry.watch('name = never'): pass\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in errors
        assert time.monotonic() - started < 10


def message(name: str) -> WatchAuditEventsResponse:
    return WatchAuditEventsResponse(event=audit_pb2.AuditEvent(name=name), resume_token=f"after {name}")


def heartbeat(token: str) -> WatchAuditEventsResponse:
    return WatchAuditEventsResponse(resume_token=token)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        fake.answer(GET_SERVER_INFO, system_service_pb2.ServerInfo())
        yield fake


class TestOutages:
    def test_a_watch_survives_any_number_of_failures(
        self, fake: FakeServer, pauses: list[float], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "modelreg")
        failures: list[Any] = [AWAY] * 1_200
        fake.answer(
            WATCH_AUDIT_EVENTS, [heartbeat("start"), message("a"), AWAY], *failures, [message("b")], stream=True
        )
        with Registry(fake.url) as registry, closing(registry.watch()) as events:
            assert names(events, 2) == ["a", "b"]
        assert {request.resume_token for request in fake.requests(WATCH_AUDIT_EVENTS)} == {"", "after a"}
        # Nearly all of 4 to 8 s.
        assert sum(pauses) > 3_600
        assert max(pauses) <= 8
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert "Postgres does not respond." in caplog.text

    @pytest.mark.parametrize(
        "end",
        [
            [],
            [AWAY],
            [WatchAuditEventsResponse(error=refusal(UNAVAILABLE, "SERVER_STOPPING"), resume_token="after a")],
            [refusal(grpc.StatusCode.CANCELLED, message="stream was idle")],
            [refusal(grpc.StatusCode.INTERNAL, message="Received RST_STREAM with error code 2")],
            [refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", retry_seconds=0.1)],
        ],
        ids=["end", "status", "error", "idle", "reset", "limit"],
    )
    @pytest.mark.usefixtures("pauses")
    def test_a_stream_that_ends_is_opened_again(
        self, fake: FakeServer, end: list[WatchAuditEventsResponse | Status]
    ) -> None:
        fake.answer(WATCH_AUDIT_EVENTS, [message("a"), *end], [message("b")], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch()) as events:
            assert names(events, 2) == ["a", "b"]
        assert fake.requests(WATCH_AUDIT_EVENTS)[1].resume_token == "after a"

    @pytest.mark.usefixtures("pauses")
    def test_a_registry_that_is_gone_and_comes_back_is_found(self, fake: FakeServer) -> None:
        fake.answer(WATCH_AUDIT_EVENTS, [message("a")], [message("b")], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch()) as events:
            assert names(events, 1) == ["a"]
            fake.stop()
            threading.Timer(0.5, fake.start).start()
            assert names(events, 1) == ["b"]

    def test_heartbeats_move_the_position(self, fake: FakeServer, tmp_path: Path) -> None:
        fake.answer(WATCH_AUDIT_EVENTS, [heartbeat("start"), heartbeat("later"), message("a")], stream=True)
        file = tmp_path / "token"
        with Registry(fake.url) as registry, closing(registry.watch(resume_file=file)) as events:
            assert names(events, 1) == ["a"]
            assert token_in(file) == "later"

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"), modelreg.PermissionDenied),
            (refusal(grpc.StatusCode.UNAUTHENTICATED, "INVALID_CREDENTIALS"), modelreg.Unauthenticated),
            (refusal(grpc.StatusCode.INTERNAL, "INTERNAL"), modelreg.InternalError),
            (refusal(grpc.StatusCode.UNIMPLEMENTED), Unsupported),
        ],
    )
    def test_what_cannot_be_repaired_ends_the_watch(
        self, fake: FakeServer, status: Status, error: type[Exception]
    ) -> None:
        fake.answer(WATCH_AUDIT_EVENTS, [message("a"), status], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch()) as events:
            assert names(events, 1) == ["a"]
            with pytest.raises(error):
                next(events)
        assert len(fake.requests(WATCH_AUDIT_EVENTS)) == 1

    def test_a_position_of_another_database_is_explained(self, fake: FakeServer, tmp_path: Path) -> None:
        file = tmp_path / "token"
        status = refusal(grpc.StatusCode.OUT_OF_RANGE, "OUT_OF_RANGE", "The log ends with event 7.")
        fake.answer(WATCH_AUDIT_EVENTS, [message("a"), AWAY], [status], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch(resume_file=file)) as events:
            assert names(events, 1) == ["a"]
            with pytest.raises(InvalidArgument, match=r"event 7\. Delete .*token to start with the next event"):
                next(events)

    def test_a_watch_without_a_position_fails_as_any_call(self, pauses: list[float]) -> None:
        with Registry("grpc://127.0.0.1:1") as registry, pytest.raises(ConnectionFailed):
            next(registry.watch())
        assert len(pauses) == 4

    def test_a_watch_with_a_position_waits_for_the_registry(self, fake: FakeServer, pauses: list[float]) -> None:
        fake.answer(GET_SERVER_INFO, *[AWAY] * 20, system_service_pb2.ServerInfo())
        fake.answer(WATCH_AUDIT_EVENTS, [message("b")], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch(resume_token="after a")) as events:
            assert names(events, 1) == ["b"]
        assert len(pauses) == 20

    def test_a_server_that_does_not_tell_its_heartbeat_is_watched(self, fake: FakeServer) -> None:
        fake.answer(GET_SERVER_INFO, refusal(grpc.StatusCode.UNIMPLEMENTED))
        fake.answer(WATCH_AUDIT_EVENTS, [message("a")], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch()) as events:
            assert names(events, 1) == ["a"]

    def test_a_silent_connection_is_replaced_after_three_heartbeats(self, fake: FakeServer) -> None:
        info = system_service_pb2.ServerInfo()
        info.limits.watch_heartbeat_interval.FromMilliseconds(100)
        fake.answer(GET_SERVER_INFO, info)
        silence = threading.Event()

        def silent(_: object, context: grpc.ServicerContext) -> Iterator[WatchAuditEventsResponse]:
            context.add_callback(silence.set)
            yield message("a")
            silence.wait(30)

        fake.answer(WATCH_AUDIT_EVENTS, silent, [message("b")], stream=True)
        started = time.monotonic()
        with Registry(fake.url, stall_timeout=0.1) as registry, closing(registry.watch()) as events:
            assert names(events, 2) == ["a", "b"]
        assert 0.3 <= time.monotonic() - started < 20

    def test_a_slow_consumer_is_no_silent_connection(self, fake: FakeServer) -> None:
        info = system_service_pb2.ServerInfo()
        info.limits.watch_heartbeat_interval.FromMilliseconds(50)
        fake.answer(GET_SERVER_INFO, info)
        fake.answer(WATCH_AUDIT_EVENTS, [message("a"), message("b")], stream=True)
        with Registry(fake.url, stall_timeout=0.1) as registry, closing(registry.watch()) as events:
            assert names(events, 1) == ["a"]
            time.sleep(0.5)  # the consumer's work
            assert names(events, 1) == ["b"]
        assert len(fake.requests(WATCH_AUDIT_EVENTS)) == 1

    def test_an_action_that_the_client_does_not_know_is_unknown(self, fake: FakeServer) -> None:
        newer = message("a")
        newer.event.action = 999  # type: ignore[assignment]
        fake.answer(WATCH_AUDIT_EVENTS, [newer], stream=True)
        with Registry(fake.url) as registry, closing(registry.watch()) as events:
            assert next(events).action == "unknown"

    def test_asyncio_survives_an_outage_too(self, fake: FakeServer, pauses: list[float]) -> None:
        fake.answer(WATCH_AUDIT_EVENTS, [message("a")], *[AWAY] * 20, [message("b")], stream=True)

        async def run() -> list[str]:
            async with modelreg.aio.Registry(fake.url) as registry:
                events = registry.watch()
                found = [(await anext(events)).name, (await anext(events)).name]
                await events.aclose()
                return found

        assert asyncio.run(run()) == ["a", "b"]
        # The first stream ended, and 20 attempts failed.
        assert len(pauses) == 21
