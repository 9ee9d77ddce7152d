"""Trace the statements that calls send to Postgres."""

from typing import Any

from opentelemetry.trace import Span
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

from registry_service.observability.tracing import Tracing, fail, statement_attributes

_SPAN = "model_registry_span"


def trace_statements(engine: Engine, tracing: Tracing) -> None:
    """Trace the engine's statements; call it before the engine is used."""

    def begin(connection: Connection, _cursor: object, statement: str, *_: Any) -> None:
        attributes = statement_attributes(statement)
        span = tracing.begin(str(attributes["db.operation.name"]) or "SQL", attributes)
        if span is not None:
            connection.info[_SPAN] = span

    def end(connection: Connection, *_: Any) -> None:
        span: Span | None = connection.info.pop(_SPAN, None)
        if span is not None:
            span.end()

    def give_up(failed: ExceptionContext) -> None:
        if failed.connection is None or failed.connection.invalidated:
            return
        span: Span | None = failed.connection.info.pop(_SPAN, None)
        if span is not None:
            fail(span, type(failed.original_exception).__name__)
            span.end()

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", give_up)
