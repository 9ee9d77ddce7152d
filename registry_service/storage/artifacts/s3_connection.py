"""Clients of one S3 bucket, with bounded timeouts and retries."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import certifi
from minio import Minio
from urllib3 import PoolManager, Retry, Timeout


class ClientLimits(NamedTuple):
    """How long a client waits, how it retries, and how many connections it keeps open."""

    timeout: Timeout
    retries: Retry
    connections: int


def _retries(*, read: int, status_codes: tuple[int, ...]) -> Retry:
    # Every method may be repeated, POST included. Retry-After is ignored: a store may ask for minutes.
    return Retry(
        total=2,
        connect=1,
        read=read,
        other=read,
        allowed_methods=None,
        status_forcelist=status_codes,
        backoff_factor=0.25,
        raise_on_status=False,
        respect_retry_after_header=False,
    )


# An unreachable S3 is reported after 2 attempts of 2.5 s. A repeated CreateMultipartUpload leaves one more upload,
# which `delete` aborts.
REQUESTS = ClientLimits(Timeout(connect=2.5, read=30), _retries(read=1, status_codes=(429, 500, 502, 503, 504)), 64)

# CompleteMultipartUpload takes long for thousands of parts, and is not repeated after a lost answer. MinIO stops at
# once when its client disconnects, even between forgetting the parts and renaming them, and then loses the parts:
# observed in one of three attempts. A 503 is repeated: it says that nothing has begun, as while the store is starting.
COMPLETIONS = ClientLimits(Timeout(connect=2.5, read=300), _retries(read=0, status_codes=(503,)), 4)

# A health check answers within 4 s. Its caller repeats it.
CHECKS = ClientLimits(Timeout(connect=2, read=4), Retry(total=0), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Address of a bucket, and how to connect to it."""

    host: str
    """Host name or IP address; an IPv6 address without brackets."""
    port: int
    access_key: str
    secret_key: str = field(repr=False)
    bucket: str
    region: str = "us-east-1"
    secure: bool = False
    """Whether to connect with TLS. The certificate is always verified."""
    ca_cert: Path | None = None
    """PEM file of the only CA certificates to trust; None trusts those of the system and of certifi."""

    @property
    def endpoint(self) -> str:
        """Host and port, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def location(self) -> str:
        """URL of the bucket, equal for any credentials."""
        return f"s3://{self.endpoint}/{self.bucket}"


def make_clients(options: S3Options, *limits: ClientLimits) -> list[Minio]:
    """Return a client for each of the limits. Connects to nothing yet.

    Raises:
        OSError: `ca_cert` cannot be read or contains no certificate (`ssl.SSLError`).
    """
    tls = _tls_context(options.ca_cert) if options.secure else None
    return [
        Minio(
            options.endpoint,
            access_key=options.access_key,
            secret_key=options.secret_key,
            secure=options.secure,
            region=options.region,
            http_client=PoolManager(maxsize=connections, timeout=timeout, retries=retries, ssl_context=tls),
        )
        for timeout, retries, connections in limits
    ]


def _tls_context(ca_cert: Path | None) -> ssl.SSLContext:
    if ca_cert is not None:
        return ssl.create_default_context(cafile=ca_cert)
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
