"""Settings in, wired parts out: the one place that knows every implementation."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Engine

from registry_service.config import DatabaseSettings, GetiSettings, Settings
from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import UnavailableError
from registry_service.geti.client import HttpGeti, Workspace
from registry_service.services.policy import Policy
from registry_service.services.use_cases import UseCases
from registry_service.storage.artifacts.local import LocalArtifactStore
from registry_service.storage.artifacts.s3 import connect
from registry_service.storage.sql.engine import domain_errors, make_engine
from registry_service.storage.sql.repositories import SqlDatabase
from registry_service.storage.sql.schema import migrate
from registry_service.transport.grpc.server import Certificate, RegistryServer, ServerOptions

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_RETRY_SECONDS = 0.5


def build_engine(settings: DatabaseSettings, *, statement_timeout_seconds: float = 30) -> Engine:
    """Makes the pool of connections that the settings describe."""
    return make_engine(
        host=settings.psql_hostname,
        port=settings.psql_port,
        database=settings.psql_database,
        user=settings.mr_user_name,
        password=settings.psql_password.get_secret_value(),
        sslmode=settings.psql_sslmode,
        pool_size=settings.psql_pool_size,
        statement_timeout_seconds=statement_timeout_seconds,
    )


def migrate_database(settings: DatabaseSettings) -> str:
    """Brings the database to this program's schema, waiting for it to answer, and returns the revision.

    Raises:
        DatabaseUnavailableError: It does not answer within STARTUP_TIMEOUT_SECONDS.
        SchemaError: See `storage.sql.schema.migrate`.
    """
    engine = build_engine(settings)

    def attempt() -> str:
        with domain_errors():
            return migrate(engine)

    try:
        return _patiently(attempt, settings.startup_timeout_seconds)
    finally:
        engine.dispose()


def build_store(settings: Settings) -> ArtifactStore:
    """Makes the artifact store, waiting for it to answer; makes folder or bucket when missing.

    Raises:
        ArtifactStoreUnavailableError: It does not answer within STARTUP_TIMEOUT_SECONDS.
    """
    if settings.artifact_store == "local":
        if settings.artifact_dir is None:
            raise AssertionError("Settings checks this")
        return LocalArtifactStore(settings.artifact_dir)
    if settings.minio_hostname is None or settings.minio_access_key is None or settings.minio_secret_key is None:
        raise AssertionError("Settings checks this")
    store = connect(
        host=settings.minio_hostname,
        port=settings.minio_server_port,
        access_key=settings.minio_access_key,
        secret_key=settings.minio_secret_key.get_secret_value(),
        secure=settings.minio_secure,
        ca_cert=settings.minio_ca_cert,
        region=settings.minio_region,
        bucket=settings.minio_bucket_name,
    )
    _patiently(store.ensure_bucket, settings.startup_timeout_seconds)
    return store


def build_geti(settings: GetiSettings) -> HttpGeti | None:
    """Makes the connection to Geti; None where it is not, or only partly, configured. Nothing is asked of it yet."""
    missing = settings.geti_missing
    if missing:
        if settings.is_geti_begun:
            logger.warning("not connected to a Geti: %s not set", ", ".join(missing))
        return None
    host, token = settings.geti_host, settings.geti_token
    version, organization = settings.geti_server_api_version, settings.geti_organization_id
    workspace = settings.geti_workspace_id
    if host is None or token is None or version is None or organization is None or workspace is None:
        raise AssertionError("they are what is missing otherwise")
    return HttpGeti(
        Workspace(
            host=host,
            api_version=version,
            organization_id=organization,
            workspace_id=workspace,
            token=token.get_secret_value(),
            verify=settings.geti_server_ssl_verify,
        )
    )


@dataclass(frozen=True, slots=True)
class Registry:
    """The registry without a transport."""

    database: SqlDatabase
    store: ArtifactStore
    use_cases: UseCases


@contextmanager
def open_registry(settings: Settings) -> Iterator[Registry]:
    """Wires the registry to its Postgres and its artifact store; the database must be migrated."""
    engine = build_engine(settings, statement_timeout_seconds=settings.unary_timeout_seconds)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        database = SqlDatabase(engine)
        stack.callback(database.close)
        store = build_store(settings)
        policy = Policy(
            artifact_max_bytes=settings.artifact_max_bytes,
            metadata_max_bytes=settings.metadata_max_bytes,
            zip_directory_max_bytes=settings.zip_directory_max_bytes,
            upload_ttl=timedelta(seconds=settings.upload_ttl_seconds),
            registration_lease=timedelta(seconds=settings.registration_lease_seconds),
            bucket_name=settings.minio_bucket_name,
            watch_heartbeat=timedelta(seconds=settings.watch_heartbeat_seconds),
        )
        geti = build_geti(settings)
        if geti is not None:
            stack.enter_context(geti)
        yield Registry(database, store, UseCases.on(database, store, policy, geti))


def build_server(registry: Registry, settings: Settings, *, reuse_port: bool = False) -> RegistryServer:
    """Makes the gRPC server; it does not listen yet."""
    return RegistryServer(
        registry.use_cases,
        registry.database,
        registry.store,
        ServerOptions(
            address=f"{settings.grpc_ip_address}:{settings.grpc_port}",
            certificate=_certificate(settings),
            reuse_port=reuse_port,
            max_unary_calls=settings.max_unary_calls,
            max_waiting_calls=settings.max_waiting_calls,
            max_streams=settings.max_streams,
            max_watches=settings.max_watches,
            stream_idle_seconds=settings.stream_idle_seconds,
            shutdown_delay_seconds=settings.shutdown_delay_seconds,
            shutdown_grace_seconds=settings.shutdown_grace_seconds,
            health_interval_seconds=settings.health_interval_seconds,
            gc_interval_seconds=settings.gc_interval_seconds,
        ),
    )


def _certificate(settings: Settings) -> Certificate | None:
    if not settings.enable_https_mode or settings.server_cert is None or settings.server_private_key is None:
        return None
    return Certificate(settings.server_cert, settings.server_private_key)


def _patiently(attempt: Callable[[], Result], seconds: float) -> Result:
    """Tries until it works or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except UnavailableError as error:
            if time.monotonic() + _RETRY_SECONDS > deadline:
                raise
            logger.info("waiting: %s", error)
            time.sleep(_RETRY_SECONDS)
