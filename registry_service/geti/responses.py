"""Convert the responses of a Geti server to the port's objects.

Only the types that these objects need are checked. The registration of a model checks its values.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from registry_service.domain.models import Json
from registry_service.geti.port import (
    ModelDetails,
    ModelGroup,
    ModelVersion,
    OptimizedModel,
    ProjectSummary,
)

_OPENVINO = "openvino"
# Steps of a pipeline without a model.
_UNTRAINED = frozenset({"dataset", "crop"})


class MalformedResponseError(Exception):
    """A response is invalid. The message names the member."""


Object = Mapping[str, Any]


def parse(data: bytes) -> Object:
    """Parse a response.

    Raises:
        MalformedResponseError: The response is not a JSON object, or contains numbers that are not finite or text
            that is not valid Unicode.
    """
    try:
        value = json.loads(data, parse_int=_bounded_integer)
        # An unpaired surrogate or NaN could be neither stored nor returned to a client.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedResponseError("invalid JSON") from error
    if not isinstance(value, Mapping):
        raise MalformedResponseError("not a JSON object")
    return value


def _bounded_integer(digits: str) -> int:
    number = int(digits)
    if not -1e308 < number < 1e308:  # outside of the range of a double, which protobuf's Struct uses for numbers
        raise ValueError(digits[:20])
    return number


def project(value: Object) -> ProjectSummary:
    """Convert a project."""
    return ProjectSummary(
        id=text(value, "id"),
        name=text(value, "name"),
        creation_time=text(value, "creation_time"),
        task_types=tuple(
            task_type
            for task in objects(_optional(value, "pipeline", dict) or {"tasks": []}, "tasks")
            if (task_type := text(task, "task_type")).lower() not in _UNTRAINED
        ),
    )


def model_group(value: Object, versions: Sequence[ModelVersion]) -> ModelGroup:
    """Convert a model group, whose versions come from further responses."""
    return ModelGroup(id=text(value, "id"), name=text(value, "name"), versions=tuple(versions))


def model_version(value: Object) -> ModelVersion:
    """Convert a model version with its OpenVINO models."""
    return ModelVersion(
        id=text(value, "id"),
        name=text(value, "name"),
        number=_integer(value, "version"),
        openvino_models=tuple(
            OptimizedModel(id=text(model, "id"), name=text(model, "name"))
            for model in objects(value, "optimized_models")
            if (_optional(model, "model_format", str) or "").lower() == _OPENVINO
        ),
    )


def model_details(value: Object) -> ModelDetails:
    """Convert an optimized model."""
    return ModelDetails(
        id=text(value, "id"),
        name=text(value, "name"),
        number=_integer(value, "version"),
        creation_date=_optional(value, "creation_date", str),
        precision=_texts(value, "precision"),
        target_device=_optional(value, "target_device", str),
        target_device_type=_optional(value, "target_device_type", str),
        architecture=_optional(value, "architecture", str),
        score=_score(value),
        size=None if value.get("size") is None else _integer(value, "size"),
        optimization_capabilities=_capabilities(value),
        labels=_labels(value),
    )


def text(value: Object, name: str) -> str:
    """Return a required text."""
    found: str | None = _optional(value, name, str)
    if not found:
        raise MalformedResponseError(f"{name} is missing")
    return found


def objects(value: Object, name: str) -> Sequence[Object]:
    """Return a required list of objects."""
    found: list[Object] | None = _optional(value, name, list)
    if found is None or not all(isinstance(item, Mapping) for item in found):
        raise MalformedResponseError(f"{name} is not a list of objects")
    return found


def _optional(value: Object, name: str, kind: type) -> Any:
    found = value.get(name)
    if found is not None and not isinstance(found, kind):
        raise MalformedResponseError(f"{name} is not a {kind.__name__}")
    return found


def _integer(value: Object, name: str) -> int:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int):
        raise MalformedResponseError(f"{name} is not an integer")
    return found


def _texts(value: Object, name: str) -> tuple[str, ...]:
    found = value.get(name)
    items = [found] if isinstance(found, str) else found
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise MalformedResponseError(f"{name} is not a list of texts")
    return tuple(items)


def _score(value: Object) -> float | None:
    score = (_optional(value, "performance", dict) or {}).get("score")
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise MalformedResponseError("performance.score is not a number")
    return float(score)


def _capabilities(value: Object) -> Json:
    found = value.get("optimization_capabilities")
    if found is not None and not isinstance(found, str | Mapping):
        raise MalformedResponseError("optimization_capabilities is not an object")
    return found


def _labels(value: Object) -> Sequence[Json] | None:
    found = _optional(value, "labels", list)
    return None if found is None else tuple(found)
