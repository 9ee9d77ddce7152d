"""Two replicas behind one gateway, killed and stopped in turn under load, keep no state of their own."""

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import psutil
import pytest
from modelregistry.v1 import alias_service_pb2, audit_service_pb2, model_service_pb2, upload_pb2
from sqlalchemy import Engine, text

from registry_service.embedded.postgres import PostgresAddress
from tests.e2e.test_crashes import Bucket, SlowClient, listens
from tests.e2e.test_metrics import Scrape
from tests.integration.alias_calls import history
from tests.polling import eventually
from tests.ports import free_port
from tests.products import COMMAND, Command, Product, environment, s3_settings
from tests.s3_server import S3Server, new_bucket_name
from tests.stub_client import CHUNK, Client, pieces, refused, sha256, writes, zip_of

MIB = 1024 * 1024
PART = 8 * MIB
TIMEOUT_SECONDS = 120
PAUSE_SECONDS = 0.2
"""Between two steps of a client of `Load`. Without a pause, clients take the CPU time of a replica that starts."""
ALIAS = "production"
HEALTHY = "envoy_cluster_membership_healthy"


@dataclass
class Fleet:
    """Two replicas on one Postgres and one S3, behind one gateway."""

    replicas: tuple[Product, Product]
    gateway: Command
    rest_port: int
    gateway_metrics_port: int
    engine: Engine
    bucket: Bucket

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}"

    def client(self) -> Client:
        """Return a gRPC client of the gateway."""
        return Client(f"127.0.0.1:{self.rest_port}")

    def start(self, replica: Product) -> None:
        """Start a replica, and return once the gateway routes to it, as a rolling restart does."""
        replica.server.start()
        replica.wait_until_ready()
        self.wait_for_gateway()

    def wait_for_gateway(self) -> None:
        """Return once the gateway considers both replicas healthy."""
        eventually(
            lambda: Scrape(self.gateway_metrics_port).value(HEALTHY, envoy_cluster_name="registry") == 2,
            what="both replicas behind the gateway",
        )

    def kill(self, replica: Product) -> None:
        replica.server.kill()
        self.watch_keys()

    def close(self) -> None:
        """Kill what still runs: SIGTERM takes a replica `shutdown_delay_seconds`."""
        for replica in self.replicas:
            if replica.server.process is not None:
                replica.server.kill()
            replica.close()
        self.gateway.close()

    def watch_keys(self) -> None:
        """Record the present object keys, for a later search for unfinished uploads."""
        self.bucket.watch(
            [
                *self.column("SELECT object_key FROM unreferenced_objects"),
                *self.column("SELECT object_key FROM uploads"),
            ]
        )

    def column(self, query: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query)).scalars())

    def assert_nothing_left_over(self) -> None:
        """Assert that garbage collection after the leases leaves exactly the models' objects."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE unreferenced_objects SET due_time = now()"))
            connection.execute(text("UPDATE uploads SET expire_time = now() WHERE state = 'active'"))
        subprocess.run([*COMMAND, "gc"], env=self.replicas[0].server.env, check=True, capture_output=True)
        assert self.column("SELECT object_key FROM unreferenced_objects") == []
        assert self.bucket.unfinished() == []
        assert self.bucket.objects() == set(self.column("SELECT object_key FROM models"))


@pytest.fixture
def fleet(
    postgres: PostgresAddress, database_name: str, engine: Engine, s3_server: S3Server, tmp_path: Path
) -> Iterator[Fleet]:
    """A running fleet on its own database and bucket."""
    name = new_bucket_name()
    settings = s3_settings(postgres, database_name, s3_server, name) | {
        "gc_interval_seconds": 3600,
        "health_interval_seconds": 0.2,
        # Twice the time that the gateway needs to detect it.
        "shutdown_delay_seconds": 5,
        "shutdown_grace_seconds": 10,
    }
    rest_port, metrics_port, ports = free_port(), free_port(), (free_port(), free_port())
    upstreams = ",".join(f"127.0.0.1:{port}" for port in ports)
    gateway = Command(
        ["gateway"],
        environment(grpc_upstreams=upstreams, server_port=rest_port, gateway_metrics_port=metrics_port),
        tmp_path / "gateway.log",
    )
    one, other = (
        Product(
            "replica",
            port,
            rest_port,
            Command(["serve"], environment(**settings, grpc_port=port), tmp_path / f"serve-{port}.log"),
            None,
        )
        for port in ports
    )
    found = Fleet((one, other), gateway, rest_port, metrics_port, engine, Bucket(settings, s3_server, name))
    with closing(found):
        for replica in found.replicas:
            replica.server.start()
        gateway.start()
        for replica in found.replicas:
            replica.wait_until_ready()
        found.wait_for_gateway()
        yield found


# ---- one step after another ----


def test_an_upload_resumes_on_the_other_replica_after_a_kill(fleet: Fleet) -> None:
    one, other = fleet.replicas
    data = os.urandom(21 * MIB)
    upload = one.client.create_upload(name="resumed", artifact={"size_bytes": len(data)})
    slow = SlowClient(data[: 2 * PART + MIB])
    call = one.client.uploads.WriteUpload.future(writes(upload.id, 0, slow.chunks()))
    eventually(lambda: other.client.get_upload(upload.id).committed_size == 2 * PART, what="two committed parts")
    fleet.kill(one)
    slow.end()
    with refused(grpc.StatusCode.UNAVAILABLE):
        call.result(timeout=10)

    found = other.client.get_upload(upload.id)
    assert found.state == upload_pb2.Upload.STATE_ACTIVE
    other.client.write_upload(upload.id, found.committed_size, data[found.committed_size :])
    model = other.client.complete_upload(upload.id, sha256=sha256(data))
    fleet.start(one)
    assert one.client.complete_upload(upload.id) == model
    assert one.client.download(model.id) == data
    fleet.assert_nothing_left_over()


def test_tokens_and_etags_of_one_replica_work_on_the_other(fleet: Fleet) -> None:
    one, other = fleet.replicas
    for number in range(5):
        one.client.register(name=f"page {number}")
    request = model_service_pb2.ListModelsRequest(page_size=3)
    page = one.client.models.ListModels(request)
    request.page_token = page.next_page_token
    names = [model.name for model in (*page.models, *other.client.models.ListModels(request).models)]
    assert sorted(names) == [f"page {number}" for number in range(5)]
    model = page.models[0]
    updated = other.client.update(model.id, score=1, etag=model.etag)
    with refused(grpc.StatusCode.ABORTED, "ETAG_MISMATCH"):
        one.client.update(model.id, score=2, etag=model.etag)
    assert one.client.get(model.id).etag == updated.etag


def test_a_stopping_replica_finishes_its_calls_and_gets_no_new_ones(fleet: Fleet) -> None:
    one, other = fleet.replicas
    slow = SlowClient(bytes(MIB))
    upload = one.client.create_upload(name="drained")
    call = one.client.uploads.WriteUpload.future(writes(upload.id, 0, slow.chunks()))
    eventually(lambda: fleet.column("SELECT epoch FROM uploads WHERE epoch > 0"), what="the writer")
    assert one.server.process is not None
    one.server.process.send_signal(signal.SIGTERM)
    eventually(lambda: not listens(one.grpc_port), what="the end of new connections")
    with httpx.Client(base_url=fleet.rest_url, trust_env=False) as http:
        for _ in range(20):
            assert http.get("/ready").status_code == 200
            assert http.get("/v1/models").status_code == 200
    slow.end()
    assert call.result(timeout=10).upload.committed_size == MIB
    assert one.server.process.wait(20) == 0
    assert other.client.get_upload(upload.id).committed_size == MIB


# ---- everything at once ----


def test_a_frozen_replica_delays_reads_only_briefly(fleet: Fleet) -> None:
    with closing(fleet.client()) as client:
        data = os.urandom(3 * MIB)
        model = client.register(data, name="read")
        frozen = psutil.Process(fleet.replicas[0].server.process.pid)  # type: ignore[union-attr]

        def seconds_of_read(number: int) -> float:
            started = time.monotonic()
            kind = number % 3
            if kind == 0:
                client.get(model.id)
            elif kind == 1:
                assert httpx.get(f"{fleet.rest_url}/models/{model.id}", timeout=30).json()["name"] == "read"
            else:
                assert httpx.get(f"{fleet.rest_url}/v1/models/{model.id}/artifact", timeout=30).content == data
            return time.monotonic() - started

        frozen.suspend()
        try:
            with ThreadPoolExecutor(6) as pool:
                longest = max(pool.map(seconds_of_read, range(60)))
        finally:
            frozen.resume()
        assert longest < 3


def attempted(call: Any) -> bool:
    """Make a write, and return whether it was acknowledged. An unacknowledged write may have had its effect."""
    try:
        call()
    except grpc.RpcError as error:
        if cast("grpc.Call", error).code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
    return True


class Load:
    """Clients that continue through failures of single replicas, and record the answers.

    Reads must never fail. A write may fail with
    UNAVAILABLE; then it happened completely or not at all.
    """

    def __init__(self, fleet: Fleet, group_id: str) -> None:
        self.fleet = fleet
        self.group_id = group_id
        """Of the models that the alias is moved between."""
        self.stopped = threading.Event()
        self.done: Counter[str] = Counter()
        """How often each kind of client did what it does."""
        self.models: dict[str, bytes] = {}
        """The bytes of models that were acknowledged, by id."""
        self.unknown: dict[str, bytes] = {}
        """The same of those that may be there or not."""
        self.posted: dict[str, bytes] = {}
        """The bytes of models whose form got no answer, by name."""
        self.broken: Counter[str] = Counter()
        """How often something had to be repeated or continued."""
        self.sequences: list[int] = []
        """Of the events that the watch saw."""
        self.seen_all = threading.Event()
        """Ends the watch, the last of all."""
        self.watching: Any = None

    def register(self, client: Client, numbers: random.Random) -> None:
        """Register a model in one call."""
        data = numbers.randbytes(numbers.choice([1, 10_000, 100_000, MIB]))
        model_id = f"registered-{numbers.getrandbits(64):016x}"
        if attempted(lambda: client.register(data, name=model_id, id=model_id)):
            self.models[model_id] = data
            self.done["registered"] += 1
        else:
            self.unknown[model_id] = data
            self.broken["registered"] += 1

    def post(self, http: httpx.Client, numbers: random.Random) -> None:
        """Register a model over the Intel-compatible API."""
        name, data = f"posted-{numbers.getrandbits(64):016x}", zip_of({"a": numbers.randbytes(50_000)})
        answer = http.post(
            "/models", data={"name": name, "version": "1"}, files={"file": ("model.zip", data, "application/zip")}
        )
        if answer.status_code == 201:
            self.models[answer.text.strip('"')] = data
            self.done["posted"] += 1
        else:
            assert answer.status_code == 503, answer.text
            self.posted[name] = data
            self.broken["posted"] += 1

    def read(self, http: httpx.Client, client: Client, numbers: random.Random) -> None:
        """Read one of the models in every way."""
        model_id = numbers.choice(list(self.models))
        data = self.models[model_id]
        assert client.get(model_id).artifact.sha256 == sha256(data)
        found = http.get(f"/v1/models/{model_id}")
        assert found.status_code == 200, found.text
        assert found.json()["artifact"]["sha256"] == sha256(data)
        for path in (f"/models/{model_id}", "/v1/models?page_size=3&filter=registered", "/v1/auditEvents?page_size=3"):
            answer = http.get(path)
            assert answer.status_code == 200, answer.text
        assert self.download(http, model_id) == data
        self.done["read"] += 1

    def download(self, http: httpx.Client, model_id: str) -> bytes:
        """Download an artifact, and resume where its replica failed."""
        data, size = bytearray(), None
        while size is None or len(data) < size:
            # The gateway resets a connection whose replica is killed after the last byte, so it is not used again.
            headers = {"range": f"bytes={len(data)}-", "connection": "close"}
            with http.stream("GET", f"/v1/models/{model_id}/artifact", headers=headers) as answer:
                # The gateway retries a request only until the response begins. A replica that is killed between its
                # response headers and the first byte leaves the retry to the client.
                if answer.status_code == 503 and "retry-after" in answer.headers:
                    self.broken["downloads"] += 1
                    continue
                assert answer.status_code == 206, answer.read()
                size = len(data) + int(answer.headers["content-length"])
                try:
                    for piece in answer.iter_raw():
                        data += piece
                except httpx.RemoteProtocolError:
                    self.broken["downloads"] += 1
        return bytes(data)

    def upload(self, client: Client, numbers: random.Random) -> None:
        """Upload a model, and resume where its replica failed."""
        data = numbers.randbytes(PART + 100)
        created: list[upload_pb2.Upload] = []
        name = f"uploaded-{numbers.getrandbits(64):016x}"
        while not attempted(
            lambda: created.append(client.create_upload(name=name, artifact={"size_bytes": len(data)}))
        ):
            self.broken["created"] += 1
        upload_id = created[0].id
        while (size := client.get_upload(upload_id).committed_size) < len(data):
            if not attempted(lambda size=size: self._write(client, upload_id, size, data[size:])):
                self.broken["uploads"] += 1
        while not attempted(lambda: self.models.update({self._complete(client, upload_id, data): data})):
            self.broken["completed"] += 1
        self.done["uploaded"] += 1

    def _write(self, client: Client, upload_id: str, offset: int, data: bytes) -> None:
        try:
            client.uploads.WriteUpload(writes(upload_id, offset, pieces(data, CHUNK)))
        except grpc.RpcError as error:
            # A killed replica, or one that still wrote while the client read the committed size.
            if cast("grpc.Call", error).code() is not grpc.StatusCode.ABORTED:
                raise
            self.broken["taken over"] += 1

    def _complete(self, client: Client, upload_id: str, data: bytes) -> str:
        return client.complete_upload(upload_id, sha256=sha256(data)).id

    def move(self, client: Client, targets: list[str]) -> None:
        """Move the alias exactly once, despite failures."""
        number = self.done["moved"]
        current, target = targets[(number - 1) % len(targets)], targets[number % len(targets)]
        request = alias_service_pb2.SetAliasRequest(
            model_group_id=self.group_id,
            alias=ALIAS,
            model_id=target,
            expected_model_id=current if number else "",
            reason=str(number),
        )
        while not attempted(lambda: self._move(client, request)):
            self.broken["moved"] += 1
        self.done["moved"] += 1

    def _move(self, client: Client, request: alias_service_pb2.SetAliasRequest) -> None:
        try:
            client.aliases.SetAlias(request)
        except grpc.RpcError as error:
            # The move happened, but its answer was lost.
            if cast("grpc.Call", error).code() is not grpc.StatusCode.ABORTED:
                raise
            found = client.aliases.GetAlias(
                alias_service_pb2.GetAliasRequest(model_group_id=self.group_id, alias=ALIAS)
            )
            assert (found.model_id, found.reason) == (request.model_id, request.reason)

    def watch(self, client: Client) -> None:
        """Watch every change, across servers."""
        token = ""
        while not self.seen_all.is_set():
            self.watching = client.audit.WatchAuditEvents(
                audit_service_pb2.WatchAuditEventsRequest(resume_token=token, from_beginning=not token)
            )
            try:
                for message in self.watching:
                    token = message.resume_token
                    if message.HasField("event"):
                        self.sequences.append(message.event.sequence)
                        self.done["watched"] += 1
            except grpc.RpcError as error:
                # INTERNAL: the gateway resets a stream whose server was killed.
                broken_off = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
                if not self.seen_all.is_set() and cast("grpc.Call", error).code() not in broken_off:
                    raise
                self.broken["watched"] += 1

    @contextmanager
    def running_clients(self, targets: list[str]) -> Iterator[None]:
        """Run all clients, and raise the first error of any of them."""
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(16))
            stack.callback(self.stopped.set)
            self.running: list[Future[None]] = []

            def run(seed: int, step: Any, *arguments: Any) -> None:
                numbers = random.Random(seed)
                while not self.stopped.wait(PAUSE_SECONDS):
                    step(*arguments, numbers)

            def client() -> Client:
                made = self.fleet.client()
                stack.callback(made.close)
                return made

            def http() -> httpx.Client:
                return stack.enter_context(httpx.Client(base_url=self.fleet.rest_url, timeout=60, trust_env=False))

            for seed in range(2):
                self.running += [
                    pool.submit(run, seed, self.register, client()),
                    pool.submit(run, 10 + seed, self.read, http(), client()),
                ]
            mover = client()
            self.running += [
                pool.submit(run, 20, self.upload, client()),
                pool.submit(run, 30, self.post, http()),
                pool.submit(run, 40, lambda _: self.move(mover, targets)),
                pool.submit(self.watch, client()),
            ]
            try:
                yield
            finally:
                self.stopped.set()
                *others, watch = self.running
                for future in others:
                    future.result(TIMEOUT_SECONDS)
                try:
                    head = self.fleet.column("SELECT max(sequence) FROM audit_events")[0]
                    eventually(lambda: self.sequences[-1] >= head, TIMEOUT_SECONDS, "the last event")
                finally:
                    self.seen_all.set()
                    self.watching.cancel()
                watch.result(TIMEOUT_SECONDS)

    def go_on(self, times: int) -> None:
        """Return once every kind of client has made this many more calls; fail if one has stopped."""
        before = Counter(self.done)

        def is_done() -> bool:
            for future in self.running:
                if future.done() and (error := future.exception()):
                    pytest.fail(f"a client gave up: {error!r}")
            kinds = ("registered", "posted", "read", "uploaded", "moved", "watched")
            return all(self.done[kind] >= before[kind] + times for kind in kinds)

        eventually(is_done, TIMEOUT_SECONDS, f"{times} more of everything")


@pytest.mark.timeout(900)
def test_clients_lose_nothing_while_replicas_are_killed_and_stopped_in_turn(fleet: Fleet) -> None:
    one, other = fleet.replicas
    targets = [one.client.register(name="served", version=str(number)).id for number in range(3)]
    load = Load(fleet, one.client.get(targets[0]).model_group_id)
    first = one.client.register(b"read from the beginning", name="first")
    load.models[first.id] = b"read from the beginning"
    with load.running_clients(targets):
        load.go_on(3)
        for replica, number in (
            (one, signal.SIGKILL),
            (other, signal.SIGKILL),
            (one, signal.SIGTERM),
            (other, signal.SIGTERM),
            (one, signal.SIGKILL),
            (other, signal.SIGKILL),
        ):
            broken = +load.broken
            code = replica.server.stop(number)
            assert code == (0 if number is signal.SIGTERM else -number)
            fleet.watch_keys()
            load.go_on(2)
            if number is signal.SIGTERM:
                # Only the watch was interrupted.
                assert (load.broken - broken).keys() <= {"watched"}
            fleet.start(replica)
            load.go_on(2)
    print(f"\ndone: {dict(load.done)}; repeated or continued: {dict(load.broken)}")  # noqa: T201 - with pytest -rP

    # Every acknowledged model is complete on both replicas; every other one is complete or absent.
    for replica in fleet.replicas:
        there = {model.id: model for model in replica.client.all(page_size=1000)}
        assert load.models.keys() <= there.keys()
        by_name = {model.name: model.id for model in there.values()}
        left_open = load.unknown | {by_name[name]: data for name, data in load.posted.items() if name in by_name}
        for model_id in there.keys() - set(targets):
            data = load.models[model_id] if model_id in load.models else left_open[model_id]
            assert there[model_id].artifact.sha256 == sha256(data)
            assert replica.client.download(model_id) == data

    # Each move happened once, and the watch saw each change once.
    moves = history(one.client, ALIAS, model_group_id=load.group_id)
    assert [move.reason for move in moves] == [str(number) for number in range(load.done["moved"])]
    verified = other.client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest())
    assert verified.valid
    assert load.sequences == list(range(1, verified.checked_count + 1))
    assert load.broken["watched"] > 0
    fleet.assert_nothing_left_over()
