"""Traces of calls, and of their operations on Postgres, the artifact store and Geti.

The OpenTelemetry SDK reads the OTEL_* variables itself. Work outside of calls, such as health checks and garbage
collection, is not traced.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from registry_service import __version__, logs
from registry_service.observability.counted_methods import CountedMethod, Ended, Metadata

_MAX_STATEMENT_LENGTH = 4096
_CLOSING_SECONDS = 3.0
# Statuses that are not the client's fault.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

_call: ContextVar[Context | None] = ContextVar("call_trace", default=None)
"""The trace of the current call; every call has a context of its own."""


class Tracing:
    """Creates spans and sends them in the background.

    Args:
        protocol: Protocol of the collector.
        service_name: Service name of the spans.
    """

    def __init__(self, protocol: Literal["grpc", "http/protobuf"], service_name: str) -> None:
        resource = Resource.create({SERVICE_NAME: service_name, SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = GrpcExporter() if protocol == "grpc" else HttpExporter()
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("registry_service", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send the remaining spans, for a few seconds at most."""
        # The SDK itself waits 30 s for a collector that does not respond.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        closing.start()
        closing.join(_CLOSING_SECONDS)

    def begin_call(self, name: str, attributes: Mapping[str, str], metadata: Iterable[tuple[str, str | bytes]]) -> Span:
        """Start the span of a call, as a child of the caller's `traceparent`."""
        carrier = {
            key: value for key, value in metadata if key in {"traceparent", "tracestate"} and isinstance(value, str)
        }
        span = self._tracer.start_span(name, self._propagator.extract(carrier), SpanKind.SERVER, attributes)
        _call.set(set_span_in_context(span))
        context = span.get_span_context()
        logs.trace_id.set(f"{context.trace_id:032x}")
        return span

    def begin(self, name: str, attributes: Mapping[str, str | int]) -> Span | None:
        """Start the span of an operation of the current call; None outside of calls."""
        context = _call.get()
        return None if context is None else self._tracer.start_span(name, context, SpanKind.CLIENT, attributes)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        """Trace a block as an operation of the current call."""
        span = self.begin(name, attributes)
        try:
            yield
        except Exception as error:
            fail(span, type(error).__name__)
            raise
        finally:
            if span is not None:
                span.end()


class TracedMethod:
    """The traces of one method's calls, and their metrics if `counted` is given."""

    def __init__(self, tracing: Tracing, service: str, method: str, counted: CountedMethod | None) -> None:
        self._tracing = tracing
        self._name = f"{service}/{method}"
        self._attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self._counted = counted
        self.received: Callable[[int], None] = _ignore if counted is None else counted.received
        self.sent: Callable[[int], None] = _ignore if counted is None else counted.sent

    def begin(self, metadata: Metadata) -> Ended:
        """See `transport.grpc.calls.MethodObserver`."""
        count = None if self._counted is None else self._counted.begin(metadata)
        span = self._tracing.begin_call(self._name, self._attributes, metadata())

        def end(code: str, seconds: float) -> None:
            if count is not None:
                count(code, seconds)
            span.set_attribute("rpc.response.status_code", code)
            if code in _FAULTS:
                fail(span, code)
            span.end()

        return end


def _ignore(_size: int) -> None:
    pass


def fail(span: Span | None, kind: str) -> None:
    """Mark a span as failed. The error's message is left out, as it may contain a client's data."""
    if span is not None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR))


def statement_attributes(statement: str) -> dict[str, str | int]:
    """Return the attributes of an SQL statement, without its parameters."""
    return {
        "db.system.name": "postgresql",
        "db.operation.name": statement.split(None, 1)[0].upper() if statement.strip() else "",
        "db.query.text": statement[:_MAX_STATEMENT_LENGTH],
    }
