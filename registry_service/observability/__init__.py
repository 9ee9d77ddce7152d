"""What the registry tells of its doings: metrics for Prometheus, traces for OpenTelemetry, lines of the audit log.

Nobody else imports their libraries. Calls are seen by the transport's
interceptor, Postgres, artifact store and Geti by wrappers of their ports;
without METRICS_PORT and OTEL_* there are no wrappers, and it costs nothing.
"""
