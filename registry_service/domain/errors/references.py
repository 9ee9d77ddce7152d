"""Errors of references."""

from collections.abc import Sequence
from dataclasses import dataclass

from registry_service.domain.errors.base import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
)


class ReferenceNotFoundError(NotFoundError):
    """A part of the reference names something that does not exist."""

    reason = "REFERENCE_NOT_FOUND"

    def __init__(self, reference: str, part: str, description: str) -> None:
        super().__init__(f"{description} (reference {reference!r}).", reference=reference, part=part)


class InvalidReferenceError(InvalidArgumentError):
    """The text is not a reference (`domain.references`)."""

    reason = "INVALID_REFERENCE"

    def __init__(self, description: str, position: int) -> None:
        super().__init__([FieldViolation("reference", f"{description} (position {position}).")])
        self.metadata["position"] = str(position)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A resource that an ambiguous reference may name."""

    kind: str
    """`model` or `model_group`."""
    id: str
    description: str
    """For a group, a reference that names only that group. For a model, what differs from the other candidates."""
    owner: str = ""
    """The project of a group, for people."""


class AmbiguousReferenceError(FailedPreconditionError):
    """The reference names several resources."""

    reason = "AMBIGUOUS_REFERENCE"

    def __init__(self, reference: str, description: str, candidates: Sequence[Candidate]) -> None:
        super().__init__(f"{description} (reference {reference!r}).", reference=reference)
        self.candidates = tuple(candidates)


class PrecisionMismatchError(FailedPreconditionError):
    """The precisions of the model that the reference names differ from those of the request."""

    reason = "PRECISION_MISMATCH"

    def __init__(self, model_id: str, shown: str, precisions: Sequence[str], wanted: Sequence[str]) -> None:
        has, asked = ",".join(precisions), ",".join(wanted)
        super().__init__(
            f"The model {shown} has the precisions {has}, not {asked}.",
            model_id=model_id,
            precisions=has,
            requested_precisions=asked,
        )
