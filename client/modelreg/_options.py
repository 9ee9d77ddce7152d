"""How a registry is reached: the arguments of `Registry`, completed from the environment and the profile."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Mapping
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
    """PEM file with the authorities to trust. None: `MODELREG_CA_FILE`, `SSL_CERT_FILE`, or those of grpc."""
    client_certificate: str | None = None
    """PEM file with the client's certificate chain."""
    client_key: str | None = None
    """PEM file with the private key of the client's certificate."""
    insecure: bool = False
    """Whether a token may be sent without TLS to another machine."""

    def tls_files(self, environment: Mapping[str, str] = os.environ) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Return the contents of the CA file, the private key and the certificate chain, each as far as given.

        Raises:
            InvalidArgument: A file cannot be read, or one of certificate and key is missing.
        """
        if (self.client_certificate is None) != (self.client_key is None):
            raise InvalidArgument("A client certificate needs both client_certificate and client_key.")
        ca_file = self.ca_file or environment.get("MODELREG_CA_FILE") or environment.get("SSL_CERT_FILE")
        return (
            _read("ca_file", ca_file),
            _read("client_key", self.client_key),
            _read("client_certificate", self.client_certificate),
        )

    def proxy(self) -> str | None:
        """Return the URL of the HTTP proxy to use (HTTP_PROXY, HTTPS_PROXY, NO_PROXY, in either case), or None."""
        if self.endpoint.is_loopback:
            return None
        proxies = urllib.request.getproxies_environment()
        if urllib.request.proxy_bypass_environment(self.endpoint.host, proxies):  # type: ignore[attr-defined]
            return None
        return proxies.get("https" if self.endpoint.is_encrypted else "http")

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
            ("grpc.min_reconnect_backoff_ms", 200),
            ("grpc.max_reconnect_backoff_ms", 4_000),
            ("grpc.max_receive_message_length", 64 * 1024 * 1024),
            ("grpc.max_send_message_length", -1),
            # grpc reads the variables in lower case only, and does not spare loopback.
            ("grpc.enable_http_proxy", 0),
        ]
        if proxy := self.proxy():
            options += [("grpc.enable_http_proxy", 1), ("grpc.http_proxy", proxy)]
        return options


def _read(name: str, path: str | None) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{name}: {path} cannot be read: {error.strerror}.") from None
