"""Metrics for Prometheus, and their use in the dashboard and the alerts."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
import yaml
from modelregistry.v1 import audit_service_pb2
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from registry_service.embedded.postgres import PostgresAddress
from tests.polling import eventually
from tests.ports import free_port
from tests.products import COMMAND, Product, environment, running_server, running_up
from tests.stub_client import Client, refused
from tests.temporary_folders import accessible_folder

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"service": "modelregistry.v1.ModelService"}
METRIC = re.compile(r"\b(?:model_registry|envoy|process)_\w+")
# These exist only with Geti.
GETI = {
    "model_registry_geti_operation_duration_seconds_bucket",
    "model_registry_geti_operation_failures_total",
}


class Scrape:
    """The response of a metrics port."""

    def __init__(self, port: int) -> None:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30)
        assert answer.status_code == 200
        self.text = answer.text
        self.families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels (the parser adds _total to Envoy's names)."""
        return sum(
            sample.value
            for sample in self.samples
            if sample.name in {name, f"{name}_total"} and labels.items() <= sample.labels.items()
        )

    @property
    def names(self) -> set[str]:
        """Return the names of all metrics, as written."""
        return set(re.findall(r"^(\w+)[{ ]", self.text, re.MULTILINE))


@pytest.fixture(scope="module")
def measured() -> Iterator[tuple[Product, int, int]]:
    """The product with both metrics ports, after some traffic: the life of one model, and a read of a missing one."""
    server_port, gateway_port = free_port(), free_port()
    with (
        accessible_folder() as folder,
        running_up(
            folder,
            metrics_port=server_port,
            gateway_metrics_port=gateway_port,
            gc_interval_seconds=0.2,
            health_interval_seconds=0.2,
        ) as product,
    ):
        client = product.client
        model = client.register(bytes(3_000_000), name="measured")
        assert client.download(model.id) == bytes(3_000_000)
        client.get(model.id)
        assert httpx.get(f"{product.rest_url}/v1/models/{model.id}").status_code == 200
        client.delete(model.id)
        with refused(grpc.StatusCode.NOT_FOUND):
            client.get(model.id)
        yield product, server_port, gateway_port


def test_calls_are_counted_by_method_and_status(measured: tuple[Product, int, int]) -> None:
    scrape = Scrape(measured[1])
    calls = "model_registry_calls_total"
    assert scrape.value(calls, method="GetModel", code="OK", **MODELS) == 2
    assert scrape.value(calls, method="GetModel", code="NOT_FOUND", **MODELS) == 1
    assert scrape.value("model_registry_call_duration_seconds_count", method="GetModel", **MODELS) == 3
    assert scrape.value("model_registry_call_duration_seconds_sum", method="GetModel", **MODELS) > 0
    assert scrape.value("model_registry_calls_in_flight") == 0
    assert scrape.value("model_registry_changes_total", action="model.registered") == 1
    assert scrape.value("model_registry_changes_total", action="model.deleted") == 1


def test_bytes_are_counted_on_both_sides(measured: tuple[Product, int, int]) -> None:
    scrape = Scrape(measured[1])
    assert 3_000_000 < scrape.value("model_registry_received_bytes_total", method="RegisterModel") < 3_010_000
    assert 3_000_000 < scrape.value("model_registry_sent_bytes_total", method="DownloadArtifact") < 3_010_000
    assert scrape.value("model_registry_store_bytes_total", direction="written") == 3_000_000
    assert scrape.value("model_registry_store_bytes_total", direction="read") >= 3_000_000


def test_running_calls_and_their_limits_are_exported(measured: tuple[Product, int, int]) -> None:
    product, port, _ = measured
    with ExitStack() as stack:
        watch = product.client.audit.WatchAuditEvents(audit_service_pb2.WatchAuditEventsRequest())
        stack.callback(watch.cancel)
        next(watch)
        eventually(lambda: Scrape(port).value("model_registry_streams", kind="watch") == 1, what="the watch")
        scrape = Scrape(port)
        assert scrape.value("model_registry_calls_in_flight", method="WatchAuditEvents") == 1
    eventually(lambda: Scrape(port).value("model_registry_streams", kind="watch") == 0, what="the end of the watch")
    assert scrape.value("model_registry_streams_limit", kind="watch") == 32
    assert scrape.value("model_registry_streams_limit", kind="stream") == 32
    # MAX_WAITING_CALLS for each kind of calls: short ones, lists, long ones.
    assert scrape.value("model_registry_calls_waiting_limit") == 3 * 128
    assert scrape.value("model_registry_database_connections_limit") == 16
    assert scrape.value("model_registry_database_connection_wait_seconds_count") > 5


def test_runs_of_garbage_collection_are_counted(measured: tuple[Product, int, int]) -> None:
    _, port, _ = measured
    eventually(
        lambda: Scrape(port).value("model_registry_sweeps_total", outcome="success") >= 2, what="garbage collection"
    )
    assert Scrape(port).value("model_registry_last_sweep_timestamp_seconds") > 1.7e9


def test_an_unavailable_dependency_is_exported(measured: tuple[Product, int, int], tmp_path: Path) -> None:
    product, port, _ = measured

    def is_up(dependency: str) -> bool:
        return Scrape(port).value("model_registry_dependency_up", dependency=dependency) == 1

    # States are read every second.
    eventually(lambda: is_up("postgres"), what="the first look at Postgres")
    artifacts = Path(product.server.arguments[1].removeprefix("--data-dir=")) / "artifacts"
    artifacts.rename(artifacts.with_name("away"))
    try:
        eventually(lambda: not is_up("artifact_store"), what="the store's absence")
        assert is_up("postgres")
    finally:
        artifacts.with_name("away").rename(artifacts)
    eventually(lambda: is_up("artifact_store"), what="the store's return")


def test_no_label_value_comes_from_clients(measured: tuple[Product, int, int]) -> None:
    product, port, _ = measured
    before = len(Scrape(port).samples)
    for name in ("/modelregistry.v1.ModelService/NoSuchMethod", "/no.such.Service/Method", "/marker"):
        with refused(grpc.StatusCode.UNIMPLEMENTED):
            product.client.channel.unary_unary(name, bytes, bytes)(b"")
    assert httpx.get(f"{product.rest_url}/marker").status_code == 404
    scrape = Scrape(port)
    assert len(scrape.samples) == before
    assert "NoSuch" not in scrape.text
    assert "marker" not in scrape.text


def test_the_servers_metrics_port_serves_only_metrics(measured: tuple[Product, int, int]) -> None:
    _, port, _ = measured
    for path in ("/", "/metrics/", "/metricsx", "/favicon.ico"):
        assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 404, path
    assert httpx.post(f"http://127.0.0.1:{port}/metrics").status_code == 405


def test_stalled_scrapers_do_not_block_others_for_long(measured: tuple[Product, int, int]) -> None:
    _, port, _ = measured
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
        eventually(lambda: answers(port), 60, "an answer")
    assert Scrape(port).value("model_registry_build_info") == 1


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


# ---- the gateway ----


def test_the_gateway_exports_envoys_metrics(measured: tuple[Product, int, int]) -> None:
    _, _, port = measured
    scrape = Scrape(port)
    assert scrape.value("envoy_http_downstream_rq_xx", envoy_http_conn_manager_prefix="http") >= 1
    assert httpx.get(f"http://127.0.0.1:{port}/stats/prometheus").status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/quitquitquit", "/config_dump", "/stats", "/stats/prometheus/", "/logging", "/drain_listeners"),
        *("/metrics/../quitquitquit", "/metrics/%2e%2e/quitquitquit", "/stats/prometheus/..%2f..%2fquitquitquit"),
        *("//quitquitquit", "/metrics?/quitquitquit", "/metrics;/quitquitquit"),
    ],
)
def test_the_rest_of_envoys_admin_interface_is_unreachable(
    measured: tuple[Product, int, int], path: str, method: str
) -> None:
    product, _, port = measured
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        request = f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        connection.sendall(request.encode())
        status = int(connection.makefile("rb").readline().split()[1])
    if path.startswith("/metrics?") and method == "GET":
        assert status == 200  # the query is ignored
    else:
        assert status in {400, 404}
    assert httpx.get(f"{product.rest_url}/ready").status_code == 200


# ---- several workers ----


@pytest.fixture
def workers(postgres: PostgresAddress, database_name: str, tmp_path: Path) -> Iterator[tuple[Product, int]]:
    """A server with two workers, whose metrics are on one port."""
    port = free_port()
    settings = {
        "psql_hostname": postgres.socket_dir,
        "psql_port": postgres.port,
        "psql_database": database_name,
        "mr_user_name": postgres.user,
        "artifact_store": "local",
        "artifact_dir": tmp_path / "artifacts",
        "metrics_port": port,
    }
    with running_server(tmp_path, settings, ("--workers=2",)) as product:
        eventually(lambda: Scrape(port).value("model_registry_streams_limit", kind="stream") == 64, what="both")
        yield product, port


def test_metrics_are_summed_over_all_workers_including_exited_ones(workers: tuple[Product, int]) -> None:
    product, port = workers
    model = product.client.register(b"weights", name="of all workers")
    served = 0

    def get_from_new_connections(times: int) -> None:
        nonlocal served
        for _ in range(times):
            client = Client(product.grpc_address)
            client.get(model.id)
            client.close()
            served += 1

    def counted() -> float:
        return Scrape(port).value("model_registry_calls_total", method="GetModel", code="OK")

    get_from_new_connections(12)
    assert counted() == served
    scrape = Scrape(port)
    assert not [sample for sample in scrape.samples if "pid" in sample.labels]
    assert scrape.value("model_registry_build_info") == 1
    assert scrape.value("model_registry_database_connections_limit") == 32

    assert product.server.process is not None
    before = psutil.Process(product.server.process.pid).children()
    before[0].kill()
    eventually(
        lambda: (
            len(psutil.Process(product.server.process.pid).children()) == 2
            and before[0].pid not in {child.pid for child in psutil.Process(product.server.process.pid).children()}
            if product.server.process is not None
            else False
        ),
        what="a replacement",
    )
    eventually(lambda: Scrape(port).value("model_registry_streams_limit", kind="stream") == 64, what="its metrics")
    assert counted() == served
    get_from_new_connections(12)
    assert counted() == served
    assert Scrape(port).value("model_registry_calls_in_flight", method="GetModel") == 0


def test_a_metrics_port_in_use_is_named(postgres: PostgresAddress, empty_database: Engine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings: dict[str, object] = {
            "psql_hostname": postgres.socket_dir,
            "psql_port": postgres.port,
            "psql_database": empty_database.url.database,
            "mr_user_name": postgres.user,
            "artifact_store": "local",
            "artifact_dir": tmp_path / "artifacts",
            "metrics_port": port,
            "grpc_port": free_port(),
        }
        for arguments in ([], ["--workers=2"]):
            answer = subprocess.run(
                [*COMMAND, "serve", *arguments],
                env=environment(**settings),
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert answer.returncode == 1
            assert f"127.0.0.1:{port}" in answer.stderr
            assert "Traceback" not in answer.stderr


# ---- the dashboard and the alerts ----


def expressions_of_the_dashboard() -> list[str]:
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "model-registry.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_every_metric_of_the_dashboard_and_the_alerts_is_exported(measured: tuple[Product, int, int]) -> None:
    _, server_port, gateway_port = measured
    used = {
        name
        for expression in [*expressions_of_the_dashboard(), *(rule["expr"] for rule in alerts())]
        for name in METRIC.findall(expression)
        if not name.endswith(("_prefix", "_name", "_class"))  # Envoy's labels
    }
    server, gateway = Scrape(server_port), Scrape(gateway_port)
    declared = set(server.families)
    told = server.names | gateway.names
    missing = {name for name in used if name not in told}
    # These samples exist from the first failure on; their metrics are declared.
    unused = {name for name in missing if name.removesuffix("_bucket").removesuffix("_total") in declared}
    assert missing == unused
    assert unused <= GETI | {"model_registry_store_operation_failures_total"}


def test_every_metric_of_the_registry_is_on_the_dashboard(measured: tuple[Product, int, int]) -> None:
    dashboard = "\n".join(expressions_of_the_dashboard())
    ours = {name for name in Scrape(measured[1]).families if name.startswith("model_registry_")}
    assert not [name for name in ours if name not in dashboard]


def test_every_alert_has_a_section_in_the_runbook() -> None:
    text = (ROOT / "docs" / "operations" / "alerts.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["for"]
