"""Child processes that don't outlive us: how Postgres and Envoy run for `model-registry up`."""

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

LOG_TAIL_BYTES = 4096
# PostgreSQL takes space for its log in pieces of 16 MiB.
_FULL_BYTES = 16 * 1024 * 1024
MAX_LOG_BYTES = 20 * 1024 * 1024


class EmbeddedError(Exception):
    """An embedded server can't run; the message is for the person at the terminal."""


class NotInstalledError(EmbeddedError):
    """The wheel with a server's program is missing."""


@dataclass(frozen=True)
class User:
    """Whom a child runs as."""

    uid: int
    gid: int
    name: str


def find_package(name: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        NotInstalledError: It isn't installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise NotInstalledError(
            f"the package {name!r} is missing; install it with: pip install 'model-registry[embedded]'"
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
    """Starts a program in its own session, so that Ctrl-C in the terminal reaches us alone.

    Call it from a thread that lives as long as the child should: Linux sends the
    death signal when the *thread* that started the child ends.

    Args:
        argv: The program's path and its arguments.
        death_signal: What the child gets when we die, kill -9 included. On Linux; elsewhere it lives on.
        user: Whom to run as, when we are root.
        env: The whole environment; None for ours.
        cwd: Working directory; None for ours.
        output: Where stdout and stderr go; None for ours.

    Returns:
        The process: `pid` is the program's own.
    """
    # Not preexec_fn: Python code between fork and exec can deadlock when we have threads.
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
    """Runs a program to its end, like `spawn`, and answers what it printed.

    Raises:
        EmbeddedError: It failed or took longer than `seconds`; the message has what it printed.
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
    """Ends a child in order.

    Args:
        process: The child.
        steps: Signals, each with the seconds that the child gets before the next. SIGKILL to all of its session
            comes last by itself.

    Returns:
        Its exit code; negative: the signal that ended it.
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
    """Open a file for writing, made when missing, that nobody but its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    with contextlib.suppress(PermissionError):  # it is another's
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def bound_log(path: Path) -> None:
    """Move what a log holds to `<name>.1` once it has MAX_LOG_BYTES, while processes go on appending to it.

    The file is emptied rather than renamed, as its writers would not notice that. A
    line that is written between the end of the copy and then is lost. Where there is
    no space for the copy, there is none for the log to grow, either.
    """
    with contextlib.suppress(OSError):
        if path.stat().st_size < MAX_LOG_BYTES:
            return
        previous = path.with_name(f"{path.name}.1")
        previous.unlink(missing_ok=True)
        with path.open("r+b") as log, open_private(previous) as copy:
            shutil.copyfileobj(log, copy, 1024 * 1024)
            log.truncate(0)


def space_hint(folder: Path) -> str:
    """Return a sentence about the disk of a folder when it is full, else an empty text."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return ""
    free = status.f_bavail * status.f_frsize
    return f"no space is left on the disk of {folder} ({free} bytes)" if free < _FULL_BYTES else ""


def log_tail(path: Path, offset: int = 0) -> str:
    """The last lines of a log, a few kilobytes at most, without what stands before `offset` (bytes)."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(offset, size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""
