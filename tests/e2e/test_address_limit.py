"""One address with many open connections to the gateway does not keep other addresses out."""

import socket
from contextlib import ExitStack, closing, suppress

import httpx

from tests.polling import eventually
from tests.products import Product, running_up
from tests.temporary_folders import accessible_folder

ATTACKER, OTHER = "127.0.0.2", "127.0.0.1"
# Without a limit per address, the attempts would take all connections until their 30 s for a body are over.
OF_ADDRESS, OF_ALL, ATTEMPTS = 100, 200, 300
BODY = (
    b"POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
)


def is_served(product: Product, address: str) -> bool:
    with (
        suppress(httpx.TransportError),
        httpx.Client(transport=httpx.HTTPTransport(local_address=address), trust_env=False) as client,
    ):
        return client.get(f"{product.rest_url}/health", timeout=5).status_code == 200
    return False


def connected(port: int) -> socket.socket:
    end = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(ATTACKER, 0))
    end.sendall(BODY)
    return end


def is_closed(end: socket.socket) -> bool:
    """Return whether the gateway has closed the connection; it answers no unfinished request before that."""
    end.settimeout(0.2)
    try:
        return end.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_connections_over_the_limit_of_an_address_are_closed_and_other_addresses_are_served() -> None:
    with (
        accessible_folder() as folder,
        running_up(folder, gateway_max_connections=OF_ALL, gateway_connections_per_address=OF_ADDRESS) as product,
        ExitStack() as held,
    ):
        port = product.rest_port
        for _ in range(OF_ADDRESS + 1):
            held.enter_context(connected(port))

        def is_refused() -> bool:
            with closing(connected(port)) as end:
                return is_closed(end)

        eventually(is_refused, what="the limit")
        for _ in range(ATTEMPTS):
            held.enter_context(connected(port))
        for _ in range(20):
            assert is_served(product, OTHER)
        assert not is_served(product, ATTACKER)
        held.close()
        eventually(lambda: is_served(product, ATTACKER), what="room for the address")
        assert "an address exceeds GATEWAY_CONNECTIONS_PER_ADDRESS" in (folder / "data" / "registry.log").read_text()
