"""Request smuggling: messages whose body a second parser could take for another request.

Each message contains a DELETE where a misled parser would find a second request.
Afterwards the model still exists, and no client received the answer to a request that it
did not send (RFC 9112 section 11.2, RFC 9113 section 8.2.1 and 8.3).
"""

import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress

import h2.config
import h2.connection
import h2.events
import pytest

from tests.products import Product
from tests.stub_client import Client

# Both products have the same Envoy in front.
pytestmark = pytest.mark.parametrize("product", ["embedded"], indirect=True, scope="session")

HIDDEN = "DELETE {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
CHUNKED = "0\r\n\r\n{hidden}"
# Heads of a POST, each with what follows it. `{length}` is the length of all that follows.
HTTP1 = {
    "length and chunks": ("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n", CHUNKED),
    "chunks and length": ("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n", CHUNKED),
    "length of zero and chunks": ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "{hidden}"),
    "two lengths": ("Content-Length: 0\r\nContent-Length: {length}\r\n", "{hidden}"),
    "two lengths, the other way round": ("Content-Length: {length}\r\nContent-Length: 0\r\n", "{hidden}"),
    "list of lengths": ("Content-Length: 0, {length}\r\n", "{hidden}"),
    "length with a sign": ("Content-Length: +{length}\r\n", "{hidden}"),
    "negative length": ("Content-Length: -1\r\n", "{hidden}"),
    "length in hexadecimal": ("Content-Length: 0x{length}\r\n", "{hidden}"),
    "length with a blank": ("Content-Length: 0 {length}\r\n", "{hidden}"),
    "length beyond 64 bits": ("Content-Length: 18446744073709551616\r\n", "{hidden}"),
    "empty length": ("Content-Length:\r\n", "{hidden}"),
    "blank before the colon of the length": ("Content-Length : {length}\r\n", "{hidden}"),
    "blank before the colon of the encoding": ("Content-Length: 0\r\nTransfer-Encoding : chunked\r\n", "{hidden}"),
    "folded encoding": ("Content-Length: 0\r\nTransfer-Encoding:\r\n chunked\r\n", "{hidden}"),
    "encoding behind a vertical tab": ("Content-Length: 0\r\nTransfer-Encoding: \x0bchunked\r\n", "{hidden}"),
    "encoding of another name": ("Content-Length: 0\r\nTransfer-Encoding: xchunked\r\n", "{hidden}"),
    "identity and chunked": ("Content-Length: 0\r\nTransfer-Encoding: identity, chunked\r\n", "{hidden}"),
    "chunked twice": ("Content-Length: 0\r\nTransfer-Encoding: chunked, chunked\r\n", "{hidden}"),
    "chunked, then identity": ("Content-Length: 0\r\nTransfer-Encoding: chunked, identity\r\n", "{hidden}"),
    "two encodings": ("Content-Length: 0\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n", "{hidden}"),
    "encoding behind a bare CR": ("Content-Length: 0\r\nX: y\rTransfer-Encoding: chunked\r\n", "{hidden}"),
    "encoding behind a NUL": ("Content-Length: 0\r\nX: y\0Transfer-Encoding: chunked\r\n", "{hidden}"),
    "encoding in HTTP/1.0": ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "{hidden}"),
    "size of a chunk beyond 64 bits": ("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n{hidden}\r\n0\r\n\r\n"),
    "size of a chunk with a sign": ("Transfer-Encoding: chunked\r\n", "+0\r\n\r\n{hidden}"),
    "size of a chunk in hexadecimal notation": ("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n{hidden}"),
    "line feed in the extension of a chunk": ("Transfer-Encoding: chunked\r\n", "2;\nxx\r\n{hidden}\r\n0\r\n\r\n"),
    "chunk without an end of line": ("Transfer-Encoding: chunked\r\n", "1\r\nA0\r\n\r\n{hidden}"),
}
# Headers of an HTTP/2 request that a translation to HTTP/1.1 would write out.
HTTP2 = {
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "length that is too small": [("content-length", "0")],
    "length that is too large": [("content-length", "99999")],
    "two lengths": [("content-length", "0"), ("content-length", "{length}")],
    "line break in a value": [("x", "y\r\n\r\n{hidden}")],
    "line break in a name": [("x: y\r\n\r\n{hidden}", "z")],
    "line break in the path": [(":path", "/v1/uploads HTTP/1.1\r\n\r\n{hidden}")],
    "line break in the method": [(":method", "POST /v1/uploads HTTP/1.1\r\n\r\n{hidden}")],
    "line break in the host": [(":authority", "x\r\n\r\n{hidden}")],
    "connection": [("connection", "keep-alive, x")],
    "upgrade": [("upgrade", "h2c")],
    "colon in a name": [("content-length:", "0")],
    "upper case in a name": [("Transfer-Encoding", "chunked")],
    "host beside the authority": [("host", "elsewhere")],
    "method twice": [(":method", "POST"), (":method", "DELETE")],
    "path twice": [(":path", "/v1/uploads"), (":path", "{path}")],
    "pseudo header behind others": [("x", "y"), (":path", "{path}")],
}


@pytest.fixture(scope="module")
def victim(product: Product) -> Iterator[str]:
    """The id of a model that the smuggled requests try to delete."""
    model = product.client.register(name=f"victim-{uuid.uuid4()}")
    yield model.id
    product.client.delete(model.id)


def fill(text: str, path: str, length: int = 0) -> str:
    hidden = HIDDEN.replace("{path}", path)
    return text.replace("{hidden}", hidden).replace("{length}", str(length)).replace("{path}", path)


def assert_unharmed(client: Client, victim: str) -> None:
    assert client.get(victim).id == victim


@pytest.mark.parametrize("name", HTTP1)
def test_a_body_is_never_parsed_as_a_request(product: Product, victim: str, name: str) -> None:
    head, body = HTTP1[name]
    body = fill(body, f"/v1/models/{victim}")
    version = "HTTP/1.0" if "HTTP/1.0" in name else "HTTP/1.1"
    message = f"POST /v1/uploads {version}\r\nHost: x\r\n{fill(head, '', len(body))}\r\n{body}"
    with socket.create_connection(("127.0.0.1", product.rest_port), timeout=10) as connection:
        connection.sendall(message.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
    statuses = re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert not [status for status in statuses if not status.startswith(b"4")], answer
    assert_unharmed(product.client, victim)


@pytest.mark.parametrize("name", HTTP2)
def test_http2_headers_never_become_another_request(product: Product, victim: str, name: str) -> None:
    path = f"/v1/models/{victim}"
    body = fill("{hidden}", path).encode()
    extra = [(key, fill(value, path, len(body))) for key, value in ((fill(k, path), v) for k, v in HTTP2[name])]
    own = {key for key, _ in extra}
    usual = [(":method", "POST"), (":path", "/v1/uploads"), (":scheme", "http"), (":authority", "x")]
    state = h2.connection.H2Connection(
        h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"
        )
    )
    statuses: list[str] = []
    with closing(socket.create_connection(("127.0.0.1", product.rest_port), timeout=10)) as connection:
        state.initiate_connection()
        state.send_headers(1, [header for header in usual if header[0] not in own] + extra)
        state.send_data(1, body, end_stream=True)
        connection.sendall(state.data_to_send())
        ended = False
        with suppress(ConnectionError):
            while not ended and (data := connection.recv(65536)):
                for event in state.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        statuses += [str(value) for key, value in event.headers if key in (":status", b":status")]
                    ended |= isinstance(
                        event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated
                    )
    assert len(statuses) <= 1
    assert not [status for status in statuses if not status.startswith("4")]
    assert_unharmed(product.client, victim)
