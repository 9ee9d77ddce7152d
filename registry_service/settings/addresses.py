"""Addresses that servers listen on."""

import contextlib
import ipaddress


def loopback_address(address: str) -> str:
    """Return the host, as in a URL, at which this machine reaches a server that listens on an address."""
    try:
        ip = ipaddress.ip_address(address.strip("[]"))
    except ValueError:
        return address
    if ip.is_unspecified:
        return "127.0.0.1" if ip.version == 4 else "[::1]"
    return str(ip) if ip.version == 4 else f"[{ip}]"


def is_loopback(address: str) -> bool:
    """Return whether a server that listens on an address is reachable from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    return address == "localhost"
