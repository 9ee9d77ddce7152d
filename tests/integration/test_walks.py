"""The walks of three calls through the code, as docs/architecture.md lists them."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from types import FrameType

import pytest
from google.api.httpbody_pb2 import HttpBody

import registry_service
from tests.registry import RunningRegistry, StartRegistry

PACKAGE = Path(registry_service.__file__).parent
PAGE = PACKAGE.parent / "docs/architecture.md"
BOUNDARY = "a-boundary-of-this-test"
REGISTER_FORM = "/modelregistry.compat.v1.CompatService/RegisterModel"


class Walk:
    """Records the files of the package that the threads of the server's calls enter."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.is_recording = False

    def trace(self, frame: FrameType, _event: str, _argument: object) -> None:
        """See `threading.settrace`."""
        path = frame.f_code.co_filename
        if self.is_recording and path.startswith(f"{PACKAGE}/") and threading.current_thread().name.startswith("call"):
            self.files.add(path.removeprefix(f"{PACKAGE}/"))

    def of(self, call: Callable[[], object]) -> set[str]:
        """Return the files that a warm call enters."""
        call()
        self.files.clear()
        self.is_recording = True
        call()
        self.is_recording = False
        return set(self.files)


@pytest.fixture
def walk() -> Iterator[Walk]:
    walk = Walk()
    before = threading.gettrace()
    threading.settrace(walk.trace)
    yield walk
    threading.settrace(before)


@pytest.fixture
def traced_registry(walk: Walk, start_registry: StartRegistry) -> RunningRegistry:
    """A registry whose threads are traced."""
    assert sys.gettrace() is None
    return start_registry()


def documented(heading: str) -> set[str]:
    """Return the files that the page lists for every call and for one call."""
    every, one = listed("Every call"), listed(heading)
    assert not every & one
    return every | one


def listed(heading: str) -> set[str]:
    """Return the files that the table under a heading lists."""
    lines = iter(PAGE.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line == f"### {heading}":
            break
    section = takewhile(lambda line: not line.startswith("#"), lines)
    rows = [row for line in section if (row := re.match(r"\| `([\w/]+\.py)` \|", line))]
    files = {row[1] for row in rows}
    assert len(files) == len(rows) > 0
    return files


def form() -> Iterator[HttpBody]:
    parts = {"name": b"vad", "version": b"1.%d" % next(numbers)}
    body = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + text + b"\r\n"
        for name, text in parts.items()
    )
    header = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="m.zip"\r\n'
        "Content-Type: application/zip\r\n\r\n"
    )
    yield HttpBody(
        content_type=f"multipart/form-data; boundary={BOUNDARY}",
        data=body + header.encode() + EMPTY_ZIP + f"\r\n--{BOUNDARY}--\r\n".encode(),
    )


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
numbers = iter(range(1_000))


def test_get_model_walks_as_documented(traced_registry: RunningRegistry, walk: Walk) -> None:
    client = traced_registry.client
    model = client.register()
    expected = documented("GetModel over gRPC")
    assert walk.of(lambda: client.get(model.id)) == expected


def test_post_models_walks_as_documented(traced_registry: RunningRegistry, walk: Walk) -> None:
    call = traced_registry.client.channel.stream_unary(
        REGISTER_FORM, request_serializer=HttpBody.SerializeToString, response_deserializer=HttpBody.FromString
    )
    expected = documented("POST /models through the gateway")
    assert walk.of(lambda: call(form())) == expected
    assert len(traced_registry.client.all()) == 2


def test_set_alias_walks_as_documented(traced_registry: RunningRegistry, walk: Walk) -> None:
    client = traced_registry.client
    models = [client.register(version=str(number)) for number in range(2)]
    targets = iter(models)
    group_id = models[0].model_group_id
    expected = documented("SetAlias over gRPC")
    assert walk.of(lambda: client.set_alias(next(targets).id, model_group_id=group_id)) == expected
