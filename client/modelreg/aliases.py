"""Aliases, their history, and the requirements of promotions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from modelreg._results import Result

MoveKind = Literal["set", "rolled_back", "deleted", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Alias(Result):
    """A name for one of the models of a model group, which can be moved to another model."""

    alias: str
    model_group_id: str
    model_id: str
    version: str
    sha256: str
    etag: str = ""
    revision: int = 0
    """Number of the move that led to this state."""
    update_time: datetime | None = None
    actor: str = ""
    reason: str = ""

    _columns: ClassVar = ("alias", "version", "reason", "actor", "update_time", "model_id")

    def _summary(self) -> str:
        return f"{self.alias} is {self.version}"


@dataclass(frozen=True, kw_only=True)
class AliasTarget(Result):
    """What an alias pointed to, as it was then. The model may have changed, or been deleted, since."""

    model_id: str
    version: str
    sha256: str

    def _summary(self) -> str:
        return self.version


@dataclass(frozen=True, kw_only=True)
class AliasMove(Result):
    """One entry of an alias's history."""

    alias: str
    model_group_id: str
    revision: int
    kind: MoveKind
    before: AliasTarget | None = None
    """None if the alias pointed to nothing."""
    after: AliasTarget | None = None
    """None if the alias was deleted."""
    move_time: datetime | None = None
    actor: str = ""
    reason: str = ""
    request_id: str = ""

    _columns: ClassVar = ("alias", "revision", "kind", "before", "after", "reason", "actor", "move_time")


@dataclass(frozen=True, kw_only=True)
class Bound(Result):
    """Bounds of a metric. A model without the metric does not meet them."""

    min: float | None = None
    max: float | None = None

    def _summary(self) -> str:
        bounds = (("at least", self.min), ("at most", self.max))
        return " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True, kw_only=True)
class Requirements(Result):
    """What a model must meet before an alias is moved to it.

    >>> Requirements(verified=True, metrics={"f1": Bound(min=0.9)}).verified
    True
    """

    verified: bool = False
    """Whether the registry must find the stored bytes intact."""
    max_verification_age: timedelta | None = None
    """How old a stored verification may be that meets `verified`. None: the registry reads the bytes."""
    metrics: Mapping[str, Bound] = field(default_factory=dict)
    same_inputs: bool = False
    """Whether the inputs must be those of the present target; likewise the next two."""
    same_outputs: bool = False
    same_labels: bool = False


@dataclass(frozen=True, kw_only=True)
class RequirementCheck(Result):
    """Whether a model meets one requirement."""

    requirement: str
    """`verified`, `metrics.<name>`, `same_inputs`, `same_outputs` or `same_labels`."""
    passed: bool
    description: str = ""
    """What the registry found, for people."""

    def _summary(self) -> str:
        return f"{self.requirement}: {'met' if self.passed else f'not met ({self.description})'}"


@dataclass(frozen=True, kw_only=True)
class Promotion(Result):
    """What a promotion or a rollback did, or would do."""

    alias: Alias
    before: AliasTarget | None = None
    """What the alias pointed to before. None if it pointed to nothing."""
    changed: bool = True
    """False if the alias pointed to the model already, or, with `validate_only`, if a requirement is not met."""
    checks: Sequence[RequirementCheck] = ()
