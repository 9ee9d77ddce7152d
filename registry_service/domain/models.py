"""The model, its artifact and its provenance.

`ModelFields` declares the fields that a client sets, once. Filters, orders, update masks, limits, conversion and rows
are derived from it. `validation` holds the rules that the values obey.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum

from registry_service.domain.signature import Signature

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""A JSON value (RFC 8259)."""

PRECISIONS = ("fp32", "fp16", "int8", "int4")
"""The precisions that clients of the Intel-compatible API know."""
ZIP_MEDIA_TYPES = frozenset(
    {
        "application/zip",
        "multipart/x-zip",
        "application/zip-compressed",
        "application/x-zip-compressed",
        "application/x-zip",
    }
)
"""The media types that declare a ZIP."""


class FieldKind(Enum):
    """What a field of a model holds. How it is filtered, ordered, limited and converted follows from it."""

    TEXT = "text"
    """A string of at most `validation.MAX_TEXT_LENGTH` characters."""
    LONG_TEXT = "long text"
    """A string of at most `validation.MAX_LONG_TEXT_BYTES` bytes in UTF-8."""
    NUMBER = "number"
    """A finite double."""
    LIST = "list"
    JSON = "JSON"
    """An object or a string."""
    MAP = "map"
    """A map whose entries can change by themselves."""
    OBJECT = "object"


_TEXT = {"kind": FieldKind.TEXT}
_LONG_TEXT = {"kind": FieldKind.LONG_TEXT}
_NUMBER = {"kind": FieldKind.NUMBER}
_LIST = {"kind": FieldKind.LIST}
_JSON = {"kind": FieldKind.JSON}
_MAP = {"kind": FieldKind.MAP}
_OBJECT = {"kind": FieldKind.OBJECT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set that a model was trained on."""

    name: str = ""
    uri: str = ""
    digest: str = ""
    """`<algorithm>:<hexadecimal digits>`, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """The inputs that reproduce a model."""

    source_repository: str = ""
    source_commit: str = ""
    training_run: str = ""
    datasets: tuple[Dataset, ...] = ()
    parent_model_ids: tuple[str, ...] = ()
    """Unique. May name models that the registry does not have, but never closes a cycle."""
    framework: str = ""
    framework_version: str = ""
    hyperparameters: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None


class ArtifactKind(StrEnum):
    """What the bytes of an artifact are to the client that sent them."""

    FILE = "file"
    FOLDER = "folder"
    """A folder, packed as a ZIP for the transfer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The one file of a model."""

    file_name: str
    media_type: str
    size: int
    """In bytes."""
    sha256: str
    """64 lower-case hexadecimal digits."""
    file_url: str
    """The address that the Intel-compatible API shows: `minio://<bucket>/<id>/<file name>`."""
    object_key: str
    """The key of the bytes in the artifact store; never shown to clients."""
    kind: ArtifactKind = ArtifactKind.FILE

    @property
    def is_declared_zip(self) -> bool:
        """Whether the media type says ZIP. The Intel-compatible API accepts other bytes under that type."""
        return is_zip_media_type(self.media_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFields:
    """The fields of a model that a client sets and can change.

    To add a text field, declare it here, in `model.proto`, in `storage.sql.tables` and in a migration.
    """

    name: str = field(metadata=_TEXT)
    version: str = field(metadata=_TEXT)
    project_id: str | None = field(default=None, metadata=_TEXT)
    project_name: str | None = field(default=None, metadata=_TEXT)
    precisions: tuple[str, ...] = field(default=("fp32",), metadata=_LIST)
    target_device: str | None = field(default="CPU", metadata=_TEXT)
    target_device_type: str | None = field(default=None, metadata=_TEXT)
    format: str | None = field(default=None, metadata=_TEXT)
    origin: str | None = field(default=None, metadata=_TEXT)
    category: str | None = field(default=None, metadata=_TEXT)
    architecture: str | None = field(default=None, metadata=_TEXT)
    description: str = field(default="", metadata=_LONG_TEXT)
    """Markdown."""
    score: float | None = field(default=0.0, metadata=_NUMBER)
    overview: Json = field(default_factory=dict, metadata=_JSON)
    optimization_capabilities: Json = field(default_factory=dict, metadata=_JSON)
    labels: Sequence[Json] | None = field(default=(), metadata=_LIST)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata=_MAP)
    tags: Mapping[str, str] = field(default_factory=dict, metadata=_MAP)
    provenance: Provenance = field(default_factory=Provenance, metadata=_OBJECT)


FIELD_KINDS: Mapping[str, FieldKind] = {f.name: f.metadata["kind"] for f in fields(ModelFields)}
"""The kinds of the fields that a client sets, by name, in the order of their declaration."""
MUTABLE_FIELDS = tuple(FIELD_KINDS)
REQUIRED_FIELDS = tuple(f.name for f in fields(ModelFields) if f.default is MISSING and f.default_factory is MISSING)
COMPAT_FIELDS = ("created_date", "compat_size", "compat_precision")
"""The fields of a model that only the Intel-compatible API changes."""


def fields_of_kind(*kinds: FieldKind) -> tuple[str, ...]:
    """Return the names of the fields of these kinds, in the order of their declaration."""
    return tuple(name for name, kind in FIELD_KINDS.items() if kind in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKey:
    """The name and project that all versions of one model share. Models without a project share one group per name."""

    name: str
    project_id: str | None = None
    project_name: str | None = None

    @classmethod
    def of(cls, model: ModelFields) -> "GroupKey":
        """Return the key of the group that a model belongs to."""
        return cls(name=model.name, project_id=model.project_id, project_name=model.project_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(ModelFields):
    """One registered version of a model."""

    id: str
    artifact: Artifact
    created_date: str
    """As the Intel-compatible API shows it: any text that the client gave."""
    last_updated_date: str
    create_time: datetime
    """Aware, UTC."""
    update_time: datetime
    """Aware, UTC."""
    revision: int = 1
    creator: str = ""
    compat_size: int | None = None
    """The size that the Intel-compatible API shows, where a client or Geti gave one; None shows the artifact's."""
    compat_precision: tuple[str, ...] | None = None
    """The precisions that the Intel-compatible API shows; None shows `precisions`."""
    artifact_verify_time: datetime | None = None
    """Aware, UTC. When the last verification that found the stored bytes intact began to read them."""
    signature: Signature | None = None
    """Read from the artifact. None if no reader knows the format, and in listings, which omit it."""
    listed_signature: Signature | None = None
    """In listings: the signature without tensors, operator sets and metadata. Warnings are derived from it."""
    model_group_id: str = ""
    """Set by the repository."""
    aliases: tuple[str, ...] = ()
    """The aliases of the model group that point to this model, sorted. Set by the repository."""

    @property
    def etag(self) -> str:
        """Differs between any two states of a model, and between models that had one id at different times."""
        state = f"{self.id} {self.create_time.timestamp():.6f} {self.revision}"
        return hashlib.sha256(state.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSpec:
    """What a client declares about the artifact that it sends. Checked by `validation.checked_spec`."""

    file_name: str = ""
    media_type: str = ""
    size: int | None = None
    sha256: str = ""
    kind: ArtifactKind = ArtifactKind.FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a client wants to register. Checked by `validation.checked_spec`."""

    fields: ModelFields
    id: str = ""
    """Empty: the registry generates a UUID."""
    created_date: str = ""
    """Empty: the time of registration."""
    artifact: ArtifactSpec = ArtifactSpec()
    compat_size: int | None = None
    """As in Model. Only imports set it, so an upload does not keep it."""
    compat_precision: tuple[str, ...] | None = None
    """As in Model. Only imports set it, so an upload does not keep it."""


def utc_now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


def compat_date(time: datetime) -> str:
    """Format a time as the Intel-compatible API shows it: `YYYY-MM-DD HH:MM:SS.ffffff UTC`."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"


def compat_precision(precisions: Sequence[str]) -> tuple[str, ...] | None:
    """Return what the Intel-compatible API shows instead of precisions that its clients don't know.

    Each such precision becomes the one of PRECISIONS that is nearest by the number in its name, which is its width in
    bits (docs/decisions/0015-precisions.md). Returns None if its clients know all of them.
    """
    if all(precision in PRECISIONS for precision in precisions):
        return None
    return tuple(dict.fromkeys(p if p in PRECISIONS else _nearest_precision(p) for p in precisions))


def _nearest_precision(precision: str) -> str:
    width = re.search("[0-9]+", precision)
    bits = int(width[0]) if width else 32
    if bits > 16:
        return "fp32"
    if bits > 8:
        return "fp16"
    return "int8" if bits > 4 else "int4"


def is_same(one: object, other: object) -> bool:
    """Tell whether two values of a field are equal as JSON: 1 equals 1.0, but 1 differs from `true`."""
    if is_dataclass(one) and type(one) is type(other):
        return all(is_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    match one, other:
        case (bool(), _) | (_, bool()):
            return one is other
        case (int() | float(), int() | float()):
            # Postgres returns 1e300 as an integer, which Python compares digit by digit.
            return one == other or _as_double(one) == _as_double(other)
        case (Mapping(), Mapping()):
            return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
        case (Sequence(), Sequence()) if not isinstance(one, str):
            return len(one) == len(other) and all(map(is_same, one, other))
        case _:
            return one == other


def _as_double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.nan


def is_zip_media_type(media_type: str) -> bool:
    """Tell whether a media type declares a ZIP, whatever its parameters and case (RFC 9110, 8.3.1)."""
    return media_type.partition(";")[0].strip().lower() in ZIP_MEDIA_TYPES
