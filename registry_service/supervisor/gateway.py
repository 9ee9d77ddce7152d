"""Run the REST gateway, Envoy."""

import logging
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_service.embedded.envoy import EnvoyGateway
from registry_service.embedded.envoy_config import render
from registry_service.embedded.process import EmbeddedError
from registry_service.settings import GatewaySettings
from registry_service.supervisor.children import Liveness, SupervisedChild, probing
from registry_service.supervisor.runtime import raise_open_files_limit, stop_event
from registry_service.transport.http_routes import http_routes

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2


def gateway_config(
    settings: GatewaySettings,
    *,
    access_log: bool = False,
    admin_socket: Path | None = None,
    heartbeat: Path | None = None,
    address_limit: Path | None = None,
    secrets_dir: Path | None = None,
) -> str:
    """Return Envoy's configuration for this API; see `embedded.envoy_config.render`."""
    routes = http_routes()
    return render(
        settings,
        descriptor_set=routes.descriptor_set,
        json_messages=routes.bodies.messages,
        json_methods=routes.bodies.methods,
        services=routes.services,
        paths=routes.paths,
        bindings=[asdict(binding) for binding in routes.bindings],
        openapi=routes.openapi,
        rpcs=routes.rpcs,
        reads=routes.reads,
        streamed=routes.streamed,
        access_log=access_log,
        admin_socket=admin_socket,
        heartbeat=heartbeat,
        address_limit=address_limit,
        secrets_dir=secrets_dir,
    )


def run_gateway(settings: GatewaySettings, *, access_log: bool) -> None:
    """Run Envoy until SIGTERM or SIGINT, then wait for its requests under way.

    Raises:
        EmbeddedError: The port is taken, or Envoy exited or hangs.
        CertificateError: A certificate or key is unusable.
    """
    raise_open_files_limit()
    with (
        stop_event() as stopped,
        TemporaryDirectory(prefix="model-registry-gateway-") as folder,
        build_gateway(settings, Path(folder), Path(folder), access_log=access_log) as envoy,
    ):
        liveness = Liveness(envoy.responds)
        with probing([SupervisedChild(envoy, liveness)]):
            # Envoy is not restarted here: the process that started this one restarts it.
            while not stopped.wait(_POLL_SECONDS):
                if (code := envoy.poll()) is not None:
                    raise EmbeddedError(f"Envoy exited with {code}")
                if liveness.is_hung:
                    envoy.kill()
                    raise EmbeddedError("Envoy does not respond")
                envoy.refresh()
        logger.info("draining for up to %s s", settings.shutdown_grace_seconds)


def build_gateway(
    settings: GatewaySettings, config_dir: Path, run_dir: Path, *, access_log: bool = False, log: Path | None = None
) -> EnvoyGateway:
    """Return the gateway, not started. The path of `run_dir` must be short enough for a Unix socket."""
    files = {
        "admin_socket": run_dir / "admin.sock",
        "heartbeat": run_dir / "heartbeat",
        "address_limit": run_dir / "address_limit.json",
        "secrets_dir": run_dir / "secrets",
    }
    config = gateway_config(settings, access_log=access_log, **files)
    return EnvoyGateway(config, settings, config_dir, log=log, **files)
