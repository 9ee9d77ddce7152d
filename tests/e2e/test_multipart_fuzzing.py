"""No form causes a server error at the gateway, and refused forms leave nothing behind."""

import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzzing import ODD_TEXTS, check_no_internals, fuzz
from tests.polling import eventually
from tests.products import Product, running_up
from tests.temporary_folders import accessible_folder

BOUNDARY = b"boundary"
ANSWER_SECONDS = 60


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with accessible_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def product(folder: Path) -> Iterator[Product]:
    with running_up(folder) as product:
        yield product


def part(name: bytes, value: bytes, extra: bytes = b"") -> bytes:
    return b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (BOUNDARY, name, extra, value)


NESTED = part(
    b"file", part(b"name", b"inner") + b"--inner--", b'; filename="a"\r\nContent-Type: multipart/mixed; boundary=inner'
)
PARTS = st.sampled_from(
    [
        part(b"name", b"fuzzed"),
        part(b"version", b"1"),
        part(b"file", b"weights", b'; filename="model.zip"\r\nContent-Type: application/zip'),
        NESTED,
        part(b"file", b"", b'; filename=""'),
        part(b"name", b"huge", b"\r\nX: " + b"x" * 100_000),
        part(b"name", b"many", b"\r\nX: x" * 2_000),
        part(b"", b"", b'; name="name"; name="version"'),
        b"--%b\r\n\r\nno headers\r\n" % BOUNDARY,
        b"--%b\r\nContent-Disposition: form-data\r\nno colon\r\n\r\n\r\n" % BOUNDARY,
        b"".join(part(b"tags", b"a") for _ in range(1_100)),
    ]
) | st.builds(
    lambda name, value: part(name.encode(), value.encode(errors="replace")),
    st.sampled_from(["id", "name", "version", "precision", "score", "creation_date", "project_name", "odd"]),
    st.sampled_from(ODD_TEXTS),
)
FILE = part(b"file", b"weights", b'; filename="model.zip"\r\nContent-Type: application/zip')
WHOLE = (part(b"name", b"fuzzed"), part(b"version", b"1"), FILE)
ENDS = st.sampled_from([b"--boundary--\r\n", b"--boundary--", b"--boundary", b"--another--\r\n", b""])
TYPES = st.sampled_from(
    ["multipart/form-data; boundary=boundary"] * 8
    + ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 3_000]
    + ["multipart/mixed; boundary=boundary", 'multipart/form-data; boundary="boundary', "text/plain", ""]
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(PARTS, max_size=5)) + (list(WHOLE) if draw(st.booleans()) else [])
    body = bytearray(b"".join(draw(st.permutations(parts))) + draw(ENDS))
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from([b"\r", b"\n", b"\0", b"--", b'"', b"\xff"]))
    return bytes(body[: len(body) - draw(st.sampled_from([0, 0, 0, 1, 30]))])


def chunked(body: bytes) -> bytes:
    return b"".join(
        b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[i : i + 997] for i in range(0, len(body), 997))
    )


def framed(body: bytes, framing: str) -> bytes:
    """Return the end of the headers, and the body as sent over the wire."""
    length = len(body)
    return {
        "right": b"Content-Length: %d\r\n\r\n%b" % (length, body),
        "too long": b"Content-Length: %d\r\n\r\n%b" % (length + 10, body),
        "too short": b"Content-Length: %d\r\n\r\n%b" % (max(length - 10, 0), body),
        "no number": b"Content-Length: many\r\n\r\n%b" % body,
        "twice": b"Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b" % (length, length + 1, body),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % chunked(body),
        "chunked without end": b"Transfer-Encoding: chunked\r\n\r\n%b" % chunked(body),
        "chunked badly": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n%b" % body,
        "both": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n%b0\r\n\r\n" % chunked(body),
    }[framing]


FRAMINGS = st.sampled_from(
    ["right"] * 4
    + ["chunked"] * 2
    + ["too long", "too short", "no number", "twice", "chunked without end", "chunked badly", "both"]
)
UNENDED = {"too long", "chunked without end"}


def answer_to(port: int, request: bytes, *, is_whole: bool) -> bytes:
    """Return the whole answer; it is empty where the gateway closes the connection, as after a half-close."""
    answer = b""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)) as connection:
        with suppress(ConnectionError):  # the gateway may close before it has read everything
            connection.sendall(request)
            if not is_whole:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while piece := connection.recv(65_536):
                answer += piece
    return answer


def test_any_form_is_registered_or_refused_and_leaves_nothing(product: Product, folder: Path) -> None:
    def send(body: bytes, content_type: str, framing: str) -> bytes:
        head = f"POST /models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
        return answer_to(product.rest_port, head.encode() + framed(body, framing), is_whole=framing not in UNENDED)

    # An undamaged form is registered, or the damaged ones would prove nothing.
    for framing in ("right", "chunked"):
        whole = send(b"".join(WHOLE) + b"--boundary--\r\n", "multipart/form-data; boundary=boundary", framing)
        assert whole[9:12] == b"201", whole
        product.client.delete(product.client.all()[0].id)

    @fuzz(60, body=bodies(), content_type=TYPES, framing=FRAMINGS)
    def _(body: bytes, content_type: str, framing: str) -> None:
        answer = send(body, content_type, framing)
        status = int(answer[9:12] or 0)
        assert status < 500 or status == 503, answer
        check_no_internals(answer)
        if status == 201:
            for model in product.client.all():
                product.client.delete(model.id)
        assert product.client.all() == []

    assert product.is_serving()
    assert [line for line in (folder / "data" / "registry.log").read_text().splitlines() if "Traceback" in line] == []
    artifacts = folder / "data" / "artifacts"
    eventually(lambda: not [path for path in artifacts.rglob("*") if path.is_file()], what="an empty store")
