"""No acknowledged change is lost while connections to Postgres and S3 are cut and delayed at random under load.

CHAOS_SECONDS is the duration (default 10), CHAOS_SEED the seed of the random numbers (default 0).
"""

import logging
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from minio import Minio
from modelregistry.v1 import alias_service_pb2, audit_service_pb2
from sqlalchemy import Engine, text

from registry_service.embedded.postgres import PostgresAddress
from tests.chaos_proxy import ChaosProxy
from tests.polling import eventually
from tests.products import COMMAND, Product, running_serve, s3_settings
from tests.s3_server import S3Server, new_bucket_name
from tests.streams import Feed, expect
from tests.stub_client import Client, pieces, refused, registration, sha256, spec

logger = logging.getLogger(__name__)

MIB = 1024 * 1024
SECONDS = float(os.environ.get("CHAOS_SECONDS", "10"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
WORKERS = 6
MAX_STREAMS = 12
# Statuses of a failure that the client did not cause and may retry.
PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@dataclass
class Expected:
    """The expected state of one worker's models, which no other worker touches."""

    whole: dict[str, bytes] = field(default_factory=dict)
    """Acknowledged: they are there, with these bytes."""
    unsure: dict[str, bytes] = field(default_factory=dict)
    """Of a registration or deletion whose answer was an error: there with these bytes, or not there."""
    gone: set[str] = field(default_factory=set)
    """Their deletion was acknowledged."""
    scores: dict[str, set[float]] = field(default_factory=dict)
    alias_targets: set[str] = field(default_factory=set)
    """What the worker's alias may point to: the last acknowledged, and those whose answer was an error since."""
    has_alias: bool = False
    """Whether a move was acknowledged."""
    uploads: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Begun and not known to be completed: their model's id and bytes."""
    done: dict[str, int] = field(default_factory=dict)
    """How often each kind of action was acknowledged."""
    failed: dict[str, int] = field(default_factory=dict)


class Worker:
    """A client that makes one call after another and records the answers."""

    def __init__(self, product: Product, number: int, stop: threading.Event) -> None:
        self._product = product
        self._number = number
        self._stop = stop
        self._random = random.Random(f"{SEED} {number}")
        self._versions = count()
        self.alias = f"current-{number}"
        self.expected = Expected()

    @property
    def name(self) -> str:
        return f"worker-{self._number}"

    def run(self) -> None:
        actions = (
            [self.register] * 4
            + [self.upload] * 3
            + [self.read] * 4
            + [self.delete, self.update]
            + [self.move_alias] * 2
        )
        with closing(Client(self._product.grpc_address)) as client:
            while not self._stop.is_set():
                action = self._random.choice(actions)
                try:
                    action(client)
                    outcome = self.expected.done
                except grpc.RpcError as error:
                    expect(error, *PASSING)
                    outcome = self.expected.failed
                outcome[action.__name__] = outcome.get(action.__name__, 0) + 1

    def register(self, client: Client) -> None:
        model_id, data = self._new()
        self.expected.unsure[model_id] = data
        client.register(data, id=model_id, name=self.name, version=str(next(self._versions)))
        self._acknowledged(model_id)

    def upload(self, client: Client) -> None:
        model_id, data = self._new()
        upload = client.create_upload(id=model_id, name=self.name, version=str(next(self._versions)))
        self.expected.uploads[upload.id] = (model_id, data)
        self.expected.unsure[model_id] = data
        self.finish(client, upload.id)

    def finish(self, client: Client, upload_id: str) -> None:
        """Resume an upload at its committed size until it becomes a model."""
        model_id, data = self.expected.uploads[upload_id]
        while True:
            try:
                committed = client.get_upload(upload_id).committed_size
                assert committed <= len(data)
                if committed < len(data):
                    client.write_upload(upload_id, committed, data[committed:])
                client.complete_upload(upload_id, sha256=sha256(data))
            except grpc.RpcError as error:
                # A write or completion whose answer was lost may still run, or be done: read the upload again.
                expect(error, *PASSING, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.FAILED_PRECONDITION)
            else:
                del self.expected.uploads[upload_id]
                self._acknowledged(model_id)
                return

    def read(self, client: Client) -> None:
        if not self.expected.whole:
            return
        model_id = self._random.choice(sorted(self.expected.whole))
        assert client.get(model_id).score in self.expected.scores.get(model_id, {0})
        assert client.download(model_id) == self.expected.whole[model_id]
        answer = httpx.get(f"{self._product.rest_url}/v1/models/{model_id}", timeout=60, trust_env=False)
        assert answer.status_code in {200, 409, 429, 503, 504}, answer.text

    def delete(self, client: Client) -> None:
        spare = sorted(self.expected.whole.keys() - self.expected.alias_targets)
        if not spare:
            return
        model_id = self._random.choice(spare)
        self.expected.unsure[model_id] = self.expected.whole.pop(model_id)
        client.delete(model_id)
        del self.expected.unsure[model_id]
        self.expected.gone.add(model_id)

    def update(self, client: Client) -> None:
        if not self.expected.whole:
            return
        model_id = self._random.choice(sorted(self.expected.whole))
        score = float(self._random.randrange(1, 1_000))
        self.expected.scores.setdefault(model_id, {0}).add(score)
        client.update(model_id, ["score"], score=score)
        self.expected.scores[model_id] = {score}

    def move_alias(self, client: Client) -> None:
        if not self.expected.whole:
            return
        model_id = self._random.choice(sorted(self.expected.whole))
        self.expected.alias_targets.add(model_id)
        client.set_alias(model_id, self.alias, reason="chaos")
        self.expected.alias_targets = {model_id}
        self.expected.has_alias = True

    def _new(self) -> tuple[str, bytes]:
        # Most fit into one request to the store; some take several parts.
        size = self._random.choice([1, 10, 5_000, 300_000, 300_000, 9 * MIB, 17 * MIB])
        return f"chaos-{self._number}-{self._random.randbytes(8).hex()}", self._random.randbytes(size)

    def _acknowledged(self, model_id: str) -> None:
        self.expected.whole[model_id] = self.expected.unsure.pop(model_id)


@dataclass
class Chaos:
    """A product whose connections to Postgres and S3 go through proxies."""

    product: Product
    postgres: ChaosProxy
    s3: ChaosProxy
    engine: Engine
    minio: Minio
    bucket: str

    def column(self, query: str) -> list[str]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(query)).scalars())

    def objects(self) -> set[str]:
        return {str(found.object_name) for found in self.minio.list_objects(self.bucket, recursive=True)}


@pytest.fixture
def chaos(
    postgres: PostgresAddress, database_name: str, engine: Engine, s3_server: S3Server, tmp_path: Path
) -> Iterator[Chaos]:
    s3_server.require("aborted uploads")
    bucket = new_bucket_name()
    endpoint = s3_server.endpoint
    socket_path = str(Path(postgres.socket_dir) / f".s.PGSQL.{postgres.port}")
    with (
        ChaosProxy(socket_path, None, seed=SEED, mean_bytes=60_000) as database,
        ChaosProxy(endpoint.host, endpoint.port, seed=SEED + 1, mean_bytes=6 * MIB) as store,
    ):
        settings = s3_settings(postgres, database_name, s3_server, bucket) | {
            "psql_hostname": "127.0.0.1",
            "psql_port": database.port,
            "minio_server_port": store.port,
            "max_streams": MAX_STREAMS,
            "caller_share": 1,
            "gc_interval_seconds": 1,
        }
        with running_serve(tmp_path, settings) as product:
            minio = Minio(
                f"{endpoint.host}:{endpoint.port}",
                access_key=endpoint.access_key,
                secret_key=endpoint.secret_key,
                secure=False,
            )
            yield Chaos(product, database, store, engine, minio, bucket)


@pytest.mark.timeout(300 + 2 * SECONDS)
def test_no_acknowledged_model_is_lost_and_none_is_incomplete(chaos: Chaos) -> None:
    product, client = chaos.product, chaos.product.client
    stop = threading.Event()
    workers = [Worker(product, number, stop) for number in range(WORKERS)]
    server = psutil.Process(product.processes()[0].pid)
    with ThreadPoolExecutor(WORKERS) as pool:
        chaos.postgres.harm.set()
        chaos.s3.harm.set()
        running = [pool.submit(worker.run) for worker in workers]
        try:
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline and not any(work.done() for work in running):
                stop.wait(0.1)
        finally:
            chaos.postgres.harm.clear()
            chaos.s3.harm.clear()
            stop.set()
        for work in running:
            work.result()
    assert chaos.postgres.cuts > 3
    assert chaos.s3.cuts > 3

    product.wait_until_ready()
    assert server.is_running()
    assert "unexpected error" not in product.server.output()
    for worker in workers:
        for upload_id in list(worker.expected.uploads):
            worker.finish(client, upload_id)
        logger.info("%s: done %s, failed %s", worker.name, worker.expected.done, worker.expected.failed)
    assert_all_streams_free(client)
    there = {model.id for model in client.all()}
    for worker in workers:
        assert_consistent(worker, client, there)
    known = {model_id for w in workers for model_id in (*w.expected.whole, *w.expected.unsure)}
    assert there <= known
    assert client.audit.VerifyAuditLog(audit_service_pb2.VerifyAuditLogRequest()).valid
    assert server.num_threads() < 200
    assert_nothing_left_over(chaos)


def assert_consistent(worker: Worker, client: Client, there: set[str]) -> None:
    expected = worker.expected
    assert expected.whole.keys() <= there
    assert not expected.gone & there
    for model_id, data in (expected.whole | expected.unsure).items():
        if model_id in expected.unsure and model_id not in there:
            with refused(grpc.StatusCode.NOT_FOUND):
                client.get(model_id)
            continue
        assert client.get(model_id).score in expected.scores.get(model_id, {0})
        assert client.download(model_id) == data
        assert client.verify(model_id).intact
    aliases = {
        alias.alias: alias.model_id
        for group in client.all_groups(f'name = "{worker.name}"')
        for alias in client.aliases.ListAliases(alias_service_pb2.ListAliasesRequest(model_group_id=group.id)).aliases
    }
    if worker.alias in aliases or expected.has_alias:
        assert aliases[worker.alias] in expected.alias_targets


def assert_all_streams_free(client: Client) -> None:
    feeds = [
        Feed(*registration(spec(name="stream", version=str(number)), pieces(b"x"))) for number in range(MAX_STREAMS)
    ]
    calls = [client.models.RegisterModel.future(feed) for feed in feeds]
    for feed in feeds:
        feed.end()
    for call in calls:
        client.delete(call.result().model.id)


def assert_nothing_left_over(chaos: Chaos) -> None:
    """Assert that garbage collection after the leases leaves exactly the models' objects."""

    def is_collected() -> bool:
        with chaos.engine.begin() as connection:
            connection.execute(text("UPDATE unreferenced_objects SET due_time = now()"))
        subprocess.run([*COMMAND, "gc"], env=chaos.product.server.env, check=True, capture_output=True)
        return chaos.column("SELECT object_key FROM unreferenced_objects") == []

    eventually(is_collected, what="garbage collection of everything")
    assert chaos.objects() == set(chaos.column("SELECT object_key FROM models"))
