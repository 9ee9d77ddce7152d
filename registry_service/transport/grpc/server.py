"""The gRPC server: its services, limits, health, reflection and shutdown."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from modelregistry.compat.v1 import compat_service_pb2_grpc
from modelregistry.geti.v1 import geti_service_pb2_grpc
from modelregistry.v1 import (
    alias_service_pb2_grpc,
    artifact_service_pb2_grpc,
    audit_service_pb2_grpc,
    model_group_service_pb2_grpc,
    model_service_pb2_grpc,
    system_service_pb2_grpc,
    upload_service_pb2_grpc,
)

from registry_service.certificates import Certificate
from registry_service.domain.access import Authenticator
from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import TooManyCallsError, TooManyStreamsError
from registry_service.domain.ports import Database
from registry_service.geti.projects import ProjectService
from registry_service.methods import METHODS
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

# The gateway sends the URL of a request, with its filter, as a header.
_MAX_METADATA_BYTES = 64 * 1024
_MAX_REFLECTIONS = 8
_IDLE_CONNECTION_MS = 300_000
_HANDSHAKE_MS = 10_000
_SERVICES = tuple(
    sorted({method.service for method in METHODS.values() if method.service.startswith("modelregistry.")})
)
# The Intel-compatible API answers errors with messages of its own.
_REFUSALS = {"modelregistry.compat.v1.CompatService": refused}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server listens and what it limits; `settings.Settings` documents each option."""

    address: str
    certificate: Certificate | None = None
    """For TLS. Its files may be renewed while the server runs."""
    client_ca: Path | None = None
    """File of CA certificates. With TLS, clients must present a certificate that one of them has signed."""
    reuse_port: bool
    private_socket: Path | None = None
    """Unix socket for the supervisor of this process, in a folder that only its user may enter."""
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


class Job(Protocol):
    """Work that runs in the background while the server runs."""

    def start(self) -> None:
        """Begin."""

    def begin_stop(self) -> None:
        """End soon."""

    def join(self) -> None:
        """Wait until it has ended."""


class PortTakenError(Exception):
    """The server cannot listen on its address. The message names it."""


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
    """A server that runs from `start` to `stop`.

    Args:
        use_cases: What the servicers call.
        database: Checked for readiness.
        store: Checked for readiness.
        options: How the server listens, and its limits.
        info: What GetServerInfo returns.
        authenticate: Turns bearer tokens into identities; None with AUTH_MODE=none.
        observer: Receives metrics and traces of calls.
        jobs: Run beside the calls.
    """

    def __init__(
        self,
        use_cases: UseCases,
        projects: ProjectService,
        database: Database,
        store: ArtifactStore,
        options: ServerOptions,
        *,
        info: ServerInfo,
        authenticate: Authenticator | None = None,
        observer: CallObserver | None = None,
        jobs: Sequence[Job] = (),
    ) -> None:
        self._options = options
        self._limits = _limits(options)
        self._drain = Drain()
        self._health = HealthMonitor(database, store, _SERVICES, interval_seconds=options.health_interval_seconds)
        self._jobs = jobs
        self._watchdog = Watchdog(idle_seconds=options.stream_idle_seconds)
        connections = connection_limit(options.max_connections)
        self._connection_guard = ConnectionGuard(limit=connections)
        threads = (
            options.max_unary_calls
            # Short calls, lists and long calls wait, and as many again come back when they were told to.
            + 6 * options.max_waiting_calls
            + options.max_streams
            + options.max_watches
            + _MAX_REFLECTIONS
            + MAX_HEALTH_WATCHES
            # Twice, as a cancelled call holds its thread for a moment longer.
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
                # Estimating the bandwidth buffers 7 to 22 MiB of every stalled upload.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 2 * 1024 * 1024),
                ("grpc.max_allowed_incoming_connections", connections),
                # Clients reconnect by themselves.
                ("grpc.max_connection_idle_ms", _IDLE_CONNECTION_MS),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
                # Detects clients that vanished.
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
                # Per connection. Further calls wait in the client; the gateway opens another connection.
                ("grpc.max_concurrent_streams", 1_024),
            ],
        )
        compat = CompatServicer(use_cases, projects, self._limits)
        servicers: Sequence[tuple[Callable[[Any, grpc.Server], None], object]] = (
            (model_service_pb2_grpc.add_ModelServiceServicer_to_server, ModelServicer(use_cases, self._limits)),
            (model_group_service_pb2_grpc.add_ModelGroupServiceServicer_to_server, ModelGroupServicer(use_cases)),
            (alias_service_pb2_grpc.add_AliasServiceServicer_to_server, AliasServicer(use_cases, self._limits)),
            (upload_service_pb2_grpc.add_UploadServiceServicer_to_server, UploadServicer(use_cases)),
            (artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server, ArtifactServicer(use_cases)),
            (audit_service_pb2_grpc.add_AuditServiceServicer_to_server, AuditServicer(use_cases, self._drain)),
            (system_service_pb2_grpc.add_SystemServiceServicer_to_server, SystemServicer(self._health, info)),
            (geti_service_pb2_grpc.add_GetiServiceServicer_to_server, GetiServicer(projects)),
            (compat_service_pb2_grpc.add_CompatServiceServicer_to_server, compat),
            (health_pb2_grpc.add_HealthServicer_to_server, self._health.servicer),
        )
        for add_to_server, servicer in servicers:
            add_to_server(servicer, self._server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = 0

    def start(self) -> None:
        """Listen, and set `port`.

        Raises:
            PortTakenError: Another process listens on the address.
            CertificateError: The certificate or its key cannot be used.
        """
        try:
            self.port = self._listen()
        except RuntimeError as error:
            raise PortTakenError(f"cannot listen on {self._options.address}: is it taken?") from error
        self._connection_guard.start(self.port)
        self._health.start()
        self._server.start()
        for job in self._jobs:
            job.start()
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
        """Stop accepting calls, wait up to the grace period for those that run, and return when all have ended.

        Before that, the server reports that it is not ready, and accepts calls for as long as load balancers need to
        notice: grpcio answers CANCELLED to calls that arrive in the moment of the stop.
        """
        self._health.stop()
        for job in self._jobs:
            job.begin_stop()
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
        for job in self._jobs:
            job.join()
        self._pool.shutdown()

    @property
    def waiting_calls(self) -> int:
        """Calls that wait for a slot."""
        return self._limits.waiting

    @property
    def streams_in_use(self) -> int:
        """Slots of MAX_STREAMS in use."""
        return self._limits.long_calls.running

    @property
    def watches_in_use(self) -> int:
        """Slots of MAX_WATCHES in use."""
        return self._limits.watches.running

    def answered(self, dependency: str) -> bool:
        """Return whether a dependency, one of `health.DEPENDENCIES`, answered its last check."""
        return self._health.answered(dependency)
