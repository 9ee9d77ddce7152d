"""Errors of models and model groups."""

from collections.abc import Mapping, Sequence

from registry_service.domain.errors.base import (
    AbortedError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    RegistryError,
)


class ModelNotFoundError(NotFoundError):
    """No model has this id."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model_id: str) -> None:
        super().__init__(f"No model has the id {model_id!r}.", model_id=model_id)


class ModelGroupNotFoundError(NotFoundError):
    """No model group has this id."""

    reason = "MODEL_GROUP_NOT_FOUND"

    def __init__(self, model_group_id: str) -> None:
        super().__init__(f"No model group has the id {model_group_id!r}.", model_group_id=model_group_id)


class InvalidFilterError(InvalidArgumentError):
    """The filter does not parse, or compares values of different types."""

    reason = "INVALID_FILTER"

    def __init__(self, description: str, position: int) -> None:
        super().__init__([FieldViolation("filter", f"{description} (position {position}).")])
        self.metadata["position"] = str(position)


class AlreadyExistsError(RegistryError):
    """Another model has the id or the identity of this one."""

    reason = "MODEL_ALREADY_EXISTS"

    def __init__(self, message: str, *, model_id: str, conflict: str) -> None:
        super().__init__(message, model_id=model_id, conflict=conflict)
        self.model_id = model_id
        """The id of the conflicting model."""
        self.conflict = conflict
        """`id` or `identity` (project, name, version, precisions)."""


class ModelInUseError(FailedPreconditionError):
    """The model cannot be deleted because aliases point to it."""

    reason = "MODEL_IN_USE"

    def __init__(self, model_id: str, reference: str, aliases: Sequence[str]) -> None:
        names = ", ".join(aliases)
        super().__init__(
            f"The model {reference} cannot be deleted while aliases point to it: {names}.",
            model_id=model_id,
            aliases=names,
        )


class ModelHasAliasesError(FailedPreconditionError):
    """The model cannot move to another model group because aliases point to it."""

    reason = "MODEL_HAS_ALIASES"

    def __init__(self, model_id: str, reference: str, aliases: Sequence[str]) -> None:
        names = ", ".join(aliases)
        super().__init__(
            f"The model {reference} cannot move to another model group while aliases point to it: {names}.",
            model_id=model_id,
            aliases=names,
        )


class ModelGroupNotEmptyError(FailedPreconditionError):
    """The model group cannot be deleted because it has models."""

    reason = "MODEL_GROUP_NOT_EMPTY"

    def __init__(self, model_group_id: str, name: str) -> None:
        super().__init__(
            f"The model group {name!r} has models; only an empty group can be deleted.",
            model_group_id=model_group_id,
        )


class ProvenanceCycleError(InvalidArgumentError):
    """The model would be its own ancestor."""

    reason = "PROVENANCE_CYCLE"

    def __init__(self, cycle: Sequence[str], references: Mapping[str, str] | None = None) -> None:
        self.references = references or {}
        """References to the models by their ids, as far as they are known."""
        path = " from ".join(self.references.get(model_id, model_id) for model_id in cycle)
        super().__init__([FieldViolation("provenance.parent_model_ids", f"would close a cycle: {path}.")])
        self.metadata["model_ids"] = ",".join(cycle)
        self.cycle = tuple(cycle)
        """Model ids, each the child of the next. The last id is the first one."""


class AncestryTooLargeError(InvalidArgumentError):
    """The model would have more ancestors than the check for cycles visits."""

    reason = "ANCESTRY_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(
            [
                FieldViolation(
                    "provenance.parent_model_ids", f"would give the model more than {limit} links to ancestors."
                )
            ]
        )
        self.metadata["limit"] = str(limit)


class EtagMismatchError(AbortedError):
    """The model has changed since the client read it."""

    reason = "ETAG_MISMATCH"
    retry_seconds = None

    def __init__(self, model_id: str, reference: str) -> None:
        super().__init__(f"The model {reference} has changed since its etag was read.", model_id=model_id)


class ModelGroupEtagMismatchError(EtagMismatchError):
    """The model group has changed since the client read it."""

    def __init__(self, model_group_id: str, name: str) -> None:
        AbortedError.__init__(
            self,
            f"The model group {name!r} has changed since its etag was read.",
            model_group_id=model_group_id,
        )
