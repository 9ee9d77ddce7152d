"""Start and stop child processes that end with this process, and read their logs."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from registry_service.domain.user_error import UserError

LOG_TAIL_BYTES = 4096
# PostgreSQL allocates its write-ahead log in segments of 16 MiB.
_FULL_BYTES = 16 * 1024 * 1024
MAX_LOG_BYTES = 20 * 1024 * 1024


class EmbeddedError(UserError):
    """An embedded server cannot run. The message is for the terminal."""


class NotInstalledError(EmbeddedError):
    """The package with a server's executable is missing."""


@dataclass(frozen=True)
class User:
    """The operating system's user of a child process."""

    uid: int
    gid: int
    name: str


def find_package(name: str) -> Path:
    """Return the folder of an installed package, without importing the package.

    Raises:
        NotInstalledError: The package is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise NotInstalledError(
            f"the package {name!r} is missing; install it in the folder of the repository with:"
            " pip install -e '.[embedded]'"
        )
    return Path(spec.origin).resolve().parent


def spawn(
    argv: Sequence[str | Path],
    *,
    death_signal: signal.Signals,
    user: User | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that Ctrl-C in the terminal does not reach it.

    Call it from a thread that lives as long as the child should: Linux sends the
    death signal when the *thread* that started the child ends.

    Args:
        argv: The program's path and its arguments.
        death_signal: Signal to the child when this process ends in any way, SIGKILL included. On Linux only; on
            other systems the child goes on.
        user: User to run as; requires root.
        env: The child's whole environment; None to inherit this process's.
        cwd: The child's working directory; None to inherit this process's.
        output: File for stdout and stderr; None to inherit this process's.

    Returns:
        The process; its `pid` is the program's own.
    """
    # Not preexec_fn: Python code between fork and exec can deadlock in a process with threads.
    wrapper = Path(__file__).with_name("exec_child.py")
    identity = f"{user.uid}:{user.gid}" if user is not None else "-"
    return subprocess.Popen(
        [sys.executable, "-I", "-S", wrapper, str(os.getpid()), str(int(death_signal)), identity, *argv],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
    )


def run(argv: Sequence[str | Path], *, user: User | None, env: Mapping[str, str], cwd: Path, seconds: float) -> str:
    """Run a program to its end (see `spawn`) and return its output.

    Raises:
        EmbeddedError: The program failed or took longer than `seconds`; the message has its output.
    """
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as reader, open(write_end, "wb") as writer:  # noqa: PTH123 (descriptors, not paths)
        child = spawn(argv, death_signal=signal.SIGKILL, user=user, env=env, cwd=cwd, output=writer)
        writer.close()
        timer_expired = False
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            timer_expired = True
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        text = reader.read().decode(errors="replace").strip()
    if timer_expired:
        raise EmbeddedError(f"{Path(argv[0]).name} took longer than {seconds:g} s: {text}")
    if child.returncode != 0:
        raise EmbeddedError(f"{Path(argv[0]).name} failed ({child.returncode}): {text}")
    return text


def stop(process: subprocess.Popen[bytes], *steps: tuple[signal.Signals, float]) -> int:
    """Stop a child by a sequence of signals.

    Args:
        process: The child.
        steps: Signals, each with the seconds to wait before the next. The last step, SIGKILL to the child's session,
            is implied.

    Returns:
        The exit code; negative: the signal that ended the child.
    """
    for number, seconds in steps:
        if process.poll() is not None:
            break
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def open_private(path: Path, flags: int = os.O_APPEND) -> IO[bytes]:
    """Open a file for writing that only its owner may read; create it if it is missing."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    with contextlib.suppress(PermissionError):  # the file belongs to another user
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def rotate_log(path: Path) -> None:
    """Move the content of a log to `<name>.1` once it exceeds MAX_LOG_BYTES.

    The file is copied and truncated, not renamed, because its writers keep it open. A
    line written between the copy and the truncation is lost. If the disk has no space
    for the copy, the log is left as it is.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size < MAX_LOG_BYTES:
            return
        previous = path.with_name(f"{path.name}.1")
        previous.unlink(missing_ok=True)
        with path.open("r+b") as log, open_private(previous) as copy:
            shutil.copyfileobj(log, copy, 1024 * 1024)
            log.truncate(0)


def full_disk_hint(folder: Path) -> str:
    """Return a message if the disk of a folder is full, else an empty text."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return ""
    free = status.f_bavail * status.f_frsize
    return f"no space is left on the disk of {folder} ({free} bytes)" if free < _FULL_BYTES else ""


def log_tail(path: Path, offset: int = 0) -> str:
    """Return the end of a log, at most LOG_TAIL_BYTES, without the bytes before `offset`."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(offset, size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
