"""Adapters of `domain.artifact_store`: a local folder, and a bucket of S3."""
