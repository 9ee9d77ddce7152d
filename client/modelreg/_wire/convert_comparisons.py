"""Conversion of the messages of comparisons to plain data."""

from __future__ import annotations

from typing import cast

from modelregistry.v1 import comparison_pb2, model_service_pb2

from modelreg._results import keeps_message
from modelreg._wire.values import enum_name, json_of, time_of
from modelreg.comparisons import (
    ArtifactComparison,
    Change,
    ComparedArtifact,
    ComparedModel,
    Comparison,
    FieldComparison,
    FileComparison,
    FileVersion,
    LabelComparison,
    MetricComparison,
)


@keeps_message
def comparison_of(message: model_service_pb2.CompareModelsResponse) -> Comparison:
    """Return how models differ."""
    return Comparison(
        models=tuple(_compared_model(found) for found in message.models),
        fields=tuple(
            FieldComparison(path=found.path, values=tuple(json_of(value) for value in found.values), equal=found.equal)
            for found in message.fields
        ),
        metrics=tuple(
            MetricComparison(
                name=found.name,
                values=tuple(value.value if value.HasField("value") else None for value in found.values),
                deltas=tuple(value.delta if value.HasField("delta") else None for value in found.values),
                equal=found.equal,
            )
            for found in message.metrics
        ),
        labels=_labels(message.labels) if message.HasField("labels") else None,
        artifacts=_artifacts(message.artifacts) if message.HasField("artifacts") else None,
        truncated=message.truncated,
    )


def _compared_model(message: comparison_pb2.ComparedModel) -> ComparedModel:
    return ComparedModel(
        model_id=message.model_id,
        name=message.name,
        version=message.version,
        etag=message.etag,
        sha256=message.sha256,
        create_time=time_of(message, "create_time"),
    )


def _labels(message: comparison_pb2.LabelComparison) -> LabelComparison:
    return LabelComparison(
        common=tuple(json_of(value) for value in message.common),
        only=tuple(tuple(json_of(value) for value in found.only) for found in message.models),
        missing=tuple(tuple(json_of(value) for value in found.lacking) for found in message.models),
        equal=message.equal,
    )


def _artifacts(message: comparison_pb2.ArtifactComparison) -> ArtifactComparison:
    change = comparison_pb2.FileVersion.Change
    return ArtifactComparison(
        artifacts=tuple(
            ComparedArtifact(
                file_name=found.file_name, size_bytes=found.size_bytes, sha256=found.sha256, problem=found.problem
            )
            for found in message.artifacts
        ),
        equal=message.equal,
        files=tuple(
            FileComparison(
                path=file.path,
                versions=tuple(
                    FileVersion(
                        present=found.present,
                        change=cast(Change, enum_name(change, found.change, "CHANGE_")),
                        size_bytes=found.size_bytes,
                        digest=found.digest,
                    )
                    for found in file.versions
                ),
            )
            for file in message.files
        ),
        file_count=message.file_count,
        truncated=message.truncated,
    )
