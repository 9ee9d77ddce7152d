"""URLs of registries."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelreg.errors import InvalidArgument

DEFAULT_URL = "grpc://127.0.0.1:50051"
"""Where a registry that was started with `make run` or `model-registry up` answers."""

_DEFAULT_PORTS = {"grpc": 50051, "grpcs": 50051, "http": 80, "https": 443}


@dataclass(frozen=True)
class Endpoint:
    """Where a registry answers."""

    scheme: str
    """`grpc` or `grpcs` (with TLS) for the server, `http` or `https` for its gateway, which passes gRPC on."""
    host: str
    port: int

    @property
    def is_encrypted(self) -> bool:
        """Whether connections use TLS."""
        return self.scheme in ("grpcs", "https")

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine."""
        return is_loopback(self.host)

    @property
    def target(self) -> str:
        """The target of a gRPC channel."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL, the same for all spellings."""
        return f"{self.scheme}://{self.target}"


def parse_url(text: str) -> Endpoint:
    """Parse the URL of a registry.

    Args:
        text: `grpc://host:port`, `grpcs://…` (TLS), `http://…` or `https://…` (the gateway), or `host:port`, which is
            `grpc://` on loopback and `grpcs://` elsewhere. Default ports: 50051 for gRPC, 80 and 443 for HTTP.

    Raises:
        InvalidArgument: The text is no such URL, for example because it has a path or a user name.

    >>> parse_url("registry.lan").url
    'grpcs://registry.lan:50051'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"{text!r} is not the URL of a registry: it is not valid Unicode.") from None
    # Before anything else, because the other messages show the text.
    if "@" in text:
        raise InvalidArgument("The URL must not contain credentials. Pass the token as `token` or in MODELREG_TOKEN.")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    elif scheme.lower() not in _DEFAULT_PORTS:
        raise InvalidArgument(f"{text!r}: the URL must begin with grpc://, grpcs://, http:// or https://.")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidArgument(f"{text!r} is not the URL of a registry: {error}.") from None
    if not host or any(character.isspace() for character in text):
        raise InvalidArgument(f"{text!r} is not the URL of a registry. Example: {DEFAULT_URL}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidArgument(f"{text!r}: the URL of a registry has no path. Example: {DEFAULT_URL}")
    scheme = scheme.lower() or ("grpc" if is_loopback(host) else "grpcs")
    return Endpoint(scheme, host, port or _DEFAULT_PORTS[scheme])


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, without asking the name service."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
