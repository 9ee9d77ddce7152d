"""Pulling over bad networks, killed processes, and beside other processes."""

import asyncio
import errno
import json
import random
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import modelreg
import pytest
from modelreg import Registry
from modelreg.errors import ConnectionFailed

from tests.chaos_proxy import ChaosProxy
from tests.client.lying_server import LyingServer
from tests.client.test_pull_folders import make, tree
from tests.cutting_proxy import CuttingProxy
from tests.hanging_proxy import HangingProxy
from tests.polling import eventually
from tests.ports import free_port
from tests.registry import RunningRegistry

MIB = 1 << 20
DATA = random.Random(3).randbytes(2 * MIB + 12_345)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelreg._wire.retries._FIRST_SECONDS", 0.1)


def port_of(server: RunningRegistry) -> int:
    return int(server.address.rpartition(":")[2])


def remaining(folder: Path) -> list[str]:
    """Return the names of the files that are not complete."""
    return [path.name for path in folder.rglob("*") if path.is_file() and ".part" in path.name]


# ---- connections --------------------------------------------------------------


def test_a_connection_that_is_cut_at_any_byte_is_invisible(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
) -> None:
    server.client.register(DATA, name=name, version="1.0")
    model = registry.model(name)
    places = [0, 1, 9, 50, 100, 150, 200, 300, 500, 1000, 65_535, MIB - 1, MIB, MIB + 1, 2 * MIB, len(DATA) - 1]

    def pull(place: int) -> int:
        with CuttingProxy(port_of(server)) as proxy:
            proxy.cut_responses_after(place)
            with Registry(f"grpc://127.0.0.1:{proxy.port}") as remote:
                path = remote.pull(model, to=tmp_path / str(place))
            assert path.read_bytes() == DATA
            return proxy.cuts

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(pull, places)) == len(places)
    assert not remaining(tmp_path)


def test_a_network_that_cuts_and_delays_all_the_time_is_invisible(
    server: RunningRegistry, name: str, tmp_path: Path
) -> None:
    data = DATA + DATA
    server.client.register(data, name=name, version="1.0")
    with ChaosProxy("127.0.0.1", port_of(server), seed=4, mean_bytes=MIB) as proxy:
        proxy.harm.set()
        with Registry(f"grpc://127.0.0.1:{proxy.port}") as registry:
            path = registry.pull(name)
            with registry.open(name) as file:
                assert file.read() == data

        assert proxy.cuts > 2
    assert path.read_bytes() == data


def test_what_arrived_is_not_sent_again_after_a_cut(server: RunningRegistry, name: str) -> None:
    server.client.register(DATA, name=name, version="1.0")
    with CuttingProxy(port_of(server)) as proxy, Registry(f"grpc://127.0.0.1:{proxy.port}") as registry:
        proxy.cut_responses_after(len(DATA) - 100)
        done: list[int] = []

        registry.pull(name, progress=lambda now, _: done.append(now))
        assert proxy.cuts == 1

    assert done == sorted(done)
    assert done.count(0) <= 2


def test_files_inside_an_artifact_survive_cuts(
    registry: Registry, server: RunningRegistry, name: str, tmp_path: Path
) -> None:
    registry.push(make(tmp_path / "source", {"a.bin": DATA, "b.bin": DATA[:MIB]}), name=name, version="1.0")
    with CuttingProxy(port_of(server)) as proxy, Registry(f"grpc://127.0.0.1:{proxy.port}") as remote:
        proxy.cut_responses_after(MIB)

        path = remote.pull(name, files=["a.bin", "b.bin"])
        assert proxy.cuts == 1

    assert tree(path) == {"a.bin": DATA, "b.bin": DATA[:MIB]}


def test_a_connection_that_stalls_is_replaced(server: RunningRegistry, name: str) -> None:
    server.client.register(DATA, name=name, version="1.0")
    with ExitStack() as stack:
        proxy = stack.enter_context(HangingProxy("127.0.0.1", port_of(server)))
        registry = stack.enter_context(Registry(f"grpc://127.0.0.1:{proxy.port}", stall_timeout=1))
        model = registry.model(name)

        def report(done: int, _: int | None) -> None:
            if done and not proxy.has_hung.is_set():
                proxy.hang()
                timer = threading.Timer(1.5, proxy.resume)
                timer.start()
                stack.callback(timer.join)

        assert registry.pull(model, progress=report).read_bytes() == DATA
        assert proxy.has_hung.is_set()


def test_a_registry_that_stays_away_raises_and_the_download_is_continued(tmp_path: Path) -> None:
    # More than all the buffers on the way hold.
    data = DATA * 24
    with (
        LyingServer(data) as server,
        CuttingProxy(server.port) as proxy,
        Registry(f"grpc://127.0.0.1:{proxy.port}", stall_timeout=1) as registry,
    ):
        model = registry.model("m")

        def cut(done: int, _: int | None) -> None:
            if done > MIB and proxy.upstream == server.port:
                proxy.upstream = free_port()
                proxy.cut_now()

        with pytest.raises(ConnectionFailed):
            registry.pull(model, progress=cut)
        assert remaining(tmp_path)
        proxy.upstream = server.port

        assert registry.pull(model).read_bytes() == data
        assert server.downloads[-1] > 0


# ---- the local disk ------------------------------------------------------------


@pytest.mark.parametrize("to", [False, True])
def test_a_full_disk_raises_and_frees_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: bool
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with LyingServer(DATA) as server, Registry(server.url) as registry:
        with monkeypatch.context() as patch:
            patch.setattr("modelreg._pulls.receiver._write_all", write)
            with pytest.raises(OSError, match="No space left"):
                registry.pull("m", to=tmp_path / "to" if to else None)
        assert not remaining(tmp_path)
        assert registry.pull("m").read_bytes() == DATA


def test_too_little_space_is_noticed_before_a_byte_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        LyingServer(DATA, size_bytes=1 << 60) as server,
        Registry(server.url) as registry,
        pytest.raises(OSError, match="Not enough space") as caught,
    ):
        registry.pull("m")

    assert caught.value.errno == errno.ENOSPC
    assert server.downloads == []


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1] + b"x", lambda data: data + b"x" * len(DATA), lambda _: b"x"]
)
def test_an_unfinished_download_that_is_damaged_begins_again(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with LyingServer(DATA) as server, Registry(server.url) as registry:
        sha256 = server.model.artifact.sha256
        registry.cache.make()
        part = registry.cache.directory / f"downloads/artifacts-{sha256}.part"
        part.write_bytes(change(DATA[:MIB]))

        assert registry.pull("m").read_bytes() == DATA

    assert server.downloads[-1] == 0
    assert len(server.downloads) <= 2


# ---- processes -----------------------------------------------------------------

_PULL = """
import sys, json, os, signal, modelreg
url, arguments, kill_after = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
def report(done, total):
    if kill_after and done > kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
print(modelreg.Registry(url).pull("m", progress=report, **arguments))
"""


def start_pull(url: str, kill_after: int = 0, **arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PULL, url, json.dumps(arguments), str(kill_after)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("to", [False, True])
def test_a_killed_process_is_continued_by_the_next_one(tmp_path: Path, to: bool) -> None:
    target = str(tmp_path / "to") if to else None
    with LyingServer(DATA) as server, Registry(server.url) as registry:
        with start_pull(server.url, kill_after=MIB, to=target) as process:
            process.communicate()
        assert process.returncode == -9
        assert remaining(tmp_path)

        assert registry.pull("m", to=target).read_bytes() == DATA

    first, second = server.downloads
    assert first == 0
    assert 0 < second < len(DATA)
    assert not remaining(tmp_path)


def test_processes_that_pull_the_same_download_once(tmp_path: Path) -> None:
    with LyingServer(DATA) as server:
        server.send.clear()
        processes = [start_pull(server.url) for _ in range(4)]
        eventually(lambda: server.downloads, what="the first download")
        eventually(lambda: server.resolved == 4, what="four resolved references")
        server.send.set()
        paths = [process.communicate(timeout=60)[0].strip() for process in processes]

    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(paths)) == 1
    assert Path(paths[0]).read_bytes() == DATA
    assert server.downloads == [0]


def test_a_process_that_is_killed_lets_a_waiting_one_continue(tmp_path: Path) -> None:
    with LyingServer(DATA) as server, Registry(server.url) as registry:
        server.send.clear()
        with start_pull(server.url, kill_after=MIB) as process, ThreadPoolExecutor(1) as pool:
            eventually(lambda: server.downloads, what="the first download")
            waiting = pool.submit(registry.pull, "m")
            server.send.set()
            assert waiting.result(30).read_bytes() == DATA
            process.communicate()

    assert process.returncode == -9
    assert server.downloads[0] == 0
    assert server.downloads[1] > 0


@pytest.fixture
def _no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks as on a network file system that has none."""
    monkeypatch.setattr("filelock.FileLock.acquire", _refuse)


def _refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.usefixtures("_no_locks")
@pytest.mark.parametrize("arguments", [{}, {"to": "to"}, {"files": ["a.txt"]}, {"files": ["a.txt"], "to": "to"}])
def test_without_locks_everyone_downloads_and_all_succeed(
    registry: Registry,
    url: str,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, object],
) -> None:
    monkeypatch.chdir(tmp_path)
    registry.push(make(tmp_path / "source", {"a.txt": b"a" * 100_000, "b/b.txt": b"b"}), name=name, version="1.0")
    expected = {"a.txt"} if "files" in arguments else {"a.txt", "b/b.txt"}

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(registry.pull, name, **arguments) for _ in range(4)]  # type: ignore[arg-type]
        paths = {future.result(60) for future in futures}

    (path,) = paths
    assert set(tree(path)) == expected
    assert not remaining(tmp_path)
    assert not list(registry.cache.directory.glob("downloads/*"))


def test_a_holder_of_the_lock_without_progress_is_passed_by(tmp_path: Path) -> None:
    with LyingServer(DATA) as server, Registry(server.url, stall_timeout=1) as registry:
        slot = registry.cache.slot("artifacts", server.model.artifact.sha256)
        lock = slot.lock()
        assert lock.acquire()

        assert registry.pull("m").read_bytes() == DATA

        lock.release()
    assert not remaining(tmp_path)


# ---- asyncio ------------------------------------------------------------------


def test_a_cancelled_pull_is_continued_by_the_next_one(tmp_path: Path) -> None:
    async def use(server: LyingServer) -> None:
        async with modelreg.aio.Registry(server.url) as registry:
            task: asyncio.Task[Path]

            def report(done: int, _: int | None) -> None:
                if done > MIB:
                    task.cancel()

            task = asyncio.ensure_future(registry.pull("m", progress=report))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert remaining(tmp_path)
            assert (await registry.pull("m")).read_bytes() == DATA

    with LyingServer(DATA) as server:
        asyncio.run(use(server))
    assert server.downloads[0] == 0
    assert server.downloads[1] > 0


def test_what_the_progress_function_raises_reaches_the_caller(tmp_path: Path) -> None:
    def report(done: int, _: int | None) -> None:
        if done > MIB:
            raise KeyboardInterrupt

    with LyingServer(DATA) as server, Registry(server.url) as registry:
        with pytest.raises(KeyboardInterrupt):
            registry.pull("m", progress=report)

        assert registry.pull("m").read_bytes() == DATA


# ---- a crash at any step --------------------------------------------------------


@pytest.fixture(scope="module")
def folder_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LyingServer]:
    """A server of a folder."""
    from modelreg.folders import plan_folder  # noqa: PLC0415

    files = {"model.xml": b"<net/>", "labels/en.txt": b"cat"}
    plan = plan_folder(make(tmp_path_factory.mktemp("source"), files))
    with plan.open() as packed:
        data = packed.read(plan.size_bytes)
    with LyingServer(data, file_name="f.zip", kind="KIND_FOLDER") as server:
        server.files = {path: (content, zlib.crc32(content)) for path, content in files.items()}
        yield server


@pytest.mark.parametrize("scenario", ["cache", "new", "empty", "overwrite"])
def test_a_kill_at_any_step_leaves_no_half_model(folder_server: LyingServer, tmp_path: Path, scenario: str) -> None:
    program = Path(__file__).with_name("killed_pulls.py")

    found = subprocess.run(
        [sys.executable, program, folder_server.url, tmp_path, scenario],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 10  # kills
