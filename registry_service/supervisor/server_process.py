"""The gRPC server as a child process. The process of its supervisor imports nothing of the server itself."""

import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from typing_extensions import override

from registry_service.embedded.process import log_tail, open_private, spawn, stop
from registry_service.settings import Settings
from registry_service.supervisor.children import PROBE_TIMEOUT_SECONDS, Child, Liveness
from registry_service.transport.grpc.probe import LivenessProbe
from registry_service.transport.port_taken_error import PortTakenError

# Time for a server that hangs to write the stack traces of its threads.
_ABORT_SECONDS = 2.0
# Added to the time that the dependencies may take at the start, and that calls may take at the end.
_START_MARGIN_SECONDS = 60.0
_STOP_MARGIN_SECONDS = 10.0


def stop_seconds(settings: Settings) -> float:
    """Return the longest time that a server takes from SIGTERM to its exit."""
    return settings.shutdown_delay_seconds + settings.shutdown_grace_seconds + _STOP_MARGIN_SECONDS


class ServerProcess(Child):
    """`model-registry serve` as a child process.

    Args:
        name: Name in messages.
        settings: The settings that the child reads from its environment.
        private_socket: Path of the Unix socket for liveness probes; created by the child.
        options: Further options of the command.
        env: The child's whole environment.
        log: File to append the child's output to; None to inherit this process's output.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        private_socket: Path,
        options: Sequence[str] = (),
        *,
        env: Mapping[str, str],
        log: Path | None = None,
    ) -> None:
        self.name = name
        self._settings = settings
        self._socket = private_socket
        self._command = [sys.executable, "-m", "registry_service", "serve", f"--socket={private_socket}", *options]
        self._env = env
        self._log = log
        self._log_offset = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.probe = LivenessProbe(private_socket, PROBE_TIMEOUT_SECONDS)

    @override
    def launch(self) -> None:
        """Start the process; it responds within seconds."""
        self._socket.unlink(missing_ok=True)
        with ExitStack() as files:
            output: IO[bytes] | None = None
            if self._log is not None:
                output = files.enter_context(open_private(self._log))
                self._log_offset = output.seek(0, os.SEEK_END)
            # SIGKILL: a drain would hold the port for longer than its supervisor lives.
            self._process = spawn(self._command, death_signal=signal.SIGKILL, env=self._env, output=output)

    @override
    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return None if self._process is None else self._process.poll()

    @override
    def kill(self) -> None:
        """End the process after it has written the stack traces of its threads to its log."""
        if self._process is not None:
            stop(self._process, (signal.SIGABRT, _ABORT_SECONDS))

    def terminate(self) -> None:
        """Start to drain the process, without waiting for its exit."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Drain the process and wait for its exit."""
        if self._process is not None:
            stop(self._process, (signal.SIGTERM, stop_seconds(self._settings) + _STOP_MARGIN_SECONDS))
        self.probe.close()

    @override
    def reason(self) -> str:
        """Return the error message with which the process exited; empty if it has no log of its own."""
        tail = "" if self._log is None else log_tail(self._log, self._log_offset)
        errors = re.findall(r"^Error: (.*)", tail, re.DOTALL | re.MULTILINE)
        return str(errors[-1]) if errors else ""


def server_liveness(server: ServerProcess, settings: Settings, *, is_migrated: bool) -> Liveness:
    """Return the liveness of a server process; without `is_migrated` its first start may take any time."""
    # The server waits up to STARTUP_TIMEOUT_SECONDS for each of two dependencies. A migration has no limit.
    seconds = 2 * settings.startup_timeout_seconds + _START_MARGIN_SECONDS
    return Liveness(server.probe, start_seconds=seconds if is_migrated else math.inf, restart_seconds=seconds)


@contextmanager
def reserve_port(address: str, port: int) -> Iterator[None]:
    """Keep processes of other programs off a port that server processes share.

    Without the check, another server on the port would receive a part of the connections.

    Raises:
        PortTakenError: Another process listens on the port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as exclusive:
        exclusive.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            exclusive.bind((address, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {address}:{port}: {error.strerror}") from error
    with socket.socket(family) as shared:
        # SO_REUSEADDR: connections of a previous server may linger in TIME_WAIT.
        for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
            shared.setsockopt(socket.SOL_SOCKET, option, 1)
        shared.bind((address, port))
        yield
