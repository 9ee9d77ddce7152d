"""Models and what belongs to them, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeAlias

from modelreg._results import Result
from modelreg._sizes import format_size
from modelreg.provenance import Provenance
from modelreg.references import format_reference

Json: TypeAlias = "bool | float | str | Sequence[Any] | Mapping[str, Any] | None"
"""A JSON value."""
Kind = Literal["file", "folder"]


@dataclass(frozen=True, kw_only=True)
class Artifact(Result):
    """The bytes of a model."""

    file_name: str
    """Name of the file, without a path, for example `model.onnx`."""
    media_type: str
    """Media type (RFC 6838), for example `application/zip`."""
    size_bytes: int
    """Size in bytes; of a folder, of the ZIP that it was packed into."""
    sha256: str
    """SHA-256 of the bytes: 64 lowercase hexadecimal digits."""
    kind: Kind = "file"
    """`folder` if a client packed a folder to send it. `pull` unpacks it again."""
    verify_time: datetime | None = None
    """When the registry last found its stored bytes intact. None: never, or damaged since."""

    def _summary(self) -> str:
        return f"{self.file_name}, {format_size(self.size_bytes)}{', folder' if self.kind == 'folder' else ''}"


@dataclass(frozen=True, kw_only=True)
class Tensor(Result):
    """An input, an output, or a weight."""

    name: str
    element_type: str
    """The type of its elements as the format calls it: `f32`, `FLOAT`, `BF16`."""
    shape: tuple[int | str, ...] | None = None
    """One entry per dimension: a number, or a text for a dynamic dimension. Empty for a scalar, None if unknown."""

    def _summary(self) -> str:
        shape = "" if self.shape is None else f"[{', '.join(map(str, self.shape))}]"
        return f"{self.name} {self.element_type}{shape}".strip()


@dataclass(frozen=True, kw_only=True)
class Signature(Result):
    """Inputs and outputs of a model, read from its file. The registry never executes a model."""

    format: str
    """The format of the file, for example `onnx`. Empty if it is unknown."""
    path: str = ""
    """Path of the model file inside a ZIP or a folder. Empty if the artifact itself is the model."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    weights: tuple[Tensor, ...] = ()
    """The first weights, for formats that list them."""
    weight_count: int = 0
    precisions: tuple[str, ...] = ()
    """Precisions of the weights, the one that takes the most bytes first."""
    producer: str = ""
    """The program that wrote the file, for example `pytorch 2.5.1`."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    """Version of each ONNX operator set, by domain."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata that the file contains."""
    problems: tuple[str, ...] = ()
    """Problems of the file, for people."""

    _columns: ClassVar = ("format", "path", "inputs", "outputs", "problems")


@dataclass(frozen=True, kw_only=True)
class Model(Result):
    """One registered version of a model, with its artifact."""

    id: str
    name: str
    version: str
    artifact: Artifact
    project_id: str | None = None
    project_name: str | None = None
    precisions: tuple[str, ...] = ()
    """Numeric precisions of the weights, for example `("fp16",)`."""
    target_device: str | None = None
    target_device_type: str | None = None
    format: str | None = None
    """Framework or file format, for example `onnx`."""
    origin: str | None = None
    category: str | None = None
    architecture: str | None = None
    description: str = field(default="", repr=False)
    """Markdown."""
    score: float | None = None
    overview: Json = field(default=None, repr=False)
    optimization_capabilities: Json = field(default=None, repr=False)
    labels: tuple[Json, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance, repr=False)
    signature: Signature | None = field(default=None, repr=False)
    """None if the format is unknown, and in lists (`Registry.models`)."""
    warnings: tuple[str, ...] = ()
    """Where the declared format or precisions contradict the file. Warnings never block an operation."""
    aliases: tuple[str, ...] = ()
    """The aliases that point to the model when it was read."""
    creator: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = field(default=None, repr=False)
    revision: int = 0
    """1 at registration, incremented by every change."""
    etag: str = field(default="", repr=False)
    """Fingerprint of this state. `Registry.update` refuses to overwrite a later state."""
    model_group_id: str = field(default="", repr=False)
    created: bool = True
    """Of `Registry.push` with `if_exists="return"`: False if the model was there already. Otherwise True."""

    _columns: ClassVar = (
        "reference",
        "precisions",
        "metrics",
        "tags",
        "aliases",
        "artifact",
        "create_time",
    )

    def __hash__(self) -> int:
        # Not of all fields, as Python would: mappings have no hash. Equal models have both of these.
        return hash((self.id, self.etag))

    @property
    def reference(self) -> str:
        """A reference that names the version: `[project/]name:version`."""
        return format_reference(self.name, version=self.version, project=self.project_id or self.project_name)

    def _summary(self) -> str:
        return self.reference


@dataclass(frozen=True, kw_only=True)
class ModelGroup(Result):
    """All versions of one model: the models with the same name and project."""

    id: str
    name: str
    project_id: str | None = None
    project_name: str | None = None
    description: str = ""
    """Markdown."""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    metric_goals: Mapping[str, Literal["maximize", "minimize"]] = field(default_factory=dict)
    version_count: int = 0
    latest_version: str = ""
    latest_model_id: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""

    _columns: ClassVar = (
        "name",
        "project_id",
        "project_name",
        "latest_version",
        "version_count",
        "owner",
        "tags",
        "metric_goals",
        "create_time",
    )

    def __hash__(self) -> int:
        # Not of all fields, as Python would: mappings have no hash. Equal groups have both of these.
        return hash((self.id, self.etag))
