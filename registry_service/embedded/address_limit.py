"""Bounds the connections that one address may have to the gateway.

Envoy bounds all connections together only. So the process that watches it counts
them, by the kernel's list, and tells Envoy by a file which addresses have too many:
a filter then closes their new connections at the first byte. What they have
already, Envoy closes when it has been silent for too long, sooner when connections
are scarce.
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
# Hexadecimal digits of 64 bits: whoever has an address of IPv6 has so many of them.
_NETWORK_DIGITS = 16
_RBAC = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC"


class AddressLimit:
    """Closes new connections of addresses that have more than GATEWAY_CONNECTIONS_PER_ADDRESS.

    Does nothing without that setting, and on systems without /proc.

    Args:
        settings: Of the gateway.
        file: Where Envoy looks for the addresses, in an existing folder.
    """

    def __init__(self, settings: GatewaySettings, file: Path) -> None:
        self._limit = settings.gateway_connections_per_address
        self._port = f"{settings.server_port:04X}"
        self._file = file
        self._crowded: frozenset[str] = frozenset()

    def write(self) -> None:
        """Write the file; to be called before Envoy starts."""
        if self._limit is not None:
            self._write(self._crowded)

    def _write(self, crowded: frozenset[str]) -> None:
        principals = [{"direct_remote_ip": _cidr(network)} for network in sorted(crowded)]
        policies = {"crowded": {"permissions": [{"any": True}], "principals": principals}} if principals else {}
        rules = {"action": "DENY", "policies": policies}
        resource = {
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "address_limit",
            "typed_config": {"@type": _RBAC, "stat_prefix": "address_limit_", "rules": rules},
        }
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(json.dumps({"resources": [resource]}), encoding="utf-8")
        unfinished.rename(self._file)

    def look(self) -> None:
        """Count the connections of each address, and tell Envoy of those that have too many; raises OSError."""
        if self._limit is None:
            return
        counts = Counter(_peers(self._port))
        crowded = frozenset(network for network, count in counts.items() if count > self._limit)
        if crowded == self._crowded:
            return
        for network in crowded - self._crowded:
            logger.warning(
                "an address has more connections than it may: its new ones are closed",
                extra={"address": str(_network(network)), "connections": counts[network], "limit": self._limit},
            )
        self._write(crowded)
        self._crowded = crowded


def _peers(port: str) -> Iterator[str]:
    """Yield the peer of each connection to a local port (in hexadecimal), as the kernel writes it.

    Of IPv6, the network (/64) of the peer.
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
    """Read what `_peers` yields: words of 32 bits, in the byte order of this machine."""
    words = [int(peer[start : start + 8], 16) for start in range(0, len(peer), 8)]
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:
        return ipaddress.IPv4Network((packed, 32))
    return ipaddress.IPv6Network((packed.ljust(16, b"\0"), 64))


def _cidr(peer: str) -> dict[str, object]:
    network = _network(peer)
    return {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
