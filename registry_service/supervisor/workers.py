"""Run several processes of the gRPC server on one port."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_service.observability import metrics
from registry_service.observability.metrics_server import MetricsServer
from registry_service.settings import Settings
from registry_service.supervisor.children import SupervisedChild, keep_running, probing
from registry_service.supervisor.runtime import stop_event
from registry_service.supervisor.server_process import ServerProcess, reserve_port, server_liveness


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


def _remove_gauges(folder: Path | None, worker: int) -> None:
    if folder is not None:
        metrics.remove_gauges(folder, worker)


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
