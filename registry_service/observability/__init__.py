"""Metrics, traces and audit log lines.

Only this package imports prometheus_client and opentelemetry. The transport's
interceptor observes calls; wrappers of the ports observe Postgres, the artifact store
and Geti. Without METRICS_PORT and OTEL_* there are no wrappers, and no cost.
"""
