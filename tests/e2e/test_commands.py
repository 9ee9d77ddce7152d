"""The commands of `model-registry`, each in a process of its own."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from modelregistry.v1 import system_service_pb2, system_service_pb2_grpc
from sqlalchemy import Engine, text

from registry_service.embedded.envoy import envoy_path
from registry_service.embedded.postgres import PostgresAddress
from tests.polling import eventually
from tests.ports import free_port
from tests.products import COMMAND, Command, Product, environment, running_gateway, running_server, s3_settings
from tests.s3_server import S3Server, make_certificates, new_bucket_name
from tests.stub_client import Client, refused

MIB = 1024 * 1024
GRACE_SECONDS = 60


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**settings), capture_output=True, text=True, timeout=60, check=False
    )


def mistakes(answer: subprocess.CompletedProcess[str]) -> str:
    """Return the messages of a command that fails because of wrong settings or a wrong environment."""
    assert answer.returncode == 1
    assert "Traceback" not in answer.stderr
    assert answer.stderr.splitlines()[-1] != ""
    return answer.stderr


@pytest.fixture
def settings(postgres: PostgresAddress, database_name: str, tmp_path: Path) -> dict[str, object]:
    """Settings of a database without rows and an artifact folder."""
    return settings_of(postgres, database_name, tmp_path)


def settings_of(postgres: PostgresAddress, database: str, folder: Path) -> dict[str, object]:
    return {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": database,
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": folder / "artifacts",
    }


@pytest.fixture(scope="module")
def shared_settings(
    postgres: PostgresAddress, module_database_name: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """Settings of a database and an artifact folder that several tests share."""
    return settings_of(postgres, module_database_name, tmp_path_factory.mktemp("shared"))


@pytest.fixture
def first_start(settings: dict[str, object], empty_database: Engine) -> dict[str, object]:
    """Settings of a database without tables."""
    return settings | {"psql_database": empty_database.url.database}


# ---- settings ----


@pytest.mark.parametrize("command", ["serve", "migrate", "gc", "config"])
def test_a_missing_setting_is_named(command: str) -> None:
    assert "PSQL_HOSTNAME: must be set" in mistakes(run(command, artifact_store="local", artifact_dir="/nowhere"))


def test_every_wrong_setting_is_named(settings: dict[str, object]) -> None:
    wrong = {"psql_port": "abc", "max_streams": "0", "min_log_level": "LOUD", "artifact_store": "tape"}
    said = mistakes(run("serve", **(settings | wrong)))
    for name in wrong:
        assert f"{name.upper()}: " in said
    said = mistakes(run("serve", **(settings | {"registration_lease_seconds": 5, "stream_idle_seconds": 5})))
    assert "REGISTRATION_LEASE_SECONDS: must be more than STREAM_IDLE_SECONDS" in said


def test_the_missing_settings_of_a_store_are_named(settings: dict[str, object]) -> None:
    said = mistakes(run("serve", **(settings | {"artifact_store": "s3"})))
    assert "MINIO_HOSTNAME, MINIO_ACCESS_KEY, MINIO_SECRET_KEY" in said
    del settings["artifact_dir"]
    assert "ARTIFACT_DIR" in mistakes(run("serve", **settings))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINIO_CA_CERT", "/nowhere/ca.crt"),
        ("MINIO_BUCKET_NAME", "No Bucket!"),
        ("MINIO_BUCKET_NAME", "a..b"),
        ("MINIO_HOSTNAME", "http://minio:9000"),
        ("MINIO_HOSTNAME", "minio/bucket"),
    ],
)
def test_an_invalid_s3_setting_is_named(settings: dict[str, object], name: str, value: str) -> None:
    settings |= {"artifact_store": "s3", "minio_hostname": "127.0.0.1", "minio_secure": True, name.lower(): value}
    settings |= {"minio_access_key": "key", "minio_secret_key": "secret"}
    assert f"{name}: " in mistakes(run("serve", **settings))


@pytest.mark.parametrize(("name", "value"), [("ARTIFACT_DIR", "/proc/nowhere"), ("GRPC_IP_ADDRESS", "no address")])
def test_a_setting_that_fails_at_startup_is_named(settings: dict[str, object], name: str, value: str) -> None:
    settings |= {name.lower(): value, "startup_timeout_seconds": 1, "grpc_port": free_port()}
    assert value in mistakes(run("serve", **settings))


def test_config_prints_the_effective_settings_and_masks_secrets(settings: dict[str, object]) -> None:
    secrets = {"psql_password": "password-to-hide", "minio_secret_key": "secret-key-to-hide"}
    answer = run("config", **(settings | secrets), grpc_port=4711, server_port=4712)
    assert answer.returncode == 0
    lines = dict(line.split("=", 1) for line in answer.stdout.splitlines())
    assert lines["PSQL_HOSTNAME"] == str(settings["psql_hostname"])
    assert lines["GRPC_PORT"] == "4711"
    assert lines["SERVER_PORT"] == "4712"
    assert lines["STREAM_IDLE_SECONDS"] == "60.0"
    assert set(lines["PSQL_PASSWORD"]) == set(lines["MINIO_SECRET_KEY"]) == {"*"}
    assert not [secret for secret in secrets.values() if secret in answer.stdout + answer.stderr]


# ---- migrate, gc, check ----


def test_migrate_prints_the_revision_every_time(first_start: dict[str, object]) -> None:
    first, second = run("migrate", **first_start), run("migrate", **first_start)
    assert first.returncode == second.returncode == 0
    assert first.stdout == second.stdout
    assert first.stdout.startswith("The database is at revision ")


def test_gc_reports_with_dry_run_and_removes_without(settings: dict[str, object], engine: Engine) -> None:
    objects = Path(str(settings["artifact_dir"]))
    (objects / "ab").mkdir(parents=True)
    (objects / "ab" / "left-over").write_bytes(b"bytes")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO unreferenced_objects VALUES ('ab/left-over', now())"))
        connection.execute(text("INSERT INTO unreferenced_objects VALUES ('ab/leased', now() + interval '1 hour')"))

    answer = run("gc", "--dry-run", **settings)
    assert answer.returncode == 0
    assert answer.stdout == "object ab/left-over\n0 expired uploads and 1 objects would be removed.\n"
    assert (objects / "ab" / "left-over").exists()

    answer = run("gc", **settings)
    assert answer.returncode == 0
    assert answer.stdout == "object ab/left-over\n0 expired uploads and 1 objects removed.\n"
    assert not (objects / "ab" / "left-over").exists()
    with engine.connect() as connection:
        left = connection.execute(text("SELECT object_key FROM unreferenced_objects")).scalars().all()
    assert left == ["ab/leased"]


def test_gc_removes_expired_uploads(settings: dict[str, object], tmp_path: Path) -> None:
    with running_server(tmp_path, settings | {"upload_ttl_seconds": 1, "gc_interval_seconds": 3600}) as product:
        upload = product.client.create_upload(name="expires")
        product.client.write_upload(upload.id, 0, bytes(9 * 1024 * 1024))
        listing = f"upload {upload.id}\n"
        eventually(lambda: run("gc", "--dry-run", **settings).stdout.startswith(listing), what="the expiry")
        with refused(grpc.StatusCode.NOT_FOUND, "UPLOAD_NOT_FOUND"):
            product.client.get_upload(upload.id)
        assert run("gc", **settings).stdout.startswith(listing)
    files = [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert files == []


def test_the_exit_code_of_check_is_the_health_of_the_server(settings: dict[str, object], tmp_path: Path) -> None:
    with running_server(tmp_path, settings | {"health_interval_seconds": 0.1}) as product:
        answer = run("check", grpc_port=product.grpc_port)
        assert (answer.returncode, answer.stdout) == (0, "SERVING\n")
        artifacts = tmp_path / "artifacts"
        artifacts.rename(tmp_path / "away")
        eventually(lambda: not product.is_serving(), what="NOT_SERVING")
        answer = run("check", grpc_port=product.grpc_port)
        assert (answer.returncode, answer.stdout) == (1, "NOT_SERVING\n")
        (tmp_path / "away").rename(artifacts)
        eventually(product.is_serving, what="SERVING")
    answer = run("check", grpc_port=product.grpc_port)
    assert (answer.returncode, answer.stdout) == (1, "UNREACHABLE\n")


# ---- serve ----


def test_a_port_in_use_is_named(settings: dict[str, object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments in (["serve"], ["serve", "--workers=2"]):
            assert f"cannot listen on 127.0.0.1:{port}" in mistakes(run(*arguments, **settings, grpc_port=port))


def test_servers_that_start_concurrently_on_an_empty_database_all_become_ready(
    first_start: dict[str, object], tmp_path: Path
) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        folders = [tmp_path / name for name in ("one", "two", "three")]
        for folder in folders:
            folder.mkdir()
        products = list(pool.map(lambda folder: stack.enter_context(running_server(folder, first_start)), folders))
        model = products[0].client.register(b"shared", name="shared")
        for product in products:
            assert product.client.download(model.id) == b"shared"


@pytest.fixture(scope="module")
def shared_workers(shared_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A server with two workers on one port, which a test may stop."""
    settings = shared_settings | {"shutdown_grace_seconds": 5}
    with running_server(tmp_path_factory.mktemp("workers"), settings, ("--workers=2",)) as product:
        yield product


@pytest.fixture
def workers(shared_workers: Product) -> Product:
    """A server with two workers, both of which serve."""
    if shared_workers.server.process is None:
        shared_workers.server.start()
        shared_workers.wait_until_ready()
    eventually(lambda: len(pids_that_serve(shared_workers)) == 2, what="both workers")
    return shared_workers


def pids_of_workers(product: Product) -> set[int]:
    assert product.server.process is not None
    return {process.pid for process in psutil.Process(product.server.process.pid).children()}


def pids_that_serve(product: Product) -> set[int]:
    """Return the process ids of the workers that answer on 24 new connections."""
    with ExitStack() as stack:
        for _ in range(24):
            # Otherwise the channels of one process share a connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(product.grpc_address, options=options))
            stub = system_service_pb2_grpc.SystemServiceStub(channel)
            assert stub.GetHealth(system_service_pb2.GetHealthRequest(), timeout=5).status == "ok"
        return {
            pid
            for pid in pids_of_workers(product)
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == product.grpc_port
        }


def test_connections_are_spread_over_the_workers(workers: Product) -> None:
    assert pids_that_serve(workers) == pids_of_workers(workers)
    model = workers.client.register(b"of all", name="of all")
    for _ in range(8):
        client = Client(workers.grpc_address)
        assert client.download(model.id) == b"of all"
        client.close()


def test_a_worker_that_exits_is_replaced(workers: Product) -> None:
    before = pids_of_workers(workers)
    victim, survivor = sorted(before)
    psutil.Process(victim).kill()
    eventually(lambda: len(pids_that_serve(workers)) == 2, what="a replacement")
    after = pids_of_workers(workers)
    assert survivor in after
    assert victim not in after
    assert any("exited with -9" in str(line["message"]) for line in workers.server.log_lines())


def test_sigterm_stops_all_workers(workers: Product) -> None:
    pids = pids_of_workers(workers)
    assert workers.server.stop(signal.SIGTERM) == 0
    assert not [pid for pid in pids if lives(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_workers_do_not_outlive_their_parent(workers: Product) -> None:
    pids = pids_of_workers(workers)
    workers.server.kill()
    eventually(lambda: not [pid for pid in pids if lives(pid)], 20, "the end of the workers")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death at once")
def test_workers_do_not_outlive_a_parent_that_is_killed_while_they_start(
    settings: dict[str, object], tmp_path: Path
) -> None:
    for _ in range(3):
        port = free_port()
        server = Command(["serve", "--workers=2"], environment(**settings, grpc_port=port), tmp_path / "serve.log")
        server.start()
        assert server.process is not None
        parent = psutil.Process(server.process.pid)
        started = eventually(parent.children, what="the first worker")
        server.kill()
        pids = [child.pid for child in started]
        eventually(lambda: not any(map(lives, pids)), 20, "the end of the workers")  # noqa: B023 (is called at once)
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_workers_start_at_once_where_a_server_has_closed_connections(
    settings: dict[str, object], tmp_path: Path
) -> None:
    with running_server(tmp_path, settings) as product:
        product.client.register(name="connected")
        # The server closes first, so that its end of the connection stays in TIME_WAIT.
        product.server.stop()
        workers = Command(["serve", "--workers=2"], product.server.env, tmp_path / "workers.log")
        try:
            workers.start()
            eventually(product.is_serving, 30, "service")
        finally:
            workers.close()


def lives(pid: int) -> bool:
    """Return whether the process runs; a zombie counts as ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# ---- logs ----


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_log_has_a_json_line_for_each_call_and_no_secrets(
    settings: dict[str, object], tmp_path: Path, s3_server: S3Server, postgres: PostgresAddress, level: str
) -> None:
    secrets = {"psql_password": "password-marker"}
    s3 = s3_settings(postgres, str(settings["psql_database"]), s3_server, new_bucket_name())
    everything = s3 | secrets | {"min_log_level": level, "gc_interval_seconds": 0.2}
    with running_server(tmp_path, everything) as product:
        client = product.client
        model = client.register(
            b"artifact-marker" + bytes(9 * 1024 * 1024),
            name="name-marker",
            tags={"key-marker": "value-marker"},
            overview={"string_value": "overview-marker"},
            provenance={"training_run": "run-marker"},
        )
        client.names('name = "name-marker"')
        client.update(model.id, score=1)
        with refused(grpc.StatusCode.ALREADY_EXISTS):
            client.register(b"artifact-marker", name="name-marker")
        with refused(grpc.StatusCode.INVALID_ARGUMENT):
            client.names('name = "filter-marker')
        client.download(model.id)
        client.delete(model.id)
        with refused(grpc.StatusCode.NOT_FOUND):
            client.get(model.id)
    output = product.server.output()
    lines = [json.loads(line) for line in output.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    calls = [line for line in lines if line["message"] == "call" and "/modelregistry.v1." in line["method"]]
    assert [(line["method"].rsplit("/")[-1], line["code"]) for line in calls] == [
        ("RegisterModel", "OK"),
        ("ListModels", "OK"),
        ("UpdateModel", "OK"),
        ("RegisterModel", "ALREADY_EXISTS"),
        ("ListModels", "INVALID_ARGUMENT"),
        ("DownloadArtifact", "OK"),
        ("DeleteModel", "OK"),
        ("GetModel", "NOT_FOUND"),
    ]
    assert all(line["request_id"] and line["duration_ms"] > 0 for line in calls)
    assert s3_server.endpoint.secret_key not in output
    assert "-marker" not in output


# ---- gateway ----


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_envoy_accepts_the_printed_configuration(tmp_path: Path, tls: bool) -> None:
    settings: dict[str, object] = {"grpc_upstreams": "registry-1:50051,registry-2:50051", "server_port": free_port()}
    if tls:
        files = make_certificates(tmp_path / "certificates")
        settings |= {"enable_https_mode": True, "server_cert": files.cert, "server_private_key": files.key}
        settings |= {"client_ca_cert": files.ca, "client_cert": files.cert, "client_private_key": files.key}
    printed = run("gateway", "--print", **settings)
    assert printed.returncode == 0
    config = tmp_path / "envoy.yaml"
    config.write_text(printed.stdout)
    command = [str(envoy_path()), "--mode", "validate", "--config-path", str(config), "--log-level", "warning"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "deprecated" not in answer.stderr


def test_the_gateway_names_its_wrong_settings() -> None:
    assert "GRPC_UPSTREAMS: 'nowhere' must be host:port" in mistakes(run("gateway", grpc_upstreams="nowhere"))
    assert "SERVER_IP_ADDRESS: 'localhost'" in mistakes(run("gateway", server_ip_address="localhost"))


def test_the_gateway_stops_on_sigterm_and_fails_if_its_port_is_in_use(tmp_path: Path) -> None:
    port = free_port()
    gateway = Command(["gateway"], environment(server_port=port), tmp_path / "gateway.log")
    gateway.start()
    try:
        eventually(lambda: listens(port), what="the gateway")
        second = run("gateway", server_port=port)
        assert second.returncode != 0
        assert f"127.0.0.1:{port}" in second.stdout + second.stderr
        assert gateway.stop(signal.SIGTERM) == 0
    finally:
        gateway.close()


# ---- stopping the gateway ----


@pytest.fixture(scope="module")
def shared_server(shared_settings: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A server behind the gateways of several tests, which a test may stop."""
    with running_server(tmp_path_factory.mktemp("server"), shared_settings) as product:
        yield product


@pytest.fixture
def server(shared_server: Product) -> Product:
    """A running server."""
    if shared_server.server.process is None:
        shared_server.server.start()
        shared_server.wait_until_ready()
    return shared_server


@pytest.fixture
def served(server: Product, tmp_path: Path) -> Iterator[Product]:
    """A server, and a gateway with a long grace period."""
    with running_gateway(server, tmp_path, {"shutdown_grace_seconds": GRACE_SECONDS}) as product:
        yield product


def begin_download(product: Product, model_id: str) -> socket.socket:
    """Request an artifact, and read only its first bytes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    connection.connect(("127.0.0.1", product.rest_port))
    connection.settimeout(GRACE_SECONDS)
    connection.sendall(f"GET /v1/models/{model_id}/artifact HTTP/1.1\r\nHost: registry\r\n\r\n".encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def terminate(product: Product) -> subprocess.Popen[bytes]:
    """Send SIGTERM to the gateway, and return once it accepts no more connections."""
    assert product.gateway is not None
    assert product.gateway.process is not None
    product.gateway.process.terminate()
    eventually(lambda: not listens(product.rest_port), what="the end of listening")
    return product.gateway.process


def test_a_running_download_finishes_while_the_gateway_stops(served: Product) -> None:
    data = random.Random(7).randbytes(24 * MIB)
    model = served.client.register(data, name="slow")
    with begin_download(served, model.id) as connection:
        gateway = terminate(served)
        assert gateway.poll() is None
        received = bytearray()
        while not received.endswith(data[-64:]):
            received += connection.recv(65536) or pytest.fail("the download broke off")
        assert bytes(received.partition(b"\r\n\r\n")[2]) == data
    assert gateway.wait(GRACE_SECONDS) == 0


def test_an_idle_gateway_stops_at_once_even_with_open_connections(served: Product) -> None:
    with httpx.Client(base_url=served.rest_url, trust_env=False) as http, httpx.Client(http2=True) as http2:
        assert http.get("/health").status_code == http2.get(f"{served.rest_url}/health").status_code == 200
        started = time.monotonic()
        assert terminate(served).wait(GRACE_SECONDS) == 0
        assert time.monotonic() - started < GRACE_SECONDS / 2


def test_a_client_that_stops_reading_delays_the_gateways_end_by_the_grace_period_at_most(
    server: Product, tmp_path: Path
) -> None:
    with running_gateway(server, tmp_path, {"shutdown_grace_seconds": 1}) as product:
        model = product.client.register(bytes(24 * MIB), name="stalled")
        with begin_download(product, model.id):
            assert terminate(product).wait(GRACE_SECONDS) == 0
        assert product.gateway is not None
        assert any("are cut off" in str(line["message"]) for line in product.gateway.log_lines() if "message" in line)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_envoy_does_not_outlive_the_gateway(served: Product) -> None:
    assert served.gateway is not None
    assert served.gateway.process is not None
    (envoy,) = psutil.Process(served.gateway.process.pid).children()
    served.gateway.kill()
    eventually(lambda: not lives(envoy.pid), 20, "the end of Envoy")


def test_the_gateway_fails_if_envoy_exits(served: Product) -> None:
    assert served.gateway is not None
    assert served.gateway.process is not None
    (envoy,) = psutil.Process(served.gateway.process.pid).children()
    envoy.kill()
    assert served.gateway.process.wait(20) == 1
    assert "Error: Envoy exited with -9" in served.gateway.output()


def test_check_with_rest_asks_the_gateway(served: Product) -> None:
    def asked(*more: str) -> tuple[int, str]:
        answer = run("check", "--rest", *more, server_port=served.rest_port)
        return answer.returncode, answer.stdout.strip()

    assert asked() == asked("--live") == (0, "SERVING")
    served.server.stop()
    assert asked() == (1, "NOT_SERVING")
    assert asked("--live") == (0, "SERVING"), "the gateway itself needs no registry for that"
    terminate(served)
    assert asked() == asked("--live") == (1, "UNREACHABLE")


def test_help_and_version_need_no_settings() -> None:
    assert run("--version").stdout.startswith("model-registry, version ")
    listed = run("--help").stdout
    for command in ("up", "serve", "gateway", "migrate", "gc", "check", "config"):
        assert f"\n  {command} " in listed


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
