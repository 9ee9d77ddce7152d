"""How calls are made: repeated, bounded, from threads, processes and event loops."""

import asyncio
import io
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import modelreg
import pytest
from modelreg import (
    Artifact,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidArgument,
    Model,
    RateLimited,
    Registry,
    RegistryError,
    Unavailable,
    Unsupported,
)
from modelreg._wire import methods as rpc
from modelregistry.v1 import (
    alias_pb2,
    alias_service_pb2,
    model_group_pb2,
    model_group_service_pb2,
    model_pb2,
    model_service_pb2,
    system_service_pb2,
)

from tests.client.fake_server import FakeServer, refusal
from tests.polling import eventually
from tests.registry import RunningRegistry

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
AWAY = refusal(UNAVAILABLE, "DATABASE_UNAVAILABLE", "Postgres does not respond.")
INFO = system_service_pb2.ServerInfo(version="1.0")
ARTIFACT = Artifact(file_name="vad.onnx", media_type="", size_bytes=1, sha256="0" * 64)


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        fake.answer(rpc.GET_SERVER_INFO, INFO)
        yield fake


RunningCall = Callable[[Any], Any]
RUNNING_CALLS = [
    pytest.param(lambda registry: registry.server_info(), id="unary"),
    pytest.param(lambda registry: registry.push(io.BytesIO(b"x"), name="vad", version="1"), id="stream of requests"),
    pytest.param(
        lambda registry: registry.verify(Model(id="m", name="vad", version="1", artifact=ARTIFACT)),
        id="stream of responses",
    ),
]


@pytest.fixture
def waiting(fake: FakeServer) -> Iterator[FakeServer]:
    """A server that answers no call of `RUNNING_CALLS` before the end of the test."""
    ended = threading.Event()

    def wait(_request: object, _context: object) -> Any:
        ended.wait(60)
        return INFO

    fake.answer(rpc.GET_SERVER_INFO, wait)
    fake.answer(rpc.REGISTER_MODEL, wait)
    fake.answer(rpc.VERIFY_ARTIFACT, wait, stream=True)
    yield fake
    ended.set()


def run(program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False, **options
    )


class TestRetries:
    @pytest.mark.parametrize("seconds", [1_000, 9e12])
    def test_a_call_without_a_timeout_does_not_wait_for_as_long_as_the_server_likes(
        self, fake: FakeServer, pauses: list[float], seconds: float
    ) -> None:
        fake.answer(rpc.VERIFY_ARTIFACT, refusal(UNAVAILABLE, "BUSY", retry_seconds=seconds), stream=True)

        with Registry(fake.url) as registry, pytest.raises(Unavailable):
            registry.verify(Model(id="m", name="vad", version="1", artifact=ARTIFACT))

        assert pauses == [60] * 4

    def test_a_call_is_repeated_until_it_succeeds(self, fake: FakeServer, pauses: list[float]) -> None:
        fake.answer(rpc.GET_SERVER_INFO, *[AWAY] * 4, INFO)
        with Registry(fake.url) as registry:
            assert registry.server_info().version == "1.0"
        assert len(fake.calls) == 5
        assert all(0 <= pause <= 8 for pause in pauses)

    def test_the_fifth_failure_is_the_last_one(self, fake: FakeServer, pauses: list[float]) -> None:
        fake.answer(rpc.GET_SERVER_INFO, AWAY)
        with Registry(fake.url) as registry, pytest.raises(Unavailable, match="Postgres does not respond") as raised:
            registry.server_info()
        assert (len(fake.calls), len(pauses)) == (5, 4)
        # Longer than the channel waits before it connects again.
        assert sum(pauses) >= 3.75
        assert raised.value.request_id == "request-1"

    @pytest.mark.parametrize("code", [UNAVAILABLE, EXHAUSTED, grpc.StatusCode.ABORTED])
    def test_the_server_says_how_long_to_wait(
        self, fake: FakeServer, pauses: list[float], code: grpc.StatusCode
    ) -> None:
        fake.answer(rpc.GET_SERVER_INFO, *[refusal(code, "TOO_MANY_CALLS", retry_seconds=2.5)] * 3, INFO)
        with Registry(fake.url) as registry:
            registry.server_info()
        assert len(pauses) == 3
        assert all(2.5 <= pause <= 2.5 + 8 / 4 for pause in pauses)

    def test_a_longer_wait_than_the_timeout_is_not_waited_for(self, fake: FakeServer) -> None:
        fake.answer(rpc.GET_SERVER_INFO, refusal(EXHAUSTED, "TOO_MANY_CALLS", retry_seconds=60))
        started = time.monotonic()
        with Registry(fake.url, timeout=5) as registry, pytest.raises(RateLimited):
            registry.server_info()
        assert time.monotonic() - started < 4
        assert len(fake.calls) == 1

    @pytest.mark.parametrize(
        ("code", "error"),
        [
            (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
            (EXHAUSTED, RateLimited),
            (grpc.StatusCode.UNIMPLEMENTED, Unsupported),
        ],
    )
    @pytest.mark.usefixtures("pauses")
    def test_what_will_fail_again_is_not_repeated(
        self, fake: FakeServer, code: grpc.StatusCode, error: type[Exception]
    ) -> None:
        fake.answer(rpc.GET_SERVER_INFO, refusal(code, "REASON"))
        with Registry(fake.url) as registry, pytest.raises(error):
            registry.server_info()
        assert len(fake.calls) == 1

    def test_a_method_that_the_server_does_not_have_is_unsupported(self, fake: FakeServer) -> None:
        with Registry(fake.url) as registry, pytest.raises(Unsupported, match="The server is too old"):
            registry.whoami()

    def test_the_timeout_bounds_all_attempts(self, fake: FakeServer) -> None:
        fake.answer(rpc.GET_SERVER_INFO, AWAY)
        with Registry(fake.url, timeout=0.4) as registry, pytest.raises((Unavailable, DeadlineExceeded)):
            registry.server_info()
        remaining = [call.seconds for call in fake.calls]
        assert remaining == sorted(remaining, reverse=True)
        assert remaining[0] <= 0.4

    def test_a_server_that_never_answers_is_given_up(self, fake: FakeServer) -> None:
        ended = threading.Event()
        fake.answer(rpc.GET_SERVER_INFO, lambda _request, _context: ended.wait(60) and INFO)
        started = time.monotonic()
        with Registry(fake.url, timeout=0.3) as registry, pytest.raises(DeadlineExceeded):
            registry.server_info()
        ended.set()
        assert 0.2 < time.monotonic() - started < 10

    def test_nothing_answers(self, pauses: list[float]) -> None:
        with Registry("grpc://127.0.0.1:1") as registry, pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1\b"):
            registry.server_info()
        assert len(pauses) == 4

    @pytest.mark.usefixtures("pauses")
    def test_asyncio_repeats_as_well(self, fake: FakeServer) -> None:
        fake.answer(rpc.GET_SERVER_INFO, *[AWAY] * 4, INFO)

        async def call() -> str:
            async with modelreg.aio.Registry(fake.url) as registry:
                return (await registry.server_info()).version

        assert asyncio.run(call()) == "1.0"


MODEL = model_pb2.Model(id="0123456789abcdef", name="vad", version="1", model_group_id="group", etag="etag")
GROUP = model_group_pb2.ModelGroup(id="group", name="vad")
WRITES: dict[str, tuple[rpc.Method[Any, Any], Any, Callable[[Registry], Any]]] = {
    "update": (rpc.UPDATE_MODEL, MODEL, lambda registry: registry.update("vad", score=1.0)),
    "delete": (rpc.DELETE_MODEL, model_service_pb2.DeleteModelResponse(), lambda registry: registry.delete("vad")),
    "promote": (
        rpc.SET_ALIAS,
        alias_service_pb2.SetAliasResponse(),
        lambda registry: registry.promote("vad@production", "vad"),
    ),
    "rollback": (
        rpc.ROLLBACK_ALIAS,
        alias_service_pb2.RollbackAliasResponse(),
        lambda registry: registry.rollback("vad@production"),
    ),
    "delete_alias": (
        rpc.DELETE_ALIAS,
        alias_service_pb2.DeleteAliasResponse(),
        lambda registry: registry.delete_alias("vad@production"),
    ),
    "update_group": (rpc.UPDATE_MODEL_GROUP, GROUP, lambda registry: registry.update_group("vad", owner="audio")),
    "delete_group": (
        rpc.DELETE_MODEL_GROUP,
        model_group_service_pb2.DeleteModelGroupResponse(),
        lambda registry: registry.delete_group("vad"),
    ),
}


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("write", WRITES)
def test_all_attempts_of_a_write_have_one_idempotency_key(fake: FakeServer, write: str) -> None:
    method, response, call = WRITES[write]
    fake.answer(rpc.RESOLVE_MODEL, model_service_pb2.ResolveModelResponse(model=MODEL, alias="production"))
    fake.answer(rpc.GET_ALIAS, alias_pb2.Alias(alias="production", model_group_id="group"))
    fake.answer(rpc.LIST_MODEL_GROUPS, model_group_service_pb2.ListModelGroupsResponse(model_groups=[GROUP]))
    with Registry(fake.url) as registry:
        for _ in range(2):
            fake.answer(method, AWAY, AWAY, response)
            call(registry)
    keys = [request.idempotency_key for request in fake.requests(method)]
    assert len(keys) == 6
    assert keys == [keys[0]] * 3 + [keys[3]] * 3
    assert len({"", *keys}) == 3


class TestLifetime:
    def test_nothing_is_sent_before_the_first_call(self, fake: FakeServer) -> None:
        with Registry(fake.url) as registry:
            assert (registry.url, repr(registry)) == (fake.url, f"Registry({fake.url!r})")
            registry.models()
            registry.watch()
        assert fake.calls == []

    def test_a_registry_that_was_closed_says_so(self, fake: FakeServer) -> None:
        with Registry(fake.url) as registry:
            registry.server_info()
        registry.close()
        calls: list[Callable[[], object]] = [
            registry.server_info,
            lambda: registry.model("vad"),
            registry.models().to_list,
            lambda: list(registry.watch()),
            lambda: registry.open("vad"),
        ]
        for call in calls:
            with pytest.raises(RegistryError, match="The registry is closed"):
                call()
        assert pickle.loads(pickle.dumps(registry)).server_info().version == "1.0"
        with registry:
            registry.server_info()
        assert len({call.peer for call in fake.calls}) == len(fake.calls) == 3

    @pytest.mark.parametrize("call", RUNNING_CALLS)
    def test_closing_ends_the_calls_of_other_threads(self, waiting: FakeServer, call: RunningCall) -> None:
        registry = Registry(waiting.url)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(call, registry)
            assert eventually(lambda: len(waiting.calls) == 1)
            registry.close()
            with pytest.raises(RegistryError, match="The registry is closed"):
                running.result(30)

    @pytest.mark.parametrize("call", RUNNING_CALLS)
    def test_closing_ends_the_calls_of_other_tasks_and_cancels_none(
        self, waiting: FakeServer, call: RunningCall
    ) -> None:
        async def close_while_it_runs() -> None:
            registry = modelreg.aio.Registry(waiting.url)
            task = asyncio.ensure_future(call(registry))
            await asyncio.to_thread(eventually, lambda: len(waiting.calls) == 1)
            await registry.close()
            with pytest.raises(RegistryError, match="The registry is closed"):
                await task

        asyncio.run(close_while_it_runs())

    @pytest.mark.parametrize("call", RUNNING_CALLS)
    def test_a_task_that_is_cancelled_stays_so(self, waiting: FakeServer, call: RunningCall) -> None:
        async def cancel_while_it_runs() -> None:
            async with modelreg.aio.Registry(waiting.url) as registry:
                task = asyncio.ensure_future(call(registry))
                await asyncio.to_thread(eventually, lambda: len(waiting.calls) == 1)
                task.cancel("enough")
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(cancel_while_it_runs())

    def test_a_call_ends_with_ctrl_c(self, fake: FakeServer) -> None:
        cancelled = threading.Event()

        def wait(_request: object, context: grpc.ServicerContext) -> Any:
            context.add_callback(cancelled.set)
            cancelled.wait(60)
            return INFO

        fake.answer(rpc.WHO_AM_I, wait)
        program = (
            "import sys, modelreg\n"
            "registry = modelreg.Registry(sys.argv[1])\n"
            "print(registry.server_info().version, flush=True)\n"
            "registry.whoami()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, fake.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in errors
        assert time.monotonic() - started < 10

    def test_a_cancelled_call_on_asyncio_is_cancelled_at_the_server(self, fake: FakeServer) -> None:
        arrived, cancelled = threading.Event(), threading.Event()

        def wait(_request: object, context: grpc.ServicerContext) -> Any:
            context.add_callback(cancelled.set)
            arrived.set()
            cancelled.wait(60)
            return INFO

        fake.answer(rpc.GET_SERVER_INFO, wait)

        async def call() -> None:
            async with modelreg.aio.Registry(fake.url) as registry:
                task = asyncio.create_task(registry.server_info())
                await asyncio.to_thread(arrived.wait, 30)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await asyncio.to_thread(cancelled.wait, 30)

        asyncio.run(call())

    def test_the_library_prints_nothing(self) -> None:
        program = (
            "import modelreg\n"
            "registry = modelreg.Registry('grpc://127.0.0.1:1', timeout=1)\n"
            "try: registry.server_info()\n"
            "except modelreg.ConnectionFailed: pass\n"
            "import logging; logging.getLogger('modelreg').warning('of the library')\n"
        )
        result = run(program)
        assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


class TestThreadsAndLoops:
    def test_many_threads_share_one_registry_and_one_connection(self, fake: FakeServer) -> None:
        with Registry(fake.url) as registry, ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda _: registry.server_info().version, range(400)))
        assert found == ["1.0"] * 400
        assert len({call.peer for call in fake.calls}) == 1

    def test_an_asynchronous_registry_is_made_outside_of_a_loop_and_used_in_several(self, fake: FakeServer) -> None:
        registry = modelreg.aio.Registry(fake.url)

        async def call() -> list[str]:
            async with registry:
                return [info.version for info in await asyncio.gather(*[registry.server_info() for _ in range(20)])]

        assert asyncio.run(call()) == ["1.0"] * 20
        assert asyncio.run(call()) == ["1.0"] * 20

    def test_loops_in_several_threads_share_an_asynchronous_registry(self, fake: FakeServer) -> None:
        registry = modelreg.aio.Registry(fake.url)
        together = threading.Barrier(4)

        async def call() -> list[str]:
            together.wait()
            return [(await registry.server_info()).version for _ in range(20)]

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: asyncio.run(call()), range(4))) == [["1.0"] * 20] * 4
        asyncio.run(registry.close())

    def test_an_abandoned_loop_does_no_harm(self, fake: FakeServer) -> None:
        registry = modelreg.aio.Registry(fake.url)

        async def call() -> str:
            return (await registry.server_info()).version

        assert [asyncio.run(call()) for _ in range(5)] == ["1.0"] * 5


@pytest.mark.parametrize("seconds", [float("inf"), 1e12, 1e300, 10**400])
def test_a_timeout_may_be_as_long_as_anyone_likes(fake: FakeServer, seconds: float) -> None:
    with Registry(fake.url, timeout=seconds, stall_timeout=seconds) as registry:
        assert registry.server_info().version == "1.0"


FORKS = """
import os, signal, sys, modelreg

registry = modelreg.Registry(sys.argv[1])
registry.server_info()
children = []
for number in range(30):
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 60)
        assert registry.server_info().version == "1.0"
        if number % 3 == 0:
            registry.close()
        if number % 3 == 1:
            os._exit(0)
        sys.exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children].count(0))
print(registry.server_info().version)
"""
AIO_FORK = """
import asyncio, os, sys, modelreg, signal

async def call(registry):
    return (await registry.server_info()).version

async def call_and_close():
    async with modelreg.aio.Registry(sys.argv[1]) as registry:
        return await call(registry)

def in_child(function):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 30)
        try:
            print(function(), flush=True)
        except modelreg.RegistryError as error:
            print(error.message, flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1])

print(asyncio.run(call_and_close()))
in_child(lambda: asyncio.run(call_and_close()))
registry = modelreg.aio.Registry(sys.argv[1])
print(asyncio.run(call(registry)))
in_child(lambda: asyncio.run(call(registry)))
in_child(lambda: asyncio.run(call_and_close()))
in_child(lambda: modelreg.Registry(sys.argv[1]).server_info().version)
"""
WORKERS = """
import asyncio, multiprocessing, sys, modelreg

def call(registry):
    return registry.model("vad")

def call_on_asyncio(registry):
    async def call():
        async with registry:
            return await registry.model("vad")
    return asyncio.run(call())

def fail(registry):
    return registry.whoami()

if __name__ == "__main__":
    registry = modelreg.Registry(sys.argv[1], token="secret", timeout=20)
    model = registry.model("vad")
    for method in ("spawn", "fork"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(call, [registry] * 4) == [model] * 4
            assert pool.map(call_on_asyncio, [modelreg.aio.Registry(sys.argv[1])] * 2) == [model] * 2
            try:
                pool.apply(fail, (registry,))
            except modelreg.PermissionDenied as error:
                print(method, error.reason, error.request_id)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the system has no fork")
class TestProcesses:
    def test_forked_children_call_on_connections_of_their_own(self, fake: FakeServer) -> None:
        result = run(FORKS, fake.url)
        assert result.stdout.splitlines() == ["30", "1.0"], result.stderr
        assert len({call.peer for call in fake.calls}) == 1 + 30

    def test_a_fork_that_grpc_aio_does_not_survive_is_said(self, fake: FakeServer) -> None:
        result = run(AIO_FORK, fake.url)
        lines = result.stdout.splitlines()
        assert lines[:4] == ["1.0", "1.0", "0", "1.0"], result.stderr
        for line in (lines[4], lines[6]):
            assert line.startswith("This process was forked while a modelreg.aio.Registry was open")
            assert "spawn" in line
        assert [lines[5], *lines[7:]] == ["0", "0", "1.0", "0"]

    def test_workers_get_registries_and_return_results_and_errors(self, fake: FakeServer, tmp_path: Any) -> None:
        fake.answer(rpc.RESOLVE_MODEL, model_service_pb2.ResolveModelResponse(model=MODEL))
        fake.answer(rpc.WHO_AM_I, refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING"))
        # Spawned workers import the program.
        program = tmp_path / "workers.py"
        program.write_text(WORKERS)
        result = subprocess.run(
            [sys.executable, program, fake.url], capture_output=True, text=True, timeout=120, check=False
        )
        assert result.stdout.splitlines() == [f"{method} ROLE_MISSING request-1" for method in ("spawn", "fork")], (
            result.stderr
        )


class TestPickling:
    @pytest.mark.parametrize("kind", [Registry, modelreg.aio.Registry])
    def test_a_pickled_registry_has_its_options_and_no_token(self, kind: Any) -> None:
        registry = kind("grpcs://registry.lan", token="hunter2", timeout=5, stall_timeout=7)
        pickled = pickle.dumps(registry)
        assert b"hunter2" not in pickled
        copy = pickle.loads(pickled)
        assert type(copy) is kind
        assert copy._connection.options == registry._connection.options

    def test_the_token_is_not_shown(self) -> None:
        registry = Registry("grpcs://registry.lan", token="hunter2")
        assert "hunter2" not in repr(registry) + repr(registry._configuration) + repr(vars(registry))


def test_a_registry_keeps_working_with_a_server_that_restarts(fake: FakeServer) -> None:
    with Registry(fake.url) as registry:
        registry.server_info()
        fake.stop()
        threading.Timer(0.3, fake.start).start()
        assert registry.server_info().version == "1.0"


def test_the_calls_of_a_real_server_are_in_its_log_by_their_request_id(
    server: RunningRegistry, registry: Registry, name: str
) -> None:
    server.client.register(name=name)
    registry.promote(f"{name}@production", name)
    (event,) = registry.log(f"name = {name} AND action = ACTION_ALIAS_SET")
    (move,) = registry.history(name)
    assert event.request_id == move.request_id
    assert event.request_id
