"""SIGKILL at the worst moments, on both stores: no incomplete change is visible, and no bytes are left over."""

import contextlib
import itertools
import os
import random
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from minio import Minio
from modelregistry.v1 import model_pb2, model_service_pb2, upload_pb2, upload_service_pb2
from sqlalchemy import Engine, text

from registry_service.embedded.postgres import PostgresAddress
from tests.polling import eventually
from tests.products import COMMAND, Product, running_server, s3_settings
from tests.s3_server import S3Server, new_bucket_name
from tests.streams import expect
from tests.stub_client import Client, pieces, refused, registration, sha256, spec, writes

MIB = 1024 * 1024
PART = 8 * MIB
LEASE_SECONDS = 5


class Folder:
    """The files of the local store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings: dict[str, object] = {"artifact_store": "local", "artifact_dir": root}

    def objects(self) -> set[str]:
        return {name for name in self._files() if not name.startswith(".partial/")}

    def watch(self, keys: list[str]) -> None:
        """Do nothing: a folder shows everything."""

    def unfinished(self) -> list[str]:
        """Return the unfinished objects, without the probe of a health check, which may appear at any time."""
        return [name for name in self._files() if name.startswith(".partial/") and "/.probe-" not in name]

    def stored_parts(self, key: str) -> int:
        """Return how many complete parts of an unfinished object are stored."""
        beginning = key.replace("/", "+") + "~"
        found = [p for p in (self.root / ".partial").glob(f"{beginning}*") if p.suffix in {".data", ".put"}]
        return found[0].stat().st_size // PART if found else 0

    def _files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


class Bucket:
    """The objects and multipart uploads of an S3 bucket."""

    def __init__(self, settings: dict[str, object], s3: S3Server, bucket: str) -> None:
        self.settings = settings
        self._bucket = bucket
        self._minio = Minio(
            f"{s3.endpoint.host}:{s3.endpoint.port}",
            access_key=s3.endpoint.access_key,
            secret_key=s3.endpoint.secret_key,
            secure=False,
        )
        self._keys: set[str] = set()

    def objects(self) -> set[str]:
        return {str(found.object_name) for found in self._minio.list_objects(self._bucket, recursive=True)}

    def watch(self, keys: list[str]) -> None:
        """Record keys for `unfinished`, since MinIO lists multipart uploads by full key only."""
        self._keys.update(keys)

    def unfinished(self) -> list[str]:
        """Return the multipart uploads of all keys that the database had at a kill."""
        return [f"{key} {handle}" for key in sorted(self._keys) for handle in self._handles(key)]

    def stored_parts(self, key: str) -> int:
        return sum(len(self._minio._list_parts(self._bucket, key, handle).parts) for handle in self._handles(key))

    def _handles(self, key: str) -> list[str]:
        page = self._minio._list_multipart_uploads(self._bucket, prefix=key)
        return [str(upload.upload_id) for upload in page.uploads if upload.object_name == key]


@dataclass
class Instance:
    """A product for one test, with its database and store."""

    product: Product
    store: Folder | Bucket
    engine: Engine
    settings: dict[str, object]

    @property
    def client(self) -> Client:
        return self.product.client

    def kill(self) -> None:
        self.product.server.kill()
        self.store.watch([*self.ledger(), *self.column("SELECT object_key FROM uploads")])

    def restart(self) -> None:
        self.product.server.start()
        self.product.wait_until_ready()
        eventually(lambda: self.client.all('name = "no-such"') == [], what="an answer after the restart")

    def column(self, query: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query)).scalars())

    def ledger(self) -> list[str]:
        return self.column("SELECT object_key FROM unreferenced_objects")

    def gc(self) -> str:
        """Run `model-registry gc` after all leases have expired."""
        eventually(
            lambda: not self.column("SELECT object_key FROM unreferenced_objects WHERE due_time > now()"),
            what="the end of the leases",
        )
        answer = subprocess.run(
            [*COMMAND, "gc"], env=self.product.server.env, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    def assert_nothing_is_left_over(self) -> None:
        assert self.ledger() == []
        assert self.store.unfinished() == []
        assert self.store.objects() == set(self.column("SELECT object_key FROM models"))


@pytest.fixture(params=["local", "s3"])
def settings(
    request: pytest.FixtureRequest, postgres: PostgresAddress, database_name: str, tmp_path: Path
) -> dict[str, object]:
    """Settings of an instance; a test adds to them with `pytest.mark.parametrize("more", …)`."""
    common: dict[str, object] = {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": database_name,
        "mr_user_name": postgres.user,
        "registration_lease_seconds": LEASE_SECONDS,
        # Longer than a test waits on a busy machine while its client sends nothing.
        "stream_idle_seconds": 4,
        "gc_interval_seconds": 3600,
    }
    if request.param == "local":
        return common | Folder(tmp_path / "artifacts").settings
    s3: S3Server = request.getfixturevalue("s3_server")
    return common | s3_settings(postgres, database_name, s3, new_bucket_name())


@pytest.fixture
def more() -> dict[str, object]:
    """Additional settings of a test."""
    return {}


@pytest.fixture
def instance(
    request: pytest.FixtureRequest, settings: dict[str, object], more: dict[str, object], engine: Engine, tmp_path: Path
) -> Iterator[Instance]:
    """A running product on its own database and store."""
    settings |= more
    store: Folder | Bucket
    if "artifact_dir" in settings:
        store = Folder(tmp_path / "artifacts")
    else:
        store = Bucket(settings, request.getfixturevalue("s3_server"), str(settings["minio_bucket_name"]))
    with running_server(tmp_path, settings) as product:
        yield Instance(product, store, engine, settings)


class SlowClient:
    """Sends some bytes at once, and the rest when the test calls `end`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._go_on = threading.Event()

    def chunks(self) -> Iterator[bytes]:
        yield from pieces(self._data)
        self._go_on.wait(60)

    def end(self) -> None:
        self._go_on.set()


@pytest.fixture
def slow_client() -> Iterator[SlowClient]:
    client = SlowClient(os.urandom(20 * MIB))
    yield client
    client.end()


# ---- registrations ----


@pytest.mark.parametrize("more", [{}, {"gc_interval_seconds": 0.5}], ids=["command", "job"])
def test_a_registration_on_a_killed_server_leaves_nothing(
    instance: Instance, slow_client: SlowClient, more: dict[str, object]
) -> None:
    call = instance.client.models.RegisterModel.future(registration(spec(name="killed"), slow_client.chunks()))
    (key,) = eventually(instance.ledger, what="the lease of the object")
    eventually(lambda: instance.store.stored_parts(key) == 2, what="two stored parts")

    instance.kill()
    slow_client.end()
    with refused(grpc.StatusCode.UNAVAILABLE):
        call.result(timeout=10)
    assert instance.store.stored_parts(key) == 2

    instance.restart()
    assert instance.client.all() == []
    if more:
        eventually(lambda: instance.ledger() == [], what="garbage collection")
    else:
        assert f"object {key}\n" in instance.gc()
    instance.assert_nothing_is_left_over()
    assert instance.store.objects() == set()
    # Its name and version are free again.
    assert instance.client.download(instance.client.register(b"again", name="killed").id) == b"again"


# ---- uploads ----


def test_an_upload_resumes_at_the_committed_size_of_the_killed_server(
    instance: Instance, slow_client: SlowClient
) -> None:
    client, data = instance.client, slow_client._data + os.urandom(5 * MIB)
    upload = client.create_upload(name="resumed", artifact={"size_bytes": len(data)})
    call = client.uploads.WriteUpload.future(writes(upload.id, 0, slow_client.chunks()))
    eventually(lambda: client.get_upload(upload.id).committed_size == 2 * PART, what="two committed parts")

    instance.kill()
    slow_client.end()
    with refused(grpc.StatusCode.UNAVAILABLE):
        call.result(timeout=10)

    instance.restart()
    found = client.get_upload(upload.id)
    assert found.state == upload_pb2.Upload.STATE_ACTIVE
    assert found.committed_size == 2 * PART
    assert client.all() == []
    client.write_upload(upload.id, found.committed_size, data[found.committed_size :])
    model = client.complete_upload(upload.id, sha256=sha256(data))
    assert client.download(model.id) == data
    instance.gc()
    instance.assert_nothing_is_left_over()


def test_an_upload_that_is_cancelled_after_a_kill_leaves_nothing(instance: Instance, slow_client: SlowClient) -> None:
    client = instance.client
    upload = client.create_upload(name="dropped")
    call = client.uploads.WriteUpload.future(writes(upload.id, 0, slow_client.chunks()))
    eventually(lambda: client.get_upload(upload.id).committed_size == 2 * PART, what="two committed parts")
    (key,) = instance.column("SELECT object_key FROM uploads")
    assert instance.store.stored_parts(key) == 2
    instance.kill()
    slow_client.end()
    with refused(grpc.StatusCode.UNAVAILABLE):
        call.result(timeout=10)
    instance.restart()
    client.cancel_upload(upload.id)
    instance.gc()
    instance.assert_nothing_is_left_over()


def test_a_completion_can_be_repeated_after_a_kill_at_any_moment(instance: Instance) -> None:
    client = instance.client
    data = os.urandom(40 * MIB + 7)
    moments = random.Random(4711)
    duration = 0.0
    for number in range(9):
        name = f"completed-{number}"
        upload = client.create_upload(name=name)
        client.write_upload(upload.id, 0, data)
        call = client.uploads.CompleteUpload.future(upload_service_pb2.CompleteUploadRequest(upload_id=upload.id))
        if number == 0:
            # Measure an undisturbed completion first.
            call.result()
            duration = duration_of_last_call(instance, "CompleteUpload")
            continue
        with contextlib.suppress(grpc.FutureTimeoutError):
            call.result(timeout=moments.uniform(0, duration * 1.1))
        instance.kill()
        instance.restart()
        assert client.get_upload(upload.id).committed_size == len(data)
        assert len(client.all(f'name = "{name}"')) <= 1
        model = client.complete_upload(upload.id, sha256=sha256(data))
        assert client.all(f'name = "{name}"') == [model]
        assert client.complete_upload(upload.id) == model
        assert sha256(client.download(model.id)) == sha256(data)
        client.delete(model.id)
    instance.gc()
    instance.assert_nothing_is_left_over()


def duration_of_last_call(instance: Instance, method: str) -> float:
    """Return the duration in seconds, from the server's log."""

    def lines() -> list[dict[str, object]]:
        return [line for line in instance.product.server.log_lines() if str(line.get("method")).endswith(f"/{method}")]

    return float(str(eventually(lines, 10, "the line of the call")[-1]["duration_ms"])) / 1000


# ---- everything at once ----


@dataclass
class Load:
    """Registers and deletes models from several threads, and records the acknowledged calls."""

    client: Client
    registered: dict[str, str] = field(default_factory=dict)
    """SHA-256 by id of the acknowledged models without an attempted deletion."""
    deleted: set[str] = field(default_factory=set)
    """Ids of the models whose deletion was acknowledged."""
    stopped: threading.Event = field(default_factory=threading.Event)

    def acknowledged(self) -> int:
        return len(self.registered) + len(self.deleted)

    def reaches(self, number: int) -> bool:
        return self.acknowledged() >= number

    def run(self, round_: int, thread: int) -> None:
        numbers = random.Random(round_ * 100 + thread)
        number = 0
        mine: list[str] = []
        while not self.stopped.is_set():
            number += 1
            (size,) = numbers.choices([1, 1000, MIB, PART + 1, 2 * PART + 5], [4, 4, 4, 2, 1])
            data = numbers.randbytes(size)
            try:
                model = self.client.register(data, name=f"load-{round_}-{thread}-{number}")
                self.registered[model.id] = sha256(data)
                mine.append(model.id)
                if numbers.random() < 0.4:
                    victim = mine.pop(numbers.randrange(len(mine)))
                    del self.registered[victim]
                    self.client.delete(victim)
                    self.deleted.add(victim)
            except grpc.RpcError:
                return  # killed


def test_acknowledged_changes_survive_a_kill(instance: Instance) -> None:
    client = instance.client
    load = Load(client)
    for round_ in range(3):
        load.stopped.clear()
        enough = load.acknowledged() + 25
        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(load.run, round_, thread) for thread in range(6)]
            eventually(partial(load.reaches, enough), what="some load")
            instance.kill()
            load.stopped.set()
            for thread in running:
                thread.result()
        instance.restart()
        listed = {model.id: model.artifact.sha256 for model in client.all(page_size=1000)}
        assert listed.items() >= load.registered.items()
        assert not listed.keys() & load.deleted
    # Once for all rounds: a round leaves the models of earlier ones alone.
    for model_id, digest in listed.items():
        assert client.verify(model_id).intact
        assert sha256(client.download(model_id)) == digest
    assert len(load.deleted) >= 5
    instance.gc()
    instance.assert_nothing_is_left_over()
    for model_id in listed:
        client.delete(model_id)
    instance.gc()
    instance.assert_nothing_is_left_over()
    assert instance.store.objects() == set()


@dataclass
class KeyedLoad:
    """Registers models with idempotency keys from several threads."""

    client: Client
    begun: list[str] = field(default_factory=list)
    """Keys of all calls that began."""
    answered: dict[str, model_pb2.Model] = field(default_factory=dict)

    def reaches(self, number: int) -> bool:
        return len(self.answered) >= number

    def register(self, key: str) -> model_pb2.Model:
        first = model_service_pb2.RegisterModelRequest(spec=spec(name=f"keyed-{key}"), idempotency_key=key)
        chunk = model_service_pb2.RegisterModelRequest(chunk=key.encode() * 100)
        return self.client.models.RegisterModel(iter([first, chunk])).model

    def run(self, round_: int, thread: int) -> None:
        for number in itertools.count():
            key = f"{round_}-{thread}-{number}"
            self.begun.append(key)
            try:
                self.answered[key] = self.register(key)
            except grpc.RpcError:
                return  # killed

    def repeated(self, key: str) -> model_pb2.Model | None:
        """Return the answer of a repeated call; None while the killed call still counts as running."""
        try:
            return self.register(key)
        except grpc.RpcError as error:
            expect(error, grpc.StatusCode.ABORTED)
            return None


def test_a_killed_call_that_is_repeated_with_its_idempotency_key_happens_once(instance: Instance) -> None:
    load = KeyedLoad(instance.client)
    for round_ in range(2):
        enough = len(load.answered) + 60
        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(load.run, round_, thread) for thread in range(6)]
            eventually(partial(load.reaches, enough), what="some load")
            instance.kill()
            for thread in running:
                thread.result()
        instance.restart()
        for key in load.begun:
            model = eventually(partial(load.repeated, key), 30, "an answer to a repeated call")
            assert model is not None
            assert load.answered.setdefault(key, model) == model
        assert sorted(model.id for model in instance.client.iterate()) == sorted(
            model.id for model in load.answered.values()
        )
    assert len(load.answered) == len(load.begun)
    instance.gc()
    instance.assert_nothing_is_left_over()


def test_sigterm_lets_a_registration_finish(instance: Instance, slow_client: SlowClient) -> None:
    call = instance.client.models.RegisterModel.future(registration(spec(name="drained"), slow_client.chunks()))
    (key,) = eventually(instance.ledger, what="the lease of the object")
    eventually(lambda: instance.store.stored_parts(key) == 2, what="two stored parts")
    server = instance.product.server.process
    assert server is not None
    server.terminate()
    eventually(lambda: not listens(instance.product.grpc_port), what="the end of new connections")
    # A call on an open connection is cancelled if it arrives in the moment of the stop.
    with contextlib.closing(Client(instance.product.grpc_address)) as late, refused(grpc.StatusCode.UNAVAILABLE):
        late.all()
    slow_client.end()
    assert call.result(timeout=10).model.name == "drained"
    assert server.wait(20) == 0
    instance.restart()
    assert instance.client.names() == ["drained"]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
