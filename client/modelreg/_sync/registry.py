# Generated from modelreg/_async by `make generate`. Do not edit.
"""The registry, as users see it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from modelregistry.v1 import system_service_pb2

from modelreg._access.configuration import Configuration
from modelreg._sync.aliases import AliasCalls
from modelreg._sync.audit import AuditCalls
from modelreg._sync.connection import Connection
from modelreg._sync.pull import ArtifactCalls
from modelreg._sync.push import UploadCalls
from modelreg._wire import convert, methods
from modelreg.server import Identity, ServerInfo


class Registry(AliasCalls, ArtifactCalls, AuditCalls, UploadCalls):
    """A model registry.

    Nothing is sent before the first call. One object serves any number of threads, and forked children. Fork while no
    other thread is in a call, and while no registry of asyncio is open: grpc does not support more.

    Args:
        url: `grpc://host:port`, `grpcs://…` (TLS), or `http://…`, `https://…` (the gateway). Default: `MODELREG_URL`,
            else that of the profile of `mreg login`, else `grpc://127.0.0.1:50051`.
        token: The bearer token. Default: `MODELREG_TOKEN` if `MODELREG_URL` is this URL, else that of the profile for
            this URL. A token is sent only to the registry that it was meant for.
        profile: The profile of `mreg login` to use. Default: `MODELREG_PROFILE`, else the active one.
        timeout: Seconds that one call may take, repetitions included. Transfers have no limit, as long as they make
            progress.
        stall_timeout: Seconds without progress after which a transfer connects anew, where it was.
        ca_file: PEM file with the certificate authorities to trust. Default: `MODELREG_CA_FILE`, else that of the
            profile, else `SSL_CERT_FILE`, else those that come with grpc.
        client_certificate: PEM file with the certificate chain of the client. Default: `MODELREG_CLIENT_CERTIFICATE`,
            else that of the profile.
        client_key: PEM file with its private key, not encrypted. Default: `MODELREG_CLIENT_KEY`, else that of the
            profile.
        insecure: Whether the token may be sent without TLS to another machine. Default: `MODELREG_INSECURE`.

    Raises:
        InvalidArgument: An argument, a variable or the profile is wrong.
        NotFound: There is no such profile.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        profile: str | None = None,
        timeout: float = 30.0,
        stall_timeout: float = 60.0,
        ca_file: str | None = None,
        client_certificate: str | None = None,
        client_key: str | None = None,
        insecure: bool = False,
    ) -> None:
        self._configuration = Configuration(
            url=url,
            token=token,
            profile=profile,
            timeout=timeout,
            stall_timeout=stall_timeout,
            ca_file=ca_file,
            client_certificate=client_certificate,
            client_key=client_key,
            insecure=insecure,
        )
        options, credentials = self._configuration.resolve()
        self._connection = Connection(options, credentials)

    @property
    def url(self) -> str:
        """The URL of the registry."""
        return self._connection.options.endpoint.url

    def server_info(self) -> ServerInfo:
        """Return version, limits and features of the server, and how to sign in. No token is needed, or sent."""
        request = system_service_pb2.GetServerInfoRequest()
        return convert.server_info(self._connection.unary(methods.GET_SERVER_INFO, request, signs_in=False))

    def whoami(self) -> Identity:
        """Return who the caller is, and what the caller may do."""
        return convert.identity(self._connection.unary(methods.WHO_AM_I, system_service_pb2.WhoAmIRequest()))

    def close(self) -> None:
        """Close the connections, and end the calls that run. Later calls raise RegistryError.

        Another `with` block opens the registry again.
        """
        self._connection.close()

    def __enter__(self) -> Registry:
        self._connection.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Registry({self.url!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # To another process, without the token that was passed: that process takes its own from the environment or
        # the profile.
        return _rebuild, (
            type(self),
            self._configuration.for_another_process(self._connection.options.endpoint),
        )


def _rebuild(kind: type[Registry], configuration: Configuration) -> Registry:
    return kind(**configuration.arguments())
