"""The policy of every RPC, one row each: the only place that says what a method may do and what it costs.

The server's interceptors, the gateway's routes and the traces read these rows. HTTP requests are RPCs by the time they
arrive, so the rows hold for REST, too. A method without a row is refused to every caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from registry_service.domain.access import Permission

GATEWAY_IDLE_SECONDS = 120
"""How long the gateway waits for the next byte of a call, unless the method's row sets a longer time."""


class OpenTo(Enum):
    """Who may call a method that takes no permission."""

    EVERYBODY = auto()
    """Callers without credentials, too: probes have none, and GetServerInfo tells clients how to sign in."""
    AUTHENTICATED = auto()
    """Any caller with valid credentials: WhoAmI shows nothing that belongs to a project."""
    NOBODY = auto()
    """No caller: the method has no row."""


class Kind(Enum):
    """Which concurrency limit a call counts against."""

    PROBE = auto()
    """No limit: the response is immediate."""
    SHORT = auto()
    """MAX_UNARY_CALLS. A call that turns out to be long moves to MAX_STREAMS."""
    LIST = auto()
    """MAX_LISTS and MAX_UNARY_CALLS: the call may keep a connection to Postgres for seconds."""
    LONG = auto()
    """MAX_STREAMS: the call moves an artifact, reads the whole audit log, or waits for another server."""
    WATCH = auto()
    """MAX_WATCHES: the call lasts until its client ends it."""
    REFLECTION = auto()
    """A small fixed number."""


class OnFailure(Enum):
    """What a stream whose messages have begun sends before it fails."""

    STATUS = auto()
    """Nothing: the gRPC status says it."""
    ERROR_MESSAGE = auto()
    """A last message with the field `error`: over HTTP, a stream that fails ends like any other."""
    BROKEN_MESSAGE = auto()
    """A message that cannot be parsed: over HTTP, Envoy then breaks the connection off (docs/decisions/0005)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The policy of one RPC."""

    path: str
    """`/package.Service/Method`."""
    access: Permission | OpenTo
    """The permission that a caller needs, or who may call without one."""
    kind: Kind = Kind.SHORT
    on_failure: OnFailure = OnFailure.STATUS
    chunk_field: str = ""
    """The bytes field that nearly all messages of the request stream consist of."""
    sends_chunks: bool = False
    """Whether the response stream is serialized by the servicer, without protobuf's copies of the bytes."""
    is_traced: bool = True
    """Whether traces show the calls. Probes come every second and would crowd them out."""
    gateway_idle_seconds: int = GATEWAY_IDLE_SECONDS
    """How long the gateway waits for the next byte of a call."""

    @property
    def service(self) -> str:
        """Full name of the service."""
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        """Name within the service."""
        return self.path.split("/")[2]

    @property
    def is_open(self) -> bool:
        """Whether callers without credentials may call the method."""
        return self.access is OpenTo.EVERYBODY


_READ, _WRITE, _PROMOTE, _ADMINISTER = (
    Permission.READ,
    Permission.WRITE,
    Permission.PROMOTE,
    Permission.ADMINISTER,
)
_MODELS, _GROUPS, _ALIASES, _UPLOADS, _ARTIFACTS, _AUDIT, _SYSTEM = (
    f"/modelregistry.v1.{noun}Service/"
    for noun in ("Model", "ModelGroup", "Alias", "Upload", "Artifact", "Audit", "System")
)
_GETI = "/modelregistry.geti.v1.GetiService/"
_COMPAT = "/modelregistry.compat.v1.CompatService/"
_HEALTH = "/grpc.health.v1.Health/"

# Calls that read a whole artifact, up to 64 GiB, or the whole audit log, before they answer.
_READS_EVERYTHING = 3600
# Calls that wait until Geti has prepared a deployment.
_WAITS_FOR_GETI = 7200

_ROWS = (
    Method(path=f"{_MODELS}RegisterModel", access=_WRITE, kind=Kind.LONG, chunk_field="chunk"),
    Method(path=f"{_MODELS}GetModel", access=_READ),
    Method(path=f"{_MODELS}ListModels", access=_READ, kind=Kind.LIST),
    Method(path=f"{_MODELS}UpdateModel", access=_WRITE),
    Method(path=f"{_MODELS}DeleteModel", access=_ADMINISTER),
    Method(path=f"{_MODELS}ResolveModel", access=_READ),
    Method(path=f"{_MODELS}CompareModels", access=_READ, gateway_idle_seconds=_READS_EVERYTHING),
    Method(path=f"{_MODELS}GetLineage", access=_READ),
    Method(path=f"{_MODELS}GetModelManifest", access=_READ),
    Method(path=f"{_GROUPS}GetModelGroup", access=_READ),
    Method(path=f"{_GROUPS}ListModelGroups", access=_READ, kind=Kind.LIST),
    Method(path=f"{_GROUPS}UpdateModelGroup", access=_WRITE),
    Method(path=f"{_GROUPS}DeleteModelGroup", access=_ADMINISTER),
    Method(path=f"{_ALIASES}SetAlias", access=_PROMOTE, gateway_idle_seconds=_READS_EVERYTHING),
    Method(path=f"{_ALIASES}GetAlias", access=_READ),
    Method(path=f"{_ALIASES}ListAliases", access=_READ),
    Method(path=f"{_ALIASES}ListAliasMoves", access=_READ, kind=Kind.LIST),
    Method(path=f"{_ALIASES}RollbackAlias", access=_PROMOTE),
    Method(path=f"{_ALIASES}DeleteAlias", access=_PROMOTE),
    Method(path=f"{_UPLOADS}CreateUpload", access=_WRITE),
    Method(path=f"{_UPLOADS}GetUpload", access=_WRITE),
    Method(path=f"{_UPLOADS}ListUploads", access=_WRITE),
    Method(path=f"{_UPLOADS}WriteUpload", access=_WRITE, kind=Kind.LONG, chunk_field="data"),
    Method(path=f"{_UPLOADS}WriteUploadContent", access=_WRITE, kind=Kind.LONG),
    Method(path=f"{_UPLOADS}CompleteUpload", access=_WRITE, kind=Kind.LONG, gateway_idle_seconds=_READS_EVERYTHING),
    Method(path=f"{_UPLOADS}CancelUpload", access=_WRITE),
    Method(path=f"{_ARTIFACTS}DownloadArtifact", access=_READ, kind=Kind.LONG, sends_chunks=True),
    Method(
        path=f"{_ARTIFACTS}DownloadArtifactContent",
        access=_READ,
        kind=Kind.LONG,
        on_failure=OnFailure.BROKEN_MESSAGE,
        sends_chunks=True,
    ),
    Method(path=f"{_ARTIFACTS}ListArtifactFiles", access=_READ),
    Method(path=f"{_ARTIFACTS}DownloadArtifactFile", access=_READ, kind=Kind.LONG, sends_chunks=True),
    Method(
        path=f"{_ARTIFACTS}DownloadArtifactFileContent",
        access=_READ,
        kind=Kind.LONG,
        on_failure=OnFailure.BROKEN_MESSAGE,
        sends_chunks=True,
    ),
    Method(path=f"{_ARTIFACTS}VerifyArtifact", access=_READ, kind=Kind.LONG, on_failure=OnFailure.ERROR_MESSAGE),
    Method(path=f"{_AUDIT}ListAuditEvents", access=_ADMINISTER, kind=Kind.LIST),
    Method(path=f"{_AUDIT}WatchAuditEvents", access=_READ, kind=Kind.WATCH, on_failure=OnFailure.ERROR_MESSAGE),
    Method(path=f"{_AUDIT}VerifyAuditLog", access=_ADMINISTER, kind=Kind.LONG, gateway_idle_seconds=_READS_EVERYTHING),
    Method(path=f"{_SYSTEM}GetHealth", access=OpenTo.EVERYBODY, kind=Kind.PROBE, is_traced=False),
    Method(path=f"{_SYSTEM}GetReadiness", access=OpenTo.EVERYBODY, kind=Kind.PROBE, is_traced=False),
    Method(path=f"{_SYSTEM}GetServerInfo", access=OpenTo.EVERYBODY, kind=Kind.PROBE, is_traced=False),
    Method(path=f"{_SYSTEM}WhoAmI", access=OpenTo.AUTHENTICATED, is_traced=False),
    Method(path=f"{_GETI}ListProjects", access=_READ, kind=Kind.LONG),
    Method(path=f"{_GETI}GetProject", access=_READ, kind=Kind.LONG),
    Method(
        path=f"{_GETI}ImportModels",
        access=_WRITE,
        kind=Kind.LONG,
        on_failure=OnFailure.ERROR_MESSAGE,
        gateway_idle_seconds=_WAITS_FOR_GETI,
    ),
    Method(path=f"{_COMPAT}RegisterModel", access=_WRITE, kind=Kind.LONG, chunk_field="data"),
    # One message, mostly. The servicer takes a slot of MAX_STREAMS if a list has more.
    Method(
        path=f"{_COMPAT}ListModels",
        access=_READ,
        kind=Kind.LIST,
        on_failure=OnFailure.BROKEN_MESSAGE,
        sends_chunks=True,
    ),
    Method(path=f"{_COMPAT}GetModel", access=_READ),
    Method(path=f"{_COMPAT}UpdateModel", access=_WRITE, kind=Kind.LONG),
    Method(path=f"{_COMPAT}DeleteModel", access=_ADMINISTER),
    Method(
        path=f"{_COMPAT}DownloadModelFiles",
        access=_READ,
        kind=Kind.LONG,
        on_failure=OnFailure.BROKEN_MESSAGE,
        sends_chunks=True,
    ),
    Method(path=f"{_COMPAT}ListProjects", access=_READ, kind=Kind.LONG),
    Method(path=f"{_COMPAT}GetProject", access=_READ, kind=Kind.LONG),
    Method(path=f"{_COMPAT}ImportModels", access=_WRITE, kind=Kind.LONG, gateway_idle_seconds=_WAITS_FOR_GETI),
    Method(path=f"{_HEALTH}Check", access=OpenTo.EVERYBODY, kind=Kind.PROBE, is_traced=False),
    Method(path=f"{_HEALTH}List", access=OpenTo.EVERYBODY, kind=Kind.PROBE, is_traced=False),
    Method(path=f"{_HEALTH}Watch", access=OpenTo.EVERYBODY, kind=Kind.PROBE, is_traced=False),
    # The methods are no secret, but strangers need not know them.
    Method(path="/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", access=_READ, kind=Kind.REFLECTION),
)

METHODS: Mapping[str, Method] = {row.path: row for row in _ROWS}
"""Every RPC of the server, by its path."""


def method_of(path: str) -> Method:
    """Return the policy of an RPC; one without a row is refused to every caller."""
    return METHODS.get(path) or Method(path=path, access=OpenTo.NOBODY, kind=Kind.LONG)
