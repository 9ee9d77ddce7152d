"""How models differ."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from modelreg._results import Result, short_text

Change = Literal["same", "changed", "added", "removed", "unknown"]


@dataclass(frozen=True, kw_only=True)
class ComparedModel(Result):
    """A model as it was when the comparison read it."""

    model_id: str
    name: str
    version: str
    etag: str
    sha256: str
    create_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class FieldComparison(Result):
    """One field of all models."""

    path: str
    """Path of the field, as in a filter: `format`, `tags."odd key"`."""
    values: tuple[Any, ...]
    """The value of each model; None if it is absent."""
    equal: bool


@dataclass(frozen=True, kw_only=True)
class MetricComparison(Result):
    """One metric of all models."""

    name: str
    values: tuple[float | None, ...]
    """The value of each model; None if it has none."""
    deltas: tuple[float | None, ...]
    """Each value minus that of the first model."""
    equal: bool


@dataclass(frozen=True, kw_only=True)
class LabelComparison(Result):
    """The labels of all models."""

    common: tuple[Any, ...]
    only: tuple[tuple[Any, ...], ...]
    """Of each model, the labels that only it has."""
    missing: tuple[tuple[Any, ...], ...]
    """Of each model, the labels that another one has and it does not have."""
    equal: bool


@dataclass(frozen=True, kw_only=True)
class FileVersion(Result):
    """One file in the artifact of one model, compared with the same file of the first model."""

    present: bool
    change: Change
    size_bytes: int = 0
    digest: str = ""
    """`sha256:<64 digits>`, or `crc32:<8 digits>`."""


@dataclass(frozen=True, kw_only=True)
class FileComparison(Result):
    """One file of all artifacts."""

    path: str
    versions: tuple[FileVersion, ...]


@dataclass(frozen=True, kw_only=True)
class ComparedArtifact(Result):
    """The artifact of one model."""

    file_name: str
    size_bytes: int
    sha256: str
    problem: str = ""
    """Why its files are unknown, for people."""


@dataclass(frozen=True, kw_only=True)
class ArtifactComparison(Result):
    """The artifacts of all models."""

    artifacts: tuple[ComparedArtifact, ...]
    equal: bool
    """Whether all artifacts have the same bytes. If so, `files` is empty."""
    files: tuple[FileComparison, ...] = ()
    file_count: int = 0
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison(Result):
    """How models differ from the first of them. All tuples are in the order of the models."""

    models: tuple[ComparedModel, ...]
    fields: tuple[FieldComparison, ...]
    metrics: tuple[MetricComparison, ...]
    labels: LabelComparison | None = None
    artifacts: ArtifactComparison | None = None
    truncated: bool = False
    """Whether the server left out fields, metrics or labels because they take too much space."""

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        parts: Mapping[str, bool] = {
            "fields": all(part.equal for part in self.fields),
            "metrics": all(part.equal for part in self.metrics),
            "labels": self.labels is None or self.labels.equal,
            "artifacts": self.artifacts is None or self.artifacts.equal,
        }
        return all(parts.values()) and not self.truncated

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(f'{model.name}:{model.version}')}</th>" for model in self.models)
        body = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            + "".join(f"<td style='text-align:left'>{html.escape(short_text(value))}</td>" for value in values)
            + "</tr>"
            for name, values in self._rows()
        )
        return f"<table><caption>Comparison</caption><tr><th></th>{head}</tr>{body}</table>"

    def _rows(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield what has a value for each model, with the values. Names and versions are the titles."""
        for field in self.fields:
            if field.path not in {"name", "version"}:
                yield field.path, ["" if value is None else value for value in field.values]
        for metric in self.metrics:
            yield f"metrics.{metric.name}", ["" if value is None else value for value in metric.values]
        if self.labels is not None and not self.labels.equal:
            yield "only these labels", self.labels.only
        if self.artifacts is not None:
            yield "sha256", [artifact.sha256 for artifact in self.artifacts.artifacts]
            for file in self.artifacts.files:
                yield file.path, [version.change if version.present else "" for version in file.versions]
