"""`model-registry up`: everything on one machine with one command, and no process left afterwards."""

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from registry_service.embedded.process import MAX_LOG_BYTES
from tests.polling import eventually
from tests.ports import free_port
from tests.products import COMMAND, Command, Product, environment, running_up
from tests.stub_client import Client, refused
from tests.temporary_folders import accessible_folder

START_SECONDS = 30


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which `up` keeps its data, below `data`."""
    with accessible_folder() as made:
        yield made


def processes_on(folder: Path) -> list[psutil.Process]:
    """Return every process that uses a folder, including orphans."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.pid == os.getpid():
            continue
        mentioned = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(folder) in text for text in mentioned):
            found.append(process)
    return found


def assert_no_process(folder: Path) -> None:
    eventually(lambda: not processes_on(folder), 20, "the end of every process")


def refused_up(folder: Path, *arguments: str, **settings: object) -> str:
    """Return the error of an `up` that cannot start."""
    answer = subprocess.run(
        [*COMMAND, "up", f"--data-dir={folder / 'data'}", *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert answer.stdout == ""
    return answer.stderr


# ---- start and stop ----


def test_up_is_ready_soon_and_prints_its_addresses(folder: Path) -> None:
    started = time.monotonic()
    with running_up(folder, "first") as product:
        seconds = time.monotonic() - started
        print(f"first start, initdb included: {seconds:.1f} s")  # noqa: T201 (prints a measurement)
        assert seconds < START_SECONDS
        ready = re.compile(r"^Model Registry is ready after \d+\.\d s\. Stop it with Ctrl-C\.$", re.MULTILINE)
        # It is ready a moment before it prints the banner.
        eventually(lambda: ready.search(product.server.output()), what="the banner")
        said = product.server.output()
        assert f"{product.rest_url}/v1/models" in said
        assert f"127.0.0.1:{product.grpc_port} " in said
        assert str(folder / "data") in said
        # The terminal is for people; JSON lines go to the log file.
        assert "{" not in said
        model = product.client.register(b"first", name="first")

        def codes() -> list[str]:
            lines = [json.loads(line) for line in (folder / "data" / "registry.log").read_text().splitlines()]
            return [line["code"] for line in lines if str(line.get("method", "")).endswith("/RegisterModel")]

        eventually(lambda: codes() == ["OK"], what="the line of the call")
        names = {process.name() for process in product.processes()}
        assert {"envoy", "postgres"} <= names
    started = time.monotonic()
    with running_up(folder) as product:
        print(f"second start: {time.monotonic() - started:.1f} s")  # noqa: T201 (prints a measurement)
        assert product.client.download(model.id) == b"first"


def test_its_files_are_readable_by_its_user_only(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    # An earlier version created it like this.
    (data / "registry.log").touch(0o644)
    with running_up(folder, "first") as product:
        assert {path.name for path in data.iterdir() if path.stat().st_mode & 0o077} == set()
        # PostgreSQL may run as another user, which needs to traverse these folders.
        assert data.stat().st_mode & 0o066 == 0 or os.geteuid() == 0
        product.client.register(name="taken")
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            product.client.register(name="taken")
        assert "ERROR" not in (data / "postgres.log").read_text()


def test_its_log_files_are_bounded(folder: Path) -> None:
    with running_up(folder) as product:
        log = folder / "data" / "registry.log"
        with log.open("ab") as file:
            file.truncate(MAX_LOG_BYTES)
        eventually(lambda: log.stat().st_size < MAX_LOG_BYTES, what="a new beginning")
        assert log.with_name("registry.log.1").stat().st_size >= MAX_LOG_BYTES
        assert log.with_name("registry.log.1").stat().st_mode & 0o077 == 0
        product.client.register(name="after it")
        eventually(lambda: '"model.registered"' in log.read_text(), what="a line in it")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_up_stops_cleanly_and_starts_again_with_its_data(folder: Path, number: signal.Signals) -> None:
    with running_up(folder) as product:
        model = product.client.register(b"kept", name="kept")
        tree = product.processes()
        assert len(tree) > 5
        assert product.server.stop(number) == 0
        assert product.server.output().endswith("Stopping …\nStopped.\n")
        assert psutil.wait_procs(tree, 0)[1] == []
        assert processes_on(folder) == []
    with running_up(folder) as product:
        assert product.client.get(model.id) == model
        assert product.client.download(model.id) == b"kept"


def test_no_data_is_lost_when_all_processes_are_killed(folder: Path) -> None:
    with running_up(folder) as product:
        model = product.client.register(b"kept", name="kept")
        tree = product.processes()
        for process in tree:
            # Some exit because others did.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        product.server.kill()
        assert psutil.wait_procs(tree, 10)[1] == []
    with running_up(folder) as product:
        assert product.client.names() == ["kept"]
        assert product.client.download(model.id) == b"kept"
        assert product.client.verify(model.id).intact


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_no_child_outlives_a_killed_parent(folder: Path) -> None:
    with running_up(folder) as product:
        model = product.client.register(b"kept", name="kept")
        product.server.kill()
        assert_no_process(folder)
    with running_up(folder) as product:
        assert product.client.download(model.id) == b"kept"


# ---- failing starts ----


@pytest.mark.parametrize("port", ["rest", "grpc"])
def test_a_port_in_use_is_named(folder: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ports = {"rest": free_port(), "grpc": free_port()} | {port: number}
        said = refused_up(folder, f"--rest-port={ports['rest']}", f"--grpc-port={ports['grpc']}")
    assert f"cannot listen on 127.0.0.1:{number}" in said
    assert_no_process(folder)


def test_a_second_up_on_the_same_data_is_refused(folder: Path) -> None:
    with running_up(folder) as product:
        assert product.server.process is not None
        said = refused_up(folder, f"--rest-port={free_port()}", f"--grpc-port={free_port()}")
        assert said == f"Error: {folder / 'data'} is in use by process {product.server.process.pid}\n"
        assert product.is_serving()


def test_a_data_folder_that_cannot_be_created_is_named(folder: Path) -> None:
    (folder / "data").write_text("a file")
    assert str(folder / "data") in refused_up(folder)
    assert str(folder / "data" / "below") in refused_up(folder, f"--data-dir={folder / 'data' / 'below'}")


def test_a_file_in_place_of_a_folder_is_named(folder: Path) -> None:
    path = folder / "data" / "run"
    path.parent.mkdir()
    path.write_text("not ours")
    assert refused_up(folder) == f"Error: {path} is not a folder; move it away\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write to others' folders")
def test_root_does_not_touch_the_folder_of_a_user(folder: Path) -> None:
    data = folder / "data"
    data.mkdir()
    nobody = pwd.getpwnam("nobody")
    os.chown(data, nobody.pw_uid, nobody.pw_gid)
    said = refused_up(folder)
    assert (
        f"Error: {data} belongs to the user nobody; run the command as that user, or choose another data folder" in said
    )
    assert {path.stat().st_uid for path in data.iterdir()} <= {nobody.pw_uid}


def test_a_wrong_setting_is_named_before_the_data_folder_is_created(folder: Path) -> None:
    said = refused_up(folder, max_streams="many", min_log_level="LOUD")
    assert "MAX_STREAMS: " in said
    assert "MIN_LOG_LEVEL: " in said
    assert not (folder / "data").exists()


# ---- settings and users ----


def test_settings_of_an_intel_deployment_apply(folder: Path) -> None:
    grpc_port, rest_port = free_port(), free_port()
    # Settings of an external Postgres and S3 do not apply to `up`.
    settings = {"psql_hostname": "database.invalid", "minio_hostname": "s3.invalid", "psql_password": "secret"}
    server = Command(
        ["up", f"--data-dir={folder / 'data'}"],
        environment(**settings, server_port=rest_port, grpc_port=grpc_port, min_log_level="ERROR"),
        folder / "up.log",
    )
    product = Product("embedded", grpc_port, rest_port, server, None)
    try:
        server.start()
        product.wait_until_ready()
        product.client.register(name="configured")
        lines = (folder / "data" / "registry.log").read_text().splitlines()
        # Audit lines are logged at every level.
        assert [json.loads(line)["log"] for line in lines] == ["audit"]
    finally:
        product.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="an unprivileged user runs all tests")
def test_up_works_for_an_unprivileged_user(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    try:
        subprocess.run(
            [*COMMAND, "--version"],
            user="nobody",
            group=nobody.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"the user nobody cannot run {sys.executable}: {error}")
    home = folder / "home"
    home.mkdir()
    shutil.chown(home, nobody.pw_uid, nobody.pw_gid)
    grpc_port, rest_port = free_port(), free_port()
    env = environment(home=home, server_port=rest_port, grpc_port=grpc_port)
    env.pop("XDG_DATA_HOME", None)
    with (folder / "up.log").open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "up"],
            env=env,
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
            user="nobody",
            group=nobody.pw_gid,
            extra_groups=[],
        )
    client = Client(f"127.0.0.1:{grpc_port}")
    try:

        def ready() -> bool:
            if process.poll() is not None:
                pytest.fail((folder / "up.log").read_text())
            return httpx.get(f"http://127.0.0.1:{rest_port}/ready").status_code == 200

        eventually(ready, START_SECONDS, "readiness")
        model = client.register(b"mine", name="mine")
        assert client.download(model.id) == b"mine"
        assert (home / ".local" / "share" / "model-registry" / "artifacts").stat().st_uid == nobody.pw_uid
        process.terminate()
        assert process.wait(40) == 0
    finally:
        client.close()
        if process.poll() is None:
            process.kill()
            process.wait()
