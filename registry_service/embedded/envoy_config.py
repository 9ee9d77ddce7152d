"""Render Envoy's configuration from `gateway/envoy.yaml.j2`."""

import base64
import contextlib
import hashlib
import ipaddress
import json
import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import jinja2

from registry_service.domain.errors import InvalidCredentialsError, UnauthenticatedError
from registry_service.embedded.process import EmbeddedError, NotInstalledError, find_package
from registry_service.embedded.tls_secrets import TlsSecrets
from registry_service.methods import GATEWAY_IDLE_SECONDS, Kind, method_of
from registry_service.settings import CIPHER_SUITES, GatewaySettings

# The server sends the same challenge (RFC 6750).
CHALLENGE = 'Bearer realm="model-registry"'
# File descriptors for connections to servers, listeners, logs and certificates.
_RESERVED_FILES = 200
_REFLECTION = "/grpc.reflection."
_HEALTH = "/grpc.health.v1."
_GRPC_PREFIXES = ("/modelregistry.", _HEALTH, _REFLECTION)
# HTTP paths of probes, which arrive every second.
_UNTRACED_PATHS = ("/health", "/ready")

# The responses that Envoy generates itself. Envoy's own texts would name hosts and causes. Each row has the HTTP status
# and its text. For paths under /v1, it has the gRPC code, the reason (docs/reference/errors.md), and the retry delay
# in seconds, None where a retry does not help. The guard alone, and not Envoy, judges credentials.
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
    """Return the folder of the gateway's files: in the installed package, or at the repository's root."""
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
    reads: Sequence[str],
    streamed: Sequence[str],
    access_log: bool = False,
    admin_socket: Path | None = None,
    heartbeat: Path | None = None,
    address_limit: Path | None = None,
    secrets_dir: Path | None = None,
) -> str:
    """Return Envoy's configuration: one YAML document, which names files of this installation.

    Args:
        settings: The gateway's settings.
        descriptor_set: File with the API as a serialized google.protobuf.FileDescriptorSet.
        services: Full names of the gRPC services with JSON routes.
        paths: Regular expressions of paths with their HTTP methods, in the order of precedence
            (`transport.http_routes`).
        json_messages: Fields of the messages of JSON bodies (`transport.http_routes.JsonBodies`).
        json_methods: HTTP methods with the messages of their bodies, by the path's regular expression (likewise).
        bindings: The RPC of each HTTP method of each path: the fields of `transport.http_routes.Binding`.
        openapi: File of the OpenAPI document.
        rpcs: Paths of all gRPC methods.
        reads: Paths of the gRPC methods that change nothing, so that Envoy may retry them.
        streamed: Paths of the gRPC methods whose requests are streams, so that Envoy must not buffer them.
        access_log: Whether to write a JSON line to stdout for each request.
        admin_socket: Unix socket for Envoy's admin interface; None for no admin interface.
        heartbeat: File of `EnvoyGateway.refresh`'s heartbeat; None for no heartbeat.
        address_limit: File of `AddressLimit`; None for no such limit.
        secrets_dir: Folder of `TlsSecrets`, for certificates that are renewed; None to read certificates only once.

    Raises:
        EmbeddedError: SERVER_IP_ADDRESS or METRICS_IP_ADDRESS is not an IP address.
    """
    address = _ip_address("SERVER_IP_ADDRESS", settings.server_ip_address)
    upstreams = [_host_and_port(upstream) for upstream in settings.grpc_upstreams]
    upstreams_are_addresses = all(_is_address(host) for host, _ in upstreams)
    folder = gateway_dir()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=jinja2.select_autoescape(),  # for HTML; the YAML template writes its values as JSON
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("envoy.yaml.j2").render(
        address=address,
        port=settings.server_port,
        upstreams=upstreams,
        upstreams_are_addresses=upstreams_are_addresses,
        # A host name may resolve to several addresses.
        has_several_servers=len(upstreams) > 1 or not upstreams_are_addresses,
        descriptor_set=str(descriptor_set),
        services=list(services),
        # They have methods of their own, and a slash too many is taken off as elsewhere.
        paths=[
            *(
                (path, methods, [_http_route(b, streamed) for b in bindings if b["path"] == path])
                for path, methods in paths
            ),
            # Envoy answers these itself; here they get their HTTP methods and the redirect of a trailing slash.
            *((re.escape(path), ("GET", "HEAD"), []) for path in ("/live", "/docs", "/redoc", "/openapi.json")),
        ],
        grpc_routes=list(_grpc_routes(rpcs, reads, streamed)),
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
        untraced=_UNTRACED_PATHS,
        tls=_tls(settings, secrets_dir),
        pages=_pages(folder, openapi),
    )


def _ip_address(name: str, value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        raise EmbeddedError(f"{name}: {value!r} is not an IP address") from None


def _metrics(settings: GatewaySettings) -> dict[str, object] | None:
    """Return where Envoy serves its metrics; None if nowhere."""
    if settings.gateway_metrics_port is None:
        return None
    return {
        "address": _ip_address("METRICS_IP_ADDRESS", settings.metrics_ip_address),
        "port": settings.gateway_metrics_port,
    }


def _tracing(settings: GatewaySettings) -> dict[str, object] | None:
    """Return the template's values for traces, from the OTEL_* variables; None without traces."""
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
        # Without a sampler, Envoy follows the decision of the caller's trace, and samples a percentage of the others.
        "sampler": None if sampler.startswith("parentbased_") else _sampler(percent),
    }


def _sampler(percent: float) -> dict[str, object]:
    """Return a sampler that ignores the decision of the caller's trace."""
    prefix = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
    if percent == 100:
        return {"@type": f"{prefix}.AlwaysOnSamplerConfig"}
    fraction = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    return {"@type": f"{prefix}.TraceIdRatioBasedSamplerConfig", "sampling_percentage": fraction}


def _http_route(binding: Mapping[str, Any], streamed: Sequence[str]) -> Mapping[str, Any]:
    """Return the route of one HTTP method of a path."""
    return {
        "verb": binding["verb"],
        "is_streamed": binding["rpc"] in streamed,
        "metadata": {
            "api": "typed" if binding["path"].startswith("/v1/") else "compat",
            "open": method_of(binding["rpc"]).is_open,
            "is_buffered": binding["rpc"] not in streamed,
            "takes_json": binding["takes_json"],
        },
    }


def _grpc_routes(rpcs: Sequence[str], reads: Sequence[str], streamed: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Yield the routes of gRPC, in the order of precedence.

    Each has its match, its idle timeout in seconds, and whether: it only reads, it
    is hedged (sent to a second server if the first is slow), its requests are
    streams, it needs no credentials, and it is left out of traces.
    """
    # One route for each RPC: a regular expression of all paths would exceed Envoy's limit.
    for path in rpcs:
        method = method_of(path)
        yield {
            "match": {"path": path},
            "idle_seconds": method.gateway_idle_seconds,
            "is_read": path in reads,
            # Silence does not mean a slow server for a watch without changes, or while a whole artifact is read.
            "is_hedged": path in reads
            and method.kind is not Kind.WATCH
            and method.gateway_idle_seconds == GATEWAY_IDLE_SECONDS,
            "is_streamed": path in streamed,
            "is_open": method.is_open,
            "is_untraced": not method.is_traced,
        }
    for prefix in _GRPC_PREFIXES:
        yield {
            "match": {"prefix": prefix},
            "idle_seconds": GATEWAY_IDLE_SECONDS,
            "is_read": False,
            "is_hedged": False,
            "is_streamed": prefix == _REFLECTION,
            # Under the other prefixes, a path that is not in `rpcs` is UNIMPLEMENTED, with or without credentials.
            "is_open": prefix != _REFLECTION,
            "is_untraced": prefix == _HEALTH,
        }


def _guard_values(settings: GatewaySettings) -> str:
    """Return the Lua declarations that `guard.lua` needs."""
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
    """Return the limit of client connections, below which Envoy has file descriptors enough for its upstreams."""
    # The hard limit, to which the supervisor raises the soft limit before it starts Envoy.
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return settings.gateway_max_connections
    return max(1, min(settings.gateway_max_connections, files - _RESERVED_FILES))


def _hosts(settings: GatewaySettings) -> dict[str, bool] | None:
    """Return the names of ALLOWED_HOSTS; None if `guard.lua` applies its default rule."""
    # DNS rebinding is harmless where a token is needed: a web page of another origin has none to send.
    names = settings.allowed_hosts or (("*",) if settings.auth_mode != "none" else None)
    return names and dict.fromkeys(names, True)


def _lua(value: object) -> str:
    """Return a value as a Lua literal; strings must be ASCII, for which JSON and Lua have the same escapes."""
    if value is None:
        return "nil"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"[{_lua(key)}] = {_lua(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)


def _pages(folder: Path, openapi: Path) -> list[dict[str, str | None]]:
    """Return the OpenAPI document and the pages that show it; without `fastapi-offline` the document alone."""
    pages = [("/openapi.json", openapi, "application/json")]
    with contextlib.suppress(NotInstalledError):
        # Of this package, only the copies of Swagger UI and Redoc are used.
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
    """Return the Content-Security-Policy of an HTML page: inline scripts by hash, else this origin; None otherwise."""
    if page.suffix != ".html":
        return None
    scripts = re.findall(r"<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src 'self'", *(f"'sha256-{digest}'" for digest in hashes))),
            # Swagger UI and Redoc set styles from scripts.
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
    """Return the template's values for TLS; None without TLS.

    Raises:
        EmbeddedError: SERVER_CERT is not a certificate.
    """
    if not settings.enable_https_mode:
        return None
    secrets = TlsSecrets(settings, folder)
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
