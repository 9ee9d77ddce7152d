"""Outages of Postgres and of the artifact store under a running server."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from minio import Minio
from modelregistry.v1 import artifact_service_pb2, model_service_pb2
from sqlalchemy import Engine, text

from registry_service.embedded.postgres import EmbeddedPostgres, PostgresAddress
from tests.polling import eventually
from tests.ports import free_port
from tests.postgres_server import engine_of
from tests.products import COMMAND, Command, Product, environment, running_serve, s3_settings
from tests.s3_server import S3Server, new_bucket_name
from tests.stub_client import Client, pieces, refused, registration, spec
from tests.temporary_folders import accessible_folder

MIB = 1024 * 1024
ANSWER_SECONDS = 15


@dataclass
class Outage:
    """A product on a Postgres and an S3 that a test can stop."""

    product: Product
    postgres: EmbeddedPostgres
    s3: S3Server
    engine: Engine

    @property
    def client(self) -> Client:
        return self.product.client

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.product.rest_url}{path}", timeout=ANSWER_SECONDS, trust_env=False)

    def wait_until_not_serving(self) -> None:
        eventually(lambda: not self.product.is_serving(), ANSWER_SECONDS, "NOT_SERVING")

    def assert_recovery(self) -> None:
        """Assert that everything works again, and that no connection from before the outage is broken."""
        self.product.wait_until_ready()
        for number in range(10):
            self.client.all()
            model = self.client.register(b"recovered", name="recovered", version=str(number))
            assert self.client.download(model.id) == b"recovered"
            assert self.get(f"/v1/models/{model.id}/artifact").content == b"recovered"
            self.client.delete(model.id)

    def assert_nothing_left_over(self) -> None:
        """Assert that garbage collection after the leases leaves exactly the models' objects."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE unreferenced_objects SET due_time = now()"))
        subprocess.run([*COMMAND, "gc"], env=self.product.server.env, check=True, capture_output=True)
        with self.engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM unreferenced_objects")).scalar_one() == 0
            expected = set(connection.execute(text("SELECT object_key FROM models")).scalars())
        endpoint, bucket = self.s3.endpoint, self.product.server.env["MINIO_BUCKET_NAME"]
        minio = Minio(
            f"{endpoint.host}:{endpoint.port}",
            access_key=endpoint.access_key,
            secret_key=endpoint.secret_key,
            secure=False,
        )
        assert {found.object_name for found in minio.list_objects(bucket, recursive=True)} == expected


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedPostgres, PostgresAddress, S3Server]]:
    """A Postgres and an S3 for this file."""
    with accessible_folder() as folder:
        postgres = EmbeddedPostgres(folder, durable=False)
        s3 = S3Server(tmp_path_factory.mktemp("s3-that-goes-away"))
        try:
            address = postgres.start()
            s3.start()
            yield postgres, address, s3
        finally:
            s3.close()
            postgres.stop()


@pytest.fixture(scope="module")
def settings(servers: tuple[EmbeddedPostgres, PostgresAddress, S3Server]) -> dict[str, object]:
    """Settings of a server on these dependencies."""
    _, address, s3 = servers
    return s3_settings(address, address.database, s3, new_bucket_name()) | {"health_interval_seconds": 0.2}


@pytest.fixture(scope="module")
def shared(
    servers: tuple[EmbeddedPostgres, PostgresAddress, S3Server],
    settings: dict[str, object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Outage]:
    """One product for all tests, which must never need a restart."""
    postgres, address, s3 = servers
    engine = engine_of(address, address.database)
    with running_serve(tmp_path_factory.mktemp("outage"), settings) as product:
        yield Outage(product, postgres, s3, engine)
    engine.dispose()


@pytest.fixture
def outage(shared: Outage) -> Iterator[Outage]:
    """The shared product, without models."""
    yield shared
    for model in shared.client.all():
        shared.client.delete(model.id)


def within(seconds: float, call: Callable[[], object]) -> None:
    started = time.monotonic()
    call()
    assert time.monotonic() - started < seconds


# ---- Postgres ----


def test_without_postgres_calls_are_refused_quickly_and_work_again_after_the_outage(outage: Outage) -> None:
    client = outage.client
    model = client.register(b"before", name="before")
    upload = client.create_upload(name="half-way")
    client.write_upload(upload.id, 0, b"half ")
    outage.postgres.stop()
    try:
        outage.wait_until_not_serving()
        for call in (
            lambda: client.get(model.id),
            client.all,
            lambda: client.register(name="meanwhile"),
            lambda: client.update(model.id, score=1),
            lambda: client.delete(model.id),
            lambda: client.download(model.id),
            lambda: client.verify(model.id),
            lambda: client.get_upload(upload.id),
            lambda: client.write_upload(upload.id, 5, b"way"),
            lambda: client.complete_upload(upload.id),
        ):
            with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE") as refusal:
                within(ANSWER_SECONDS, call)
            assert refusal.message == "The database does not respond. Try again later."
        assert outage.get("/v1/models").status_code == 503
        assert outage.get(f"/v1/models/{model.id}/artifact").status_code == 503
        assert outage.get("/ready").status_code == 503
        assert outage.get("/health").status_code == 200
    finally:
        outage.postgres.start()
    outage.assert_recovery()
    assert client.names() == ["before"]
    assert client.download(model.id) == b"before"
    client.write_upload(upload.id, 5, b"way")
    assert client.download(client.complete_upload(upload.id).id) == b"half way"


def test_the_intel_compatible_api_names_the_outage_and_works_again(outage: Outage) -> None:
    form = {"name": "compatible", "version": "1"}

    def register() -> httpx.Response:
        files = {"file": ("model.zip", b"bytes", "application/zip")}
        return httpx.post(f"{outage.product.rest_url}/models", data=form, files=files, timeout=60, trust_env=False)

    model_id = register().raise_for_status().text
    form["version"] = "2"
    outage.postgres.stop()
    try:
        answers = [outage.get("/models"), outage.get(f"/models/{model_id}"), register()]
        assert outage.get("/health").json() == {"status": "ok"}
    finally:
        outage.postgres.start()
    outage.product.wait_until_ready()
    outage.s3.stop()
    try:
        answers += [outage.get(f"/models/{model_id}/files"), register()]
        assert outage.get(f"/models/{model_id}").json()["name"] == "compatible"
    finally:
        outage.s3.start()
    for answer in answers:
        assert answer.status_code == 503
        assert len(answer.text) < 200
        assert not re.search(r"127\.0\.0\.1|localhost|sql|Traceback|psycopg|minio", answer.text, re.IGNORECASE)
    outage.product.wait_until_ready()
    assert outage.get(f"/models/{model_id}/files").content == b"bytes"
    assert [model["version"] for model in outage.get("/models?name=compatible").json()] == ["1"]


def test_a_restart_of_postgres_between_two_calls_causes_no_error(outage: Outage) -> None:
    outage.client.register(name="steady")
    outage.postgres.stop()
    outage.postgres.start()
    # Every pooled connection is broken now.
    for _ in range(10):
        assert outage.client.names() == ["steady"]


def test_the_health_service_reports_a_frozen_postgres(outage: Outage) -> None:
    outage.client.register(name="frozen")
    server = psutil.Process(outage.postgres.process.pid)
    frozen = [server, *server.children(recursive=True)]
    for process in frozen:
        process.suspend()
    try:
        outage.wait_until_not_serving()
        assert outage.get("/ready").status_code == 503
        assert outage.get("/health").status_code == 200
        # From then on, no call waits for Postgres or occupies a thread.
        for _ in range(20):
            with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
                within(2, lambda: outage.client.models.ListModels(model_service_pb2.ListModelsRequest()))
    finally:
        for process in frozen:
            process.resume()
    outage.assert_recovery()
    assert outage.client.names() == ["frozen"]


def test_a_registration_during_an_outage_of_postgres_leaves_no_model(outage: Outage) -> None:
    def chunks() -> Iterator[bytes]:
        yield from pieces(bytes(9 * MIB))
        outage.postgres.stop()
        yield b"the end"

    try:
        with refused(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"):
            outage.client.models.RegisterModel(registration(spec(name="loses"), chunks()))
    finally:
        outage.postgres.start()
    outage.assert_recovery()
    assert outage.client.names() == []
    outage.assert_nothing_left_over()


# ---- the artifact store ----


def test_without_the_store_metadata_is_readable_and_registrations_fail_whole(outage: Outage) -> None:
    client = outage.client
    model = client.register(b"before", name="before")
    upload = client.create_upload(name="upload")
    outage.s3.stop()
    try:
        outage.wait_until_not_serving()
        assert client.get(model.id) == model
        assert client.names('name = "before"') == ["before"]
        assert client.update(model.id, score=2).score == 2
        assert outage.get(f"/v1/models/{model.id}").status_code == 200
        for call in (
            lambda: client.download(model.id),
            lambda: client.verify(model.id),
            lambda: client.register(b"small", name="meanwhile"),
            lambda: client.register(bytes(9 * MIB), name="meanwhile"),
            lambda: client.write_upload(upload.id, 0, b"bytes"),
        ):
            with refused(grpc.StatusCode.UNAVAILABLE, "ARTIFACT_STORE_UNAVAILABLE"):
                within(2 * ANSWER_SECONDS, call)
        assert outage.get(f"/v1/models/{model.id}/artifact").status_code == 503
        assert outage.get("/ready").status_code == 503
        assert outage.get("/health").status_code == 200
        assert client.names() == ["before"]
    finally:
        outage.s3.start()
    outage.assert_recovery()
    assert client.names() == ["before"]
    assert client.get_upload(upload.id).committed_size == 0
    assert client.download(model.id) == b"before"
    client.write_upload(upload.id, 0, b"bytes")
    assert client.download(client.complete_upload(upload.id).id) == b"bytes"
    outage.assert_nothing_left_over()


def test_the_health_service_reports_a_frozen_store_and_reads_stay_fast(outage: Outage) -> None:
    model = outage.client.register(name="read meanwhile")
    with outage.s3.frozen():
        outage.wait_until_not_serving()
        within(1, lambda: outage.client.get(model.id))
        within(1, lambda: outage.get(f"/v1/models/{model.id}").raise_for_status())
        assert outage.get("/ready").status_code == 503
    outage.assert_recovery()


def test_a_model_is_deleted_during_an_outage_of_the_store_and_its_bytes_later(outage: Outage) -> None:
    model = outage.client.register(b"to be deleted", name="deleted")
    with outage.s3.away():
        outage.client.delete(model.id)
        with refused(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"):
            outage.client.get(model.id)
    outage.assert_recovery()
    outage.assert_nothing_left_over()


def test_a_grpc_download_fails_when_the_store_goes_away(outage: Outage) -> None:
    size = 96 * MIB
    model = register_large(outage.client, size)
    answers = outage.client.artifacts.DownloadArtifact(
        artifact_service_pb2.DownloadArtifactRequest(model_id=model), timeout=120
    )
    received = len(next(answers).chunk) + len(next(answers).chunk)
    with outage.s3.away():
        with refused(grpc.StatusCode.UNAVAILABLE, "ARTIFACT_STORE_UNAVAILABLE"):
            for answer in answers:
                received += len(answer.chunk)
        assert 0 < received < size
    outage.assert_recovery()


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_an_http_download_is_cut_off_when_the_store_goes_away(outage: Outage, http2: bool) -> None:
    size = 96 * MIB
    model = register_large(outage.client, size)
    received = []
    with (
        httpx.Client(http1=not http2, http2=http2, timeout=60, trust_env=False) as client,
        client.stream("GET", f"{outage.product.rest_url}/v1/models/{model}/artifact") as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-length"] == str(size)
        body = answer.iter_raw()
        received.append(len(next(body)))
        with outage.s3.away(), pytest.raises(httpx.RemoteProtocolError):
            received.extend(map(len, body))
        assert 0 < sum(received) < size
    outage.assert_recovery()


def test_a_download_survives_a_short_restart_of_the_store(outage: Outage) -> None:
    size = 96 * MIB
    model = register_large(outage.client, size)
    with httpx.stream("GET", f"{outage.product.rest_url}/v1/models/{model}/artifact", trust_env=False) as answer:
        body = answer.iter_raw()
        received = len(next(body))
        with outage.s3.away():
            pass
        assert received + sum(map(len, body)) == size


def register_large(client: Client, size: int) -> str:
    return client.register(os.urandom(MIB) * (size // MIB), name="large").id


# ---- a start without them ----

SECRETS = {"psql_password": "password-that-is-secret", "minio_secret_key": "secret-key-that-is-secret"}


def test_a_starting_server_waits_for_its_dependencies(tmp_path: Path, settings: dict[str, object]) -> None:
    with accessible_folder() as folder:
        s3 = S3Server(tmp_path / "s3")
        postgres = EmbeddedPostgres(folder, durable=False)
        # A first start creates the folder of the socket.
        address = postgres.start()
        postgres.stop()
        port = free_port()
        server = Command(
            ["serve"],
            environment(**s3_settings(address, address.database, s3, "late"), grpc_port=port),
            tmp_path / "serve.log",
        )
        client = Client(f"127.0.0.1:{port}")
        try:
            server.start()
            eventually(
                lambda: "waiting: The database does not respond" in server.output(),
                what="the wait for Postgres",
            )
            postgres.start()
            eventually(
                lambda: "waiting: The artifact store does not" in server.output(),
                what="the wait for the S3",
            )
            assert server.process is not None
            assert server.process.poll() is None
            assert server.stop(seconds=5) == -signal.SIGTERM  # it has no calls to finish yet
            server.start()
            s3.start()
            eventually(lambda: client.register(b"late", name="late").name == "late", what="service")
        finally:
            client.close()
            server.close()
            s3.close()
            postgres.stop()


@pytest.mark.parametrize("away", ["The database", "The artifact store"])
def test_a_start_without_a_dependency_fails_in_time_and_names_it(
    tmp_path: Path, settings: dict[str, object], away: str
) -> None:
    lost: dict[str, object] = {"psql_hostname": "127.0.0.1", "psql_port": dead_port()}
    if away == "The artifact store":
        lost = {"minio_hostname": "127.0.0.1", "minio_server_port": dead_port()}
    server = Command(
        ["serve"],
        environment(**(settings | lost | SECRETS), grpc_port=free_port(), startup_timeout_seconds=3),
        tmp_path / "serve.log",
    )
    started = time.monotonic()
    server.start()
    assert server.process is not None
    assert server.process.wait(30) == 1
    assert time.monotonic() - started < 20
    said = server.output().splitlines()
    # The cause follows, in the words of the client library.
    assert f"Error: {away} does not respond. Try again later." in said[:-1]
    assert not [secret for secret in SECRETS.values() if secret in server.output()]


def dead_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
