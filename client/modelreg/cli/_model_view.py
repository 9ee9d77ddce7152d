"""Models for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from modelreg.cli._output import Column, Output, print_blocks
from modelreg.cli._text import age, aligned, number, printable, size, styled, utc, when

if TYPE_CHECKING:
    from modelreg import Artifact, ArtifactFile, Model, Provenance, Tensor

MAX_FILES = 20
_MAX_TENSORS = 20
_MAX_LABELS = 20


def _aliases(model: Model) -> str:
    return ", ".join(model.aliases)


MODEL_COLUMNS: Sequence[Column[Model]] = (
    Column("model", lambda model: model.reference, shrinks=True, style="cyan"),
    Column("precision", lambda model: ", ".join(model.precisions)),
    Column("format", lambda model: model.format or ""),
    Column("size", lambda model: size(model.artifact.size_bytes), lambda model: str(model.artifact.size_bytes), True),
    Column("created", lambda model: age(model.create_time), lambda model: utc(model.create_time)),
    Column("aliases", _aliases, shrinks=True, style="green"),
    Column("id", lambda model: model.id, optional=True),
)
VERSION_COLUMNS: Sequence[Column[Model]] = (
    Column("version", lambda model: model.version, shrinks=True, style="cyan"),
    *MODEL_COLUMNS[1:5],
    Column("by", lambda model: model.creator, shrinks=True),
    *MODEL_COLUMNS[5:],
)


def show_model(output: Output, model: Model, parents: Mapping[str, str], files: Sequence[ArtifactFile]) -> None:
    """Print all that is known of a model.

    Args:
        output: Where.
        model: The model.
        parents: References of its parents, by id, as far as the caller may read them.
        files: The first files inside the artifact, one more than `MAX_FILES` if there are more.
    """
    aliases = f"  {styled(f'@{printable(_aliases(model))}', fg='green')}" if model.aliases else ""
    output.line(styled(printable(model.reference), bold=True, fg="cyan") + aliases)
    print_blocks(output, _blocks(model, parents, files, when if output.is_terminal else utc))
    print_description(output, model.description)
    # The problems of the signature are among them.
    for warning in model.warnings:
        output.line()
        output.line(f"{styled('Warning:', fg='yellow', bold=True)} {printable(warning)}")


def print_description(output: Output, description: str) -> None:
    """Print a description, if there is one, below the blocks of facts."""
    if description:
        output.line()
        output.line(styled("Description", bold=True))
        for text in description.splitlines():
            output.line(f"  {printable(text, lines=True)}")


def _facts(model: Model, when: Callable[[datetime | None], str]) -> Iterator[tuple[str, str]]:
    yield "id", printable(model.id)
    yield "project", " ".join(printable(text) for text in (model.project_name, model.project_id) if text)
    yield "created", f"{when(model.create_time)}{f' by {printable(model.creator)}' if model.creator else ''}"
    if model.revision > 1:
        yield "updated", f"{when(model.update_time)}, revision {model.revision}"
    yield "format", printable(model.format or "")
    yield "precisions", printable(", ".join(model.precisions))
    device = " ".join(text for text in (model.target_device_type, model.target_device) if text)
    yield "target device", printable(device)
    for name in ("architecture", "category", "origin"):
        yield name, printable(getattr(model, name) or "")
    # Without a score, the registry says 0.
    yield "score", "" if not model.score else number(model.score)
    yield "labels", _labels(model.labels)
    yield "overview", _json(model.overview)
    yield "optimization", _json(model.optimization_capabilities)


def _blocks(
    model: Model,
    parents: Mapping[str, str],
    files: Sequence[ArtifactFile],
    when: Callable[[datetime | None], str],
) -> Iterator[tuple[str, Iterable[tuple[str, str]]]]:
    yield "", _facts(model, when)
    yield "Artifact", _artifact(model.artifact, when)
    yield "Files", _files(files)
    metrics = sorted(model.metrics.items())
    yield "Metrics", zip([name for name, _ in metrics], aligned(value for _, value in metrics), strict=True)
    yield "Tags", [(name, printable(value)) for name, value in sorted(model.tags.items())]
    if signature := model.signature:
        opsets = sorted(signature.opsets.items())
        facts = [
            ("producer", printable(signature.producer)),
            ("precisions", printable(", ".join(signature.precisions))),
            ("file", printable(signature.path)),
            ("opsets", printable(", ".join(f"{name or 'ai.onnx'} {found}" for name, found in opsets))),
            ("weights", str(signature.weight_count) if signature.weight_count else ""),
        ]
        yield f"Signature: {printable(signature.format)}", facts
        yield "Inputs", _tensors(signature.inputs)
        yield "Outputs", _tensors(signature.outputs)
    yield "Provenance", _provenance(model.provenance, parents)


def _artifact(artifact: Artifact, when: Callable[[datetime | None], str]) -> Iterator[tuple[str, str]]:
    yield "file" if artifact.kind == "file" else "folder", printable(artifact.file_name)
    exact = "" if artifact.size_bytes < 1000 else f" ({artifact.size_bytes:,} bytes)"
    yield "size", f"{size(artifact.size_bytes)}{exact}"
    yield "sha256", printable(artifact.sha256)
    yield "media type", printable(artifact.media_type)
    if artifact.verify_time is not None:
        yield "verified", when(artifact.verify_time)


def _files(files: Sequence[ArtifactFile]) -> Iterator[tuple[str, str]]:
    shown = files[:MAX_FILES]
    width = max((len(size(file.size_bytes)) for file in shown), default=0)
    for file in shown:
        yield file.path, size(file.size_bytes).rjust(width)
    if len(files) > len(shown):
        yield "…", "and more"


def _tensors(tensors: Sequence[Tensor]) -> Iterator[tuple[str, str]]:
    shown = tensors[:_MAX_TENSORS]
    width = max((len(tensor.element_type) for tensor in shown), default=0)
    for tensor in shown:
        shape = "" if tensor.shape is None else f"[{', '.join(map(_dimension, tensor.shape))}]"
        yield tensor.name or "-", printable(f"{tensor.element_type.ljust(width)}  {shape}")
    if len(tensors) > len(shown):
        yield "…", f"and {len(tensors) - len(shown)} more"


def _dimension(value: float | str) -> str:
    return value if isinstance(value, str) else number(value)


def _labels(labels: Sequence[Any]) -> str:
    texts = [label_text(label) for label in labels[:_MAX_LABELS]]
    if len(labels) > _MAX_LABELS:
        texts.append(f"… ({len(labels)} in all)")
    return ", ".join(texts)


def label_text(label: Any) -> str:
    """Return a label for people."""
    return printable(label) if isinstance(label, str) else _json(label)


def _json(value: Any) -> str:
    return "" if value is None or value == {} else printable(json.dumps(value, ensure_ascii=False))


def _provenance(provenance: Provenance, parents: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "repository", printable(provenance.source_repository)
    yield "commit", printable(provenance.source_commit)
    yield "training run", printable(provenance.training_run)
    for parent in provenance.parents:
        reference = parents.get(parent, "")
        yield "made from", printable(f"{reference}  {parent}" if reference else parent)
    for dataset in provenance.datasets:
        yield "dataset", printable(" ".join(text for text in (dataset.name, dataset.uri, dataset.digest) if text))
    yield "framework", printable(f"{provenance.framework} {provenance.framework_version}".strip())
    yield "seed", "" if provenance.seed is None else str(provenance.seed)
    for name, value in sorted(provenance.hyperparameters.items()):
        yield f"hyperparameter {name}", printable(value) if isinstance(value, str) else _json(value)
    environment = dict(sorted(provenance.environment.items()))
    for name, value in list(environment.items())[:10]:
        yield f"environment {name}", printable(value)
    if len(environment) > 10:
        yield "environment …", f"and {len(environment) - 10} more"
