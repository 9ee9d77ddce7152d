"""Metrics and traces are there where they are wanted, and cost nothing elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from registry_service.embedded.envoy import envoy_path
from registry_service.methods import METHODS
from registry_service.observability.metrics import Metrics
from registry_service.observability.telemetry import Telemetry
from registry_service.settings import (
    AuthSettings,
    CommonSettings,
    GatewaySettings,
    GetiSettings,
    LimitSettings,
    SettingsError,
    TelemetrySettings,
    load,
)
from registry_service.storage.artifacts.local import LocalArtifactStore
from registry_service.supervisor.gateway import gateway_config

COLLECTOR = "http://collector:4318"


def rendered(**settings: object) -> str:
    return gateway_config(load(GatewaySettings, **settings), access_log=True, admin_socket=Path("/tmp/admin.sock"))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_without_settings_nobody_looks_on(tmp_path: Path) -> None:
    off, store = Telemetry(), LocalArtifactStore(tmp_path)
    assert off.store(store) is store
    assert off.method(METHODS["/modelregistry.v1.ModelService/GetModel"]) is None


def test_who_looks_on_at_a_method_is_the_same_for_all_its_calls() -> None:
    metrics = Metrics()
    method = Telemetry(metrics).method(METHODS["/modelregistry.v1.ModelService/GetModel"])
    assert method is not None
    ended = [method.begin(tuple) for _ in range(3)]
    labels = {"service": "modelregistry.v1.ModelService", "method": "GetModel"}
    value = metrics.registry.get_sample_value
    assert value("model_registry_calls_in_flight", labels) == 3
    for end in ended:
        end("OK", 0.002)
    assert value("model_registry_calls_in_flight", labels) == 0
    assert value("model_registry_calls_total", labels | {"code": "OK"}) == 3
    assert value("model_registry_call_duration_seconds_bucket", labels | {"le": "0.0025"}) == 3
    assert value("model_registry_call_duration_seconds_bucket", labels | {"le": "0.001"}) == 0


def test_opentelemetry_is_not_imported_where_it_is_not_wanted() -> None:
    answer = python("import registry_service.wiring, sys; print([m for m in sys.modules if 'opentelemetry' in m])")
    assert answer.stdout == "[]\n", answer.stderr


def test_traces_without_their_packages_say_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from registry_service.cli import main\n"
        "main(['gc', '--dry-run'])"
    )
    answer = python(
        code,
        PSQL_HOSTNAME=str(tmp_path),
        ARTIFACT_STORE="local",
        ARTIFACT_DIR=str(tmp_path / "artifacts"),
        OTEL_EXPORTER_OTLP_ENDPOINT=COLLECTOR,
    )
    assert answer.returncode == 1
    assert "pip install -e '.[otel]'" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    "url", ["collector:4318", "ftp://collector", "http://", "http://a b", "http://c:0", "http://u@c"]
)
def test_a_collector_that_cannot_be_is_named(url: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        load(GatewaySettings, otel_exporter_otlp_endpoint=url)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"otel_exporter_otlp_endpoint": ""},
        {"otel_exporter_otlp_endpoint": COLLECTOR, "otel_sdk_disabled": "true"},
        {"otel_exporter_otlp_endpoint": COLLECTOR, "otel_traces_exporter": "none"},
    ],
)
def test_there_are_no_traces_without_a_collector_or_when_they_are_switched_off(settings: dict[str, object]) -> None:
    assert not load(GatewaySettings, **settings).is_tracing
    assert "tracers" not in rendered(**settings)


@pytest.mark.parametrize("kind", [GatewaySettings, TelemetrySettings, AuthSettings, GetiSettings, LimitSettings])
def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch, kind: type[CommonSettings]) -> None:
    for name in kind.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    unset = load(kind)
    for name in kind.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert load(kind) == unset


@pytest.mark.parametrize(
    ("sampler", "argument", "percent", "asks_no_parent"),
    [
        ("parentbased_always_on", 0.5, 100, False),
        ("parentbased_always_off", 1, 0, False),
        ("parentbased_traceidratio", 0.25, 25, False),
        ("always_on", 0.5, 100, True),
        ("always_off", 1, 0, True),
        ("traceidratio", 0.25, 25, True),
    ],
)
@pytest.mark.parametrize("url", [COLLECTOR, "https://collector.example.org/base", "https://[::1]:4317"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_gateway_samples_as_opentelemetry_says(
    tmp_path: Path, protocol: str, url: str, sampler: str, argument: float, percent: float, asks_no_parent: bool
) -> None:
    config = rendered(
        otel_exporter_otlp_endpoint=url,
        otel_exporter_otlp_protocol=protocol,
        otel_exporter_otlp_headers="authorization=Basic%20abc, x-tenant=a",
        otel_traces_sampler=sampler,
        otel_traces_sampler_arg=argument,
        gateway_metrics_port=9901,
    )
    assert f"random_sampling: {{value: {float(percent):g}" in config
    assert ("SamplerConfig" in config) == asks_no_parent
    if (protocol, url) == ("http/protobuf", COLLECTOR) or sampler == "parentbased_always_on":
        file = tmp_path / "envoy.yaml"
        file.write_text(config, encoding="utf-8")
        command = [str(envoy_path()), "--mode", "validate", "--config-path", str(file), "--log-level", "warning"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert answer.returncode == 0, answer.stderr
        assert "deprecated" not in answer.stderr
