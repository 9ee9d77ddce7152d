"""Resolve references to models."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from registry_service.domain.aliases import Alias
from registry_service.domain.errors import (
    AmbiguousReferenceError,
    Candidate,
    InvalidArgumentError,
    ModelNotFoundError,
    PrecisionMismatchError,
    ReferenceNotFoundError,
)
from registry_service.domain.model_groups import GroupHandle
from registry_service.domain.models import Model
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.references import (
    LATEST,
    NamedVersion,
    Reference,
    format_reference,
    parse_reference,
    shown_model,
)
from registry_service.domain.validation import checked_precisions

MAX_CANDIDATES = 8
"""Maximum number of candidates in the error about an ambiguous reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The model that a reference names."""

    model: Model
    alias: str = ""
    """The alias in the reference; empty if it has none."""


@dataclass(frozen=True, slots=True)
class ReferenceService:
    """Resolves references to models."""

    database: Database

    def resolve(self, text: str, *, precisions: Sequence[str] = (), at_time: datetime | None = None) -> Resolved:
        """Return the model that a reference names.

        Args:
            text: The reference; see `domain.references`.
            precisions: The exact precisions of the model, in any order and case; empty for any.
            at_time: When the alias pointed to the model; None for now.

        Raises:
            InvalidReferenceError: The text is not a reference.
            InvalidArgumentError: A precision is unknown, or `at_time` has no alias or is in the future.
            ReferenceNotFoundError: A part of the reference names nothing that the caller may read.
            AmbiguousReferenceError: The reference names several groups or models that the caller may read.
            PrecisionMismatchError: The id or the alias names a model with other precisions.
        """
        reference = parse_reference(text)
        if at_time is not None and reference.alias is None:
            raise InvalidArgumentError.of("at_time", "requires a reference with an alias, such as acme/vad@production.")
        resolution = _Resolution(text, reference, checked_precisions(precisions))
        # Reading an alias as it was locks it, which requires a transaction.
        with self.database.reading() if at_time is None else self.database.transaction() as transaction:
            return resolution.result(transaction, at_time)


@dataclass(frozen=True, slots=True)
class _Resolution:
    text: str
    reference: Reference
    precisions: tuple[str, ...]

    def result(self, transaction: Transaction, at_time: datetime | None) -> Resolved:
        reference = self.reference
        groups = transaction.references.groups(reference.name, reference.project, limit=MAX_CANDIDATES + 1)
        by_id = None
        if reference.model_id is not None:
            with suppress(ModelNotFoundError):
                by_id = transaction.models.get(reference.model_id)
        if len(groups) + (by_id is not None) > 1:
            raise self._ambiguous_name(transaction, groups, by_id)
        if by_id is not None:
            return Resolved(model=self._with_precisions(by_id))
        if not groups:
            raise self._no_group(transaction)
        (group,) = groups
        if reference.alias is not None:
            model = self._by_alias(transaction, group, reference.alias, at_time)
            return Resolved(model=self._with_precisions(model), alias=reference.alias)
        return Resolved(model=self._by_version(transaction, group))

    def _by_alias(self, transaction: Transaction, group: GroupHandle, name: str, at_time: datetime | None) -> Model:
        alias: Alias | None
        if at_time is None:
            alias, when = transaction.aliases.find(group, name).current, ""
        else:
            alias, when = transaction.aliases.at(group, name, at_time), f" at {at_time.isoformat()}"
        if alias is None:
            raise self._not_found("alias", f"The alias {name!r} points to no model{when}")
        target = alias.target
        with suppress(ModelNotFoundError):
            model = transaction.models.get(target.model_id)
            if model.artifact.sha256 == target.sha256:
                return model
        raise self._not_found(
            "alias",
            f"The alias {name!r} pointed{when} to the model {target.model_id!r} (version {target.version!r}),"
            " which was deleted",
        )

    def _by_version(self, transaction: Transaction, group: GroupHandle) -> Model:
        version = self.reference.version
        find = transaction.references.versions
        found = find(group, version, self.precisions, limit=MAX_CANDIDATES + 1)
        if not found:
            name = group.key.name
            if self.precisions and find(group, version, (), limit=1):
                what = "no model" if version is None else f"no model of version {version!r}"
                asked = ",".join(self.precisions)
                raise self._not_found("precisions", f"The model group {name!r} has {what} with the precisions {asked}")
            if version is None:
                # The group's last model was deleted since the group was found.
                raise self._not_found("name", f"The model group {name!r} has no models")
            raise self._not_found("version", f"The model group {name!r} has no version {version!r}")
        if len(found) > 1:
            raise self._ambiguous_version(found)
        try:
            return transaction.models.get(found[0].model_id)
        except ModelNotFoundError:
            raise self._not_found("version", f"The version {found[0].version!r} has just been deleted") from None

    def _with_precisions(self, model: Model) -> Model:
        if self.precisions and set(self.precisions) != set(model.precisions):
            raise PrecisionMismatchError(model.id, shown_model(model), model.precisions, self.precisions)
        return model

    def _no_group(self, transaction: Transaction) -> ReferenceNotFoundError:
        name, project = self.reference.name, self.reference.project
        if self.reference.model_id is not None:
            return self._not_found("name", f"There is no model with the id {name!r}, and no model group with that name")
        if project is None:
            return self._not_found("name", f"There is no model group {name!r}")
        if not project:
            return self._not_found("name", f"There is no model group {name!r} without a project")
        if transaction.references.has_project(project):
            return self._not_found("name", f"There is no model group {name!r} in the project {project!r}")
        return self._not_found(
            "project", f"No project has the id or name {project!r}, and no model group {name!r} has this id"
        )

    def _not_found(self, part: str, description: str) -> ReferenceNotFoundError:
        return ReferenceNotFoundError(self.text, part, description)

    def _ambiguous_name(
        self, transaction: Transaction, groups: Sequence[GroupHandle], by_id: Model | None
    ) -> AmbiguousReferenceError:
        candidates = [
            Candidate(
                kind="model_group",
                id=group.id,
                description=self._reference_to(transaction, group),
                owner=_shown_project(group),
            )
            for group in groups[:MAX_CANDIDATES]
        ]
        if by_id is None:
            description = "Several model groups have this name"
        else:
            # The id is also the name of the group, so only @latest names the group.
            description = "This is the id of a model and the name of a model group; @latest means the group"
            candidates.insert(0, Candidate(kind="model", id=by_id.id, description=f"the model {by_id.id}"))
        return self._ambiguous(description, candidates[:MAX_CANDIDATES])

    def _reference_to(self, transaction: Transaction, group: GroupHandle) -> str:
        """Return a reference that names only this one of several groups, with the requested version or alias."""
        name = group.key.name
        project = group.key.project_id or group.key.project_name or ""
        if [one.id for one in transaction.references.groups(name, project, limit=2)] != [group.id]:
            project = group.id
        version, alias = self.reference.version, self.reference.alias
        return format_reference(name, project=project, version=version, alias=alias or LATEST)

    def _ambiguous_version(self, found: Sequence[NamedVersion]) -> AmbiguousReferenceError:
        candidates = [
            Candidate(kind="model", id=one.model_id, description=f"{one.model_id} ({','.join(one.precisions)})")
            for one in found[:MAX_CANDIDATES]
        ]
        return self._ambiguous(f"Several models have the version {found[0].version!r}", candidates)

    def _ambiguous(self, description: str, candidates: Sequence[Candidate]) -> AmbiguousReferenceError:
        shown = ", ".join(
            candidate.description + (f" ({candidate.owner})" if candidate.owner else "") for candidate in candidates
        )
        return AmbiguousReferenceError(self.text, f"{description}: {shown}", candidates)


def _shown_project(group: GroupHandle) -> str:
    parts = (("project_id", group.key.project_id), ("project_name", group.key.project_name))
    return ", ".join(f"{name} {text!r}" for name, text in parts if text is not None) or "no project"
