"""The gRPC server: services, limits, health, reflection, drain."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from modelregistry.compat.v1 import compat_service_pb2, compat_service_pb2_grpc
from modelregistry.geti.v1 import geti_service_pb2, geti_service_pb2_grpc
from modelregistry.v1 import (
    alias_service_pb2,
    alias_service_pb2_grpc,
    artifact_service_pb2,
    artifact_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    model_group_service_pb2,
    model_group_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    system_service_pb2,
    system_service_pb2_grpc,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

from registry_service.certificates import Certificate
from registry_service.domain.access import Authenticator
from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import DatabaseUnavailableError, TooManyCallsError, TooManyStreamsError
from registry_service.domain.ports import Database
from registry_service.services.use_cases import UseCases
from registry_service.transport.grpc.alias_servicer import AliasServicer
from registry_service.transport.grpc.artifact_servicer import ArtifactServicer
from registry_service.transport.grpc.audit_servicer import AuditServicer
from registry_service.transport.grpc.compat_servicer import CompatServicer, refused
from registry_service.transport.grpc.concurrency_limit import ConcurrencyLimit, Refuse, share_of
from registry_service.transport.grpc.connections import ConnectionGuard, connection_limit
from registry_service.transport.grpc.credentials import server_credentials
from registry_service.transport.grpc.drain import Drain
from registry_service.transport.grpc.geti_servicer import GetiServicer
from registry_service.transport.grpc.health import MAX_HEALTH_WATCHES, HealthMonitor
from registry_service.transport.grpc.interceptors.authentication import Authentication
from registry_service.transport.grpc.interceptors.chain import InterceptorChain
from registry_service.transport.grpc.interceptors.concurrency import ConcurrencyLimits
from registry_service.transport.grpc.interceptors.telemetry import CallObserver
from registry_service.transport.grpc.interceptors.watchdog import MAX_MESSAGES_EXPECTED, Watchdog
from registry_service.transport.grpc.model_group_servicer import ModelGroupServicer
from registry_service.transport.grpc.model_servicer import ModelServicer
from registry_service.transport.grpc.system_servicer import MAX_MESSAGE_BYTES, ServerInfo, SystemServicer
from registry_service.transport.grpc.upload_servicer import UploadServicer

logger = logging.getLogger(__name__)

# A request's address, with its filter, reaches us as a header.
_MAX_METADATA_BYTES = 64 * 1024
_MAX_REFLECTIONS = 8
_IDLE_CONNECTION_MS = 300_000
_HANDSHAKE_MS = 10_000
_SERVICES = tuple(
    service.full_name
    for module in (
        model_service_pb2,
        upload_service_pb2,
        artifact_service_pb2,
        geti_service_pb2,
        model_group_service_pb2,
        alias_service_pb2,
        audit_service_pb2,
        compat_service_pb2,
        system_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)


# The documented API's errors are answers of its own.
_REFUSALS = {compat_service_pb2.DESCRIPTOR.services_by_name["CompatService"].full_name: refused}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server listens and what it bounds; `settings.Settings` says what each is for."""

    address: str
    certificate: Certificate | None = None
    """For TLS; it may be renewed at any time."""
    client_ca: Path | None = None
    """File of CA certificates: with TLS, clients must show a certificate of theirs."""
    reuse_port: bool
    private_socket: Path | None = None
    """Unix socket to listen on, too, for the supervisor of this process; in a folder that is for its user alone."""
    max_unary_calls: int
    max_waiting_calls: int
    max_streams: int
    max_watches: int
    max_lists: int
    caller_share: float
    max_waiting_seconds: float
    max_connections: int
    stream_idle_seconds: float
    shutdown_delay_seconds: float
    shutdown_grace_seconds: float
    health_interval_seconds: float
    gc_interval_seconds: float


class ServerObserver(CallObserver, Protocol):
    """An observer of calls and garbage collections. Never raises."""

    def garbage_collected(self, *, uploads: int, objects: int, failed: int) -> None:
        """Called after a garbage collection, with the numbers of removed and of undeletable objects."""

    def garbage_collection_failed(self) -> None:
        """Called after a garbage collection that failed as a whole."""


class PortTakenError(Exception):
    """The address cannot be listened on; the message names it."""


def _limits(options: ServerOptions) -> ConcurrencyLimits:
    def limit(most: int, refuse: Refuse, *, waiting: int = options.max_waiting_calls) -> ConcurrencyLimit:
        return ConcurrencyLimit(
            max_running=most,
            max_running_per_caller=share_of(most, options.caller_share),
            max_waiting=waiting,
            max_waiting_per_caller=share_of(waiting, options.caller_share),
            wait_seconds=options.max_waiting_seconds,
            refuse=refuse,
        )

    return ConcurrencyLimits(
        short_calls=limit(options.max_unary_calls, TooManyCallsError),
        lists=limit(options.max_lists, TooManyCallsError),
        long_calls=limit(options.max_streams, TooManyStreamsError),
        # Neither ends soon, so no call waits for one to end.
        watches=limit(options.max_watches, TooManyStreamsError, waiting=0),
        reflection=limit(_MAX_REFLECTIONS, TooManyStreamsError, waiting=0),
    )


class RegistryServer:
    """A server that runs from `start` to `stop`."""

    def __init__(
        self,
        use_cases: UseCases,
        database: Database,
        store: ArtifactStore,
        options: ServerOptions,
        *,
        info: ServerInfo,
        authenticate: Authenticator | None = None,
        observer: ServerObserver | None = None,
    ) -> None:
        self._use_cases = use_cases
        self._observer = observer
        self._options = options
        self._limits = _limits(options)
        self._drain = Drain()
        self._health = HealthMonitor(database, store, _SERVICES, interval_seconds=options.health_interval_seconds)
        self._stopped = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="sweeper", daemon=True)
        self._watchdog = Watchdog(idle_seconds=options.stream_idle_seconds)
        connections = connection_limit(options.max_connections)
        self._connection_guard = ConnectionGuard(limit=connections)
        threads = (
            options.max_unary_calls
            # Of short calls, lists and streams, and as many again that were told to come back.
            + 6 * options.max_waiting_calls
            + options.max_streams
            + options.max_watches
            + _MAX_REFLECTIONS
            + MAX_HEALTH_WATCHES
            # Twice, as a thread is free only a moment after its call was cancelled.
            + 2 * MAX_MESSAGES_EXPECTED
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="call")
        self._server = grpc.server(
            self._pool,
            interceptors=[
                InterceptorChain(
                    watchdog=self._watchdog,
                    limits=self._limits,
                    authentication=Authentication(authenticate, refusals=_REFUSALS),
                    observer=observer,
                )
            ],
            maximum_concurrent_rpcs=threads,
            options=[
                ("grpc.so_reuseport", int(options.reuse_port)),
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
                ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
                # Its guesses at the bandwidth buffer 7 to 22 MiB of every stalled upload.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 2 * 1024 * 1024),
                ("grpc.max_allowed_incoming_connections", connections),
                # Clients connect again by themselves.
                ("grpc.max_connection_idle_ms", _IDLE_CONNECTION_MS),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
                # A peer that vanished is noticed without its help.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                # Of one connection; more wait at their client. The gateway opens another.
                ("grpc.max_concurrent_streams", 1_024),
            ],
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(use_cases, self._limits), self._server)
        upload_service_pb2_grpc.add_UploadServiceServicer_to_server(UploadServicer(use_cases), self._server)
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(ArtifactServicer(use_cases), self._server)
        geti_service_pb2_grpc.add_GetiServiceServicer_to_server(GetiServicer(use_cases), self._server)
        model_group_service_pb2_grpc.add_ModelGroupServiceServicer_to_server(
            ModelGroupServicer(use_cases), self._server
        )
        alias_service_pb2_grpc.add_AliasServiceServicer_to_server(AliasServicer(use_cases, self._limits), self._server)
        audit_service_pb2_grpc.add_AuditServiceServicer_to_server(AuditServicer(use_cases, self._drain), self._server)
        compat_service_pb2_grpc.add_CompatServiceServicer_to_server(
            CompatServicer(use_cases, self._limits), self._server
        )
        system_service_pb2_grpc.add_SystemServiceServicer_to_server(SystemServicer(self._health, info), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = 0

    def start(self) -> None:
        """Listens; `port` is then the port.

        Raises:
            PortTakenError: Somebody else listens there.
            CertificateError: The files are not what they should be.
        """
        try:
            self.port = self._listen()
        except RuntimeError as error:
            raise PortTakenError(f"cannot listen on {self._options.address}: is it taken?") from error
        self._connection_guard.start(self.port)
        self._health.start()
        self._server.start()
        self._sweeper.start()
        logger.info("serving gRPC on %s", self._options.address, extra={"port": self.port})

    def _listen(self) -> int:
        if self._options.private_socket is not None:
            self._server.add_insecure_port(f"unix:{self._options.private_socket}")
        certificate = self._options.certificate
        if certificate is None:
            return self._server.add_insecure_port(self._options.address)
        credentials = server_credentials(certificate, self._options.client_ca)
        return self._server.add_secure_port(self._options.address, credentials)

    def stop(self) -> None:
        """Takes no more calls, lets those under way finish within the grace period, and returns when all have ended.

        Says first that it is not well, and takes calls for as long as load balancers need to hear that: grpcio answers
        CANCELLED to those that come in the moment of the stop.
        """
        self._health.stop()
        self._stopped.set()
        if self._options.shutdown_delay_seconds:
            logger.info("stopping in %s s", self._options.shutdown_delay_seconds)
            time.sleep(self._options.shutdown_delay_seconds)
        logger.info("draining for up to %s s", self._options.shutdown_grace_seconds)
        stopping = self._server.stop(self._options.shutdown_grace_seconds)
        self._drain.begin()
        self._health.servicer.end_watches()
        stopping.wait()
        self._watchdog.stop()
        self._connection_guard.stop()
        if self._sweeper.is_alive():
            self._sweeper.join()
        self._pool.shutdown()

    @property
    def waiting_calls(self) -> int:
        """Calls that wait for a place."""
        return self._limits.waiting

    @property
    def streams_in_use(self) -> int:
        """Places of MAX_STREAMS that are taken."""
        return self._limits.long_calls.running

    @property
    def watches_in_use(self) -> int:
        """Places of MAX_WATCHES that are taken."""
        return self._limits.watches.running

    def answered(self, dependency: str) -> bool:
        """Whether one of `health.DEPENDENCIES` answered when it was last asked."""
        return self._health.answered(dependency)

    def _sweep(self) -> None:
        while not self._stopped.wait(self._options.gc_interval_seconds):
            try:
                with acting_as_registry():
                    report = self._use_cases.sweep()
            except DatabaseUnavailableError:
                logger.warning("cannot sweep now: the database is away")
            except Exception:
                # A sweep that failed is repeated; the server is there for other things.
                logger.exception("a sweep failed")
            else:
                if self._observer is not None:
                    self._observer.garbage_collected(
                        uploads=len(report.uploads), objects=len(report.objects), failed=len(report.failed)
                    )
                continue
            if self._observer is not None:
                self._observer.garbage_collection_failed()
