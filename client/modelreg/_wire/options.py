"""How a registry is reached: the arguments of `Registry`, completed from the environment and the profile."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modelreg._version import __version__
from modelreg.errors import InvalidArgument
from modelreg.urls import Endpoint

DEFAULT_TIMEOUT = 30.0
DEFAULT_STALL_TIMEOUT = 60.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How calls are made."""

    endpoint: Endpoint
    timeout: float = DEFAULT_TIMEOUT
    """Seconds that one unary call may take, repetitions included."""
    stall_timeout: float = DEFAULT_STALL_TIMEOUT
    """Seconds without progress after which a transfer connects anew, where it was."""
    ca_file: str | None = None
    """PEM file with the authorities to trust. None: `SSL_CERT_FILE`, or those that come with grpc."""
    client_certificate: str | None = None
    """PEM file with the client's certificate chain."""
    client_key: str | None = None
    """PEM file with the private key of the client's certificate."""
    insecure: bool = False
    """Whether a token may be sent without TLS to another machine."""

    def tls_files(self, environment: Mapping[str, str] = os.environ) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the contents of the CA file, the private key and the certificate chain, each as far as given.

        Raises:
            InvalidArgument: A file cannot be read or used, or one of certificate and key is missing.
        """
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidArgument("A client certificate needs both client_certificate and client_key.")
        name, ca_file = (
            ("ca_file", self.ca_file) if self.ca_file else ("SSL_CERT_FILE", environment.get("SSL_CERT_FILE"))
        )
        ca = _read(name, ca_file)
        key = _read("client_key", self.client_key)
        certificate = _read("client_certificate", self.client_certificate)
        # grpc would fail at each connection, and say nothing of the files.
        if ca is not None:
            _check_authorities(f"{name}: {ca_file}", ca)
        if self.client_certificate is not None and self.client_key is not None:
            _check_pair(self.client_certificate, self.client_key)
        return ca, key, certificate

    def proxy(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """Return the URL of the HTTP proxy to use (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in either case), or None.

        Raises:
            InvalidArgument: The proxy is of another kind, which grpc would leave out without a word.
        """
        if self.endpoint.is_loopback:
            return None
        kind = "https_proxy" if self.endpoint.is_encrypted else "http_proxy"
        proxy = _variable(kind, environment).strip()
        if not proxy or _is_exempt(self.endpoint, _variable("no_proxy", environment)):
            return None
        if "://" not in proxy:
            proxy = f"http://{proxy}"
        if not proxy.lower().startswith("http://"):
            scheme = proxy.partition("://")[0]
            raise InvalidArgument(
                f"{kind.upper()}: gRPC needs a proxy of http://, not of {scheme}://. If the registry can be reached "
                f"without one, set NO_PROXY={self.endpoint.host}."
            )
        return proxy

    def channel_options(self) -> list[tuple[str, str | int]]:
        """Return the options of a gRPC channel."""
        options: list[tuple[str, str | int]] = [
            ("grpc.primary_user_agent", f"modelreg/{__version__}"),
            # A connection of its own per channel, so that none is shared with a forked parent or another client.
            ("grpc.use_local_subchannel_pool", 1),
            # The client repeats calls itself: it heeds RetryInfo, and uses one idempotency key.
            ("grpc.enable_retries", 0),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 200),
            # The time that one attempt to connect may take, with TLS: over a slow network, that is seconds.
            ("grpc.min_reconnect_backoff_ms", 10_000),
            ("grpc.max_reconnect_backoff_ms", 4_000),
            ("grpc.max_receive_message_length", 64 * 1024 * 1024),
            ("grpc.max_send_message_length", -1),
        ]
        if proxy := self.proxy():
            options.append(("grpc.http_proxy", proxy))
        else:
            # grpc would read the variables itself: in lower case only, and without sparing loopback.
            options.append(("grpc.enable_http_proxy", 0))
        return options


def _variable(name: str, environment: Mapping[str, str]) -> str:
    """Return a variable, whose name may be in lower or upper case; lower case wins, as with curl."""
    return environment.get(name) or environment.get(name.upper()) or ""


def _is_exempt(endpoint: Endpoint, no_proxy: str) -> bool:
    """Tell whether NO_PROXY names an endpoint: by host, by domain, by host and port, by network, or with `*`."""
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    try:
        address = ipaddress.ip_address(endpoint.host)
    except ValueError:
        address = None
    for entry in (part.strip().lower() for part in no_proxy.split(",")):
        if entry == "*" or entry in (endpoint.target, endpoint.host):
            return True
        domain = entry.removeprefix("*").removeprefix(".")
        if not domain:
            continue
        if address is None:
            if f".{endpoint.host}".endswith(f".{domain}") or f".{endpoint.target}".endswith(f".{domain}"):
                return True
        else:
            with suppress(ValueError):
                if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                    return True
    return False


def _check_authorities(name: str, pem: bytes) -> None:
    import ssl  # noqa: PLC0415 - only with TLS

    try:
        # ssl takes ASCII only. What else may stand in a PEM file is a comment.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise InvalidArgument(f"{name} is not a PEM file with certificates.") from None


def _check_pair(certificate: str, key: str) -> None:
    import ssl  # noqa: PLC0415 - only with TLS

    def password() -> str:
        raise InvalidArgument(
            f"client_key: {key} is encrypted, which gRPC cannot read. Decrypt it: openssl pkey -in {key}"
        )

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password)
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidArgument):
            raise
        reason = getattr(error, "reason", None) or error
        raise InvalidArgument(
            f"client_certificate and client_key: {certificate} and {key} are not a certificate chain and its private "
            f"key, in PEM ({reason})."
        ) from None


def _read(name: str, path: str | None) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{name}: {path} cannot be read: {error.strerror}.") from None
