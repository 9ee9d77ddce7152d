"""The command that runs the gRPC server."""

from pathlib import Path

import click

from registry_service import logs
from registry_service.cli.errors import user_errors
from registry_service.observability import metrics
from registry_service.settings import Settings, load
from registry_service.supervisor.runtime import keep_freed_memory
from registry_service.supervisor.server import serve as run_server
from registry_service.supervisor.workers import serve_workers
from registry_service.wiring import migrate_database


@click.command
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Number of server processes; those that exit or hang are restarted.  [default: serve in this process]",
)
@click.option("--worker", type=int, hidden=True, help="Number of this process among several workers.")
@click.option("--socket", type=click.Path(path_type=Path), hidden=True, help="Unix socket of the liveness probe.")
@user_errors
def serve(workers: int | None, worker: int | None, socket: Path | None) -> None:
    """Run the gRPC server.

    The server uses the Postgres of PSQL_*, and the artifact store of MINIO_* or ARTIFACT_DIR.
    """
    keep_freed_memory()
    settings = load(Settings)
    logs.configure(settings.min_log_level)
    if worker is None:
        migrate_database(settings)
    elif metrics.is_shared():
        metrics.share(worker)
    if workers is None:
        run_server(settings, private_socket=socket)
    else:
        serve_workers(settings, workers)
