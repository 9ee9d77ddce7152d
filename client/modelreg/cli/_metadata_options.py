"""The options of `push` and `edit` for metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from modelreg.cli._param_types import Assignment, JsonValue, NumberAssignment

if TYPE_CHECKING:
    from modelreg import Provenance

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

# Names of options that differ from those of the fields. `--format` says how results are printed.
_FIELDS = {"metric": "metrics", "tag": "tags", "model_format": "format"}
_PROVENANCE = (
    "source_repository",
    "source_commit",
    "training_run",
    "framework",
    "framework_version",
    "seed",
)

_OPTIONS = (
    click.option("--metric", type=NumberAssignment(), multiple=True, help="A metric, for example f1=0.91. Repeatable."),
    click.option("--tag", type=Assignment(), multiple=True, help="A tag, for example team=audio. Repeatable."),
    click.option("--precision", metavar="TEXT", multiple=True, help="A precision, for example int8. Repeatable."),
    click.option("--model-format", metavar="TEXT", help="The format or framework, for example onnx."),
    click.option("--description", metavar="TEXT", help="A description in Markdown."),
    click.option(
        "--description-file",
        type=click.File(encoding="utf-8"),
        metavar="FILE",
        help="The same from a file; - is stdin.",
    ),
    click.option("--label", metavar="TEXT", multiple=True, help="A label that the model predicts. Repeatable."),
    click.option("--labels", type=JsonValue(), help="The labels as a JSON list."),
    click.option("--score", type=float, metavar="NUMBER", help="The score."),
    click.option("--architecture", metavar="TEXT", help="The architecture, for example CRNN."),
    click.option("--category", metavar="TEXT", help="The category, for example detection."),
    click.option("--origin", metavar="TEXT", help="Where the model comes from."),
    click.option("--target-device", metavar="TEXT", help="The device that the model is meant for."),
    click.option("--target-device-type", metavar="TEXT", help="Its type."),
    click.option("--project-name", metavar="TEXT", help="The name of the project."),
    click.option("--overview", type=JsonValue(), help="An overview for people, as JSON."),
    click.option("--optimization-capabilities", type=JsonValue(), help="What the model can be optimized for, as JSON."),
    click.option("--parent", metavar="REF", multiple=True, help="A model that this one was made from. Repeatable."),
    click.option("--dataset", type=Assignment(), multiple=True, help="A dataset: its name and URI. Repeatable."),
    click.option("--training-run", metavar="TEXT", help="Identifier or URL of the training run."),
    click.option("--source-repository", metavar="URL", help="The source repository."),
    click.option("--source-commit", metavar="TEXT", help="The commit of the source."),
    click.option("--framework", metavar="TEXT", help="The framework of the training."),
    click.option("--framework-version", metavar="TEXT", help="Its version."),
    click.option(
        "--hyperparameter", type=Assignment(), multiple=True, help="A hyperparameter: JSON or text. Repeatable."
    ),
    click.option("--seed", type=int, metavar="NUMBER", help="The seed of the training."),
)


def metadata_options(function: Decorated) -> Decorated:
    """Add the options to a command, which gets them as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def metadata_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that the options give, as `Registry.push` and `Registry.update` take it.

    Raises:
        UsageError: Two options give the same field.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    metadata: dict[str, Any] = {}
    for name in (
        "precision",
        "model_format",
        "description",
        "score",
        "architecture",
        "category",
        "origin",
        "target_device",
        "target_device_type",
        "project_name",
        "overview",
        "optimization_capabilities",
        "labels",
    ):
        if name in given:
            metadata[_FIELDS.get(name, name)] = given[name]
    for name in ("metric", "tag"):
        if name in given:
            metadata[_FIELDS[name]] = dict(given[name])
    if "label" in given:
        _once(metadata, "labels", "--label and --labels")
        metadata["labels"] = list(given["label"])
    if "description_file" in given:
        _once(metadata, "description", "--description and --description-file")
        metadata["description"] = text_of(given["description_file"])
    return metadata


def provenance_of(options: Mapping[str, Any], base: Provenance | None) -> Provenance | None:
    """Return a provenance with what the options give, or None if they give nothing and there is none.

    Args:
        options: The options.
        base: The provenance that the options complete. None: an empty one.
    """
    import dataclasses  # noqa: PLC0415 - as all of the library, not before it is used

    from modelreg.provenance import Dataset, Provenance  # noqa: PLC0415

    changes: dict[str, Any] = {name: options[name] for name in _PROVENANCE if options.get(name) is not None}
    if options.get("parent"):
        changes["parents"] = tuple(options["parent"])
    if options.get("dataset"):
        changes["datasets"] = tuple(Dataset(name=name, uri=uri) for name, uri in options["dataset"])
    if options.get("hyperparameter"):
        before = base.hyperparameters if base else {}
        changes["hyperparameters"] = {
            **before,
            **{name: _json_or_text(text) for name, text in options["hyperparameter"]},
        }
    if not changes:
        return base
    return dataclasses.replace(base or Provenance(), **changes)


def _once(metadata: Mapping[str, Any], name: str, options: str) -> None:
    if name in metadata:
        raise click.UsageError(f"{options} give the same field: pass one of them.")


def text_of(file: IO[str]) -> str:
    """Return the text of a file. Raises UsageError if it is not UTF-8."""
    try:
        return file.read()
    except UnicodeDecodeError:
        raise click.UsageError(f"--description-file: {Path(file.name).name} is not UTF-8.") from None


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise click.UsageError("--hyperparameter: the JSON is nested too deeply.") from None
