"""Errors of aliases."""

from collections.abc import Sequence

from registry_service.domain.errors.base import AbortedError, FailedPreconditionError, FieldViolation, NotFoundError


class AliasNotFoundError(NotFoundError):
    """The alias has no target, or had none at that time."""

    reason = "ALIAS_NOT_FOUND"

    def __init__(self, alias: str, name: str, *, at_time: str = "") -> None:
        when = f" at {at_time}" if at_time else ""
        super().__init__(f"The alias {alias!r} of {name!r} has no target{when}.", alias=alias, name=name)
        if at_time:
            self.metadata["at_time"] = at_time


class ModelNotInGroupError(FailedPreconditionError):
    """An alias can only point to a model of its own model group."""

    reason = "MODEL_NOT_IN_GROUP"

    def __init__(self, model_id: str, reference: str, model_group_id: str) -> None:
        super().__init__(
            f"The model {reference} (model_id) is not in the model group {model_group_id!r}.",
            model_id=model_id,
            model_group_id=model_group_id,
        )


class NoPreviousTargetError(FailedPreconditionError):
    """The alias has no previous target to roll back to: it never moved, or rollbacks have reached its first target."""

    reason = "NO_PREVIOUS_TARGET"

    def __init__(self, alias: str) -> None:
        super().__init__(f"The alias {alias!r} has no previous target to roll back to.", alias=alias)


class NeverTargetError(FailedPreconditionError):
    """An alias can only roll back to a model that it has pointed to."""

    reason = "NEVER_A_TARGET"

    def __init__(self, alias: str, model_id: str, reference: str) -> None:
        super().__init__(f"The alias {alias!r} never pointed to the model {reference}.", alias=alias, model_id=model_id)


class TargetGoneError(FailedPreconditionError):
    """The target of the rollback was deleted, or another model has its id."""

    reason = "TARGET_GONE"

    def __init__(self, alias: str, model_id: str, reference: str, version: str) -> None:
        super().__init__(
            f"The alias {alias!r} cannot roll back to the model {reference} because that model was deleted or replaced."
            " Name another target in to_model_id.",
            alias=alias,
            model_id=model_id,
            version=version,
        )


class RequirementsNotMetError(FailedPreconditionError):
    """The model does not meet the requirements of the promotion."""

    reason = "REQUIREMENTS_NOT_MET"

    def __init__(self, model_id: str, reference: str, violations: Sequence[FieldViolation]) -> None:
        super().__init__(
            f"The model {reference} does not meet the promotion requirements. "
            + " ".join(f"{v.field}: {v.description}" for v in violations),
            model_id=model_id,
        )
        self.violations = tuple(violations)
        """One per requirement, which is the field."""


class AliasChangedError(AbortedError):
    """The target of the alias differs from the one that the client expects."""

    reason = "ALIAS_CHANGED"
    retry_seconds = None

    def __init__(self, alias: str, model_id: str, reference: str) -> None:
        now = f"it points to the model {reference}" if model_id else "it has no target"
        super().__init__(f"The alias {alias!r} is not as expected: {now}.", alias=alias, model_id=model_id)
