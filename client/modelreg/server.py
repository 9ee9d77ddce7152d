"""What a server says of itself, of its callers and of running uploads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from modelreg._results import Result
from modelreg.models import Artifact

AuthenticationMode = Literal["none", "token", "oidc", "unknown"]


@dataclass(frozen=True, kw_only=True)
class ServerLimits(Result):
    """Limits of requests and responses. 0 or None: the server does not say."""

    max_artifact_bytes: int = 0
    max_metadata_bytes: int = 0
    max_message_bytes: int = 0
    recommended_chunk_bytes: int = 0
    default_page_size: int = 0
    max_page_size: int = 0
    max_filter_characters: int = 0
    upload_ttl: timedelta | None = None
    stream_idle_timeout: timedelta | None = None
    watch_heartbeat_interval: timedelta | None = None
    idempotency_key_ttl: timedelta | None = None

    def _summary(self) -> str:
        return self._named_summary()


@dataclass(frozen=True, kw_only=True)
class Authentication(Result):
    """How to sign in."""

    mode: AuthenticationMode
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_scopes: Sequence[str] = ()
    oidc_audience: str = ""


@dataclass(frozen=True, kw_only=True)
class ServerInfo(Result):
    """What a client needs to know of a server."""

    version: str
    limits: ServerLimits = field(default_factory=ServerLimits)
    features: Sequence[str] = ()
    authentication: Authentication = field(default_factory=lambda: Authentication(mode="unknown"))


@dataclass(frozen=True, kw_only=True)
class Grant(Result):
    """A role of the caller."""

    role: str
    project_id: str | None = None
    """None: all projects, and models without a project."""
    permissions: Sequence[str] = ()

    def _summary(self) -> str:
        return f"{self.role} in {'all projects' if self.project_id is None else f'the project {self.project_id}'}"


@dataclass(frozen=True, kw_only=True)
class Identity(Result):
    """Who the caller is, and what the caller may do."""

    subject: str
    grants: Sequence[Grant] = ()
    expire_time: datetime | None = None
    """When the credentials expire. None: never."""


@dataclass(frozen=True, kw_only=True)
class Upload(Result):
    """An upload that is not completed."""

    id: str
    name: str
    version: str
    file_name: str
    state: Literal["active", "completing", "completed", "unknown"]
    committed_size: int
    """Number of bytes that the registry has stored."""
    size_bytes: int | None = None
    """Size of the whole artifact, if it was declared."""
    create_time: datetime | None = None
    expire_time: datetime | None = None
    """When the registry deletes the upload, unless more bytes arrive."""
    model_id: str = ""
    creator: str = ""

    _columns: ClassVar = ("id", "name", "version", "file_name", "state", "committed_size", "size_bytes", "expire_time")


@dataclass(frozen=True, kw_only=True)
class ArtifactFile(Result):
    """A file inside an artifact."""

    path: str
    """Path inside the artifact. It is text from the archive: check it before you write to it."""
    size_bytes: int
    compressed_size_bytes: int = 0
    crc32: int = 0
    modify_time: datetime | None = None
    sha256: str | None = None

    _columns: ClassVar = ("path", "size_bytes", "modify_time", "sha256")


@dataclass(frozen=True, kw_only=True)
class Verification(Result):
    """What the registry found when it read the stored bytes of an artifact again."""

    intact: bool
    """Whether the stored bytes are exactly the registered ones."""
    expected: Artifact | None = None
    """What was recorded at registration."""
    actual_size_bytes: int = 0
    """Size of the stored bytes. 0 if there are none."""
    actual_sha256: str = ""
    """SHA-256 of the stored bytes. Empty if there are none."""
    verify_time: datetime | None = None
