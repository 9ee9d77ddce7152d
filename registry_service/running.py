"""Runs servers until they are told to stop: one, several workers on one port, or everything on one machine."""

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from registry_service import logs
from registry_service.bootstrap import build_server, migrate_database, open_registry
from registry_service.config import GatewaySettings, Settings, load
from registry_service.embedded.envoy import EnvoyGateway, render
from registry_service.embedded.postgres import EmbeddedPostgres
from registry_service.embedded.process import EmbeddedError, spawn
from registry_service.transport.grpc.server import PortTakenError
from registry_service.transport.http_routes import http_routes

logger = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.2


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """Gives an event that SIGTERM and SIGINT set, instead of what they do otherwise."""
    stopped = threading.Event()
    previous = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def serve(settings: Settings, *, reuse_port: bool = False) -> None:
    """Runs the gRPC server against a migrated database until SIGTERM or SIGINT, then drains it.

    Raises:
        PortTakenError: Somebody else listens on the port.
        UnavailableError: The artifact store does not answer within STARTUP_TIMEOUT_SECONDS.
    """
    # In this order: a signal while we wait for the dependencies ends us at once.
    with open_registry(settings) as registry, stop_event() as stopped:
        server = build_server(registry, settings, reuse_port=reuse_port)
        try:
            server.start()
            while not stopped.wait(3600):
                pass
        finally:
            server.stop()


def serve_workers(settings: Settings, workers: int) -> None:
    """Runs several server processes on one port, among which the kernel spreads connections.

    One that dies is started again; none outlives us.

    Raises:
        PortTakenError: Somebody else listens on the port.
    """
    with stop_event() as stopped, _reserved(settings.grpc_ip_address, settings.grpc_port):
        command = [sys.executable, "-m", "registry_service", "serve", "--worker"]
        children = [spawn(command, death_signal=signal.SIGTERM) for _ in range(workers)]
        try:
            while not stopped.wait(_RESTART_SECONDS):
                for i, child in enumerate(children):
                    if child.poll() is not None:
                        logger.error("worker %d ended with %d; starting another", child.pid, child.returncode)
                        children[i] = spawn(command, death_signal=signal.SIGTERM)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait()


@contextmanager
def _reserved(address: str, port: int) -> Iterator[None]:
    """Keeps others off a port that our workers share: without it theirs would get a part of our connections."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            plain.bind((address, port))
        except OSError as error:
            raise PortTakenError(f"cannot listen on {address}:{port}: {error.strerror}") from error
    with socket.socket(family) as shared:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((address, port))
        yield


def up(data_dir: Path, settings: dict[str, object], gateway: GatewaySettings, say: Callable[[str], None]) -> None:
    """Runs Postgres, the gRPC server on a local artifact folder, and Envoy, until SIGTERM or SIGINT.

    Args:
        data_dir: Holds everything: the cluster, the artifacts, the logs.
        settings: What goes before the environment in `config.Settings`, by name.
        gateway: Where Envoy listens.
        say: Tells the person at the terminal.

    Raises:
        EmbeddedError: Something is missing, taken or broken; the message says what.
    """
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stopped = stack.enter_context(stop_event())
        started = time.monotonic()
        postgres = EmbeddedPostgres(data_dir)
        place = stack.enter_context(postgres)
        server_settings = load(
            Settings,
            psql_hostname=str(place.socket_dir),
            psql_port=place.port,
            psql_database=place.database,
            mr_user_name=place.user,
            psql_password="",
            artifact_store="local",
            artifact_dir=data_dir / "artifacts",
            **settings,
        )
        logs.configure(server_settings.min_log_level, data_dir / "registry.log")
        migrate_database(server_settings)
        server = build_server(stack.enter_context(open_registry(server_settings)), server_settings)
        try:
            server.start()
        except PortTakenError as error:
            raise EmbeddedError(str(error)) from error
        stop_server = stack.enter_context(ExitStack())
        stop_server.callback(server.stop)
        routes = http_routes()
        config = render(
            gateway,
            descriptor_set=routes.descriptor_set,
            path_variables=routes.path_variables,
            services=routes.services,
            paths=routes.paths,
            openapi=routes.openapi,
            reads=routes.reads,
        )
        envoy = EnvoyGateway(config, gateway, data_dir, log=data_dir / "gateway.log")
        stack.enter_context(envoy)
        # Calls under way finish through the gateway, so it goes last.
        stack.push(stop_server.pop_all())
        say(_banner(data_dir, server_settings, gateway, time.monotonic() - started))
        while not stopped.wait(_POLL_SECONDS):
            for name, child in (("PostgreSQL", postgres), ("Envoy", envoy)):
                if (code := child.poll()) is not None:
                    raise EmbeddedError(f"{name} ended with {code}; see the logs in {data_dir}")
        say("Stopping …")
    say("Stopped.")


def _banner(data_dir: Path, settings: Settings, gateway: GatewaySettings, seconds: float) -> str:
    scheme = "https" if gateway.enable_https_mode else "http"
    rest = f"{scheme}://{gateway.server_ip_address}:{gateway.server_port}"
    return (
        f"Model Registry is ready after {seconds:.1f} s. Stop it with Ctrl-C.\n"
        f"  REST       {rest}/v1/models   ({rest}/ready tells how it is)\n"
        f"  gRPC       {settings.grpc_ip_address}:{settings.grpc_port}   (reflection is on)\n"
        f"  Data       {data_dir}   (database, artifacts, logs)"
    )
