"""Limit the connections that one address may have to the gateway.

Envoy can only limit all connections together. Therefore Envoy's supervisor counts
the connections of each address in the kernel's list, and writes the addresses over
the limit to a file. A filter of Envoy then closes their new connections at the
first byte. Their existing connections end by Envoy's idle timeout, which is
shorter when connections are scarce.
"""

import ipaddress
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from registry_service.settings import GatewaySettings

logger = logging.getLogger(__name__)

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED = "01"
_MAPPED = "0000000000000000FFFF0000"
# Hexadecimal digits of 64 bits: a client with one IPv6 address usually has its whole /64 network.
_NETWORK_DIGITS = 16
_RBAC = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"


class AddressLimit:
    """Closes new connections of addresses with more than GATEWAY_CONNECTIONS_PER_ADDRESS connections.

    Does nothing without that setting, and on systems without /proc.

    Args:
        settings: The gateway's settings.
        file: File from which Envoy reads the addresses, in an existing folder.
    """

    def __init__(self, settings: GatewaySettings, file: Path) -> None:
        self._limit = settings.gateway_connections_per_address
        self._port = f"{settings.server_port:04X}"
        self._file = file
        self._over_limit: frozenset[str] = frozenset()

    def write(self) -> None:
        """Write the file; call it before Envoy starts."""
        if self._limit is not None:
            self._write(self._over_limit)

    def _write(self, over_limit: frozenset[str]) -> None:
        principals = [{"direct_remote_ip": _cidr(network)} for network in sorted(over_limit)]
        policies = {"over_limit": {"permissions": [{"any": True}], "principals": principals}} if principals else {}
        rules = {"action": "DENY", "policies": policies}
        resource = {
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "address_limit",
            "typed_config": {"@type": _RBAC, "stat_prefix": "address_limit_", "rules": rules},
        }
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(json.dumps({"resources": [resource]}), encoding="utf-8")
        unfinished.rename(self._file)

    def refresh(self) -> None:
        """Count the connections of each address, and write those over the limit to the file if they have changed.

        Raises:
            OSError: The file could not be written.
        """
        if self._limit is None:
            return
        counts = Counter(_peers(self._port))
        over_limit = frozenset(network for network, count in counts.items() if count > self._limit)
        if over_limit == self._over_limit:
            return
        for network in over_limit - self._over_limit:
            logger.warning(
                "an address exceeds GATEWAY_CONNECTIONS_PER_ADDRESS; its new connections are closed",
                extra={"address": str(_network(network)), "connections": counts[network], "limit": self._limit},
            )
        self._write(over_limit)
        self._over_limit = over_limit


def _peers(port: str) -> Iterator[str]:
    """Yield the peer of each connection to a local port (in hexadecimal), in the kernel's notation.

    For IPv6, yield the peer's /64 network.
    """
    for table in _TABLES:
        lines: Iterable[str] = ()
        with suppress(FileNotFoundError):
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        for line in lines:
            _, local, remote, state, _ = line.split(maxsplit=4)
            if state == _ESTABLISHED and local.endswith(port) and local[-5] == ":":
                address = remote.partition(":")[0].removeprefix(_MAPPED)
                yield address if len(address) == 8 else address[:_NETWORK_DIGITS]


def _network(peer: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Parse a peer from `_peers`: words of 32 bits, in the byte order of this machine."""
    words = [int(peer[start : start + 8], 16) for start in range(0, len(peer), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return ipaddress.IPv4Network((packed, 32))
    return ipaddress.IPv6Network((packed.ljust(16, b"\0"), 64))


def _cidr(peer: str) -> dict[str, object]:
    network = _network(peer)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
