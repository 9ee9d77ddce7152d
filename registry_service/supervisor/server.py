"""Run the gRPC server in this process."""

import faulthandler
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_service.observability import metrics
from registry_service.observability.metrics_server import MetricsServer
from registry_service.settings import Settings
from registry_service.supervisor.runtime import raise_open_files_limit, stop_event
from registry_service.supervisor.server_process import stop_seconds
from registry_service.wiring import Registry, build_server, open_registry

_PARENT_POLL_SECONDS = 1.0


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
            faulthandler.dump_traceback_later(stop_seconds(settings), exit=True)
            server.stop()


@contextmanager
def _metrics_of_server(registry: Registry, settings: Settings) -> Iterator[None]:
    """Serve this process's metrics on METRICS_PORT, unless the supervisor serves those of all workers."""
    own_metrics = registry.telemetry.metrics
    if own_metrics is None or settings.metrics_port is None or metrics.is_shared():
        yield
        return
    with MetricsServer(own_metrics.registry, settings.metrics_ip_address, settings.metrics_port):
        yield
