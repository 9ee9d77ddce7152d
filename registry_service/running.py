"""Runs servers until they are told to stop: one, several workers on one port, or everything on one machine."""

import ctypes
import faulthandler
import logging
import math
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from registry_service import logs
from registry_service.embedded.envoy import EnvoyGateway, render
from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress, running_or_started
from registry_service.embedded.process import EmbeddedError, bound_log, log_tail, open_private, spawn, stop
from registry_service.observability import metrics
from registry_service.observability.exposition import MetricsServer
from registry_service.services.authenticating import Tokens
from registry_service.settings import DatabaseSettings, GatewaySettings, Settings, load
from registry_service.supervisor import (
    PATIENT_FAILED_PROBES,
    PROBE_TIMEOUT_SECONDS,
    Liveness,
    Supervised,
    keep_running,
    supervised,
)
from registry_service.transport.grpc.probe import LivenessProbe
from registry_service.transport.grpc.server import PortTakenError
from registry_service.transport.http_routes import http_routes
from registry_service.wiring import (
    Registry,
    build_server,
    migrate_database,
    open_registry,
    open_tokens,
    warn_if_open,
)

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_ORPHAN_SECONDS = 1.0
# How long a server that hangs may take to write what its threads do.
_ABORT_SECONDS = 2.0
# What a server may take longer for its start than its dependencies, and for its end than its calls.
_START_MARGIN_SECONDS = 60.0
_STOP_MARGIN_SECONDS = 10.0
# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
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

    All threads take from one arena: of several, each keeps what its own threads have
    freed. With 24 clients of all kinds that is 240 rather than 330 MiB at the most,
    and a call takes no more CPU, as threads seldom run at once. To be called before
    there are threads.
    """
    libc = ctypes.CDLL(None)
    for parameter, value in (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _KEPT_BLOCK),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
    ):
        with suppress(AttributeError):  # others than glibc have no mallopt
            libc.mallopt(parameter, value)


def serve(settings: Settings, *, private_socket: Path | None = None) -> None:
    """Runs the gRPC server against a migrated database until SIGTERM or SIGINT, then drains it.

    Args:
        settings: All of them.
        private_socket: Where the supervisor that started us asks whether we live; None without one.

    Raises:
        PortTakenError: Somebody else listens on the port.
        UnavailableError: The artifact store does not answer within STARTUP_TIMEOUT_SECONDS.
    """
    supervisor = os.getppid()
    _take_all_files()
    if private_socket is not None:
        # By SIGABRT the supervisor has a server that hangs tell where.
        faulthandler.enable()
    # In this order: a signal while we wait for the dependencies ends us at once.
    with open_registry(settings) as registry, _exposed(registry, settings), stop_event() as stopped:
        server = build_server(registry, settings, private_socket=private_socket)
        try:
            server.start()
            # Not every system tells us of our supervisor's death.
            while not stopped.wait(_ORPHAN_SECONDS) and (private_socket is None or os.getppid() == supervisor):
                pass
        finally:
            # Whatever hangs: the end comes.
            faulthandler.dump_traceback_later(_stop_seconds(settings), exit=True)
            server.stop()


def _stop_seconds(settings: Settings) -> float:
    """Returns how long a server takes at most from SIGTERM to its end."""
    return settings.shutdown_delay_seconds + settings.shutdown_grace_seconds + _STOP_MARGIN_SECONDS


class ServerProcess:
    """`model-registry serve` as a child process.

    Args:
        name: For messages.
        settings: What it finds in its environment.
        private_socket: Where it is to answer its liveness probe; not there yet.
        options: Of the command.
        env: Its whole environment.
        log: File that its output is appended to; None for our own.
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

    def launch(self) -> None:
        """Start it; it answers within seconds."""
        self._socket.unlink(missing_ok=True)
        with ExitStack() as files:
            output: IO[bytes] | None = None
            if self._log is not None:
                output = files.enter_context(open_private(self._log))
                self._log_offset = output.seek(0, os.SEEK_END)
            # SIGKILL is never late, and never waits for calls: nothing of ours holds the port when we have died.
            self._process = spawn(self._command, death_signal=signal.SIGKILL, env=self._env, output=output)

    def poll(self) -> int | None:
        """Return its exit code once it has ended, else None."""
        return None if self._process is None else self._process.poll()

    def kill(self) -> None:
        """End it at once, after it has written to its log what its threads do."""
        if self._process is not None:
            stop(self._process, (signal.SIGABRT, _ABORT_SECONDS))

    def terminate(self) -> None:
        """Have it drain, and not wait for that."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Have it drain, and return when it has ended."""
        if self._process is not None:
            stop(self._process, (signal.SIGTERM, _stop_seconds(self._settings) + _STOP_MARGIN_SECONDS))
        self.probe.close()

    def reason(self) -> str:
        """Return the error that it ended with, where it is in a log of its own."""
        said = "" if self._log is None else log_tail(self._log, self._log_offset)
        errors = re.findall(r"^Error: (.*)", said, re.DOTALL | re.MULTILINE)
        return str(errors[-1]) if errors else ""


def serve_workers(settings: Settings, workers: int) -> None:
    """Runs several server processes on one port, among which the kernel spreads connections.

    One that ends, or that no longer answers, is started again; none outlives us.

    Raises:
        PortTakenError: Somebody else listens on the port.
    """
    with ExitStack() as stack:
        stopped = stack.enter_context(stop_event())
        stack.enter_context(_reserved(settings.grpc_ip_address, settings.grpc_port))
        metrics_folder = stack.enter_context(_added_up(settings))
        sockets = Path(stack.enter_context(TemporaryDirectory(prefix="model-registry-")))
        env = os.environ | ({} if metrics_folder is None else {metrics.SHARED_FOLDER: str(metrics_folder)})
        children = []
        for number in range(workers):
            name = f"worker {number}"
            server = ServerProcess(name, settings, sockets / str(number), [f"--worker={number}"], env=env)
            server.launch()
            stack.callback(server.stop)
            children.append(
                Supervised(
                    server,
                    _liveness(server, settings, is_migrated=True),
                    replaced=partial(_forget_metrics, metrics_folder, number),
                )
            )
            # Before any is waited for.
            stack.callback(server.terminate)
        with supervised(children):
            keep_running(children, stopped)


def _liveness(server: ServerProcess, settings: Settings, *, is_migrated: bool) -> Liveness:
    # It waits for its dependencies for so long, one after the other. A migration takes as long as it takes.
    seconds = 2 * settings.startup_timeout_seconds + _START_MARGIN_SECONDS
    return Liveness(server.probe, start_seconds=seconds if is_migrated else math.inf, restart_seconds=seconds)


def _forget_metrics(folder: Path | None, worker: int) -> None:
    if folder is not None:
        metrics.forget(folder, worker)


def gateway_config(
    settings: GatewaySettings,
    *,
    access_log: bool = False,
    admin_socket: Path | None = None,
    heartbeat: Path | None = None,
    address_limit: Path | None = None,
    secrets_dir: Path | None = None,
) -> str:
    """Makes Envoy's configuration for our API; see `embedded.envoy.render`."""
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
        open_rpcs=routes.open,
        reads=routes.reads,
        streamed=routes.streamed,
        access_log=access_log,
        admin_socket=admin_socket,
        heartbeat=heartbeat,
        address_limit=address_limit,
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
        liveness = Liveness(envoy.answers)
        with supervised([Supervised(envoy, liveness)]):
            # Whoever started us starts us again.
            while not stopped.wait(_POLL_SECONDS):
                if (code := envoy.poll()) is not None:
                    raise EmbeddedError(f"Envoy ended with {code}")
                if liveness.is_hung:
                    envoy.kill()
                    raise EmbeddedError("Envoy does not answer any more")
                envoy.attend()
        logger.info("draining for up to %s s", settings.shutdown_grace_seconds)


def _envoy(
    settings: GatewaySettings, config_dir: Path, run_dir: Path, *, access_log: bool = False, log: Path | None = None
) -> EnvoyGateway:
    """Makes the gateway; the path of `run_dir` must be short enough for a socket's."""
    files = {
        "admin_socket": run_dir / "admin.sock",
        "heartbeat": run_dir / "heartbeat",
        "address_limit": run_dir / "address_limit.json",
        "secrets_dir": run_dir / "secrets",
    }
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
            place = stack.enter_context(running_or_started(data_dir))
            settings = load(Settings, **_embedded_environment(data_dir, place))
            logs.configure(settings.min_log_level)
        yield settings


def _embedded_environment(data_dir: Path, place: PostgresAddress, **settings: object) -> dict[str, object]:
    """Returns the settings of a server on a data folder that go before those of the environment, by name."""
    return {
        **_database_of(place),
        "psql_data_dir": data_dir / "postgres",
        "artifact_store": "local",
        "artifact_dir": data_dir / "artifacts",
        **settings,
    }


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
        # The second also for the connections of a server before that linger in TIME_WAIT.
        for option in (socket.SO_REUSEPORT, socket.SO_REUSEADDR):
            shared.setsockopt(socket.SOL_SOCKET, option, 1)
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
        settings: What goes before the environment in `settings.Settings`, by name.
        gateway: Where Envoy listens.
        say: Tells the person at the terminal.

    Raises:
        EmbeddedError: Something is missing, taken or broken; the message says what.
    """
    _take_all_files()
    with ExitStack() as stack:
        stopped = stack.enter_context(stop_event())
        started = time.monotonic()
        files = {name: data_dir / f"{name}.log" for name in ("registry", "gateway", "postgres")}
        run_dir = Path(stack.enter_context(TemporaryDirectory(prefix="model-registry-")))
        postgres = EmbeddedPostgres(data_dir)
        stack.callback(postgres.stop)
        place = postgres.prepare()
        environment = _embedded_environment(data_dir, place, **settings)
        server_settings = load(Settings, **environment)
        open_private(files["registry"]).close()
        logs.configure(server_settings.min_log_level, files["registry"])
        warn_if_open(server_settings, gateway.server_ip_address)
        stack.enter_context(_reserved(server_settings.grpc_ip_address, server_settings.grpc_port))
        envoy = _envoy(gateway, data_dir, run_dir, log=files["gateway"])
        server = ServerProcess(
            "the gRPC server",
            server_settings,
            run_dir / "grpc.sock",
            env=os.environ | {name.upper(): str(value) for name, value in environment.items()},
            log=files["registry"],
        )
        # Before Postgres answers, as Python takes longer to load it than that.
        server.launch()
        # Calls under way finish through the gateway, so it ends after the server.
        stack.callback(envoy.stop)
        stack.callback(server.stop)
        postgres.launch()
        postgres.await_answer()
        envoy.start()
        liveness = _liveness(server, server_settings, is_migrated=False)
        children = [
            Supervised(postgres, Liveness(postgres.answers, failed_probes=PATIENT_FAILED_PROBES)),
            Supervised(server, liveness),
            Supervised(envoy, Liveness(envoy.answers)),
        ]
        stack.enter_context(supervised(children))
        while not liveness.await_answer(_POLL_SECONDS) and not stopped.is_set():
            if (code := server.poll()) is not None:
                said = server.reason() or f"see {files['registry']}"
                raise EmbeddedError(f"the gRPC server ended with {code} at its start: {said}")
        if not stopped.is_set():
            say(_banner(data_dir, server_settings, gateway, time.monotonic() - started))

        def meanwhile() -> None:
            envoy.attend()
            for file in files.values():
                bound_log(file)

        keep_running(children, stopped, say=say, meanwhile=meanwhile)
        say("Stopping …")
    say("Stopped.")


def _banner(data_dir: Path, settings: Settings, gateway: GatewaySettings, seconds: float) -> str:
    scheme = "https" if gateway.enable_https_mode else "http"
    rest = f"{scheme}://{gateway.server_ip_address}:{gateway.server_port}"
    banner = (
        f"Model Registry is ready after {seconds:.1f} s. Stop it with Ctrl-C.\n"
        f"  REST       {rest}/v1/models   ({rest}/ready tells how it is)\n"
        f"  gRPC       {settings.grpc_ip_address}:{settings.grpc_port}   (reflection is on)\n"
        f"  Data       {data_dir}   (database, artifacts, logs)"
    )
    free = shutil.disk_usage(data_dir).free
    if free < settings.disk_reserve_bytes:
        banner += (
            f"\nNothing can be written: {free // 2**20} MiB are free on the disk of {data_dir}, and"
            f" {settings.disk_reserve_bytes // 2**20} MiB stay free (DISK_RESERVE_BYTES)."
        )
    return banner
