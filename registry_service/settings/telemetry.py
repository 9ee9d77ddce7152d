"""Settings of metrics and traces."""

from typing import Annotated, Literal

from pydantic import Field, FilePath, SecretStr, field_validator

from registry_service.settings.base import CommonSettings, OptionalText, is_http_url


class TelemetrySettings(CommonSettings):
    """Settings of metrics and traces. OpenTelemetry's SDK reads further OTEL_* variables itself."""

    metrics_ip_address: str = Field(
        "127.0.0.1",
        description="IP address on which METRICS_PORT and GATEWAY_METRICS_PORT listen. Set `0.0.0.0` if Prometheus "
        "runs on another host.",
    )
    otel_exporter_otlp_endpoint: OptionalText = Field(
        None,
        description="URL of an OpenTelemetry collector, such as `http://collector:4318`. Calls are traced if it is "
        "set.",
    )
    otel_exporter_otlp_traces_endpoint: OptionalText = Field(
        None,
        description="URL for traces alone, including the path. Takes precedence over OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    otel_exporter_otlp_protocol: Literal["http/protobuf", "grpc"] = Field(
        "http/protobuf", description="Protocol towards the collector: `http/protobuf` or `grpc`."
    )
    otel_exporter_otlp_headers: SecretStr = Field(
        SecretStr(""),
        description="Headers for the collector, such as credentials, as comma-separated `name=value` pairs.",
    )
    otel_exporter_otlp_certificate: FilePath | None = Field(
        None, description="PEM file of the CA for the collector's certificate, if its URL is https."
    )
    otel_service_name: str | None = Field(
        None, description="Service name in traces. If unset: `model-registry`, and `model-registry-gateway` for Envoy."
    )
    otel_traces_exporter: Literal["otlp", "none"] = Field("otlp", description="`none` turns tracing off.")
    otel_traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = Field(
        "parentbased_always_on",
        description="Which calls are traced. A `parentbased_*` sampler follows the decision in the caller's "
        "`traceparent`, and applies its rule to calls without one.",
    )
    otel_traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0, description="Fraction of calls, from 0 to 1, for the two `traceidratio` samplers."
    )
    otel_sdk_disabled: bool = Field(False, description="Turns tracing off, whatever the other OTEL_* settings are.")

    @field_validator("otel_exporter_otlp_endpoint", "otel_exporter_otlp_traces_endpoint")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not is_http_url(value):
            raise ValueError("must be a URL such as http://collector:4318")
        return value

    @property
    def is_tracing(self) -> bool:
        """Whether calls are traced."""
        has_endpoint = bool(self.otel_exporter_otlp_endpoint or self.otel_exporter_otlp_traces_endpoint)
        return has_endpoint and not self.otel_sdk_disabled and self.otel_traces_exporter != "none"
