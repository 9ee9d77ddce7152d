"""Run Postgres, the gRPC server on a local artifact folder, and Envoy on one machine."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_service import logs
from registry_service.embedded.postgres import EmbeddedPostgres
from registry_service.embedded.process import EmbeddedError, open_private, rotate_log
from registry_service.embedded.settings import embedded_settings
from registry_service.settings import GatewaySettings, Settings, load, warn_if_open
from registry_service.supervisor.children import (
    EXPENSIVE_CHILD_FAILED_PROBES,
    Liveness,
    SupervisedChild,
    keep_running,
    probing,
)
from registry_service.supervisor.gateway import build_gateway
from registry_service.supervisor.runtime import raise_open_files_limit, stop_event
from registry_service.supervisor.server_process import ServerProcess, reserve_port, server_liveness

_POLL_SECONDS = 0.2


def up(data_dir: Path, settings: dict[str, object], gateway: GatewaySettings, echo: Callable[[str], None]) -> None:
    """Run Postgres, the gRPC server and Envoy until SIGTERM or SIGINT.

    Args:
        data_dir: Folder of the cluster, the artifacts and the logs.
        settings: Settings of the server that replace those of the environment, by name.
        gateway: Settings of Envoy.
        echo: Receives messages for the terminal.

    Raises:
        EmbeddedError: A package is missing, a port or the folder is taken, or a process failed to start.
    """
    raise_open_files_limit()
    with ExitStack() as stack:
        stopped = stack.enter_context(stop_event())
        started = time.monotonic()
        log_files = {name: data_dir / f"{name}.log" for name in ("registry", "gateway", "postgres")}
        run_dir = Path(stack.enter_context(TemporaryDirectory(prefix="model-registry-")))
        postgres = EmbeddedPostgres(data_dir)
        stack.callback(postgres.stop)
        address = postgres.prepare()
        environment = embedded_settings(data_dir, address, **settings)
        server_settings = load(Settings, **environment)
        open_private(log_files["registry"]).close()
        logs.configure(server_settings.min_log_level, log_files["registry"])
        warn_if_open(server_settings, gateway.server_ip_address)
        stack.enter_context(reserve_port(server_settings.grpc_ip_address, server_settings.grpc_port))
        envoy = build_gateway(gateway, data_dir, run_dir, log=log_files["gateway"])
        server = ServerProcess(
            "the gRPC server",
            server_settings,
            run_dir / "grpc.sock",
            env=os.environ | {name.upper(): str(value) for name, value in environment.items()},
            log=log_files["registry"],
        )
        # Launched before Postgres responds, as Python takes longer to load the server.
        server.launch()
        # The stack unwinds in reverse: calls under way finish through the gateway, so Envoy stops after the server.
        stack.callback(envoy.stop)
        stack.callback(server.stop)
        postgres.launch()
        postgres.wait_until_ready()
        envoy.start()
        liveness = server_liveness(server, server_settings, is_migrated=False)
        children = [
            SupervisedChild(postgres, Liveness(postgres.responds, failed_probes=EXPENSIVE_CHILD_FAILED_PROBES)),
            SupervisedChild(server, liveness),
            SupervisedChild(envoy, Liveness(envoy.responds)),
        ]
        stack.enter_context(probing(children))
        while not liveness.wait_for_response(_POLL_SECONDS) and not stopped.is_set():
            if (code := server.poll()) is not None:
                reason = server.reason() or f"see {log_files['registry']}"
                raise EmbeddedError(f"the gRPC server exited with {code} at its start: {reason}")
        if not stopped.is_set():
            echo(_banner(data_dir, server_settings, gateway, time.monotonic() - started))

        def each_poll() -> None:
            envoy.refresh()
            for file in log_files.values():
                rotate_log(file)

        keep_running(children, stopped, echo=echo, each_poll=each_poll)
        echo("Stopping …")
    echo("Stopped.")


def _banner(data_dir: Path, settings: Settings, gateway: GatewaySettings, seconds: float) -> str:
    scheme = "https" if gateway.enable_https_mode else "http"
    rest = f"{scheme}://{gateway.server_ip_address}:{gateway.server_port}"
    banner = (
        f"Model Registry is ready after {seconds:.1f} s. Stop it with Ctrl-C.\n"
        f"  REST       {rest}/v1/models   (status: {rest}/ready)\n"
        f"  gRPC       {settings.grpc_ip_address}:{settings.grpc_port}   (reflection is on)\n"
        f"  Data       {data_dir}   (database, artifacts, logs)"
    )
    free = shutil.disk_usage(data_dir).free
    if free < settings.disk_reserve_bytes:
        banner += (
            f"\nThe disk of {data_dir} is full, so every write is refused: {free // 2**20} MiB are free,"
            f" and DISK_RESERVE_BYTES reserves {settings.disk_reserve_bytes // 2**20} MiB."
        )
    return banner
