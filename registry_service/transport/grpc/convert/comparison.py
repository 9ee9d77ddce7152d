"""Convert comparisons."""

from collections.abc import Sequence

from modelregistry.v1 import (
    comparison_pb2,
    model_service_pb2,
)

from registry_service.domain.comparison import ArtifactComparison, Comparison, FileChange, LabelComparison
from registry_service.domain.models import Model
from registry_service.transport.grpc.convert.values import printable, time_message, value_message

_CHANGES = {
    FileChange.UNKNOWN: comparison_pb2.FileVersion.CHANGE_UNSPECIFIED,
    FileChange.SAME: comparison_pb2.FileVersion.CHANGE_SAME,
    FileChange.CHANGED: comparison_pb2.FileVersion.CHANGE_CHANGED,
    FileChange.ADDED: comparison_pb2.FileVersion.CHANGE_ADDED,
    FileChange.REMOVED: comparison_pb2.FileVersion.CHANGE_REMOVED,
}


def comparison_message(comparison: Comparison) -> model_service_pb2.CompareModelsResponse:
    """Return a comparison as a message."""
    artifacts = comparison.artifacts
    return model_service_pb2.CompareModelsResponse(
        models=[
            comparison_pb2.ComparedModel(
                model_id=model.id,
                name=model.name,
                version=model.version,
                etag=model.etag,
                sha256=model.artifact.sha256,
                create_time=time_message(model.create_time),
            )
            for model in comparison.models
        ],
        fields=[
            comparison_pb2.FieldComparison(path=f.path, values=map(value_message, f.values), equal=f.equal)
            for f in comparison.fields
        ],
        metrics=[
            comparison_pb2.MetricComparison(
                name=metric.name,
                values=[
                    comparison_pb2.MetricValue(value=value, delta=delta)
                    for value, delta in zip(metric.values, metric.deltas, strict=True)
                ],
                equal=metric.equal,
            )
            for metric in comparison.metrics
        ],
        labels=None if comparison.labels is None else _labels_message(comparison.labels),
        artifacts=None if artifacts is None else _artifacts_message(artifacts, comparison.models),
        truncated=comparison.truncated,
    )


def _labels_message(labels: LabelComparison) -> comparison_pb2.LabelComparison:
    return comparison_pb2.LabelComparison(
        common=map(value_message, labels.common),
        models=[
            comparison_pb2.ModelLabels(only=map(value_message, model.only), lacking=map(value_message, model.lacking))
            for model in labels.models
        ],
        equal=labels.equal,
    )


def _artifacts_message(artifacts: ArtifactComparison, models: Sequence[Model]) -> comparison_pb2.ArtifactComparison:
    return comparison_pb2.ArtifactComparison(
        artifacts=[
            comparison_pb2.ComparedArtifact(
                file_name=model.artifact.file_name,
                size_bytes=model.artifact.size,
                sha256=model.artifact.sha256,
                problem=printable(problem),
            )
            for model, problem in zip(models, artifacts.problems, strict=True)
        ],
        equal=artifacts.equal,
        files=[
            comparison_pb2.FileComparison(
                path=printable(file.name),
                versions=[
                    comparison_pb2.FileVersion(change=_CHANGES[change])
                    if content is None
                    else comparison_pb2.FileVersion(
                        present=True, size_bytes=content.size, digest=content.digest, change=_CHANGES[change]
                    )
                    for content, change in file.versions
                ],
            )
            for file in artifacts.files
        ],
        file_count=artifacts.file_count,
        truncated=len(artifacts.files) < artifacts.file_count,
    )
