"""What a Geti server answers, as the domain's objects.

It is checked as far as these need it; what else is wrong with a model's values,
its registration tells.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from registry_service.domain.geti import (
    ModelDetails,
    ModelGroup,
    ModelVersion,
    OptimizedModel,
    ProjectSummary,
)
from registry_service.domain.models import Json

_OPENVINO = "openvino"
# Steps of a pipeline that nothing is trained for.
_UNTRAINED = frozenset({"dataset", "crop"})


class MalformedError(Exception):
    """An answer is not what it should be; the message says where."""


Object = Mapping[str, Any]


def parse(data: bytes) -> Object:
    """Reads an answer, a JSON object of texts that are Unicode and numbers that are finite.

    Raises:
        MalformedError: It is something else.
    """
    try:
        value = json.loads(data, parse_int=_bounded_integer)
        # Half of a surrogate pair, or NaN, could be neither stored nor shown.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedError("no JSON") from error
    if not isinstance(value, Mapping):
        raise MalformedError("no JSON object")
    return value


def _bounded_integer(digits: str) -> int:
    number = int(digits)
    if not -1e308 < number < 1e308:  # no double could hold it, and protobuf has no other numbers
        raise ValueError(digits[:20])
    return number


def project(value: Object) -> ProjectSummary:
    """Reads a project (`MalformedError`)."""
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
    """Reads a group, whose versions were asked for one by one (`MalformedError`)."""
    return ModelGroup(id=text(value, "id"), name=text(value, "name"), versions=tuple(versions))


def model_version(value: Object) -> ModelVersion:
    """Reads a version and its models for OpenVINO (`MalformedError`)."""
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
    """Reads an optimized model (`MalformedError`)."""
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
    """Reads a text that must be there (`MalformedError`)."""
    found: str | None = _optional(value, name, str)
    if not found:
        raise MalformedError(f"{name} is missing")
    return found


def objects(value: Object, name: str) -> Sequence[Object]:
    """Reads a list of objects (`MalformedError`)."""
    found: list[Object] | None = _optional(value, name, list)
    if found is None or not all(isinstance(item, Mapping) for item in found):
        raise MalformedError(f"{name} is no list of objects")
    return found


def _optional(value: Object, name: str, kind: type) -> Any:
    found = value.get(name)
    if found is not None and not isinstance(found, kind):
        raise MalformedError(f"{name} is no {kind.__name__}")
    return found


def _integer(value: Object, name: str) -> int:
    found = value.get(name)
    if isinstance(found, bool) or not isinstance(found, int):
        raise MalformedError(f"{name} is no integer")
    return found


def _texts(value: Object, name: str) -> tuple[str, ...]:
    found = value.get(name)
    items = [found] if isinstance(found, str) else found
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise MalformedError(f"{name} is no list of texts")
    return tuple(items)


def _score(value: Object) -> float | None:
    score = (_optional(value, "performance", dict) or {}).get("score")
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise MalformedError("performance.score is no number")
    return float(score)


def _capabilities(value: Object) -> Json:
    found = value.get("optimization_capabilities")
    if found is not None and not isinstance(found, str | Mapping):
        raise MalformedError("optimization_capabilities is no object")
    return found


def _labels(value: Object) -> Sequence[Json] | None:
    found = _optional(value, "labels", list)
    return None if found is None else tuple(found)
