"""Pushing over bad networks, restarts of the server, and restarts of the client."""

import asyncio
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import modelreg
import pytest
from modelreg import AlreadyExists, Registry, SourceChanged
from modelreg.errors import ConnectionFailed
from modelregistry.v1 import upload_service_pb2

from registry_service import wiring
from registry_service.domain import caller
from registry_service.domain.access import Grant, Role
from registry_service.embedded.postgres import PostgresAddress
from registry_service.services.authentication import CachedAuthenticator
from registry_service.services.tokens import TokenService
from registry_service.storage.sql.database import SqlDatabase
from tests.chaos_proxy import ChaosProxy
from tests.client.folder_trees import packed, write_tree
from tests.client.test_push import LARGE, MIB, SMALL, content_of, pipe_of, state_files
from tests.cutting_proxy import CuttingProxy
from tests.polling import eventually
from tests.registry import RunningRegistry, running_registry

BIG = 24 * MIB + 17
"""Three parts. After an interruption, the server has at least one, whatever was on the way."""
CREATE, COMPLETE, REGISTER = b"UploadService/CreateUpload", b"UploadService/CompleteUpload", b"RegisterModel"


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelreg._wire.retries._FIRST_SECONDS", 0.2)


@pytest.fixture
def proxy(server: RunningRegistry) -> Iterator[CuttingProxy]:
    with CuttingProxy(int(server.address.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def remote(proxy: CuttingProxy) -> Iterator[Registry]:
    """A client of the server behind the proxy."""
    with Registry(f"grpc://127.0.0.1:{proxy.port}") as registry:
        yield registry


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vad.onnx"
    path.write_bytes(content_of(BIG))
    return path


def wait_for_a_part(server: RunningRegistry, name: str) -> None:
    """Wait until the server has stored a part. What is on its way when a connection is cut is lost."""

    def has_part() -> bool:
        uploads = server.client.uploads.ListUploads(upload_service_pb2.ListUploadsRequest(page_size=1000)).uploads
        return any(found.spec.model.name == name and found.committed_size for found in uploads)

    eventually(has_part)


def uploads_of(registry: Registry, name: str) -> list[modelreg.Upload]:
    return [upload for upload in registry.uploads() if upload.name == name]


# ---- connections --------------------------------------------------------------

_REQUEST_CUTS = [0, 1, 24, 60, 150, 300, 450, 600, 1000, 70_000, MIB, MIB + 1, *range(2 * MIB, LARGE, MIB - 1000)]
_RESPONSE_CUTS = [0, 9, 30, 60, 90, 120, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1000, 1200, 1400, 1800]


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_a_connection_that_is_cut_at_any_byte_is_invisible(server: RunningRegistry, name: str, size: int) -> None:
    content = content_of(size)

    def push(number: int, cut: Callable[[CuttingProxy], None]) -> int:
        with CuttingProxy(int(server.address.rpartition(":")[2])) as proxy:
            cut(proxy)
            with Registry(f"grpc://127.0.0.1:{proxy.port}") as registry:
                model = registry.push(io.BytesIO(content), name=name, version=f"{number}.0")
            assert model.created
            assert model.artifact.sha256 == hashlib.sha256(content).hexdigest()
            return proxy.cuts

    cuts: list[Callable[[CuttingProxy], None]] = [
        *(lambda proxy, n=count: proxy.cut_requests_after(n) for count in _REQUEST_CUTS if count <= size),
        *(lambda proxy, n=count: proxy.cut_responses_after(n) for count in _RESPONSE_CUTS),
    ]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(push, range(len(cuts)), cuts))

    # Late ones may come after the end.
    assert sum(made) > len(cuts) / 2
    assert len(server.client.all(f'name = "{name}"')) == len(cuts)


@pytest.mark.parametrize("words", [CREATE, COMPLETE])
def test_a_lost_response_of_an_upload_is_invisible(
    remote: Registry, proxy: CuttingProxy, name: str, file: Path, words: bytes
) -> None:
    proxy.lose_response_to(words)

    model = remote.push(file, name=name, version="1.0")

    assert proxy.cuts == 1
    assert model.created
    assert uploads_of(remote, name) == []


def test_a_lost_response_of_a_single_call_is_invisible(remote: Registry, proxy: CuttingProxy, name: str) -> None:
    proxy.lose_response_to(REGISTER)

    model = remote.push(io.BytesIO(content_of(SMALL)), name=name, version="1.0")

    assert (proxy.cuts, model.created) == (1, True)


def test_a_network_that_cuts_and_delays_all_the_time_is_invisible(server: RunningRegistry, name: str) -> None:
    content = content_of(2 * LARGE)
    with ChaosProxy("127.0.0.1", int(server.address.rpartition(":")[2]), seed=7, mean_bytes=3 * MIB) as proxy:
        proxy.harm.set()
        with Registry(f"grpc://127.0.0.1:{proxy.port}") as registry:
            model = registry.push(io.BytesIO(content), name=name, version="1.0")

        assert proxy.cuts > 1
    assert model.artifact.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("kind", ["file object", "pipe", "aio"])
def test_what_the_server_has_is_not_sent_again(
    server: RunningRegistry,
    proxy: CuttingProxy,
    remote: Registry,
    name: str,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("modelreg._pushes.sources.PipeSource.segment_bytes", 6 * MIB)
    content = content_of(2 * BIG)
    reported: list[int] = []

    def report(done: int, _: int | None) -> None:
        reported.append(done)
        if done == 20 * MIB and not proxy.cuts:
            wait_for_a_part(server, name)
            proxy.cut_now()

    async def push_in_loop() -> modelreg.Model:
        async with modelreg.aio.Registry(remote.url) as registry:
            return await registry.push(io.BytesIO(content), name=name, version="1.0", progress=report)

    if kind == "aio":
        model = asyncio.run(push_in_loop())
    elif kind == "pipe":
        with pipe_of(content) as pipe:
            model = remote.push(pipe, name=name, version="1.0", progress=report)
    else:
        model = remote.push(io.BytesIO(content), name=name, version="1.0", progress=report)

    assert model.artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert proxy.cuts == 1
    assert min(reported[reported.index(20 * MIB) :]) >= 8 * MIB
    assert server.client.download(model.id) == content


@pytest.mark.parametrize("is_aio", [False, True], ids=["sync", "aio"])
def test_a_connection_that_stalls_is_replaced(proxy: CuttingProxy, name: str, file: Path, is_aio: bool) -> None:
    url = f"grpc://127.0.0.1:{proxy.port}"
    proxy.stall_requests_after(12 * MIB)

    async def push_in_loop() -> modelreg.Model:
        async with modelreg.aio.Registry(url, stall_timeout=1.5) as registry:
            return await registry.push(file, name=name, version="1.0")

    if is_aio:
        model = asyncio.run(push_in_loop())
    else:
        with Registry(url, stall_timeout=1.5) as registry:
            model = registry.push(file, name=name, version="1.0")

    assert proxy.cuts == 1
    assert proxy.connections >= 2
    assert model.artifact.sha256 == hashlib.sha256(content_of(BIG)).hexdigest()


def test_a_slow_pipe_is_no_stall(server: RunningRegistry, url: str, name: str) -> None:
    content = content_of(LARGE)
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb", buffering=0) as pipe:
            pipe.write(content[: LARGE - 100])
            time.sleep(1.5)
            pipe.write(content[LARGE - 100 :])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(read_end, "rb", buffering=0) as pipe, Registry(url, stall_timeout=1.0) as registry:
        model = registry.push(pipe, name=name, version="1.0")
    thread.join()

    assert model.artifact.sha256 == hashlib.sha256(content).hexdigest()


# ---- the server ------------------------------------------------------------------


def test_a_server_that_restarts_in_the_middle_is_invisible(
    postgres: PostgresAddress,
    server: RunningRegistry,
    module_database_name: str,
    name: str,
    tmp_path: Path,
) -> None:
    """Two servers on the same stores, one after the other."""
    content = content_of(5 * LARGE)

    def begin() -> AbstractContextManager[RunningRegistry]:
        return running_registry(postgres, module_database_name, server.engine, server.artifact_dir)

    first = begin()
    address = first.__enter__().address
    with CuttingProxy(int(address.rpartition(":")[2])) as proxy:
        second: Any = None

        def report(done: int, _: int | None) -> None:
            nonlocal second
            if done >= 3 * LARGE and second is None:
                proxy.upstream = 1
                second = begin()
                stop = threading.Thread(target=first.__exit__, args=(None, None, None))
                stop.start()

                def restart() -> None:
                    stop.join()
                    proxy.upstream = int(second.__enter__().address.rpartition(":")[2])

                threading.Thread(target=restart).start()

        with Registry(f"grpc://127.0.0.1:{proxy.port}") as registry:
            model = registry.push(io.BytesIO(content), name=name, version="1.0", progress=report)

    second.__exit__(None, None, None)
    assert model.artifact.sha256 == hashlib.sha256(content).hexdigest()


def test_a_server_that_stays_away_ends_the_push_and_says_how_to_go_on(
    server: RunningRegistry, registry: Registry, name: str, file: Path, tmp_path: Path
) -> None:
    with CuttingProxy(int(server.address.rpartition(":")[2])) as proxy:

        def report(done: int, _: int | None) -> None:
            if done == 20 * MIB:
                proxy.__exit__()

        with (
            Registry(f"grpc://127.0.0.1:{proxy.port}", stall_timeout=0.5) as remote,
            pytest.raises(ConnectionFailed, match="The same push continues it") as caught,
        ):
            remote.push(file, name=name, version="1.0", progress=report)

        (upload,) = eventually(lambda: uploads_of(registry, name))
        assert caught.value.metadata["upload_id"] == upload.id
        (record,) = state_files(tmp_path)
        assert json.loads(record.read_text())["upload_id"] == upload.id


class ReplacedToken:
    """Credentials that have another token when the first is refused."""

    note = ""
    may_block = False

    def __init__(self, first: str, second: str) -> None:
        self._tokens = [first, second]

    def token(self) -> str:
        return self._tokens[0]

    def refresh(self, refused: str) -> bool:
        self._tokens = [token for token in self._tokens if token != refused]
        return bool(self._tokens)


def test_a_token_that_expires_in_the_middle_is_replaced(
    postgres: PostgresAddress,
    server: RunningRegistry,
    module_database_name: str,
    name: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wiring, "CachedAuthenticator", partial(CachedAuthenticator, seconds=0))
    monkeypatch.setattr(caller, "_RECHECK_SECONDS", 0)
    tokens = TokenService(SqlDatabase(server.engine))
    first, second = (tokens.create(Grant(Role.WRITER, None), name=f"{name}-{number}")[1] for number in (1, 2))
    revoked: list[int] = []

    def report(done: int, _: int | None) -> None:
        if done == 12 * MIB and not revoked:
            tokens.revoke(f"{name}-1")
            revoked.append(done)

    with (
        running_registry(
            postgres, module_database_name, server.engine, server.artifact_dir, auth_mode="token"
        ) as strict,
        Registry(f"grpc://{strict.address}") as registry,
    ):
        registry._connection._credentials = ReplacedToken(first, second)
        model = registry.push(file, name=name, version="1.0", progress=report)

    assert revoked
    assert model.created
    assert model.creator == f"token:{name}-2"
    assert model.artifact.sha256 == hashlib.sha256(content_of(BIG)).hexdigest()


# ---- the client -------------------------------------------------------------------


class StopPushError(Exception):
    """Stops a push from its progress function."""


@pytest.fixture
def stop(server: RunningRegistry, name: str) -> Callable[[int, int | None], None]:
    """A progress function that ends a push in the middle."""

    def report(done: int, _: int | None) -> None:
        if done >= 20 * MIB:
            wait_for_a_part(server, name)
            raise StopPushError

    return report


Interrupt = Callable[..., modelreg.Upload]


@pytest.fixture
def interrupt(registry: Registry, name: str, stop: Callable[[int, int | None], None]) -> Interrupt:
    """A function that interrupts a push and returns the upload."""

    def run(source: Path, **metadata: Any) -> modelreg.Upload:
        with pytest.raises(StopPushError):
            registry.push(source, name=name, version="1.0", progress=stop, **metadata)
        (upload,) = uploads_of(registry, name)
        return upload

    return run


def test_the_same_push_continues_an_interrupted_one(
    interrupt: Interrupt, server: RunningRegistry, registry: Registry, name: str, file: Path, tmp_path: Path
) -> None:
    upload = interrupt(file)
    (record,) = state_files(tmp_path)
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert json.loads(record.read_text())["upload_id"] == upload.id
    reported: list[int] = []

    model = registry.push(file, name=name, version="1.0", progress=lambda done, _: reported.append(done))

    assert reported[0] >= upload.committed_size > 0
    assert model.id == upload.model_id
    assert server.client.download(model.id) == content_of(BIG)
    assert state_files(tmp_path) == []


def test_an_interrupted_folder_continues(
    interrupt: Interrupt, server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
) -> None:
    folder = write_tree(tmp_path / "model", {"weights.bin": content_of(BIG), "a/labels.txt": b"speech"})
    upload = interrupt(folder)

    model = registry.push(folder, name=name, version="1.0")

    assert model.id == upload.model_id
    assert (model.artifact.kind, model.artifact.file_name) == ("folder", "model.zip")
    assert server.client.download(model.id) == packed(folder)


def test_a_push_whose_end_was_not_heard_returns_the_model_when_it_is_repeated(
    server: RunningRegistry, proxy: CuttingProxy, name: str, file: Path, tmp_path: Path
) -> None:
    """The registry completed the upload, and then could not be reached."""
    url = f"grpc://127.0.0.1:{proxy.port}"
    upstream = proxy.upstream

    def report(done: int, _: int | None) -> None:
        if done == BIG:
            proxy.lose_response_to(COMPLETE)
            proxy.upstream = 1

    with Registry(url, stall_timeout=1.5) as registry, pytest.raises(ConnectionFailed, match="same push continues"):
        registry.push(file, name=name, version="1.0", progress=report)
    registered = eventually(lambda: server.client.all(f'name = "{name}"'))
    proxy.upstream = upstream

    with Registry(url) as registry:
        model = registry.push(file, name=name, version="1.0")

    assert (proxy.cuts, model.created) == (1, True)
    assert [found.id for found in registered] == [model.id]
    assert state_files(tmp_path) == []


def test_a_file_that_was_changed_since_begins_anew(
    interrupt: Interrupt, server: RunningRegistry, registry: Registry, name: str, file: Path
) -> None:
    upload = interrupt(file)
    file.write_bytes(content_of(BIG, seed=1))

    model = registry.push(file, name=name, version="1.0")

    assert model.id != upload.model_id
    assert server.client.download(model.id) == content_of(BIG, seed=1)
    assert uploads_of(registry, name) == []


def test_other_metadata_begins_anew(interrupt: Interrupt, registry: Registry, name: str, file: Path) -> None:
    interrupt(file, score=0.5)

    model = registry.push(file, name=name, version="1.0", score=0.6)

    assert model.score == 0.6
    assert uploads_of(registry, name) == []


def test_a_file_that_was_changed_in_secret_is_noticed(
    interrupt: Interrupt, registry: Registry, name: str, file: Path, tmp_path: Path
) -> None:
    interrupt(file)
    status = file.stat()
    with file.open("r+b") as opened:
        opened.write(b"changed")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    with pytest.raises(SourceChanged):
        registry.push(file, name=name, version="1.0")

    assert state_files(tmp_path) == []
    assert registry.push(file, name=name, version="1.0").created


def test_an_upload_that_is_gone_begins_anew(interrupt: Interrupt, registry: Registry, name: str, file: Path) -> None:
    upload = interrupt(file)
    registry.cancel_upload(upload)

    assert registry.push(file, name=name, version="1.0").id != upload.model_id


def test_an_upload_that_another_process_cancels_meanwhile_is_not_found(
    server: RunningRegistry, url: str, registry: Registry, name: str, file: Path, tmp_path: Path
) -> None:
    def report(done: int, _: int | None) -> None:
        if done == 5 * MIB:
            with Registry(url) as other:
                (upload,) = uploads_of(other, name)
                other.cancel_upload(upload)

    with pytest.raises(modelreg.NotFound):
        registry.push(file, name=name, version="1.0", progress=report)

    assert state_files(tmp_path) == []


def test_a_model_that_another_process_registers_meanwhile_is_returned_if_its_bytes_are_the_same(
    server: RunningRegistry, url: str, registry: Registry, name: str, file: Path
) -> None:
    ids: list[str] = []

    def report(done: int, _: int | None) -> None:
        if done == 5 * MIB and not ids:
            with Registry(url) as other:
                ids.append(other.push(io.BytesIO(file.read_bytes()), name=name, version="1.0").id)

    model = registry.push(file, name=name, version="1.0", progress=report, if_exists="return")

    assert (model.id, model.created) == (ids[0], False)
    assert uploads_of(registry, name) == []

    ids.clear()
    name = f"{name}-b"
    with pytest.raises(AlreadyExists):
        registry.push(file, name=name, version="1.0", progress=report)
    assert uploads_of(registry, name) == []


_PUSH = """
import sys, modelreg
path, name, url = sys.argv[1:]
def report(done, total):
    print(done, flush=True)
    if done == 20 << 20:
        sys.stdin.read(1)
try:
    model = modelreg.Registry(url).push(path, name=name, version="1.0", progress=report, if_exists="return")
    print("model", model.id, model.created, flush=True)
except KeyboardInterrupt as error:
    print("interrupted", error, flush=True)
"""


def push_in_process(url: str, path: Path, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _PUSH, str(path), name, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_until(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    for found in process.stdout:
        if found.strip() == line:
            return
    raise AssertionError(f"the process ended without {line}")


def test_ctrl_c_and_a_killed_process_keep_the_upload(
    server: RunningRegistry, url: str, registry: Registry, name: str, file: Path
) -> None:
    for end in (signal.SIGINT, signal.SIGKILL):
        process = push_in_process(url, file, name)
        read_until(process, str(20 * MIB))
        wait_for_a_part(server, name)
        process.send_signal(end)
        output, _ = process.communicate("", timeout=30)
        (upload,) = uploads_of(registry, name)
        if end == signal.SIGINT:
            assert f"of the upload {upload.id}. The same push continues it" in output

    assert registry.push(file, name=name, version="1.0").id == upload.model_id


def test_two_processes_that_push_the_same_thing_both_succeed(
    url: str, registry: Registry, name: str, file: Path, tmp_path: Path
) -> None:
    processes = [push_in_process(url, file, name) for _ in range(2)]
    for process in processes:
        read_until(process, str(20 * MIB))
    outputs = [process.communicate("go", timeout=60)[0].split() for process in processes]

    results = sorted(output[output.index("model") :] for output in outputs)
    assert results[0][1] == results[1][1]
    assert [result[2] for result in results] == ["False", "True"]
    assert uploads_of(registry, name) == []
    assert state_files(tmp_path) == []


def test_without_a_state_directory_a_push_works_but_does_not_continue(
    stop: Callable[[int, int | None], None],
    registry: Registry,
    name: str,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("MODELREG_STATE", str(tmp_path / "no folder" / "state"))

    with pytest.raises(StopPushError):
        registry.push(file, name=name, version="1.0", progress=stop)

    assert uploads_of(registry, name) == []
    assert registry.push(file, name=name, version="1.0").created


def test_a_damaged_record_begins_anew(
    interrupt: Interrupt, registry: Registry, name: str, file: Path, tmp_path: Path
) -> None:
    for damage in ("", "{", "[]", '{"url": 1}', "\0"):
        upload = interrupt(file)
        (record,) = state_files(tmp_path)
        record.write_text(damage)

        model = registry.push(file, name=name, version="1.0")

        assert model.id != upload.model_id
        registry.delete(model)
        registry.cancel_upload(upload)


def test_cancellation_in_aio_keeps_the_upload(
    server: RunningRegistry, url: str, registry: Registry, name: str, file: Path
) -> None:
    async def push_and_cancel() -> None:
        async with modelreg.aio.Registry(url) as client:
            reached = asyncio.Event()

            def report(done: int, _: int | None) -> None:
                if done >= 20 * MIB:
                    reached.set()

            task = asyncio.create_task(client.push(file, name=name, version="1.0", progress=report))
            await reached.wait()
            wait_for_a_part(server, name)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(push_and_cancel())
    (upload,) = uploads_of(registry, name)

    assert registry.push(file, name=name, version="1.0").id == upload.model_id
