"""A model registry microservice: gRPC first, REST through Envoy, on Postgres and S3."""

__version__ = "0.1.0"
