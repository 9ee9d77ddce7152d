"""Pushing files and file objects with the client."""

import asyncio
import contextlib
import hashlib
import io
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modelreg
import pytest
from modelreg import AlreadyExists, InvalidArgument, Provenance, Registry, SourceChanged
from modelreg._async.upload import SINGLE_CALL_BYTES
from modelreg._pushes.sources import open_source

from tests.registry import RunningRegistry

MIB = 1 << 20
SMALL, LARGE = 10_000, SINGLE_CALL_BYTES + 3 * MIB + 17


def content_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture(params=[SMALL, LARGE], ids=["small", "large"])
def content(request: pytest.FixtureRequest) -> bytes:
    return content_of(request.param)


@pytest.fixture
def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "vad.onnx"
    path.write_bytes(content)
    return path


def downloaded(server: RunningRegistry, model: modelreg.Model) -> bytes:
    return server.client.download(model.id)


def state_files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "XDG_STATE_HOME").rglob("*") if path.is_file()]


def test_a_file_becomes_a_model_with_its_metadata(
    server: RunningRegistry, registry: Registry, name: str, file: Path, content: bytes, tmp_path: Path
) -> None:
    parent = server.client.register(name=name, version="0.9")

    model = registry.push(
        file,
        name=name,
        version="1.0",
        precision="int8",
        metrics={"f1": 0.91},
        tags={"team": "audio"},
        labels=["speech", "noise"],
        category=None,
        provenance=Provenance(source_commit="abc", parents=[f"{name}:0.9"]),
    )

    assert model.created
    assert (model.reference, model.precisions) == (f"{name}:1.0", ("int8",))
    assert (model.metrics, model.tags, model.labels) == ({"f1": 0.91}, {"team": "audio"}, ("speech", "noise"))
    assert (model.provenance.source_commit, model.provenance.parents) == ("abc", (parent.id,))
    assert model.artifact.file_name == "vad.onnx"
    assert model.artifact.kind == "file"
    assert model.artifact.sha256 == hashlib.sha256(content).hexdigest()
    assert downloaded(server, model) == content
    assert registry.model(f"{name}:1.0", precision="int8") == model
    assert state_files(tmp_path) == []


def test_a_name_that_looks_like_a_reference_is_kept_with_a_warning(
    registry: Registry, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vad.onnx"
    path.write_bytes(b"weights")

    registry.push(path, name=name, version="1:0")
    assert caplog.messages == []
    model = registry.push(path, name=f"{name}:3", version="1")

    assert (model.name, model.reference) == (f"{name}:3", f"{name}%3A3:1")
    (warning,) = caplog.messages
    assert warning.startswith(f"The name '{name}:3' is not a reference: the model will be {name}%3A3:1.")
    assert warning.endswith(f" For the model {name}:3, pass name='{name}', version='3'.")


def test_the_file_name_and_the_media_type_can_be_chosen(registry: Registry, name: str, file: Path) -> None:
    model = registry.push(str(file), name=name, version="1.0", file_name="m.bin", media_type="application/x-vad")

    assert (model.artifact.file_name, model.artifact.media_type) == ("m.bin", "application/x-vad")


def test_an_existing_model_is_refused_before_a_byte_is_sent(
    server: RunningRegistry, registry: Registry, name: str, file: Path
) -> None:
    server.client.register(name=name, version="1.0")
    objects = server.objects()
    reported: list[int] = []

    with pytest.raises(AlreadyExists, match="if_exists") as caught:
        registry.push(file, name=name, version="1.0", progress=lambda done, _: reported.append(done))

    assert caught.value.reason == "MODEL_ALREADY_EXISTS"
    assert reported == []
    assert server.objects() == objects


def test_if_exists_returns_the_model_of_the_same_bytes(registry: Registry, name: str, file: Path) -> None:
    first = registry.push(file, name=name, version="1.0")

    again = registry.push(file, name=name, version="1.0", if_exists="return")

    assert (first.created, again.created) == (True, False)
    assert again.id == first.id


def test_if_exists_never_returns_a_model_of_other_bytes(
    registry: Registry, name: str, file: Path, content: bytes
) -> None:
    registry.push(file, name=name, version="1.0")

    for other in (content[:-1], content[:-1] + b"?"):
        with pytest.raises(AlreadyExists, match="other bytes"):
            registry.push(io.BytesIO(other), name=name, version="1.0", if_exists="return")


def test_a_file_object_is_read_from_its_position_to_its_end_and_left_open(
    server: RunningRegistry, registry: Registry, name: str, file: Path, content: bytes
) -> None:
    with file.open("rb") as opened:
        opened.seek(100)
        model = registry.push(opened, name=name, version="1.0")
        assert opened.tell() == len(content)

    assert downloaded(server, model) == content[100:]
    assert model.artifact.file_name == "vad.onnx"


@contextlib.contextmanager
def pipe_of(content: bytes) -> Iterator[io.BufferedReader]:
    """A pipe that another thread writes to."""
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe, contextlib.suppress(BrokenPipeError):
            pipe.write(content)

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(read_end, "rb") as pipe:
        yield pipe
    thread.join()


def test_a_pipe_is_read_to_its_end(server: RunningRegistry, registry: Registry, name: str, content: bytes) -> None:
    with pipe_of(content) as pipe:
        model = registry.push(pipe, name=name, version="1.0")

    assert downloaded(server, model) == content
    assert model.artifact.file_name == "model.bin"


def test_if_exists_returns_the_model_of_the_bytes_of_a_pipe(registry: Registry, name: str, content: bytes) -> None:
    first = registry.push(io.BytesIO(content), name=name, version="1.0")

    with pipe_of(content) as pipe:
        again = registry.push(pipe, name=name, version="1.0", if_exists="return")
    with pipe_of(content[:-1]) as pipe, pytest.raises(AlreadyExists, match="other bytes"):
        registry.push(pipe, name=name, version="1.0", if_exists="return")

    assert (again.id, again.created) == (first.id, False)


def test_a_pipe_larger_than_what_is_kept_of_it_arrives(
    server: RunningRegistry, registry: Registry, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelreg._pushes.sources.PipeSource.segment_bytes", 2 * MIB)
    content = content_of(LARGE)

    with pipe_of(content) as pipe:
        model = registry.push(pipe, name=name, version="1.0")

    assert downloaded(server, model) == content


def test_a_named_pipe_is_read_to_its_end(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(content,))
    thread.start()

    model = registry.push(path, name=name, version="1.0", file_name="vad.onnx")
    thread.join()

    assert downloaded(server, model) == content


def test_an_empty_source_is_refused(registry: Registry, name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    with pipe_of(b"") as pipe:
        for source in (tmp_path / "empty", io.BytesIO(), pipe):
            with pytest.raises(InvalidArgument, match="empty"):
                registry.push(source, name=name, version="1.0")


def test_what_cannot_be_pushed_is_refused_with_what_would_be_right(
    registry: Registry, name: str, tmp_path: Path
) -> None:
    sources: list[tuple[Any, str]] = [
        (b"bytes", "BytesIO"),
        (17, "path"),
        (io.StringIO("text"), "rb"),
        (Path("/dev/null").parent / "nothing", "No such file"),
    ]
    for source, hint in sources:
        with pytest.raises((InvalidArgument, FileNotFoundError), match=hint):
            registry.push(source, name=name, version="1.0")


def test_a_wrong_option_or_field_is_refused_before_a_byte_is_sent(registry: Registry, name: str, file: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"if_exists": "replace"},
        {"progress": "yes"},
        {"metrics": {"f1": "high"}},
        {"colour": "red"},
        {"file_name": "a/b"},
    ]
    for arguments in wrong:
        with pytest.raises(InvalidArgument):
            registry.push(file, **{"name": name, "version": "1.0", **arguments})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"provenance": Provenance(seed=2**63)}, "seed: "),
        ({"metrics": {"a": 10**400}}, "metrics.a: must be at most"),
        ({"score": 10**400}, "score: must be at most"),
        ({"provenance": Provenance(training_run="\ud800")}, r"training_run: '\\ud800' has lone surrogates"),
        ({"provenance": Provenance(environment={"a": "\ud800"})}, r"'\\ud800' has lone surrogates"),
        ({"name": "\ud800"}, r"name: '\\ud800' has lone surrogates"),
        ({"version": "\ud800"}, r"version: '\\ud800' has lone surrogates"),
        ({"file_name": "\ud800"}, r"file_name: '\\ud800' has lone surrogates"),
        ({"media_type": "\ud800"}, r"media_type: '\\ud800' has lone surrogates"),
    ],
)
def test_a_value_that_no_message_can_hold_is_named(
    registry: Registry, name: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        registry.push(io.BytesIO(b"1"), **{"name": name, "version": "1", "file_name": "x", **arguments})


def test_a_file_name_that_cannot_be_sent_is_replaced_by_the_caller(
    registry: Registry, name: str, tmp_path: Path
) -> None:
    path = tmp_path / os.fsdecode(b"n\xff.bin")
    path.write_bytes(b"weights")

    with pytest.raises(InvalidArgument, match=r"file_name: .* has lone surrogates"):
        registry.push(path, name=name, version="1")
    assert registry.push(path, name=name, version="1", file_name="n.bin").artifact.file_name == "n.bin"


def test_a_cancelled_push_leaves_no_file_open(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "vad.onnx"
    path.write_bytes(b"weights")
    may_open, sources = threading.Event(), []

    def open_late(pushable: Any) -> Any:
        may_open.wait(30)
        sources.append(open_source(pushable))
        return sources[0]

    monkeypatch.setattr("modelreg._pushes.sources.open_source", open_late)

    async def use() -> None:
        async with modelreg.aio.Registry(url) as aio:
            task = asyncio.create_task(aio.push(path, name=name, version="1"))
            await asyncio.sleep(0)  # begins the push, and waits in a thread
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            may_open.set()

    # The end of the loop waits for its threads.
    asyncio.run(use())
    with pytest.raises(ValueError, match="closed file"):
        sources[0].read(1)


class Broken(io.RawIOBase):
    """A file object that fails after some bytes."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        self._content = io.BytesIO(content)
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._content.readinto(buffer)
        if count == 0:
            raise self._error
        return count


def test_what_a_file_object_raises_reaches_the_caller_and_nothing_remains(
    registry: Registry, name: str, content: bytes
) -> None:
    error = OSError("the disk is on fire")

    with pytest.raises(OSError, match="on fire") as caught:
        registry.push(Broken(content, error), name=name, version="1.0")  # type: ignore[arg-type]

    assert caught.value is error
    assert [upload for upload in registry.uploads() if upload.name == name] == []
    assert registry.push(io.BytesIO(content), name=name, version="1.0").created


def test_what_the_progress_function_raises_reaches_the_caller(registry: Registry, name: str, file: Path) -> None:
    def report(done: int, total: int | None) -> None:
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        registry.push(file, name=name, version="1.0", progress=report)


def test_progress_ends_with_the_whole(registry: Registry, name: str, file: Path, content: bytes) -> None:
    reported: list[tuple[int, int | None]] = []

    registry.push(file, name=name, version="1.0", progress=lambda done, total: reported.append((done, total)))

    assert reported[-1] == (len(content), len(content))
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)


def test_the_progress_of_a_pipe_has_a_total_at_its_end(registry: Registry, name: str, content: bytes) -> None:
    reported: list[tuple[int, int | None]] = []

    with pipe_of(content) as pipe:
        registry.push(pipe, name=name, version="1.0", progress=lambda done, total: reported.append((done, total)))

    assert reported[-1] == (len(content), len(content))
    assert len(content) == SMALL or reported[0] == (0, None)


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
def test_a_file_that_changes_while_it_is_sent_is_no_model(
    registry: Registry, name: str, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "vad.onnx"
    path.write_bytes(content_of(LARGE))
    os.utime(path, (1_000_000_000, 1_000_000_000))

    def report(done: int, total: int | None) -> None:
        if done == 3 * MIB:
            if change == "grows":
                with path.open("ab") as file:
                    file.write(b"more")
            elif change == "shrinks":
                os.truncate(path, 5 * MIB)
            else:
                path.write_bytes(content_of(LARGE, seed=1))

    with pytest.raises(SourceChanged, match=r"vad\.onnx"):
        registry.push(path, name=name, version="1.0", progress=report)

    assert [upload for upload in registry.uploads() if upload.name == name] == []
    assert state_files(tmp_path) == []
    assert registry.push(path, name=name, version="1.0").created


def test_a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was(
    server: RunningRegistry, registry: Registry, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "vad.onnx"
    path.write_bytes(content_of(LARGE))
    (tmp_path / "new").write_bytes(content_of(LARGE, seed=1))

    def report(done: int, total: int | None) -> None:
        if done == 3 * MIB:
            (tmp_path / "new").replace(path)

    model = registry.push(path, name=name, version="1.0", progress=report)

    assert downloaded(server, model) == content_of(LARGE)


def test_uploads_are_listed_and_cancelled(server: RunningRegistry, registry: Registry, name: str) -> None:
    server.client.create_upload(name=name, version="1.0")
    (upload,) = [upload for upload in registry.uploads() if upload.name == name]

    assert (upload.version, upload.state, upload.committed_size) == ("1.0", "active", 0)

    registry.cancel_upload(upload)

    assert [upload for upload in registry.uploads() if upload.name == name] == []
    with pytest.raises(modelreg.NotFound):
        registry.cancel_upload(upload.id)


def test_aio_pushes_files_pipes_and_reports_progress(
    server: RunningRegistry, url: str, name: str, file: Path, content: bytes
) -> None:
    reported: list[int] = []

    async def push() -> tuple[modelreg.Model, modelreg.Model, modelreg.Model]:
        async with modelreg.aio.Registry(url) as registry:
            first = await registry.push(file, name=name, version="1.0", progress=lambda done, _: reported.append(done))
            again = await registry.push(file, name=name, version="1.0", if_exists="return")
            with pipe_of(content) as pipe:
                piped = await registry.push(pipe, name=name, version="2.0")
            assert [upload async for upload in registry.uploads() if upload.name == name] == []
        return first, again, piped

    first, again, piped = asyncio.run(push())

    assert (first.id, again.created) == (again.id, False)
    assert downloaded(server, first) == downloaded(server, piped) == content
    assert reported[-1] == len(content)
