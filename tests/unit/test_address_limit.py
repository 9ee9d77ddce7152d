"""Addresses that have too many connections are found in the kernel's list, and told to Envoy."""

import json
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from registry_service.embedded.address_limit import AddressLimit
from registry_service.settings import GatewaySettings, load


def denied(file: Path) -> list[tuple[str, int]]:
    (resource,) = json.loads(file.read_text())["resources"]
    policies = resource["typed_config"]["rules"]["policies"]
    ranges = [principal["direct_remote_ip"] for policy in policies.values() for principal in policy["principals"]]
    return [(found["address_prefix"], found["prefix_len"]) for found in ranges]


@pytest.mark.parametrize(
    ("listens", "to", "by", "network"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.2", ("127.0.0.2", 32)),
        ("::", "127.0.0.1", "127.0.0.2", ("127.0.0.2", 32)),
        ("::1", "::1", "::1", ("::", 64)),
    ],
    ids=["IPv4", "IPv4 at a port of IPv6", "IPv6"],
)
def test_an_address_is_denied_for_as_long_as_it_has_too_many_connections(
    tmp_path: Path, listens: str, to: str, by: str, network: tuple[str, int]
) -> None:
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with (
        socket.create_server((listens, 0), family=family, dualstack_ipv6=listens == "::") as server,
        ExitStack() as held,
    ):
        port = server.getsockname()[1]
        file = tmp_path / "limit.json"
        limit = AddressLimit(load(GatewaySettings, server_port=port, gateway_connections_per_address=2), file)
        limit.write()

        def connect(address: str) -> None:
            held.enter_context(socket.create_connection((to, port), source_address=(address, 0)))
            held.enter_context(server.accept()[0])

        for _ in range(2):
            connect(by)
        if by == "127.0.0.2":
            connect("127.0.0.1")
        limit.refresh()
        assert denied(file) == []
        connect(by)
        limit.refresh()
        assert denied(file) == [network]
        held.close()
        limit.refresh()
        assert denied(file) == []


def test_without_the_setting_nothing_is_written(tmp_path: Path) -> None:
    limit = AddressLimit(load(GatewaySettings), tmp_path / "limit.json")
    limit.write()
    limit.refresh()
    assert list(tmp_path.iterdir()) == []
