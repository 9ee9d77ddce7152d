"""Where calls come from."""

import grpc


def peer_address(context: grpc.ServicerContext) -> str:
    """Return the address of the connection of a call, without the port: `ipv4:192.0.2.1`."""
    peer: str = context.peer()
    address, colon, port = peer.rpartition(":")
    return address if colon and port.isdigit() else peer
