"""The rules that the values of a model obey. Every error names the field and what the field accepts."""

import json
import math
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace

from registry_service.domain.errors import FieldViolation, InvalidArgumentError
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    REQUIRED_FIELDS,
    ArtifactKind,
    ArtifactSpec,
    Dataset,
    FieldKind,
    Json,
    Model,
    ModelFields,
    ModelSpec,
    Provenance,
    fields_of_kind,
    is_zip_media_type,
)

MAX_LONG_TEXT_BYTES = 64 * 1024
"""Maximum size of a description or of the value of a tag, in UTF-8."""
MAX_TEXT_LENGTH = 5_000
"""Maximum number of characters of a text field. The Intel-compatible API has the same limit."""
MAX_FILE_NAME_BYTES = 255
MAX_SIZE = 2**63 - 1
MAX_JSON_DEPTH = 30
"""Maximum nesting of objects and lists. Protobuf parsers accept 100 nested messages, and an object takes three."""
DIRECTION_CONTROLS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that reverse the direction of a text (Unicode Bidi_Control, UAX #9): `gpj.exe` would show as `exe.jpg`."""

_ID = re.compile(r"[A-Za-z0-9_-]{16,256}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}(?:;[ -~]{0,255})?")
_DIGEST = re.compile(r"[A-Za-z0-9_+.-]+:[0-9A-Fa-f]+")
_PRECISION = re.compile(r"[a-z][a-z0-9_.-]{0,31}")
# All precisions of a model are in one index row, which takes at most 2,704 bytes.
_MAX_PRECISIONS = 16
_MAP_KEY_LENGTH = 256
_MAX_DATASETS = 100
_MAX_PARENTS = 100
# People tell models apart by these.
_NAMES = ("name", "version", "project_id", "project_name")
_NO_DIRECTION_CONTROLS = "must not contain bidirectional control characters (Unicode Bidi_Control)."
_TEXT_FIELDS = fields_of_kind(FieldKind.TEXT)
_LONG_TEXT_FIELDS = fields_of_kind(FieldKind.LONG_TEXT)
_NUMBER_FIELDS = fields_of_kind(FieldKind.NUMBER)
_JSON_FIELDS = fields_of_kind(FieldKind.JSON)


def is_model_id(text: str) -> bool:
    """Tell whether a text can be the id of a model."""
    return _ID.fullmatch(text) is not None


def checked_model_id(text: str, name: str = "model_id") -> str:
    """Return a text that can be the id of a model, whether or not the model exists.

    Raises:
        InvalidArgumentError: No model can have this id; `name` is the field.
    """
    if not is_model_id(text):
        raise InvalidArgumentError.of(
            name,
            "must be 16 to 256 characters of A-Z, a-z, 0-9, _ and -. ResolveModel returns the model of a reference such"
            " as name:version (GET /v1/models:resolve?reference=name:version).",
        )
    return text


def checked_precisions(precisions: Sequence[str]) -> tuple[str, ...]:
    """Return the precisions in lower case, without repeats.

    Raises:
        InvalidArgumentError: One is not a precision; the field is `precisions`.
    """
    _raise_any(list(_precision_violations(precisions)))
    return tuple(dict.fromkeys(precision.lower() for precision in precisions))


def checked_text(text: str, name: str) -> str:
    """Return a text that a field can hold (`InvalidArgumentError`; `name` is the field)."""
    _raise_any(list(_text_violations(name, text)))
    return text


def checked_spec(spec: ModelSpec, *, metadata_max_bytes: int, artifact_max_bytes: int) -> ModelSpec:
    """Check what a client wants to register, and fill in the defaults.

    Raises:
        InvalidArgumentError: Names every invalid field.
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
    """Check the fields of a changed model, and return them, normalised, by name.

    Raises:
        InvalidArgumentError: Names every invalid field.
    """
    _raise_any(list(_field_violations(model)))
    normalised = _normalised(model, metadata_max_bytes)
    return {name: getattr(normalised, name) for name in MUTABLE_FIELDS}


def check_new_names(new: ModelFields, old: ModelFields) -> None:
    """Check the names that an update changes. Names from before the rule may stay.

    Raises:
        InvalidArgumentError: Names every invalid field.
    """
    _raise_any(
        [found for found in _direction_violations(new) if getattr(new, found.field) != getattr(old, found.field)]
    )


def check_compat_fields(model: Model) -> None:
    """Check the fields that only the Intel-compatible API changes.

    Raises:
        InvalidArgumentError: Names every invalid field.
    """
    violations = list(_text_violations("created_date", model.created_date))
    violations += _size_violations(model.compat_size)
    _raise_any(violations)


def checked_sha256(text: str, name: str) -> str:
    """Return a SHA-256 in lower case, or an empty text.

    Raises:
        InvalidArgumentError: The text is neither; `name` is the field.
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
    for name in REQUIRED_FIELDS:
        if not getattr(model, name):
            yield FieldViolation(name, "must not be empty.")
    for name in _TEXT_FIELDS:
        yield from _text_violations(name, getattr(model, name))
    yield from _precision_violations(model.precisions)
    for name in _LONG_TEXT_FIELDS:
        yield from _long_text_violations(name, getattr(model, name))
    for name in _NUMBER_FIELDS:
        number = getattr(model, name)
        if number is not None and not math.isfinite(number):
            yield FieldViolation(name, "must be a finite number.")
    yield from _structure_violations(model)
    yield from _provenance_violations(model.provenance)


def _structure_violations(model: ModelFields) -> Iterator[FieldViolation]:
    for name in _JSON_FIELDS:
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
        yield FieldViolation(name, f"must have at most {MAX_LONG_TEXT_BYTES} bytes in UTF-8, not {size}.")
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
    """Find what JSON in Postgres or in a message cannot hold: NUL, numbers that are not finite, deep nesting."""
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
