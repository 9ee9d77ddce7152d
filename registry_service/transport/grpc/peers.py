"""The addresses of clients."""

import ipaddress
from functools import lru_cache
from urllib.parse import unquote

import grpc

_FORWARDED_FOR = "x-forwarded-for"


def client_address(context: grpc.ServicerContext) -> str:
    """Return the address of a call's client, without the port.

    Calls through the gateway have it last in `x-forwarded-for`, where the gateway adds it. The header counts only on
    connections from this machine or a private network: elsewhere, clients could claim other addresses.
    """
    address = _host(context.peer())
    if not _may_forward(address):
        return address
    for key, value in reversed(context.invocation_metadata()):
        if key == _FORWARDED_FOR and isinstance(value, str):
            return value.rpartition(",")[2].strip() or address
    return address


@lru_cache(maxsize=1024)
def _host(peer: str) -> str:
    """Return the address of a peer such as `ipv4:192.0.2.1:50000` or `ipv6:%5B::1%5D:50000`."""
    kind, _, place = peer.partition(":")
    return unquote(place).rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else peer


@lru_cache(maxsize=1024)
def _may_forward(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:
        return address.startswith("unix:")
