"""A hanging server is detected and replaced; a server that waits for a dependency is not."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from registry_service.embedded.postgres import PostgresAddress
from tests.polling import eventually
from tests.ports import free_port
from tests.products import COMMAND, Command, Product, environment, running_server, running_up
from tests.stub_client import Client
from tests.temporary_folders import accessible_folder

REPLACED_SECONDS = 30
POSTGRES_NOTICED_SECONDS = 60
CHECK_SECONDS = 30
"""A check gives up by itself after 5 s; the rest is for Python to start on a busy machine."""

# Python runs this at its start: on SIGUSR2 the process keeps the GIL forever and does nothing more.
HANG_ON_SIGNAL = """
import ctypes, signal
signal.signal(signal.SIGUSR2, lambda *_: ctypes.PyDLL(None).sleep(3600))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with accessible_folder() as made:
        yield made


@pytest.fixture
def settings(postgres: PostgresAddress, database_name: str, folder: Path) -> dict[str, object]:
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(HANG_ON_SIGNAL)
    return {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": database_name,
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": folder / "artifacts",
        "pythonpath": folder / "python",
    }


def children(product: Product) -> list[psutil.Process]:
    assert product.server.process is not None
    return psutil.Process(product.server.process.pid).children()


def servers(product: Product) -> list[psutil.Process]:
    """Return the processes of the gRPC server, oldest first."""
    found = [child for child in children(product) if "serve" in child.cmdline()]
    return sorted(found, key=lambda process: process.create_time())


def freeze(process: psutil.Process) -> None:
    process.suspend()


def deadlock(process: psutil.Process) -> None:
    process.send_signal(signal.SIGUSR2)


def check(port: int, *options: str) -> tuple[int, str]:
    answer = subprocess.run(
        [*COMMAND, "check", *options],
        env=environment(grpc_port=port),
        capture_output=True,
        text=True,
        timeout=CHECK_SECONDS,
        check=False,
    )
    return answer.returncode, answer.stdout.strip()


def test_up_replaces_a_server_that_hangs_and_calls_through_the_gateway_work_again(folder: Path) -> None:
    with running_up(folder) as product:
        model = product.client.register(b"kept", name="kept")
        (hung,) = servers(product)
        freeze(hung)
        started = time.monotonic()
        eventually(
            lambda: httpx.get(f"{product.rest_url}/v1/models/{model.id}", timeout=2).status_code == 200,
            REPLACED_SECONDS,
            "an answer through the gateway",
        )
        print(f"answers again after {time.monotonic() - started:.1f} s")  # noqa: T201 (prints a measurement)
        assert product.client.download(model.id) == b"kept"
        assert not hung.is_running()
        assert "the gRPC server does not respond; restarting it" in product.server.output()
        log = (folder / "data" / "registry.log").read_text()
        errors = [line for line in map(json.loads, log.splitlines()) if line["level"] == "ERROR"]
        assert [error["message"] for error in errors] == ["the gRPC server does not respond; restarting it"]


@pytest.mark.parametrize("name", ["envoy", "postgres"])
def test_up_replaces_any_other_process_that_exits(folder: Path, name: str) -> None:
    with running_up(folder) as product:
        model = product.client.register(b"kept", name="kept")
        (victim,) = [child for child in children(product) if child.name() == name]
        victim.kill()
        eventually(lambda: "exited with -9; restarting it" in product.server.output(), what="the message")
        eventually(
            lambda: httpx.get(f"{product.rest_url}/v1/models/{model.id}", timeout=2).status_code == 200,
            REPLACED_SECONDS,
            "an answer through the gateway",
        )
        assert product.client.download(model.id) == b"kept"
        assert product.server.stop() == 0


def test_up_replaces_an_envoy_that_hangs(folder: Path) -> None:
    with running_up(folder) as product:
        (envoy,) = [child for child in children(product) if child.name() == "envoy"]
        freeze(envoy)
        eventually(lambda: not envoy.is_running(), REPLACED_SECONDS, "the end of the one that hangs")
        eventually(
            lambda: httpx.get(f"{product.rest_url}/health", timeout=2).status_code == 200, REPLACED_SECONDS, "an answer"
        )


def test_up_replaces_a_postgres_that_hangs(folder: Path) -> None:
    with running_up(folder) as product:
        model = product.client.register(b"kept", name="kept")
        (postmaster,) = [child for child in children(product) if child.name() == "postgres"]
        # Its children first: they exit with it unless they hang, too.
        frozen = [*postmaster.children(recursive=True), postmaster]
        for process in frozen:
            process.suspend()
        eventually(
            lambda: "PostgreSQL does not respond; restarting it" in product.server.output(),
            POSTGRES_NOTICED_SECONDS,
            "the message",
        )
        eventually(
            lambda: httpx.get(f"{product.rest_url}/v1/models/{model.id}", timeout=2).status_code == 200,
            REPLACED_SECONDS,
            "an answer through the gateway",
        )
        assert product.client.download(model.id) == b"kept"
        eventually(lambda: all(map(has_ended, frozen)), REPLACED_SECONDS, "the end of the frozen ones")
        assert product.server.stop() == 0


def has_ended(process: psutil.Process) -> bool:
    """Return whether a process has exited, reaped or not."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# From ptrace.h and wait.h.
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


@contextlib.contextmanager
def stopped_thread(process: psutil.Process, name: str) -> Iterator[Callable[[], bool]]:
    """Stop one thread of a process like a debugger; yield a function that returns whether the thread has exited."""
    libc = ctypes.CDLL(None, use_errno=True)
    (thread,) = [
        int(task.name)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        if (task / "comm").read_text().strip() == name
    ]
    if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
        pytest.skip(f"needs ptrace: {os.strerror(ctypes.get_errno())}")
    assert libc.ptrace(PTRACE_INTERRUPT, thread, None, None) == 0

    def has_ended() -> bool:
        # The process stays until its debugger has been notified of the thread's end.
        found, status = os.waitpid(thread, WALL | os.WNOHANG)
        return found == thread and (os.WIFEXITED(status) or os.WIFSIGNALED(status))

    yield has_ended


def test_up_replaces_an_envoy_of_which_one_thread_hangs(folder: Path) -> None:
    with running_up(folder) as product:
        (envoy,) = [child for child in children(product) if child.name() == "envoy"]
        with stopped_thread(envoy, "wrk:worker_0") as has_ended:
            eventually(has_ended, REPLACED_SECONDS, "the end of the thread that hangs")
        eventually(
            lambda: "Envoy exited with -6; restarting it" in product.server.output(), REPLACED_SECONDS, "the message"
        )
        eventually(
            lambda: httpx.get(f"{product.rest_url}/health", timeout=2).status_code == 200, REPLACED_SECONDS, "an answer"
        )


def test_the_gateway_is_live_without_a_server_while_its_watchdog_runs(folder: Path) -> None:
    port = free_port()
    settings = environment(grpc_upstreams=f"127.0.0.1:{free_port()}", server_port=port, auth_mode="token")
    gateway = Command(["gateway"], settings, folder / "gateway.log")

    def answers(path: str, status: int) -> bool:
        with contextlib.suppress(httpx.ConnectError):
            return httpx.get(f"http://127.0.0.1:{port}{path}").status_code == status
        return False

    gateway.start()
    try:
        eventually(lambda: answers("/live", 200), what="the gateway")
        assert answers("/health", 503)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            eventually(
                lambda: answers("/live", 503), REPLACED_SECONDS, "the gateway to report that Envoy's watchdog is gone"
            )
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        eventually(lambda: answers("/live", 200), what="its recovery")
    finally:
        gateway.close()


@pytest.mark.parametrize("hang", [freeze, deadlock])
def test_a_hanging_worker_is_replaced_and_the_others_continue(
    settings: dict[str, object], folder: Path, hang: Callable[[psutil.Process], None]
) -> None:
    with running_server(folder, settings, ("--workers=2",)) as product:
        eventually(lambda: len(servers(product)) == 2, what="both workers")
        hung, other = servers(product)
        # Before its first heartbeat, a hanging worker counts as starting.
        responses = ("worker 0 responds", "worker 1 responds")
        eventually(
            lambda: all(response in product.server.output() for response in responses), what="both workers' responses"
        )
        hang(hung)
        eventually(lambda: not hung.is_running(), REPLACED_SECONDS, "the end of the one that hangs")
        eventually(lambda: len(servers(product)) == 2, what="its successor")
        assert other in servers(product)
        eventually(lambda: product.server.output().count("serving gRPC on") == 3, what="its successor's service")
        assert "worker 0 does not respond; restarting it" in product.server.output()
        if hang is deadlock:
            # The metrics of the replaced worker are kept.
            assert "Fatal Python error: Aborted" in product.server.output()
            assert "sitecustomize.py" in product.server.output()
        client = Client(product.grpc_address)
        assert client.register(b"again", name="again").name == "again"
        client.close()


def test_checks_of_a_hanging_server_fail_in_time(settings: dict[str, object], folder: Path) -> None:
    with running_server(folder, settings) as product:
        assert check(product.grpc_port) == check(product.grpc_port, "--live") == (0, "SERVING")
        assert product.server.process is not None
        product.server.process.send_signal(signal.SIGSTOP)
        try:
            assert check(product.grpc_port) == check(product.grpc_port, "--live") == (1, "UNREACHABLE")
        finally:
            product.server.process.send_signal(signal.SIGCONT)


def test_a_server_whose_calls_all_wait_for_postgres_is_live(folder: Path) -> None:
    with running_up(folder, max_unary_calls=2, psql_pool_size=2) as product, ThreadPoolExecutor(4) as pool:
        (server,) = servers(product)
        (postmaster,) = [child for child in children(product) if child.name() == "postgres"]
        frozen = [postmaster, *postmaster.children(recursive=True)]
        with contextlib.ExitStack() as thawed:
            for process in frozen:
                process.suspend()
                thawed.callback(process.resume)
            calls = [pool.submit(product.client.names) for _ in range(4)]
            eventually(lambda: not product.is_serving(), what="unreadiness")
            assert not any(call.done() and call.exception() is None for call in calls)
            assert check(product.grpc_port, "--live") == (0, "SERVING")
        for call in calls:
            with contextlib.suppress(grpc.RpcError):
                call.result()
        eventually(product.is_serving, what="readiness")
        assert servers(product) == [server]
