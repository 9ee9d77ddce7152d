"""Run the gRPC server: in this process, as a child process, or as several workers on one port."""

import faulthandler
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from typing_extensions import override

from registry_service.embedded.process import log_tail, open_private, spawn, stop
from registry_service.observability import metrics
from registry_service.observability.metrics_server import MetricsServer
from registry_service.settings import Settings
from registry_service.supervisor.children import (
    PROBE_TIMEOUT_SECONDS,
    Child,
    Liveness,
    SupervisedChild,
    keep_running,
    probing,
)
from registry_service.supervisor.runtime import raise_open_files_limit, stop_event
from registry_service.transport.grpc.probe import LivenessProbe
from registry_service.transport.grpc.server import PortTakenError
from registry_service.wiring import Registry, build_server, open_registry

_PARENT_POLL_SECONDS = 1.0
# Time for a server that hangs to write the stack traces of its threads.
_ABORT_SECONDS = 2.0
# Added to the time that the dependencies may take at the start, and that calls may take at the end.
_START_MARGIN_SECONDS = 60.0
_STOP_MARGIN_SECONDS = 10.0


def serve(settings: Settings, *, private_socket: Path | None = None) -> None:
    """Run the gRPC server against a migrated database until SIGTERM or SIGINT, then drain it.

    Args:
        settings: The server's settings.
        private_socket: Unix socket on which a supervisor probes this process; None without a supervisor.

    Raises:
        PortTakenError: Another process listens on the port.
        UnavailableError: The artifact store does not respond within STARTUP_TIMEOUT_SECONDS.
    """
    supervisor = os.getppid()
    raise_open_files_limit()
    if private_socket is not None:
        # The supervisor sends SIGABRT to a server that hangs: it then writes its stack traces.
        faulthandler.enable()
    # In this order: a signal while the server waits for its dependencies ends it at once.
    with open_registry(settings) as registry, _metrics_of_server(registry, settings), stop_event() as stopped:
        server = build_server(registry, settings, private_socket=private_socket)
        try:
            server.start()
            # Only Linux sends a signal when the supervisor dies.
            while not stopped.wait(_PARENT_POLL_SECONDS) and (private_socket is None or os.getppid() == supervisor):
                pass
        finally:
            # Exit in time even if a thread hangs.
            faulthandler.dump_traceback_later(_stop_seconds(settings), exit=True)
            server.stop()


def _stop_seconds(settings: Settings) -> float:
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
            stop(self._process, (signal.SIGTERM, _stop_seconds(self._settings) + _STOP_MARGIN_SECONDS))
        self.probe.close()

    @override
    def reason(self) -> str:
        """Return the error message with which the process exited; empty if it has no log of its own."""
        tail = "" if self._log is None else log_tail(self._log, self._log_offset)
        errors = re.findall(r"^Error: (.*)", tail, re.DOTALL | re.MULTILINE)
        return str(errors[-1]) if errors else ""


def serve_workers(settings: Settings, workers: int) -> None:
    """Run several server processes on one port; the kernel distributes connections among them.

    A worker that exits or hangs is restarted. All workers end with this process.

    Raises:
        PortTakenError: Another process listens on the port.
    """
    with ExitStack() as stack:
        stopped = stack.enter_context(stop_event())
        stack.enter_context(reserve_port(settings.grpc_ip_address, settings.grpc_port))
        metrics_folder = stack.enter_context(_metrics_of_workers(settings))
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="model-registry-")))
        env = os.environ | ({} if metrics_folder is None else {metrics.SHARED_FOLDER: str(metrics_folder)})
        children = []
        for number in range(workers):
            name = f"worker {number}"
            server = ServerProcess(name, settings, sockets / str(number), [f"--worker={number}"], env=env)
            server.launch()
            stack.callback(server.stop)
            children.append(
                SupervisedChild(
                    server,
                    server_liveness(server, settings, is_migrated=True),
                    on_restart=partial(_remove_gauges, metrics_folder, number),
                )
            )
            # The stack unwinds in reverse: all workers drain before the first is waited for.
            stack.callback(server.terminate)
        with probing(children):
            keep_running(children, stopped)


def server_liveness(server: ServerProcess, settings: Settings, *, is_migrated: bool) -> Liveness:
    """Return the liveness of a server process; without `is_migrated` its first start may take any time."""
    # The server waits up to STARTUP_TIMEOUT_SECONDS for each of two dependencies. A migration has no limit.
    seconds = 2 * settings.startup_timeout_seconds + _START_MARGIN_SECONDS
    return Liveness(server.probe, start_seconds=seconds if is_migrated else math.inf, restart_seconds=seconds)


def _remove_gauges(folder: Path | None, worker: int) -> None:
    if folder is not None:
        metrics.remove_gauges(folder, worker)


@contextmanager
def _metrics_of_server(registry: Registry, settings: Settings) -> Iterator[None]:
    """Serve this process's metrics on METRICS_PORT, unless the supervisor serves those of all workers."""
    own_metrics = registry.telemetry.metrics
    if own_metrics is None or settings.metrics_port is None or metrics.is_shared():
        yield
        return
    with MetricsServer(own_metrics.registry, settings.metrics_ip_address, settings.metrics_port):
        yield


@contextmanager
def _metrics_of_workers(settings: Settings) -> Iterator[Path | None]:
    """Serve the sums of all workers' metrics on METRICS_PORT. Give the folder for the workers' values."""
    if settings.metrics_port is None:
        yield None
        return
    with TemporaryDirectory(prefix="model-registry-metrics-") as folder:
        registry = metrics.sum_of_workers(Path(folder))
        with MetricsServer(registry, settings.metrics_ip_address, settings.metrics_port):
            yield Path(folder)


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
