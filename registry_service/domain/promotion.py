"""Requirements that a model must meet before an alias moves to it."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from registry_service.domain.errors import FieldViolation, InvalidArgumentError
from registry_service.domain.models import Json, Model
from registry_service.domain.signature import Signature, Tensor

MAX_METRICS = 100
"""Maximum number of bounds of metrics."""
MAX_AGE_FIELD = "requirements.max_verification_age"
_MAX_METRIC_LENGTH = 256
_SHOWN_DIFFERENCES = 5
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricBound:
    """Inclusive bounds of a metric."""

    metric: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """The requirements, checked by `checked_requirements`. By default, there are none."""

    verified: bool = False
    """The stored bytes must equal the registered ones."""
    max_verification_age: timedelta | None = None
    """Maximum age of a stored verification that proves it. None: read the bytes."""
    metrics: tuple[MetricBound, ...] = ()
    same_inputs: bool = False
    """Must equal that of the current target, like the next two. They pass if there is no target."""
    same_outputs: bool = False
    same_labels: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one requirement."""

    requirement: str
    """For example `verified`, `metrics.mAP50` or `same_inputs`."""
    passed: bool
    description: str
    """The finding, for people."""


def checked_requirements(requirements: Requirements) -> Requirements:
    """Return requirements that a model can meet.

    Raises:
        InvalidArgumentError: Names every invalid field.
    """
    violations = list(_violations(requirements))
    if violations:
        raise InvalidArgumentError(violations)
    return requirements


def _violations(requirements: Requirements) -> Iterator[FieldViolation]:
    age = requirements.max_verification_age
    if age is not None and age <= timedelta():
        yield FieldViolation(MAX_AGE_FIELD, "must be positive.")
    elif age is not None and not requirements.verified:
        yield FieldViolation(MAX_AGE_FIELD, "requires requirements.verified.")
    if len(requirements.metrics) > MAX_METRICS:
        yield FieldViolation("requirements.metrics", f"must have at most {MAX_METRICS} entries.")
        return
    for i, bound in enumerate(requirements.metrics):
        path = f"requirements.metrics[{i}]"
        if not bound.metric or len(bound.metric) > _MAX_METRIC_LENGTH or "\0" in bound.metric:
            yield FieldViolation(f"{path}.metric", f"must have 1 to {_MAX_METRIC_LENGTH} characters, none of them NUL.")
        for name in ("min", "max"):
            number = getattr(bound, name)
            if number is not None and not math.isfinite(number):
                yield FieldViolation(f"{path}.{name}", "must be a finite number.")
        if bound.min is not None and bound.max is not None and bound.min > bound.max:
            yield FieldViolation(f"{path}.max", "must not be less than min.")


def checks_of(requirements: Requirements, model: Model, current: Model | None) -> Iterator[Check]:
    """Yield the result of each requirement except `verified`, which needs more than metadata.

    Args:
        requirements: The requirements.
        model: The model that must meet them.
        current: The current target of the alias; None if there is none.
    """
    for bound in requirements.metrics:
        yield _metric_check(bound, model.metrics)
    for name in ("inputs", "outputs"):
        if getattr(requirements, f"same_{name}"):
            yield _unless_first(f"same_{name}", current) or _tensors_check(name, model, current)
    if requirements.same_labels:
        yield _unless_first("same_labels", current) or _labels_check(model, current)


def _metric_check(bound: MetricBound, metrics: Mapping[str, float]) -> Check:
    value = metrics.get(bound.metric)
    wanted = " and ".join(
        f"{words} {limit:g}" for words, limit in (("at least", bound.min), ("at most", bound.max)) if limit is not None
    )
    if value is None:
        passed, description = False, "the model has no such metric"
    else:
        passed = (bound.min is None or value >= bound.min) and (bound.max is None or value <= bound.max)
        description = f"is {value:g}"
    return Check(
        requirement=f"metrics.{bound.metric}",
        passed=passed,
        description=f"{description}; must be {wanted}." if wanted else f"{description}.",
    )


def _unless_first(requirement: str, current: Model | None) -> Check | None:
    if current is not None:
        return None
    return Check(requirement=requirement, passed=True, description="there is no present target to compare with.")


def _tensors_check(name: str, model: Model, current: Model | None) -> Check:
    requirement = f"same_{name}"
    found: list[Sequence[Tensor]] = []
    for who, one in (("the model", model), ("the present target", current)):
        tensors = _tensors(name, None if one is None else one.signature)
        if not tensors:
            return Check(requirement=requirement, passed=False, description=f"the {name} of {who} are not known.")
        found.append(tensors)
    new, old = (dict.fromkeys(tensors) for tensors in found)
    differences = [f"{_shown(tensor)} is new" for tensor in new if tensor not in old]
    differences += [f"{_shown(tensor)} is missing" for tensor in old if tensor not in new]
    return _same(requirement, differences)


def _tensors(name: str, signature: Signature | None) -> Sequence[Tensor]:
    tensors: Sequence[Tensor] = () if signature is None else getattr(signature, name)
    return tensors


def _shown(tensor: Tensor) -> str:
    shape = "of unknown shape" if tensor.shape is None else f"[{', '.join(map(str, tensor.shape))}]"
    return _cut(f"{tensor.name} {tensor.element_type} {shape}")


def _labels_check(model: Model, current: Model | None) -> Check:
    new, old = ({_key(label): label for label in (one and one.labels) or ()} for one in (model, current))
    differences = [f"{_cut(str(label))} is new" for key, label in new.items() if key not in old]
    differences += [f"{_cut(str(label))} is missing" for key, label in old.items() if key not in new]
    return _same("same_labels", differences)


def _key(value: Json) -> Hashable:
    """Return a value that is equal for equal JSON: 1 equals 1.0, but not true."""
    match value:
        case bool():
            return (bool, value)
        case str() | int() | float() | None:
            return value
        case Mapping():
            return frozenset((key, _key(inner)) for key, inner in value.items())
        case _:
            return tuple(map(_key, value))


def _same(requirement: str, differences: Sequence[str]) -> Check:
    shown = list(islice(differences, _SHOWN_DIFFERENCES))
    if len(differences) > len(shown):
        shown.append(f"and {len(differences) - len(shown)} more")
    return Check(
        requirement=requirement,
        passed=not differences,
        description=f"{'; '.join(shown) or 'as in the present target'}.",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
