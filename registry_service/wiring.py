"""Connect adapters to ports according to the settings. Only this module knows every implementation."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import SecretStr
from sqlalchemy import Engine

from registry_service import __version__
from registry_service.certificates import Certificate
from registry_service.compat.servicer import compat_service
from registry_service.domain.access import Authenticator
from registry_service.domain.artifact_store import ListableArtifactStore
from registry_service.domain.errors import UnavailableError
from registry_service.domain.object_keys import is_object_key
from registry_service.domain.ports import Database
from registry_service.domain.source_error import SourceError
from registry_service.geti.projects import ProjectService
from registry_service.geti.servicer import geti_service
from registry_service.intel_migration.imports import IntelImport
from registry_service.observability.telemetry import ServerStates, Telemetry, TracingOptions, open_telemetry
from registry_service.services.authentication import CachedAuthenticator, TokenAuthenticator, TokenOrOther
from registry_service.services.backup import BackUp, Restore
from registry_service.services.garbage_collection_job import GarbageCollectionJob
from registry_service.services.policy import Policy
from registry_service.services.services import Services
from registry_service.services.tokens import TokenService
from registry_service.services.verification import RegistryVerification
from registry_service.settings import (
    AuthSettings,
    DatabaseSettings,
    GetiSettings,
    IntelSourceSettings,
    Settings,
    warn_if_open,
)
from registry_service.storage.artifacts.factory import build_artifact_store, build_backup_store
from registry_service.storage.disk import DiskReserve
from registry_service.storage.sql.backup import SqlDatabaseCopier
from registry_service.storage.sql.database import SqlDatabase
from registry_service.storage.sql.engine import Tls, make_engine
from registry_service.storage.sql.errors import domain_errors
from registry_service.storage.sql.intel_source import SqlIntelDatabase
from registry_service.storage.sql.schema import migrate
from registry_service.transport.grpc.health import DEPENDENCIES
from registry_service.transport.grpc.server import RegistryServer, ServerOptions
from registry_service.transport.grpc.system_servicer import ServerInfo

# Imported where they are used: together they take a quarter of the time of every start.
if TYPE_CHECKING:
    from registry_service.geti.client import HttpGeti
    from registry_service.oidc.authenticator import OidcAuthenticator

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

_RETRY_SECONDS = 0.5


def build_engine(
    settings: DatabaseSettings,
    *,
    statement_timeout_seconds: float = 30,
    search_timeout_seconds: float | None = None,
    is_bounded: bool = True,
) -> Engine:
    """Return the connection pool that the settings describe; see `make_engine`."""
    return make_engine(
        host=settings.psql_hostname,
        port=settings.psql_port,
        database=settings.psql_database,
        user=settings.mr_user_name,
        password=settings.psql_password.get_secret_value(),
        tls=Tls(
            mode=settings.psql_sslmode,
            ca_cert=settings.psql_ca_cert,
            client_cert=settings.psql_client_cert,
            client_private_key=settings.psql_client_private_key,
        ),
        pool_size=settings.psql_pool_size,
        statement_timeout_seconds=statement_timeout_seconds,
        search_timeout_seconds=search_timeout_seconds,
        is_bounded=is_bounded,
    )


def migrate_database(settings: DatabaseSettings) -> str:
    """Wait for the database, migrate it to the schema of this version, and return the revision.

    Raises:
        DatabaseUnavailableError: The database does not respond within STARTUP_TIMEOUT_SECONDS.
        SchemaError: See `storage.sql.schema.migrate`.
    """
    # A migration has no time limit.
    engine = build_engine(settings, is_bounded=False)

    def attempt() -> str:
        with domain_errors():
            return migrate(engine)

    try:
        return _wait_until_available(attempt, settings.startup_timeout_seconds)
    finally:
        engine.dispose()


def build_store(settings: Settings) -> ListableArtifactStore:
    """Wait for the artifact store and return it. Create its folder or bucket if missing.

    Raises:
        ArtifactStoreUnavailableError: The store does not respond within STARTUP_TIMEOUT_SECONDS.
    """
    return build_artifact_store(
        settings, lambda prepare: _wait_until_available(prepare, settings.startup_timeout_seconds)
    )


def build_geti(settings: GetiSettings) -> "HttpGeti | None":
    """Return the client of Geti, which has not connected yet; None if Geti is not, or not fully, configured."""
    missing = settings.missing_geti_settings
    if missing:
        if settings.has_any_geti_setting:
            logger.warning("Geti is not configured: %s must be set", ", ".join(missing))
        return None
    host, token = settings.geti_host, settings.geti_token
    version, organization = settings.geti_server_api_version, settings.geti_organization_id
    workspace = settings.geti_workspace_id
    if host is None or token is None or version is None or organization is None or workspace is None:
        raise AssertionError("missing_geti_settings checks this")
    from registry_service.geti.client import HttpGeti, Workspace  # noqa: PLC0415

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
    """The registry without its gRPC server."""

    database: SqlDatabase
    store: ListableArtifactStore
    services: Services
    projects: ProjectService
    telemetry: Telemetry


@contextmanager
def open_registry(settings: Settings) -> Iterator[Registry]:
    """Give the registry on its Postgres, which must be migrated, and its artifact store."""
    engine = build_engine(
        settings,
        statement_timeout_seconds=settings.unary_timeout_seconds,
        search_timeout_seconds=settings.search_timeout_seconds,
    )
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        telemetry = stack.enter_context(
            open_telemetry(metrics=settings.metrics_port is not None, tracing=_tracing(settings))
        )
        telemetry.trace_statements(engine)
        database = SqlDatabase(engine, telemetry.committed, disk=_disk(settings))
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
        services = Services.on(telemetry.database(database, engine), telemetry.store(store), policy)
        projects = ProjectService(telemetry.geti(geti), services.models)
        yield Registry(database, store, services, projects, telemetry)


def _disk(settings: Settings) -> DiskReserve | None:
    """Return the disk of a Postgres on this machine; None if Postgres runs elsewhere."""
    if settings.psql_data_dir is None:
        return None
    return DiskReserve(settings.psql_data_dir, "the database", settings.disk_reserve_bytes)


def _tracing(settings: Settings) -> TracingOptions | None:
    if not settings.is_tracing:
        return None
    return TracingOptions(
        protocol=settings.otel_exporter_otlp_protocol, service_name=settings.otel_service_name or "model-registry"
    )


@contextmanager
def open_tokens(settings: DatabaseSettings) -> Iterator[TokenService]:
    """Give the tokens in Postgres, which must be migrated."""
    engine = build_engine(settings)
    try:
        yield TokenService(SqlDatabase(engine))
    finally:
        engine.dispose()


@contextmanager
def open_intel_import(
    registry: Registry, settings: Settings, source: IntelSourceSettings, *, copy: bool
) -> Iterator[IntelImport]:
    """Give the import of an Intel deployment.

    Args:
        registry: The registry to import into.
        settings: The registry's settings.
        source: Settings of the Intel deployment.
        copy: Whether to copy artifacts that could stay in the Intel deployment's bucket.

    Raises:
        SourceError: The address or the credentials of the Intel deployment's MinIO are not set.
    """
    s3 = {
        "HOSTNAME": source.source_minio_hostname or settings.minio_hostname,
        "ACCESS_KEY": source.source_minio_access_key or settings.minio_access_key,
        "SECRET_KEY": source.source_minio_secret_key or settings.minio_secret_key,
    }
    missing = [f"SOURCE_MINIO_{name} or MINIO_{name}" for name, value in s3.items() if value is None]
    if missing:
        raise SourceError(f"{', '.join(missing)}: must be set to read the Intel deployment's artifacts")
    is_own_minio = source.source_minio_hostname is None
    from registry_service.storage.artifacts.intel_bucket import S3IntelBucket  # noqa: PLC0415
    from registry_service.storage.artifacts.s3_connection import S3Options  # noqa: PLC0415

    options = S3Options(
        host=str(s3["HOSTNAME"]),
        port=settings.minio_server_port if is_own_minio else source.source_minio_server_port,
        access_key=str(s3["ACCESS_KEY"]),
        secret_key=(source.source_minio_secret_key or settings.minio_secret_key or SecretStr("")).get_secret_value(),
        bucket=source.source_minio_bucket_name,
        region=settings.minio_region if is_own_minio else source.source_minio_region,
        secure=settings.minio_secure if is_own_minio else source.source_minio_secure,
        ca_cert=settings.minio_ca_cert if is_own_minio else source.source_minio_ca_cert,
    )
    is_own_bucket = options.location == registry.store.location
    engine = make_engine(
        host=source.source_psql_hostname,
        port=source.source_psql_port,
        database=source.source_psql_database,
        user=source.source_psql_user,
        password=source.source_psql_password.get_secret_value(),
        tls=Tls(mode=source.source_psql_sslmode),
        pool_size=1,
        statement_timeout_seconds=300,
    )
    try:
        yield IntelImport(
            models=registry.services.models,
            source=SqlIntelDatabase(engine),
            bucket=S3IntelBucket.connect(options),
            is_usable_in_place=lambda key: is_own_bucket and not copy and is_object_key(key),
        )
    finally:
        engine.dispose()


@contextmanager
def open_backup(settings: Settings, folder: Path, *, is_thorough: bool = True) -> Iterator[BackUp]:
    """Give the backup of the registry to a folder, which is created if missing; see `BackUp` for the flag."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _copier(settings) as copier:
        objects = build_backup_store(folder)
        yield BackUp(
            copier=copier, store=build_store(settings), folder=folder, objects=objects, is_thorough=is_thorough
        )


@contextmanager
def open_restore(settings: Settings, folder: Path, *, accepts_damage: bool = False) -> Iterator[Restore]:
    """Give the restore of the registry from a folder into a database, which need not be migrated.

    See `Restore` for the flag.

    Raises:
        SourceError: The folder has no backup.
    """
    if not (folder / "objects").is_dir():
        raise SourceError(f"{folder} has no backup.")
    with _copier(settings) as copier:
        objects = build_backup_store(folder)
        yield Restore(
            copier=copier, store=build_store(settings), folder=folder, objects=objects, accepts_damage=accepts_damage
        )


@contextmanager
def _copier(settings: Settings) -> Iterator[SqlDatabaseCopier]:
    # One connection holds the lock; the other copies.
    engine = build_engine(settings.model_copy(update={"psql_pool_size": 2}), is_bounded=False)
    try:
        yield SqlDatabaseCopier(engine)
    finally:
        engine.dispose()


def build_verification(registry: Registry) -> RegistryVerification:
    """Return the verification of a registry."""
    return RegistryVerification(
        database=registry.database,
        store=registry.store,
        models=registry.services.models,
        artifacts=registry.services.artifacts,
        audit=registry.services.audit,
        unfinished=registry.services.garbage_collector.unfinished,
    )


def build_server(registry: Registry, settings: Settings, *, private_socket: Path | None = None) -> RegistryServer:
    """Return the gRPC server, which does not listen yet.

    Args:
        registry: The registry to serve.
        settings: The server's settings.
        private_socket: Unix socket for the supervisor's liveness probes. With it, the server may share its port with
            other processes of the supervisor.
    """
    warn_if_open(settings, settings.grpc_ip_address)
    server = RegistryServer(
        registry.services,
        registry.database,
        registry.store,
        ServerOptions(
            address=f"{settings.grpc_ip_address}:{settings.grpc_port}",
            certificate=_certificate(settings),
            client_ca=settings.client_ca_cert,
            reuse_port=private_socket is not None,
            private_socket=private_socket,
            max_unary_calls=settings.max_unary_calls,
            max_waiting_calls=settings.max_waiting_calls,
            max_streams=settings.max_streams,
            max_watches=settings.max_watches,
            max_lists=min(settings.max_list_calls, max(1, settings.psql_pool_size // 2)),
            caller_share=settings.caller_share,
            max_waiting_seconds=settings.max_waiting_seconds,
            max_connections=settings.grpc_max_connections,
            stream_idle_seconds=settings.stream_idle_seconds,
            shutdown_delay_seconds=settings.shutdown_delay_seconds,
            shutdown_grace_seconds=settings.shutdown_grace_seconds,
            health_interval_seconds=settings.health_interval_seconds,
        ),
        info=_server_info(settings),
        authenticate=build_authenticator(registry.database, settings),
        observer=registry.telemetry,
        optional_services=[compat_service(registry.services, registry.projects), geti_service(registry.projects)],
        jobs=[
            GarbageCollectionJob(
                registry.services.garbage_collector,
                interval_seconds=settings.gc_interval_seconds,
                observer=registry.telemetry,
            )
        ],
    )
    registry.telemetry.server(
        ServerStates(
            waiting_calls=lambda: server.waiting_calls,
            # Short calls, lists and streams have a queue each.
            max_waiting_calls=3 * settings.max_waiting_calls,
            streams={"stream": lambda: server.streams_in_use, "watch": lambda: server.watches_in_use},
            max_streams={"stream": settings.max_streams, "watch": settings.max_watches},
            dependencies={name: partial(server.answered, name) for name in DEPENDENCIES},
        )
    )
    return server


def _server_info(settings: Settings) -> ServerInfo:
    return ServerInfo(
        version=__version__,
        max_artifact_bytes=settings.artifact_max_bytes,
        max_metadata_bytes=settings.metadata_max_bytes,
        upload_ttl_seconds=settings.upload_ttl_seconds,
        stream_idle_seconds=settings.stream_idle_seconds,
        watch_heartbeat_seconds=settings.watch_heartbeat_seconds,
        has_geti=not settings.missing_geti_settings,
        auth_mode=settings.auth_mode,
        oidc_issuer=settings.oidc_issuer,
        oidc_client_id=settings.oidc_client_id,
        oidc_audience=settings.oidc_audience,
        oidc_scopes=settings.oidc_scopes,
    )


def build_authenticator(database: Database, settings: AuthSettings) -> Authenticator | None:
    """Make what checks bearer tokens, None with AUTH_MODE=none. An OpenID provider is first asked by a call."""
    if settings.auth_mode == "none":
        return None
    oidc = _build_oidc(settings) if settings.auth_mode == "oidc" else None
    return CachedAuthenticator(TokenOrOther(TokenAuthenticator(database), oidc))


def _build_oidc(settings: AuthSettings) -> "OidcAuthenticator":
    from registry_service.oidc.authenticator import OidcAuthenticator  # noqa: PLC0415
    from registry_service.oidc.provider import KeyCache, Provider  # noqa: PLC0415

    issuer, audience = settings.oidc_issuer, settings.oidc_audience
    if issuer is None or audience is None:
        raise AssertionError("AuthSettings checks this")
    provider = Provider(issuer=issuer, jwks_url=settings.oidc_jwks_url, ca_cert=settings.oidc_ca_cert)
    return OidcAuthenticator(
        keys=KeyCache(provider.fetch),
        issuer=issuer,
        audience=audience,
        algorithms=settings.oidc_algorithms,
        leeway=timedelta(seconds=settings.oidc_leeway_seconds),
        roles_claim=settings.oidc_roles_claim,
    )


def _certificate(settings: Settings) -> Certificate | None:
    if not settings.enable_https_mode or settings.server_cert is None or settings.server_private_key is None:
        return None
    return Certificate(settings.server_cert, settings.server_private_key)


def _wait_until_available(attempt: Callable[[], Result], seconds: float) -> Result:
    """Repeat an attempt until it succeeds, or raise its UnavailableError when the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return attempt()
        except UnavailableError as error:
            if time.monotonic() + _RETRY_SECONDS > deadline:
                raise
            logger.info("waiting: %s", error)
            time.sleep(_RETRY_SECONDS)
