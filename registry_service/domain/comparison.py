"""How models differ from the first of them: fields, metrics, labels, files.

A comparison stays small enough for a gRPC message: long values are cut, and of many entries the equal ones are left out
first.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import TypeVar

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import FIELD_KINDS, FieldKind, Json, Model, Provenance
from registry_service.domain.signature import Signature, Tensor
from registry_service.domain.validation import checked_model_id

MIN_MODELS = 2
MAX_MODELS = 10
MAX_FILES = 1_000
"""Maximum number of files in the list."""
# Estimated sizes as messages. Together they stay below 4 MiB, which gRPC clients accept.
_FIELDS_BYTES = 1_250_000
_METRICS_BYTES = 500_000
_LABELS_BYTES = 500_000
_FILES_BYTES = 1_250_000
_ENTRY_BYTES = 24
_FILE_BYTES = 100
"""The size and digest of a file in one model."""
_NUMBER_BYTES = 24

_MAX_VALUE_LENGTH = 2_000
_MAX_KEYS = 8
_EXACT_INTEGER = 2**53
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIGNATURE_FIELDS = {"precision": "precisions", "file_name": "path"}
# The other fields are compared entry by entry.
_WHOLE = tuple(
    name
    for name, kind in FIELD_KINDS.items()
    if kind in {FieldKind.TEXT, FieldKind.LONG_TEXT, FieldKind.NUMBER} or name == "precisions"
)

EntryT = TypeVar("EntryT")


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldComparison:
    """One field, or one value inside a field."""

    path: str
    """As in a filter."""
    values: Sequence[Json]
    """One per model; None if absent. Long values are cut."""
    equal: bool
    """Whether the full values are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricComparison:
    """One metric."""

    name: str
    values: Sequence[float | None]
    """One per model; None if absent."""
    equal: bool

    @property
    def deltas(self) -> Sequence[float | None]:
        """The difference of each value from the first one; None if a value is absent or the result overflows."""
        first = self.values[0]
        found = [None if value is None or first is None else value - first for value in self.values]
        return [delta if delta is not None and math.isfinite(delta) else None for delta in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLabels:
    """The labels that distinguish one model."""

    only: Sequence[Json]
    """Labels that no other model has."""
    lacking: Sequence[Json]
    """Labels that another model has and this one lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelComparison:
    """The labels."""

    common: Sequence[Json]
    models: Sequence[ModelLabels]
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FileContent:
    """The content of a file, as far as it is known."""

    size: int
    """In bytes."""
    crc32: int | None = None
    sha256: str = ""
    """In hexadecimal; empty if unknown."""

    @property
    def digest(self) -> str:
        """The strongest known digest, with its algorithm."""
        return f"sha256:{self.sha256}" if self.sha256 else f"crc32:{self.crc32 or 0:08x}"

    def is_same(self, other: "FileContent") -> bool | None:
        """Tell whether the bytes are equal, or return None if that is unknown."""
        if self.size != other.size:
            return False
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        if self.crc32 is not None and other.crc32 is not None:
            return self.crc32 == other.crc32
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFiles:
    """The files of an artifact."""

    files: Mapping[str, FileContent] | None
    """By name; None if the artifact cannot be read."""
    problem: str = ""
    """Why files or digests are unknown, for people."""


class FileChange(Enum):
    """The change of a file relative to the first model."""

    UNKNOWN = "neither has it, or it can't be told"
    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileComparison:
    """One file."""

    name: str
    versions: Sequence[tuple[FileContent | None, FileChange]]
    """One per model; None if the model lacks the file."""

    @property
    def equal(self) -> bool:
        """Whether all models have the same content."""
        return all(change is FileChange.SAME for _, change in self.versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactComparison:
    """The artifacts."""

    problems: Sequence[str]
    """One per model: why its files are unknown; empty if they are known."""
    equal: bool
    files: Sequence[FileComparison] = ()
    """By name."""
    file_count: int = 0
    """The number of all files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A whole comparison. Parts that are equal and not requested are None."""

    models: Sequence[Model]
    fields: Sequence[FieldComparison]
    metrics: Sequence[MetricComparison]
    labels: LabelComparison | None
    artifacts: ArtifactComparison | None
    truncated: bool
    """Whether fields, metrics or labels were left out for their size."""


def checked_ids(ids: Sequence[str]) -> Sequence[str]:
    """Return the ids of models that can be compared.

    Raises:
        InvalidArgumentError: There are too few or too many ids, one is repeated, or one is not a model id.
    """
    if not MIN_MODELS <= len(ids) <= MAX_MODELS:
        raise InvalidArgumentError.of("model_ids", f"must have {MIN_MODELS} to {MAX_MODELS} entries, not {len(ids)}.")
    for i, model_id in enumerate(ids):
        checked_model_id(model_id, f"model_ids[{i}]")
        if model_id in ids[:i]:
            raise InvalidArgumentError.of(f"model_ids[{i}]", "is listed twice.")
    return ids


def compare_fields(models: Sequence[Model], *, diff_only: bool) -> tuple[Sequence[FieldComparison], bool]:
    """Compare all fields except metrics and labels. Also return whether size limits left some out."""
    flat = [dict(_values(model)) for model in models]
    paths = dict.fromkeys(path for values in flat for path in values)

    def entries() -> Iterator[tuple[FieldComparison, bool, int]]:
        for path in paths:
            values = [values.get(path) for values in flat]
            equal = len({_canonical(value) for value in values}) == 1
            if diff_only and equal:
                continue
            shown = [_shown(value) for value in values]
            cost = len(path.encode()) + sum(map(_cost, shown)) + _ENTRY_BYTES
            yield FieldComparison(path=path, values=shown, equal=equal), equal, cost

    return _bounded(entries(), _FIELDS_BYTES)


def compare_metrics(models: Sequence[Model], *, diff_only: bool) -> tuple[Sequence[MetricComparison], bool]:
    """Compare the metrics. Also return whether size limits left some out."""

    def entries() -> Iterator[tuple[MetricComparison, bool, int]]:
        for name in sorted({name for model in models for name in model.metrics}):
            values = [model.metrics.get(name) for model in models]
            equal = len(set(values)) == 1
            if not (diff_only and equal):
                cost = len(name.encode()) + len(values) * _NUMBER_BYTES + _ENTRY_BYTES
                yield MetricComparison(name=name, values=values, equal=equal), equal, cost

    return _bounded(entries(), _METRICS_BYTES)


def compare_labels(models: Sequence[Model]) -> tuple[LabelComparison, bool]:
    """Compare the labels as sets. Also return whether size limits left some out."""
    labels = [{_canonical(label): label for label in model.labels or ()} for model in models]
    everything = {key: label for found in labels for key, label in found.items()}
    common = everything.keys() & set.intersection(*(set(found) for found in labels))

    def entries() -> Iterator[tuple[str, bool, int]]:
        for key, label in everything.items():
            yield key, key in common, (_cost(_shown(label)) + _ENTRY_BYTES) * (1 if key in common else len(models))

    kept, truncated = _bounded(entries(), _LABELS_BYTES)

    def only(index: int) -> Iterator[Json]:
        others = set().union(*(set(found) for i, found in enumerate(labels) if i != index))
        return (_shown(everything[key]) for key in kept if key in labels[index] and key not in others)

    return LabelComparison(
        common=[_shown(everything[key]) for key in kept if key in common],
        models=[
            ModelLabels(
                only=list(only(i)),
                lacking=[_shown(everything[key]) for key in kept if key not in found],
            )
            for i, found in enumerate(labels)
        ],
        equal=len(common) == len(everything),
    ), truncated


def compare_files(artifacts: Sequence[ArtifactFiles], *, diff_only: bool) -> ArtifactComparison:
    """Compare artifacts that differ, file by file."""
    names = sorted({name for artifact in artifacts for name in artifact.files or ()})
    # Only for listed files, because there may be many more.
    equal = [_compared(name, artifacts).equal for name in names]
    wanted = [(name, same) for name, same in zip(names, equal, strict=True) if not (diff_only and same)]
    entries = (
        (name, same, len(name.encode(errors="replace")) + len(artifacts) * _FILE_BYTES + _ENTRY_BYTES)
        for name, same in wanted
    )
    kept, _ = _bounded(entries, _FILES_BYTES, MAX_FILES)
    return ArtifactComparison(
        problems=[artifact.problem for artifact in artifacts],
        equal=False,
        files=[_compared(name, artifacts) for name in kept],
        file_count=len(wanted),
    )


def _compared(name: str, artifacts: Sequence[ArtifactFiles]) -> FileComparison:
    found = [(artifact.files or {}).get(name) for artifact in artifacts]
    changes = [
        FileChange.UNKNOWN if artifacts[0].files is None or artifact.files is None else _change(found[0], content)
        for artifact, content in zip(artifacts, found, strict=True)
    ]
    return FileComparison(name=name, versions=list(zip(found, changes, strict=True)))


def _change(first: FileContent | None, this: FileContent | None) -> FileChange:
    if first is None:
        return FileChange.UNKNOWN if this is None else FileChange.ADDED
    if this is None:
        return FileChange.REMOVED
    return {True: FileChange.SAME, False: FileChange.CHANGED, None: FileChange.UNKNOWN}[this.is_same(first)]


def _bounded(
    entries: Iterable[tuple[EntryT, bool, int]], most_bytes: int, most: int | None = None
) -> tuple[Sequence[EntryT], bool]:
    """Return the entries (entry, whether equal, bytes) that fit, in order, and whether some do not fit.

    Entries that differ take precedence.
    """
    found = list(entries)
    left = most_bytes
    kept: list[int] = []
    for i in sorted(range(len(found)), key=lambda i: found[i][1]):
        if found[i][2] <= left and (most is None or len(kept) < most):
            left -= found[i][2]
            kept.append(i)
    return [found[i][0] for i in sorted(kept)], len(kept) < len(found)


# ---- Models as values by path


def _values(model: Model) -> Iterator[tuple[str, Json]]:
    for name in _WHOLE:
        value = getattr(model, name)
        # A description is never absent, so an empty one counts as absent.
        if value is not None and (value or name != "description"):
            yield name, list(value) if isinstance(value, tuple) else value
    yield "creator", model.creator
    yield "artifact.file_name", model.artifact.file_name
    yield "artifact.media_type", model.artifact.media_type
    yield from _apart("overview", model.overview)
    yield from _apart("optimization_capabilities", model.optimization_capabilities)
    yield from _apart("tags", model.tags)
    yield from _provenance_values(model.provenance)
    if model.signature is not None:
        yield from _signature_values(model.signature)


def _provenance_values(provenance: Provenance) -> Iterator[tuple[str, Json]]:
    for field in fields(provenance):
        value = getattr(provenance, field.name)
        match field.name:
            case "datasets":
                named = [(d.name or d.uri, {"name": d.name, "uri": d.uri, "digest": d.digest}) for d in value]
                yield from _by_name("provenance.datasets", named)
            case "hyperparameters" | "environment":
                yield from _apart(f"provenance.{field.name}", value)
            case "seed":
                # JSON numbers are doubles here, which cannot hold 64 bits.
                if value is not None:
                    yield "provenance.seed", value if abs(value) <= _EXACT_INTEGER else str(value)
            case _:
                if value:
                    yield f"provenance.{field.name}", list(value) if isinstance(value, tuple) else value


def _signature_values(signature: Signature) -> Iterator[tuple[str, Json]]:
    for field in fields(signature):
        value = getattr(signature, field.name)
        path = f"signature.{_SIGNATURE_FIELDS.get(field.name, field.name)}"
        if not value:
            continue
        if isinstance(value, Mapping):
            yield from _apart(path, value)
        elif isinstance(value, tuple) and isinstance(value[0], Tensor):
            yield from _by_name(path, [(tensor.name, _tensor(tensor)) for tensor in value])
        else:
            yield path, list(value) if isinstance(value, tuple) else value


def _tensor(tensor: Tensor) -> Mapping[str, Json]:
    return {"element_type": tensor.element_type, "shape": None if tensor.shape is None else list(tensor.shape)}


def _by_name(path: str, named: Iterable[tuple[str, Json]]) -> Iterator[tuple[str, Json]]:
    """Yield each value by name. Several values of one name become a list."""
    groups: dict[str, list[Json]] = {}
    for name, value in named:
        groups.setdefault(name, []).append(value)
    for name, values in groups.items():
        yield _joined(path, name), values[0] if len(values) == 1 else values


def _apart(path: str, value: Json, keys: int = _MAX_KEYS) -> Iterator[tuple[str, Json]]:
    """Yield the values inside JSON, up to a depth of keys. An empty object counts as absent."""
    if not isinstance(value, Mapping):
        yield path, value
        return
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner and keys > 1:
            yield from _apart(_joined(path, key), inner, keys - 1)
        else:
            yield _joined(path, key), inner


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}.{json.dumps(key, ensure_ascii=False)}"


# ---- Values as texts


def _canonical(value: Json) -> str:
    """Serialize JSON so that equal values have equal texts: 1 equals 1.0, as in `models.is_same`."""
    return json.dumps(_with_doubles(value), sort_keys=True, ensure_ascii=False)


def _with_doubles(value: Json) -> Json:
    match value:
        case bool() | str() | None:
            return value
        case int() | float():
            try:
                return float(value)
            except OverflowError:
                return value
        case Mapping():
            return {key: _with_doubles(inner) for key, inner in value.items()}
        case _:
            return [_with_doubles(inner) for inner in value]


def _shown(value: Json) -> Json:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}…"


def _cost(value: Json) -> int:
    """Return an upper estimate of the size of a value as a message. A list of numbers takes several times its JSON."""
    if isinstance(value, str):
        return len(value.encode()) + _ENTRY_BYTES
    return 6 * len(json.dumps(value, ensure_ascii=False).encode()) + _ENTRY_BYTES
