"""Traces: each REST call is one trace through Envoy, the server, Postgres and a real S3."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from registry_service.embedded.postgres import PostgresAddress
from tests.otlp_collector import Collector, attributes_of, grpc_collector, http_collector
from tests.polling import eventually
from tests.postgres_server import create_database
from tests.products import Product, running_serve, s3_settings
from tests.s3_server import S3Server, new_bucket_name
from tests.stub_client import Client, zip_of
from tests.temporary_folders import accessible_folder

GATEWAY, SERVER = "model-registry-gateway", "model-registry"
SAMPLED = "00-{trace}-00f067aa0ba902b7-01"
NOT_SAMPLED = "00-{trace}-00f067aa0ba902b7-00"


@pytest.fixture(scope="module", params=["http/protobuf", "grpc"])
def traced(
    request: pytest.FixtureRequest, postgres: PostgresAddress, s3_server: S3Server
) -> Iterator[tuple[Product, Collector]]:
    """A product with tracing, and its collector."""
    collecting: AbstractContextManager[Collector] = grpc_collector() if request.param == "grpc" else http_collector()
    database = f"tracing_{request.param.partition('/')[0]}"
    create_database(postgres, database, "template1")
    with collecting as collector, accessible_folder() as folder:
        tracing = {
            "otel_exporter_otlp_endpoint": f"http://127.0.0.1:{collector.port}",
            "otel_exporter_otlp_protocol": request.param,
            "otel_exporter_otlp_headers": "x-tenant=a%20team",
            "otel_bsp_schedule_delay": "100",
        }
        settings = s3_settings(postgres, database, s3_server, new_bucket_name()) | tracing
        with running_serve(folder, settings, gateway=tracing) as product:
            yield product, collector


def new_trace() -> str:
    return os.urandom(16).hex()


def register(product: Product, traceparent: str, name: str, data: bytes) -> None:
    """Register a model over the Intel-compatible API."""
    answer = httpx.post(
        f"{product.rest_url}/models",
        data={"name": name, "version": "1"},
        files={"file": ("model.zip", data, "application/zip")},
        headers={"traceparent": traceparent},
        timeout=60,
    )
    assert answer.status_code == 201, answer.text


def test_a_registration_is_one_trace_through_envoy_grpc_sql_and_s3(traced: tuple[Product, Collector]) -> None:
    product, collector = traced
    trace = new_trace()
    register(product, SAMPLED.format(trace=trace), "traced", zip_of({"model.bin": os.urandom(9 * 1024 * 1024)}))
    eventually(lambda: {s for s, _ in collector.of_trace(trace)} == {GATEWAY, SERVER}, what="spans of both")
    spans = collector.of_trace(trace)

    gateway = [span for service, span in spans if service == GATEWAY]
    assert [span.parent_span_id.hex() for span in gateway] == ["00f067aa0ba902b7"]
    served = [span for service, span in spans if span.kind == trace_pb2.Span.SPAN_KIND_SERVER and service == SERVER]
    assert [(span.name, span.parent_span_id) for span in served] == [
        ("modelregistry.compat.v1.CompatService/RegisterModel", gateway[0].span_id)
    ]
    asked = [span for service, span in spans if service == SERVER and span.kind == trace_pb2.Span.SPAN_KIND_CLIENT]
    assert {span.parent_span_id for span in asked} == {served[0].span_id}

    statements = [attributes_of(span) for span in asked if attributes_of(span).get("db.system.name") == "postgresql"]
    texts = [attributes["db.query.text"] for attributes in statements]
    assert any(text.startswith("INSERT INTO models") for text in texts)
    assert any(text.startswith("INSERT INTO audit_events") for text in texts)
    assert not [text for text in texts if "traced" in text]
    stored = [span for span in asked if span.name == "artifact_store.write"]
    assert attributes_of(stored[0])["key"].startswith("artifacts/")
    assert not [span for _, span in spans if span.status.code == trace_pb2.Status.STATUS_CODE_ERROR]


def test_the_log_lines_of_a_traced_call_name_its_trace(traced: tuple[Product, Collector]) -> None:
    product, _ = traced
    trace = new_trace()
    register(product, SAMPLED.format(trace=trace), "traced and logged", zip_of({"model.bin": b"weights"}))

    def lines() -> list[object]:
        return [line["log"] for line in product.server.log_lines() if line.get("trace_id") == trace]

    eventually(lambda: lines() == ["audit", "access"], what="the server's lines")
    assert product.gateway is not None
    gateway = product.gateway
    eventually(
        lambda: [line["log"] for line in gateway.log_lines() if line.get("trace_id") == trace] == ["access"],
        what="the gateway's line",
    )


def test_a_call_that_its_caller_does_not_sample_is_not_traced(traced: tuple[Product, Collector]) -> None:
    product, collector = traced
    silent, told = new_trace(), new_trace()
    register(product, NOT_SAMPLED.format(trace=silent), "not traced", zip_of({"model.bin": b"weights"}))
    register(product, SAMPLED.format(trace=told), "traced after it", zip_of({"model.bin": b"weights"}))
    eventually(lambda: {s for s, _ in collector.of_trace(told)} == {GATEWAY, SERVER}, what="spans of the second")
    assert collector.of_trace(silent) == []


def test_probes_begin_no_trace(traced: tuple[Product, Collector]) -> None:
    product, collector = traced
    assert httpx.get(f"{product.rest_url}/ready").status_code == 200
    assert httpx.get(f"{product.rest_url}/health").status_code == 200
    told = new_trace()
    register(product, SAMPLED.format(trace=told), "traced after probes", zip_of({"model.bin": b"weights"}))
    eventually(lambda: {s for s, _ in collector.of_trace(told)} == {GATEWAY, SERVER}, what="spans of a call")
    told_of = {attributes_of(span).get("http.url", span.name) for _, span in collector.spans}
    assert not [text for text in told_of if "/ready" in text or "/health" in text or "SystemService" in text]
    # Background statements begin none either: each statement's span has a call as its parent.
    assert all(span.parent_span_id for _, span in collector.spans if span.kind == trace_pb2.Span.SPAN_KIND_CLIENT)


def test_a_failed_call_is_a_failed_span_only_for_server_errors(
    traced: tuple[Product, Collector],
) -> None:
    product, collector = traced
    trace = new_trace()
    answer = httpx.get(
        f"{product.rest_url}/v1/models/no-such-model-at-all", headers={"traceparent": SAMPLED.format(trace=trace)}
    )
    assert answer.status_code == 404
    eventually(lambda: {s for s, _ in collector.of_trace(trace)} == {GATEWAY, SERVER}, what="spans of both")
    served = [span for service, span in collector.of_trace(trace) if service == SERVER and "GetModel" in span.name]
    assert attributes_of(served[0])["rpc.response.status_code"] == "NOT_FOUND"
    assert served[0].status.code == trace_pb2.Status.STATUS_CODE_UNSET


def test_the_configured_headers_are_sent_to_the_collector(traced: tuple[Product, Collector]) -> None:
    product, collector = traced
    trace = new_trace()
    register(product, SAMPLED.format(trace=trace), "traced with headers", zip_of({"model.bin": b"weights"}))
    eventually(lambda: {s for s, _ in collector.of_trace(trace)} == {GATEWAY, SERVER}, what="spans of both")
    assert {headers.get("x-tenant") for headers in collector.headers} == {"a team"}


def test_an_unreachable_collector_harms_no_call(postgres: PostgresAddress, s3_server: S3Server, tmp_path: Path) -> None:
    create_database(postgres, "untold", "template1")
    tracing: dict[str, object] = {"otel_exporter_otlp_endpoint": "http://127.0.0.1:1"}
    settings = s3_settings(postgres, "untold", s3_server, new_bucket_name()) | tracing
    with running_serve(tmp_path, settings, gateway=tracing) as product:
        client: Client = product.client
        model = client.register(b"weights", name="untold")
        assert httpx.get(f"{product.rest_url}/v1/models/{model.id}").status_code == 200
        assert product.server.stop() == 0
