"""The model, its artifact and its provenance, and the rules they obey."""

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from registry_service.domain.errors import FieldViolation, InvalidArgumentError
from registry_service.domain.signature import Signature

Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""A JSON value (RFC 8259)."""

PRECISIONS = ("fp32", "fp16", "int8", "int4")
"""The precisions that clients of the Intel-compatible API know."""
MAX_LONG_TEXT_BYTES = 64 * 1024
"""Most bytes of a description or of the value of a tag, in UTF-8."""
MAX_TEXT_LENGTH = 5_000
"""Most characters of any text field: what the documented API holds."""
MAX_FILE_NAME_BYTES = 255
DIRECTION_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What turns the direction of a text (Unicode's Bidi_Control, UAX #9): with them, `gpj.exe` is shown as `exe.jpg`."""
MAX_JSON_DEPTH = 30
"""Most objects and lists inside one another: protobuf parsers take 100 messages, and an object is three."""
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

_ID = re.compile(r"[A-Za-z0-9_-]{16,256}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:;[ -~]{0,255})?")
_DIGEST = re.compile(r"[A-Za-z0-9_+.-]+:[0-9A-Fa-f]+")
_PRECISION = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
# An index row, which takes at most 2,704 bytes, holds them all.
_MAX_PRECISIONS = 16
_MAP_KEY_LENGTH = 256
_MAX_DATASETS = 100
_MAX_PARENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set that a model was made from."""

    name: str = ""
    uri: str = ""
    digest: str = ""
    """`<algorithm>:<hexadecimal digits>`, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What it takes to make a model again."""

    source_repository: str = ""
    source_commit: str = ""
    training_run: str = ""
    datasets: tuple[Dataset, ...] = ()
    parent_model_ids: tuple[str, ...] = ()
    """Without repeats. Models that the registry does not have may be among them, but never a cycle."""
    framework: str = ""
    framework_version: str = ""
    hyperparameters: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None


class ArtifactKind(StrEnum):
    """What the bytes of an artifact are to whoever sent them."""

    FILE = "file"
    FOLDER = "folder"
    """A folder, packed for the transfer."""


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
    """The address that the documented API shows: `minio://<bucket>/<id>/<file name>`."""
    object_key: str
    """Where the artifact store really keeps the bytes; never shown."""
    kind: ArtifactKind = ArtifactKind.FILE

    @property
    def is_declared_zip(self) -> bool:
        """Whether the media type says ZIP; the bytes of the documented API may say otherwise."""
        return is_zip_media_type(self.media_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFields:
    """The fields of a model that a client gives and can change."""

    name: str
    version: str
    project_id: str | None = None
    project_name: str | None = None
    precisions: tuple[str, ...] = ("fp32",)
    target_device: str | None = "CPU"
    target_device_type: str | None = None
    format: str | None = None
    origin: str | None = None
    category: str | None = None
    architecture: str | None = None
    description: str = ""
    """Markdown."""
    score: float | None = 0.0
    overview: Json = field(default_factory=dict)
    optimization_capabilities: Json = field(default_factory=dict)
    labels: Sequence[Json] | None = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKey:
    """The name and project that all versions of one model share. An absent project equals an absent project."""

    name: str
    project_id: str | None = None
    project_name: str | None = None

    @classmethod
    def of(cls, model: ModelFields) -> "GroupKey":
        """Return the key of the group that a model belongs to."""
        return cls(name=model.name, project_id=model.project_id, project_name=model.project_name)


MUTABLE_FIELDS = tuple(f.name for f in fields(ModelFields))
COMPAT_FIELDS = ("created_date", "compat_size", "compat_precision")
"""Fields of a model that the documented API alone can change."""
MAX_SIZE = 2**63 - 1
# What people tell models apart by.
_NAMES = ("name", "version", "project_id", "project_name")
_NO_DIRECTION_CONTROLS = "must not contain bidirectional control characters (Unicode Bidi_Control)."
_TEXT_FIELDS = (
    *_NAMES,
    "target_device",
    "target_device_type",
    "format",
    "origin",
    "category",
    "architecture",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(ModelFields):
    """One registered version of a model."""

    id: str
    artifact: Artifact
    created_date: str
    """As the documented API shows it: any text that the client gave."""
    last_updated_date: str
    create_time: datetime
    """Aware, UTC."""
    update_time: datetime
    """Aware, UTC."""
    revision: int = 1
    creator: str = ""
    compat_size: int | None = None
    """Size that the documented API shows, where its client or Geti says another; None shows the artifact's."""
    compat_precision: tuple[str, ...] | None = None
    """Precisions as the documented API shows them, where Geti writes them otherwise; None shows `precisions`."""
    artifact_verify_time: datetime | None = None
    """Aware, UTC. When the stored bytes began to be read for the last verification, if that found them intact."""
    signature: Signature | None = None
    """What the artifact says; None where it is of no known format, and in listings, which leave it out."""
    listed_signature: Signature | None = None
    """In listings, the signature without its tensors, operator sets and metadata: what warnings come from."""
    model_group_id: str = ""
    """Of the group of its name and project; the repository knows it."""
    aliases: tuple[str, ...] = ()
    """The aliases of its group that point to it, sorted; the repository knows them."""

    @property
    def etag(self) -> str:
        """Differs between any two states of a model, and of models that had this id one after the other."""
        state = f"{self.id} {self.create_time.timestamp():.6f} {self.revision}"
        return hashlib.sha256(state.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSpec:
    """What a client says about the artifact that it sends. Checked by `checked_artifact`."""

    file_name: str = ""
    media_type: str = ""
    size: int | None = None
    sha256: str = ""
    kind: ArtifactKind = ArtifactKind.FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What a client wants to register. Checked by `checked_spec`."""

    fields: ModelFields
    id: str = ""
    """Empty: a UUID is made."""
    created_date: str = ""
    """Empty: the time of registration."""
    artifact: ArtifactSpec = ArtifactSpec()
    compat_size: int | None = None
    """As for Model. Known of imports alone, so an upload does not keep it."""
    compat_precision: tuple[str, ...] | None = None
    """As for Model. Known of imports alone, so an upload does not keep it."""


def utc_now() -> datetime:
    """Returns the present time, aware, in UTC."""
    return datetime.now(UTC)


def compat_date(time: datetime) -> str:
    """Writes a time as the documented API shows it: `YYYY-MM-DD HH:MM:SS.ffffff UTC`."""
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
    """Tells whether two values of a field are equal, with JSON's eyes: 1 is 1.0, but not true."""
    if is_dataclass(one) and type(one) is type(other):
        return all(is_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    match one, other:
        case (bool(), _) | (_, bool()):
            return one is other
        case (int() | float(), int() | float()):
            # Postgres gives 1e300 back as an integer, which Python compares digit by digit.
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
    """Tells whether a media type declares a ZIP; parameters and case don't matter (RFC 9110, 8.3.1)."""
    return media_type.partition(";")[0].strip().lower() in ZIP_MEDIA_TYPES


def is_model_id(text: str) -> bool:
    """Tells whether a text can be the id of a model."""
    return _ID.fullmatch(text) is not None


def checked_model_id(text: str, name: str = "model_id") -> str:
    """Returns the id of a model, existing or not.

    Raises:
        InvalidArgumentError: No model can have it; `name` is the field.
    """
    if not is_model_id(text):
        raise InvalidArgumentError.of(name, "must be 16 to 256 characters of A-Z, a-z, 0-9, _ and -.")
    return text


def checked_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """Return precisions that a model can have, in lower case, each once.

    Raises:
        InvalidArgumentError: One is no precision; the field is `precisions`.
    """
    _raise_any(list(_precision_violations(precisions)))
    return tuple(dict.fromkeys(precision.lower() for precision in precisions))


def checked_text(text: str, name: str) -> str:
    """Returns a text that a field could hold (`InvalidArgumentError`; `name` is the field)."""
    _raise_any(list(_text_violations(name, text)))
    return text


def checked_spec(spec: ModelSpec, *, metadata_max_bytes: int, artifact_max_bytes: int) -> ModelSpec:
    """Checks what a client wants to register and fills in the defaults.

    Raises:
        InvalidArgumentError: Names every field that is wrong.
    """
    violations = list(_field_violations(spec.fields))
    violations += _direction_violations(spec.fields)
    if spec.id and not is_model_id(spec.id):
        violations.append(FieldViolation("id", "must be 16 to 256 characters of A-Z, a-z, 0-9, _ and -."))
    violations += _text_violations("created_date", spec.created_date)
    violations += _size_violations(spec.compat_size)
    violations += _artifact_violations(spec.artifact, artifact_max_bytes)
    _raise_any(violations)
    return ModelSpec(
        fields=_normalised(spec.fields, metadata_max_bytes),
        id=spec.id or str(uuid.uuid4()),
        created_date=spec.created_date,
        artifact=_with_defaults(spec.artifact),
        compat_size=spec.compat_size,
        compat_precision=spec.compat_precision,
    )


def checked_fields(model: ModelFields, *, metadata_max_bytes: int) -> Mapping[str, object]:
    """Checks the fields of a changed model and returns them, normalised, by name.

    Raises:
        InvalidArgumentError: Names every field that is wrong.
    """
    _raise_any(list(_field_violations(model)))
    normalised = _normalised(model, metadata_max_bytes)
    return {name: getattr(normalised, name) for name in MUTABLE_FIELDS}


def check_new_names(new: ModelFields, old: ModelFields) -> None:
    """Check the names of a changed model that are new; those that it has already stay as they are.

    Raises:
        InvalidArgumentError: Names every field that is wrong.
    """
    _raise_any(
        [found for found in _direction_violations(new) if getattr(new, found.field) != getattr(old, found.field)]
    )


def check_compat_fields(model: Model) -> None:
    """Checks the fields that the documented API alone can change.

    Raises:
        InvalidArgumentError: Names every field that is wrong.
    """
    violations = list(_text_violations("created_date", model.created_date))
    violations += _size_violations(model.compat_size)
    _raise_any(violations)


def checked_sha256(text: str, name: str) -> str:
    """Returns a SHA-256 in lower case, or empty.

    Raises:
        InvalidArgumentError: It is something else; `name` is the field.
    """
    text = text.lower()
    if text and not _SHA256.fullmatch(text):
        raise InvalidArgumentError.of(name, "must be 64 hexadecimal digits.")
    return text


def _raise_any(violations: Sequence[FieldViolation]) -> None:
    if violations:
        raise InvalidArgumentError(violations)


def _normalised(model: ModelFields, metadata_max_bytes: int) -> ModelFields:
    values = {name: getattr(model, name) for name in MUTABLE_FIELDS}
    values["precisions"] = tuple(dict.fromkeys(p.lower() for p in model.precisions)) or ("fp32",)
    values["provenance"] = replace(
        model.provenance, parent_model_ids=tuple(dict.fromkeys(model.provenance.parent_model_ids))
    )
    normalised = ModelFields(**values)
    size = len(json.dumps(values, default=_jsonable, ensure_ascii=False).encode())
    if size > metadata_max_bytes:
        raise InvalidArgumentError.of("model", f"must take at most {metadata_max_bytes} bytes as JSON, not {size}.")
    return normalised


def _jsonable(value: object) -> object:
    if isinstance(value, Provenance | Dataset):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    raise TypeError(type(value).__name__)


def _with_defaults(artifact: ArtifactSpec) -> ArtifactSpec:
    media_type, file_name = artifact.media_type, artifact.file_name
    if not media_type:
        is_zip = file_name.lower().endswith(".zip") or artifact.kind is ArtifactKind.FOLDER
        media_type = "application/zip" if is_zip else "application/octet-stream"
    if not file_name:
        file_name = "model.zip" if is_zip_media_type(media_type) else "model.bin"
    return replace(artifact, file_name=file_name, media_type=media_type, sha256=artifact.sha256.lower())


def _artifact_violations(artifact: ArtifactSpec, artifact_max_bytes: int) -> Iterator[FieldViolation]:
    name = artifact.file_name
    if name and (
        name in {".", ".."} or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > MAX_FILE_NAME_BYTES
    ):
        yield FieldViolation(
            "artifact.file_name",
            f"must be a plain file name of at most {MAX_FILE_NAME_BYTES} bytes, without a path or control characters.",
        )
    if DIRECTION_CONTROLS.search(name):
        yield FieldViolation("artifact.file_name", _NO_DIRECTION_CONTROLS)
    if artifact.media_type and not _MEDIA_TYPE.fullmatch(artifact.media_type):
        yield FieldViolation("artifact.media_type", "must be a media type such as application/zip (RFC 6838).")
    if artifact.kind is ArtifactKind.FOLDER and artifact.media_type and not is_zip_media_type(artifact.media_type):
        yield FieldViolation("artifact.media_type", "must be application/zip for a folder, which is sent as a ZIP.")
    if artifact.size is not None and not 0 < artifact.size <= artifact_max_bytes:
        yield FieldViolation("artifact.size_bytes", f"must be from 1 to {artifact_max_bytes} bytes.")
    if artifact.sha256 and not _SHA256.fullmatch(artifact.sha256.lower()):
        yield FieldViolation("artifact.sha256", "must be 64 hexadecimal digits.")


def _precision_violations(precisions: Sequence[str]) -> Iterator[FieldViolation]:
    if len({precision.lower() for precision in precisions}) > _MAX_PRECISIONS:
        yield FieldViolation("precisions", f"must have at most {_MAX_PRECISIONS} entries.")
        return
    for i, precision in enumerate(precisions):
        if not _PRECISION.fullmatch(precision.lower()):
            yield FieldViolation(
                f"precisions[{i}]", "must be 1 to 32 letters, digits, dots, hyphens and underscores, a letter first."
            )


def _field_violations(model: ModelFields) -> Iterator[FieldViolation]:
    for name in ("name", "version"):
        if not getattr(model, name):
            yield FieldViolation(name, "must not be empty.")
    for name in _TEXT_FIELDS:
        yield from _text_violations(name, getattr(model, name))
    yield from _precision_violations(model.precisions)
    yield from _long_text_violations("description", model.description)
    if model.score is not None and not math.isfinite(model.score):
        yield FieldViolation("score", "must be a finite number.")
    yield from _structure_violations(model)
    yield from _provenance_violations(model.provenance)


def _structure_violations(model: ModelFields) -> Iterator[FieldViolation]:
    for name in ("overview", "optimization_capabilities"):
        value = getattr(model, name)
        if not (value is None or isinstance(value, str | Mapping)):
            yield FieldViolation(name, "must be an object or a string.")
        yield from _json_violations(name, value)
    for i, label in enumerate(model.labels or ()):
        if not isinstance(label, str | Mapping):
            yield FieldViolation(f"labels[{i}]", "must be a string or an object.")
        yield from _json_violations(f"labels[{i}]", label)
    for key, number in model.metrics.items():
        yield from _key_violations("metrics", key)
        if not math.isfinite(number):
            yield FieldViolation(
                f"metrics.{key}", f"must be a finite number, not {number}. Omit it where there is no value."
            )
    for key, text in model.tags.items():
        yield from _key_violations("tags", key)
        yield from _long_text_violations(f"tags.{key}", text)


def _provenance_violations(provenance: Provenance) -> Iterator[FieldViolation]:
    for name in ("source_repository", "source_commit", "training_run", "framework", "framework_version"):
        yield from _text_violations(f"provenance.{name}", getattr(provenance, name))
    for name, most in (("datasets", _MAX_DATASETS), ("parent_model_ids", _MAX_PARENTS)):
        if len(getattr(provenance, name)) > most:
            yield FieldViolation(
                f"provenance.{name}", f"must have at most {most} entries, not {len(getattr(provenance, name))}."
            )
            return
    for i, dataset in enumerate(provenance.datasets):
        path = f"provenance.datasets[{i}]"
        if not (dataset.name or dataset.uri):
            yield FieldViolation(path, "must have a name or a uri.")
        yield from _text_violations(f"{path}.name", dataset.name)
        yield from _text_violations(f"{path}.uri", dataset.uri)
        yield from _text_violations(f"{path}.digest", dataset.digest)
        if dataset.digest and not _DIGEST.fullmatch(dataset.digest):
            yield FieldViolation(f"{path}.digest", "must be <algorithm>:<hexadecimal digits>.")
    for i, parent in enumerate(provenance.parent_model_ids):
        if not is_model_id(parent):
            yield FieldViolation(f"provenance.parent_model_ids[{i}]", "must be the id of a model.")
    yield from _json_violations("provenance.hyperparameters", provenance.hyperparameters)
    yield from _text_map_violations("provenance.environment", provenance.environment)


def _size_violations(size: int | None) -> Iterator[FieldViolation]:
    if size is not None and not 0 <= size <= MAX_SIZE:
        yield FieldViolation("size", f"must be from 0 to {MAX_SIZE} bytes.")


def _text_violations(name: str, text: str | None) -> Iterator[FieldViolation]:
    if text is None:
        return
    if len(text) > MAX_TEXT_LENGTH:
        yield FieldViolation(name, f"must have at most {MAX_TEXT_LENGTH} characters, not {len(text)}.")
    if "\0" in text:
        yield FieldViolation(name, "must not contain a NUL character.")


def _long_text_violations(name: str, text: str) -> Iterator[FieldViolation]:
    size = len(text.encode())
    if size > MAX_LONG_TEXT_BYTES:
        yield FieldViolation(name, f"has {size} bytes in UTF-8, more than {MAX_LONG_TEXT_BYTES}.")
    if "\0" in text:
        yield FieldViolation(name, "must not contain a NUL character.")


def _direction_violations(model: ModelFields) -> Iterator[FieldViolation]:
    for name in _NAMES:
        if DIRECTION_CONTROLS.search(getattr(model, name) or ""):
            yield FieldViolation(name, _NO_DIRECTION_CONTROLS)


def _key_violations(name: str, key: str) -> Iterator[FieldViolation]:
    if not key or len(key) > _MAP_KEY_LENGTH or "\0" in key:
        yield FieldViolation(name, f"must have keys of 1 to {_MAP_KEY_LENGTH} characters without NUL.")


def _text_map_violations(name: str, texts: Mapping[str, str]) -> Iterator[FieldViolation]:
    for key, text in texts.items():
        yield from _key_violations(name, key)
        yield from _text_violations(f"{name}.{key}", text)


def _json_violations(name: str, value: Json) -> Iterator[FieldViolation]:
    """Finds what JSON in Postgres, or a message, cannot hold: NUL, numbers that are not finite, too deep nesting."""
    pending: list[tuple[str, Json, int]] = [(name, value, 0)]
    while pending:
        place, found, depth = pending.pop()
        if depth > MAX_JSON_DEPTH:
            yield FieldViolation(name, f"must not be nested deeper than {MAX_JSON_DEPTH}.")
            return
        match found:
            case str(text):
                if "\0" in text:
                    yield FieldViolation(place, "must not contain a NUL character.")
                    return
            case float(number):
                if not math.isfinite(number):
                    yield FieldViolation(place, f"must be a finite number, not {number}.")
                    return
            case Mapping() as mapping:
                pending += ((place, key, depth + 1) for key in mapping)
                pending += ((f"{place}.{key}", inner, depth + 1) for key, inner in mapping.items())
            case Sequence() as sequence:
                pending += ((f"{place}[{i}]", inner, depth + 1) for i, inner in enumerate(sequence))
            case _:
                pass
