"""Traces for OpenTelemetry, of calls and of what they ask of Postgres, the artifact store and Geti.

The SDK reads the OTEL_* variables by itself. Whatever else runs, such as health
checks and sweeps, begins no trace.
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
from registry_service.observability.calls import CountedMethod, Ended, Metadata

_MAX_STATEMENT_LENGTH = 4096
_CLOSING_SECONDS = 3.0
# What is no fault of the client's.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

_call: ContextVar[Context | None] = ContextVar("call_trace", default=None)
"""Of the call that the running code serves; every call has a context of its own."""


class Tracing:
    """Makes spans, and sends them in the background.

    Args:
        protocol: Of the collector.
        service_name: What the spans are of.
    """

    def __init__(self, protocol: Literal["grpc", "http/protobuf"], service_name: str) -> None:
        resource = Resource.create({SERVICE_NAME: service_name, SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = GrpcExporter() if protocol == "grpc" else HttpExporter()
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("registry_service", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Sends what is left, for a few seconds at most."""
        # The SDK itself waits for 30 s for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        closing.start()
        closing.join(_CLOSING_SECONDS)

    def begin_call(self, name: str, attributes: Mapping[str, str], metadata: Iterable[tuple[str, str | bytes]]) -> Span:
        """Begins the span of a call, a child of what the caller says in `traceparent`."""
        carrier = {
            key: value for key, value in metadata if key in {"traceparent", "tracestate"} and isinstance(value, str)
        }
        span = self._tracer.start_span(name, self._propagator.extract(carrier), SpanKind.SERVER, attributes)
        _call.set(set_span_in_context(span))
        context = span.get_span_context()
        logs.trace_id.set(f"{context.trace_id:032x}")
        return span

    def begin(self, name: str, attributes: Mapping[str, str | int]) -> Span | None:
        """Begins the span of something that a call asks of another; None outside of calls."""
        context = _call.get()
        return None if context is None else self._tracer.start_span(name, context, SpanKind.CLIENT, attributes)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str | int]) -> Iterator[None]:
        """Makes one of a block."""
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
    """The calls of one method, traced; and counted, where `counted` is given."""

    def __init__(self, tracing: Tracing, service: str, method: str, counted: CountedMethod | None) -> None:
        self._tracing = tracing
        self._name = f"{service}/{method}"
        self._attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
        self._counted = counted
        self.received: Callable[[int], None] = _ignore if counted is None else counted.received
        self.sent: Callable[[int], None] = _ignore if counted is None else counted.sent

    def begin(self, metadata: Metadata) -> Ended:
        """See the transport."""
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
    """Marks a span as failed; what an error says may be a client's data."""
    if span is not None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR))


def statement_attributes(statement: str) -> dict[str, str | int]:
    """Describes a statement of SQL, whose parameters stand elsewhere."""
    return {
        "db.system.name": "postgresql",
        "db.operation.name": statement.split(None, 1)[0].upper() if statement.strip() else "",
        "db.query.text": statement[:_MAX_STATEMENT_LENGTH],
    }
