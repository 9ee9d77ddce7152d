"""Runs servers until they are told to stop: one, several workers on one port, or everything on one machine."""

import ctypes
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from registry_service import logs
from registry_service.bootstrap import (
    Registry,
    build_server,
    migrate_database,
    open_registry,
    open_tokens,
    warn_if_open,
)
from registry_service.config import DatabaseSettings, GatewaySettings, Settings, load
from registry_service.embedded.envoy import EnvoyGateway, render
from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress, running_or_started
from registry_service.embedded.process import EmbeddedError, spawn
from registry_service.observability import metrics
from registry_service.observability.exposition import MetricsServer
from registry_service.services.authenticating import Tokens
from registry_service.transport.grpc.server import PortTakenError
from registry_service.transport.http_routes import http_routes

logger = logging.getLogger(__name__)

_RESTART_SECONDS = 1.0
_POLL_SECONDS = 0.2
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Larger blocks than a message of a transfer (a tail that is joined, a unary message) would be too much to keep.
_KEPT_BLOCK, _KEPT_BYTES = 4 * 1024 * 1024, 16 * 1024 * 1024


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


def _take_all_files() -> None:
    """Lets us and what we start open as many files as the system permits: each connection takes one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # some systems permit less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def keep_freed_memory() -> None:
    """Has malloc keep what was freed for what comes next: the megabytes of a transfer are asked for by the thousand.

    By default glibc gives a block of that size back to the system with its end,
    and to have its pages again, each of them zeroed, takes longer than to fill them.
    """
    libc = ctypes.CDLL(None)
    for parameter, value in ((_M_MMAP_THRESHOLD, _KEPT_BLOCK), (_M_TRIM_THRESHOLD, _KEPT_BYTES)):
        with suppress(AttributeError):  # others than glibc have no mallopt
            libc.mallopt(parameter, value)


def serve(settings: Settings, *, reuse_port: bool = False) -> None:
    """Runs the gRPC server against a migrated database until SIGTERM or SIGINT, then drains it.

    Raises:
        PortTakenError: Somebody else listens on the port.
        UnavailableError: The artifact store does not answer within STARTUP_TIMEOUT_SECONDS.
    """
    _take_all_files()
    keep_freed_memory()
    # In this order: a signal while we wait for the dependencies ends us at once.
    with open_registry(settings) as registry, _exposed(registry, settings), stop_event() as stopped:
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
    with (
        stop_event() as stopped,
        _reserved(settings.grpc_ip_address, settings.grpc_port),
        _added_up(settings) as metrics_folder,
    ):

        def start(number: int) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "registry_service", "serve", f"--worker={number}"]
            env = None if metrics_folder is None else os.environ | {metrics.SHARED_FOLDER: str(metrics_folder)}
            return spawn(command, death_signal=signal.SIGTERM, env=env)

        children = [start(number) for number in range(workers)]
        try:
            while not stopped.wait(_RESTART_SECONDS):
                for i, child in enumerate(children):
                    if child.poll() is not None:
                        logger.error("worker %d ended with %d; starting another", child.pid, child.returncode)
                        if metrics_folder is not None:
                            metrics.forget(metrics_folder, i)
                        children[i] = start(i)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait()


def gateway_config(
    settings: GatewaySettings,
    *,
    access_log: bool = False,
    admin_socket: Path | None = None,
    secrets_dir: Path | None = None,
) -> str:
    """Makes Envoy's configuration for our API; see `embedded.envoy.render`."""
    routes = http_routes()
    return render(
        settings,
        descriptor_set=routes.descriptor_set,
        path_variables=routes.path_variables,
        json_messages=routes.bodies.messages,
        json_methods=routes.bodies.methods,
        services=routes.services,
        paths=routes.paths,
        openapi=routes.openapi,
        reads=routes.reads,
        streamed=routes.streamed,
        access_log=access_log,
        admin_socket=admin_socket,
        secrets_dir=secrets_dir,
    )


def gateway(settings: GatewaySettings, *, access_log: bool) -> None:
    """Runs Envoy until SIGTERM or SIGINT, then lets the requests that it has finish.

    Raises:
        EmbeddedError: The port is taken, or Envoy failed.
        CertificateError: Files of certificates are not what they should be.
    """
    _take_all_files()
    with (
        stop_event() as stopped,
        TemporaryDirectory(prefix="model-registry-gateway-") as folder,
        _envoy(settings, Path(folder), Path(folder), access_log=access_log) as envoy,
    ):
        while not stopped.wait(_POLL_SECONDS):
            if (code := envoy.poll()) is not None:
                raise EmbeddedError(f"Envoy ended with {code}")
            envoy.refresh_certificates()
        logger.info("draining for up to %s s", settings.shutdown_grace_seconds)


def _envoy(
    settings: GatewaySettings, config_dir: Path, run_dir: Path, *, access_log: bool = False, log: Path | None = None
) -> EnvoyGateway:
    """Makes the gateway; the path of `run_dir` must be short enough for a socket's."""
    files = {"admin_socket": run_dir / "admin.sock", "secrets_dir": run_dir / "secrets"}
    config = gateway_config(settings, access_log=access_log, **files)
    return EnvoyGateway(config, settings, config_dir, log=log, **files)


@contextmanager
def opened_settings(data_dir: Path | None, *, is_new: bool = False) -> Iterator[Settings]:
    """Gives the settings of a registry to work on: the environment's, or those of an `up` on this folder.

    Whether that is running or not: its Postgres is started for the moment where
    it isn't.

    Args:
        data_dir: The folder; None: the environment's settings.
        is_new: Whether the folder may be one that `up` has not seen yet.

    Raises:
        EmbeddedError: There is no such data, or it cannot be started.
    """
    with ExitStack() as stack:
        if data_dir is None:
            settings = load(Settings)
            logs.configure(settings.min_log_level)
        else:
            data_dir = data_dir.expanduser().resolve()
            if not is_new and not (data_dir / "postgres").is_dir():
                raise EmbeddedError(f"{data_dir}: there is no data of `model-registry up` here")
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            settings = _embedded_settings(data_dir, stack.enter_context(running_or_started(data_dir)))
            logs.configure(settings.min_log_level)
        yield settings


def _embedded_settings(data_dir: Path, place: PostgresAddress, **settings: object) -> Settings:
    return load(
        Settings,
        **_database_of(place),
        artifact_store="local",
        artifact_dir=data_dir / "artifacts",
        **settings,
    )


@contextmanager
def _exposed(registry: Registry, settings: Settings) -> Iterator[None]:
    """Answers METRICS_PORT, unless whoever started us does so for all workers."""
    made = registry.telemetry.metrics
    if made is None or settings.metrics_port is None or metrics.is_shared():
        yield
        return
    with MetricsServer(made.registry, settings.metrics_ip_address, settings.metrics_port):
        yield


@contextmanager
def _added_up(settings: Settings) -> Iterator[Path | None]:
    """Answers METRICS_PORT with the sums over all workers; gives the folder where these write, None without a port."""
    if settings.metrics_port is None:
        yield None
        return
    with TemporaryDirectory(prefix="model-registry-metrics-") as folder:
        registry = metrics.added_up(Path(folder))
        with MetricsServer(registry, settings.metrics_ip_address, settings.metrics_port):
            yield Path(folder)


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


@contextmanager
def tokens_of(data_dir: Path | None) -> Iterator[Tokens]:
    """Gives the tokens of the product in a data folder, running or not; None: of the database of the settings.

    Raises:
        EmbeddedError: The folder's Postgres can neither be reached nor started.
        UnavailableError: Postgres does not answer.
    """
    with ExitStack() as stack:
        if data_dir is None:
            settings = load(DatabaseSettings)
        else:
            settings = load(DatabaseSettings, **_database_of(stack.enter_context(running_or_started(data_dir))))
        migrate_database(settings)
        yield stack.enter_context(open_tokens(settings))


def _database_of(place: PostgresAddress) -> dict[str, object]:
    """Returns where an embedded Postgres is, as settings."""
    return {
        "psql_hostname": str(place.socket_dir),
        "psql_port": place.port,
        "psql_database": place.database,
        "mr_user_name": place.user,
        "psql_password": "",
    }


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
    _take_all_files()
    keep_freed_memory()
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stopped = stack.enter_context(stop_event())
        started = time.monotonic()
        postgres = EmbeddedPostgres(data_dir)
        place = stack.enter_context(postgres)
        server_settings = _embedded_settings(data_dir, place, **settings)
        logs.configure(server_settings.min_log_level, data_dir / "registry.log")
        warn_if_open(server_settings, gateway.server_ip_address)
        migrate_database(server_settings)
        registry = stack.enter_context(open_registry(server_settings))
        stack.enter_context(_exposed(registry, server_settings))
        server = build_server(registry, server_settings)
        try:
            server.start()
        except PortTakenError as error:
            raise EmbeddedError(str(error)) from error
        stop_server = stack.enter_context(ExitStack())
        stop_server.callback(server.stop)
        run_dir = Path(stack.enter_context(TemporaryDirectory(prefix="model-registry-gateway-")))
        envoy = _envoy(gateway, data_dir, run_dir, log=data_dir / "gateway.log")
        stack.enter_context(envoy)
        # Calls under way finish through the gateway, so it goes last.
        stack.push(stop_server.pop_all())
        say(_banner(data_dir, server_settings, gateway, time.monotonic() - started))
        while not stopped.wait(_POLL_SECONDS):
            for name, child in (("PostgreSQL", postgres), ("Envoy", envoy)):
                if (code := child.poll()) is not None:
                    raise EmbeddedError(f"{name} ended with {code}; see the logs in {data_dir}")
            envoy.refresh_certificates()
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
