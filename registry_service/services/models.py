"""Register, read, change and delete models."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

from registry_service.domain import filter as filters
from registry_service.domain.aliases import MoveKind, Remark
from registry_service.domain.errors import (
    AlreadyExistsError,
    EtagMismatchError,
    ModelHasAliasesError,
    ModelInUseError,
    ModelNotFoundError,
)
from registry_service.domain.listing import (
    MAX_PAGE_SIZE,
    ListQuery,
    OrderField,
    decode_page_token,
    encode_page_token,
    page_query,
    page_size,
    parse_order,
    sort_kinds,
    sort_values,
)
from registry_service.domain.models import (
    COMPAT_FIELDS,
    MUTABLE_FIELDS,
    ArtifactSpec,
    GroupKey,
    Model,
    ModelSpec,
    compat_date,
    compat_precision,
    is_same,
)
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.references import shown_model
from registry_service.domain.validation import check_compat_fields, check_new_names, checked_fields, checked_spec
from registry_service.services.artifact_staging import ArtifactStaging, StagedArtifact
from registry_service.services.object_deletion import ObjectDeletion
from registry_service.services.policy import Policy

_CONFLICT_GRACE_BYTES = 1024 * 1024
"""How much of an artifact is read although its model's identity is taken, because the identity may still change."""


class RegistrationDraft(Protocol):
    """The fields of a model that arrive in parts, as far as they arrived."""

    @property
    def is_settled(self) -> bool:
        """Whether all required fields arrived."""

    @property
    def has_identity(self) -> bool:
        """Whether all fields of the identity arrived."""

    @property
    def refusal(self) -> Exception | None:
        """The error that `is_refused` found."""

    def is_refused(self) -> bool:
        """Return whether the draft is invalid for good, so that its artifact need not be stored.

        Raises:
            Exception: The draft is invalid, and its error is known: no part that follows can change the error.
        """

    def spec(self) -> ModelSpec:
        """Return the specification, or raise an error if the draft is invalid."""


@dataclass(frozen=True, slots=True)
class ModelService:
    """The models of the registry."""

    database: Database
    staging: ArtifactStaging
    deletion: ObjectDeletion
    policy: Policy

    def register(self, spec: ModelSpec, pieces: Iterable[bytes], check_cancelled: Callable[[], None]) -> Model:
        """Register a model, and return it.

        Args:
            spec: The model.
            pieces: The bytes of its artifact.
            check_cancelled: Raises if `pieces` ended because the call was cancelled. Called last, right before the
                commit; if it raises, no model is registered.

        Raises:
            InvalidArgumentError: A field is invalid, or the bytes differ from the declared size or digest.
            AlreadyExistsError: The id or the identity is taken. Raised before the bytes are read, if possible.
            ArtifactTooLargeError: There are more than ARTIFACT_MAX_BYTES.
        """
        spec = self.checked(spec)
        with self.staging.stage(spec) as staged:
            staged.write(pieces, spec.artifact)
            staged.check_archive(spec)
            return staged.commit_model(spec, check_cancelled)

    def register_in_parts(
        self, draft: RegistrationDraft, parts: Iterable[Iterator[bytes] | None], check_cancelled: Callable[[], None]
    ) -> Model:
        """Register a model whose fields and artifact arrive as parts of one request, and return the model.

        An invalid request is refused as early as its parts allow. When the artifact begins, invalid fields and a taken
        id are known. A taken identity may still change with fields that follow the artifact. But clients send fields
        first, so after the first MiB of the artifact the fields are assumed to be complete.

        Args:
            draft: The fields that arrived. Reading `parts` adds to them.
            parts: The bytes of each artifact, and None for each field. Of several artifacts, the last one wins.
            check_cancelled: As for `register`.

        Raises:
            Exception: What the draft raises.
            RegistryError: As `register` does.
        """
        with ExitStack() as stack:
            staged: StagedArtifact | None = None
            for pieces in parts:
                if staged is not None:
                    staged.renew_lease()
                if pieces is None:
                    continue
                stack.close()
                staged = None
                if draft.is_refused():
                    continue
                conflict = self._conflict(draft)
                staged = stack.enter_context(self.staging.stage())
                staged.write(_raising_after_grace(pieces, conflict), ArtifactSpec())
            spec = self.checked(draft.spec())
            if staged is None:
                # The bytes of the artifact were not stored, so fields that followed it cannot help any more.
                raise draft.refusal or AssertionError("a draft without an artifact passed")
            return staged.commit_model(spec, check_cancelled)

    def checked(self, spec: ModelSpec) -> ModelSpec:
        """Return a specification with its defaults, or raise InvalidArgumentError."""
        return checked_spec(
            spec,
            metadata_max_bytes=self.policy.metadata_max_bytes,
            artifact_max_bytes=self.policy.artifact_max_bytes,
        )

    def check_absent(self, spec: ModelSpec) -> None:
        """Raise AlreadyExistsError if the id or the identity of a checked specification is taken now."""
        with self.database.transaction() as transaction:
            transaction.models.check_absent(spec)

    def get(self, model_id: str) -> Model:
        """Return a model, or raise ModelNotFoundError."""
        with self.database.reading() as transaction:
            return transaction.models.get(model_id)

    def list(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        order_by: str,
        size: int,
        token: str,
        with_signature: bool = False,
    ) -> tuple[Sequence[Model], str]:
        """Return a page of models, and the token of the next page, which is empty for the last page.

        Args:
            filter: See `domain.filter`.
            order_by: See `domain.listing.parse_order`.
            size: Maximum number of models; 0 for the default.
            token: The token of the page; empty for the first page.
            with_signature: Whether the models include their signatures.

        Raises:
            InvalidArgumentError: The filter, the order, the size or the token is invalid.
        """
        limit = page_size(size)
        order = parse_order(order_by)
        query = page_query(filter, order_by, order)
        after = decode_page_token(token, query, sort_kinds(order))
        node = filters.parse(filter)
        with self.database.reading() as transaction:
            page = transaction.models.list(
                ListQuery(filter=node, order=order, after=after, limit=limit, with_signature=with_signature)
            )
        if not page.more:
            return page.models, ""
        return page.models, encode_page_token(query, sort_values(page.models[-1], order))

    def find(self, node: filters.Node | None) -> Iterator[Sequence[Model]]:
        """Yield all models that match a filter, in pages, in the byte order of their ids; no page if none matches.

        Each page is read on demand in a transaction of its own, so a slow consumer holds no connection. A model that is
        registered or deleted meanwhile may be included. Every other model is included exactly once.
        """
        after: tuple[str] | None = None
        more = True
        while more:
            query = ListQuery(
                filter=node, order=(OrderField("id", descending=False),), after=after, limit=MAX_PAGE_SIZE
            )
            with self.database.reading() as transaction:
                page = transaction.models.list(query)
            if page.models:
                yield page.models
                after = (page.models[-1].id,)
            more = page.more

    def _conflict(self, draft: RegistrationDraft) -> AlreadyExistsError | None:
        """Return the error of the draft's identity, if it is taken but may still change.

        Raises:
            AlreadyExistsError: The id, or the final identity, is taken.
            InvalidArgumentError: A value is invalid.
        """
        if not draft.is_settled:
            return None
        spec = self.checked(draft.spec())
        try:
            self.check_absent(spec)
        except AlreadyExistsError as error:
            if error.model_id == spec.id or draft.has_identity:
                raise
            return error
        return None

    def update(
        self,
        model_id: str,
        changes: Mapping[str, Any],
        *,
        entries: Mapping[tuple[str, str], object] | None = None,
        etag: str = "",
        touch: bool = False,
    ) -> Model:
        """Change fields of a model, all or none, and return the model. Its revision stays if nothing changes.

        Args:
            model_id: The model.
            changes: New values of fields in MUTABLE_FIELDS and COMPAT_FIELDS.
            entries: New values of single entries of maps, by (field, key). None removes the entry.
            etag: The etag that the model must have; empty for any.
            touch: Whether the model counts as changed even if no value changes.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidArgumentError: A value is invalid.
            EtagMismatchError: The model has another etag.
            AlreadyExistsError: Another model has the new identity.
            ModelHasAliasesError: The change would move the model to another group, but aliases point to it.
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
            # The database's clock may be set back. A model's times never run backwards.
            now = max(transaction.now, old.update_time)
            return replace(changed, update_time=now, last_updated_date=compat_date(now), revision=old.revision + 1)

        with self.database.transaction() as transaction:
            model = transaction.models.update(model_id, lambda old: check_group(transaction, old, change(old)))
            transaction.idempotency.keep(model, resource_id=model.id, project_id=model.project_id)
        return model

    def delete(
        self,
        model_id: str,
        *,
        etag: str = "",
        allow_missing: bool = False,
        force: bool = False,
        validate_only: bool = False,
    ) -> None:
        """Delete a model, and its artifact at once if the store responds, otherwise by garbage collection.

        Args:
            model_id: The model.
            etag: The etag that the model must have; empty for any.
            allow_missing: Whether a missing model is no error.
            force: Whether to delete the aliases that point to the model, too.
            validate_only: Whether to change nothing.

        Raises:
            ModelNotFoundError: There is no such model, unless `allow_missing`.
            EtagMismatchError: The model has another etag.
            ModelInUseError: Aliases point to the model, unless `force`.
        """

        def check(found: Model) -> None:
            _check_etag(found, etag)
            _delete_aliases(transaction, found, force=force)

        try:
            with self.database.transaction() as transaction:
                model = transaction.models.remove(model_id, check)
                transaction.objects.mark_for_deletion(model.artifact.object_key)
                transaction.idempotency.keep(None, resource_id="", project_id=model.project_id)
                _end_if_validate_only(validate_only)
        except _ValidateOnlyError:
            return
        except ModelNotFoundError:
            if allow_missing:
                return
            raise
        self.deletion.delete_or_defer(model.artifact.object_key)


def _raising_after_grace(pieces: Iterable[bytes], error: AlreadyExistsError | None) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if error is not None and size > _CONFLICT_GRACE_BYTES:
            raise error
        yield piece


class _ValidateOnlyError(Exception):
    """Ends a transaction that only validates."""


def _end_if_validate_only(validate_only: bool) -> None:
    if validate_only:
        raise _ValidateOnlyError


def check_group(transaction: Transaction, old: Model, new: Model) -> Model:
    """Return the changed model.

    Raises:
        ModelHasAliasesError: The model would move to another group, but aliases point to it.
    """
    if GroupKey.of(new) != GroupKey.of(old):
        aliases = transaction.aliases.of_models([old.id]).get(old.id, ())
        if aliases:
            raise ModelHasAliasesError(old.id, shown_model(old), aliases)
    return new


def _check_etag(model: Model, etag: str) -> None:
    if etag and etag != model.etag:
        raise EtagMismatchError(model.id, shown_model(model))


def _delete_aliases(transaction: Transaction, model: Model, *, force: bool) -> None:
    """Delete the aliases that point to a locked model, or raise ModelInUseError unless `force`."""
    aliases = transaction.aliases.lock_all_of(model.id)
    if aliases and not force:
        raise ModelInUseError(model.id, shown_model(model), [state.alias for state in aliases])
    remark = Remark(reason="The model was deleted.")
    for state in aliases:
        transaction.aliases.move(state, kind=MoveKind.DELETED, target=None, previous=None, remark=remark)
