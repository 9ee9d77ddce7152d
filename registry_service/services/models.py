"""Changes and deletes models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from registry_service.domain.aliases import MoveKind, Remark
from registry_service.domain.errors import (
    EtagMismatchError,
    ModelHasAliasesError,
    ModelInUseError,
    ModelNotFoundError,
)
from registry_service.domain.models import (
    COMPAT_FIELDS,
    MUTABLE_FIELDS,
    GroupKey,
    Model,
    check_compat_fields,
    check_new_names,
    checked_fields,
    compat_date,
    compat_precision,
    is_same,
)
from registry_service.domain.ports import Database, Transaction
from registry_service.services.garbage_collection import DiscardObject
from registry_service.services.policy import Policy


@dataclass(frozen=True, slots=True)
class UpdateModel:
    """Changes fields of a model, all or none."""

    database: Database
    policy: Policy

    def __call__(
        self,
        model_id: str,
        changes: Mapping[str, Any],
        *,
        entries: Mapping[tuple[str, str], object] | None = None,
        etag: str = "",
        touch: bool = False,
    ) -> Model:
        """Returns the model as it then is; unchanged, with its revision, where nothing changes.

        `changes` are new values of fields in MUTABLE_FIELDS and COMPAT_FIELDS;
        `entries` of single entries of a map, by (field, key), None removing the
        entry. With `touch` the model counts as changed even where it is not.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidArgumentError: A value is wrong.
            EtagMismatchError: An etag is given and the model has another.
            AlreadyExistsError: The new identity is another model's.
            ModelHasAliasesError: It would move to another group while aliases point to it.
        """

        def change(old: Model) -> Model:
            _check_etag(old, etag)
            values = dict(changes)
            for (name, key), value in (entries or {}).items():
                entry_map = {k: v for k, v in values.get(name, getattr(old, name)).items() if k != key}
                values[name] = entry_map if value is None else entry_map | {key: value}
            changed = replace(old, **values)
            check_new_names(changed, old)
            changed = replace(changed, **checked_fields(changed, metadata_max_bytes=self.policy.metadata_max_bytes))  # type: ignore[arg-type]
            if changed.precisions != old.precisions:
                changed = replace(changed, compat_precision=compat_precision(changed.precisions))
            check_compat_fields(changed)
            names = (*MUTABLE_FIELDS, *COMPAT_FIELDS)
            if not touch and all(is_same(getattr(changed, name), getattr(old, name)) for name in names):
                return old
            # A clock may be set back; a model's times never run backwards.
            now = max(transaction.now, old.update_time)
            return replace(changed, update_time=now, last_updated_date=compat_date(now), revision=old.revision + 1)

        with self.database.transaction() as transaction:
            model = transaction.models.update(model_id, lambda old: in_lineage(transaction, old, change(old)))
            transaction.idempotency.keep(model, resource_id=model.id, project_id=model.project_id)
        return model


@dataclass(frozen=True, slots=True)
class DeleteModel:
    """Deletes a model and its artifact."""

    database: Database
    discard: DiscardObject

    def __call__(
        self,
        model_id: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        force: bool = False,
        validate_only: bool = False,
    ) -> None:
        """Deletes it; the artifact at once if the store answers, else by the sweeper.

        With `force` the aliases that point to it are deleted, too; with `validate_only` nothing is.

        Raises:
            ModelNotFoundError: There is no such model, unless `allow_missing`.
            EtagMismatchError: An etag is given and the model has another.
            ModelInUseError: Aliases point to it, unless `force`.
        """

        def check(found: Model) -> None:
            _check_etag(found, etag)
            _release(transaction, found, force=force)

        try:
            with self.database.transaction() as transaction:
                model = transaction.models.remove(model_id, check)
                transaction.objects.doom(model.artifact.object_key)
                transaction.idempotency.keep(None, resource_id="", project_id=model.project_id)
                _take_back_if(validate_only)
        except _ValidatedError:
            return
        except ModelNotFoundError:
            if allow_missing:
                return
            raise
        self.discard.now_or_later(model.artifact.object_key)


class _ValidatedError(Exception):
    """Takes back what was only tried."""


def _take_back_if(is_only_tried: bool) -> None:
    if is_only_tried:
        raise _ValidatedError


def _check_etag(model: Model, etag: str) -> None:
    if etag and etag != model.etag:
        raise EtagMismatchError(model.id)


def in_lineage(transaction: Transaction, old: Model, new: Model) -> Model:
    """Return a changed model, which is locked (`ModelHasAliasesError` where it leaves its group despite aliases)."""
    if GroupKey.of(new) != GroupKey.of(old):
        aliases = transaction.aliases.of_models([old.id]).get(old.id, ())
        if aliases:
            raise ModelHasAliasesError(old.id, aliases)
    return new


def _release(transaction: Transaction, model: Model, *, force: bool) -> None:
    """Deletes the aliases that point to a model, which is locked (`ModelInUseError` unless `force`)."""
    aliases = transaction.aliases.lock_all_of(model.id)
    if aliases and not force:
        raise ModelInUseError(model.id, [state.alias for state in aliases])
    remark = Remark(reason="The model was deleted.")
    for state in aliases:
        transaction.aliases.move(state, kind=MoveKind.DELETED, target=None, previous=None, remark=remark)
