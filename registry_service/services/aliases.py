"""Move, read and delete aliases of model groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from registry_service.domain.aliases import (
    Alias,
    AliasMove,
    AliasState,
    AliasTarget,
    MoveKey,
    MoveKind,
    Remark,
    alias_after,
)
from registry_service.domain.caller import current_caller
from registry_service.domain.errors import (
    AbortedError,
    AliasChangedError,
    AliasNotFoundError,
    FieldViolation,
    InvalidArgumentError,
    ModelNotFoundError,
    ModelNotInGroupError,
    NeverTargetError,
    NoPreviousTargetError,
    RequirementsNotMetError,
    TargetGoneError,
)
from registry_service.domain.listing import MAX_PAGE_BYTES, decode_page_token, encode_page_token, page_size
from registry_service.domain.model_groups import GroupHandle
from registry_service.domain.models import GroupKey, Model
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.promotion import Check, Requirements, checks_of
from registry_service.domain.references import shown_model, shown_version
from registry_service.services.artifacts import ArtifactService, Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The state that a client expects an alias to be in."""

    model_id: str | None = None
    """The model that the alias points to; empty: no model. None: any or none."""
    etag: str = ""
    """The etag of the alias; empty: any."""
    must_exist: bool = False
    """Whether the alias must point to a model."""

    @property
    def is_given(self) -> bool:
        """Whether the client names a state of the alias."""
        return self.model_id is not None or bool(self.etag)

    def check(self, state: AliasState) -> None:
        """Raise AliasChangedError if the alias is in another state."""
        model_id = "" if state.target is None else state.target.model_id
        etag = "" if state.current is None else state.current.etag
        is_lacking = self.must_exist and not model_id
        if is_lacking or self.model_id not in {None, model_id} or self.etag not in {"", etag}:
            raise _changed(state)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """The result of moving an alias, or of validating the move."""

    alias: Alias
    before: AliasTarget | None
    changed: bool
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class AliasService:
    """The aliases of model groups."""

    database: Database
    artifacts: ArtifactService

    def set(
        self,
        group_id: str,
        alias: str,
        model_id: str,
        *,
        expectation: Expectation,
        requirements: Requirements,
        remark: Remark,
        validate_only: bool,
    ) -> Moved:
        """Point an alias of a model group to one of its models, or with `validate_only` return what would be done.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            ModelNotFoundError: There is no such model.
            ModelNotInGroupError: The model is in another group.
            AliasChangedError: The alias is in another state than expected.
            RequirementsNotMetError: The model does not meet the requirements. Not raised with `validate_only`.
        """
        verification = self._verification(group_id, model_id, requirements) if requirements.verified else None
        with self.database.transaction() as transaction:
            model = transaction.models.get(model_id) if validate_only else transaction.models.lock_for_share(model_id)
            # After the model: while the model is locked, its group cannot be deleted.
            group = _group_of(transaction, group_id, model)
            if validate_only:
                state = transaction.aliases.find(group, alias)
            else:
                state = transaction.aliases.lock(group, alias, add=True)
            expectation.check(state)
            checks = (
                *([_verified(verification, model)] if requirements.verified else []),
                *checks_of(requirements, model, _current_model(transaction, state)),
            )
            failed = [FieldViolation(check.requirement, check.description) for check in checks if not check.passed]
            if failed and not validate_only:
                raise RequirementsNotMetError(model_id, shown_model(model), failed)
            if state.current is not None and state.current.target.model_id == model_id:
                same = Moved(alias=state.current, before=state.target, changed=False, checks=checks)
                return _kept(transaction, state, same)
            # An alias that is set after its deletion has no previous target to roll back to.
            previous = None if state.head is None or state.target is None else state.head.revision
            moved = _moved(
                transaction,
                state,
                kind=MoveKind.SET,
                target=AliasTarget.of(model),
                previous=previous,
                remark=remark,
                validate_only=validate_only,
            )
            changed = Moved(alias=moved, before=state.target, changed=not failed, checks=checks)
            return _kept(transaction, state, changed)

    def rollback(
        self,
        group_id: str,
        alias: str,
        *,
        to_model_id: str = "",
        expectation: Expectation,
        remark: Remark,
        validate_only: bool,
    ) -> Moved:
        """Point an alias to a previous target, or with `validate_only` return what would be done.

        The target is `to_model_id` as the alias last pointed to it, or the target before the current one. The latter
        depends on the current target, so it requires an expectation: a call that is repeated because its response was
        lost must not roll back twice.

        Raises:
            InvalidArgumentError: There is neither a `to_model_id` nor an expectation.
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: The alias points to no model.
            AliasChangedError: The alias is in another state than expected, or was moved meanwhile.
            NoPreviousTargetError: The alias has no previous target.
            NeverTargetError: The alias never pointed to `to_model_id`.
            TargetGoneError: The previous target was deleted or replaced, or is in another group now.
        """
        if not to_model_id and not expectation.is_given:
            raise InvalidArgumentError.of(
                "to_model_id",
                "is required without etag and expected_model_id. Without any of them, a repeated call would roll back"
                " twice.",
            )
        with self.database.transaction() as transaction:
            group = transaction.groups.get(group_id).handle
            state = transaction.aliases.find(group, alias)
            current = _existing(state)
            expectation.check(state)
            if current.target.model_id == to_model_id:
                return _kept(transaction, state, Moved(alias=current, before=current.target, changed=False))
            restored = _restored_move(transaction, state, to_model_id)
            if restored.after is None:
                raise AssertionError("no rollback leads to a deletion")
            target = _target_now(transaction, state, restored.after, lock=not validate_only)
            if not validate_only:
                # After the model, because models are locked first. A concurrent move may have changed the restored.
                locked = transaction.aliases.lock(group, alias)
                if locked.head is None or locked.head.revision != current.revision:
                    raise _changed(locked)
            moved = _moved(
                transaction,
                state,
                kind=MoveKind.ROLLED_BACK,
                target=target,
                previous=restored.previous,
                remark=remark,
                validate_only=validate_only,
            )
            return _kept(transaction, state, Moved(alias=moved, before=current.target, changed=True))

    def delete(
        self,
        group_id: str,
        alias: str,
        *,
        expectation: Expectation,
        allow_missing: bool,
        remark: Remark,
        validate_only: bool = False,
    ) -> AliasTarget | None:
        """Delete an alias, but not its history. With `validate_only`, change nothing.

        Returns:
            The target of the alias; None if it pointed to no model.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: The alias points to no model, unless `allow_missing`.
            AliasChangedError: The alias is in another state than expected.
        """
        with self.database.transaction() as transaction:
            group = transaction.groups.get(group_id).handle
            aliases = transaction.aliases
            state = aliases.find(group, alias) if validate_only else aliases.lock(group, alias)
            if state.target is None and allow_missing:
                return None
            _existing(state)
            expectation.check(state)
            if not validate_only:
                aliases.move(state, kind=MoveKind.DELETED, target=None, previous=None, remark=remark)
            transaction.idempotency.keep(state.target, resource_id="", project_id=group.key.project_id)
        return state.target

    def get(self, group_id: str, alias: str, at_time: datetime | None = None) -> Alias:
        """Return an alias as it is, or as it was at a time.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: The alias points, or pointed, to no model.
            InvalidArgumentError: The time is in the future.
        """
        with self.database.transaction() as transaction:
            group = transaction.groups.get(group_id).handle
            if at_time is None:
                return _existing(transaction.aliases.find(group, alias))
            found = transaction.aliases.at(group, alias, at_time)
        if found is None:
            raise AliasNotFoundError(alias, group.key.name, at_time=at_time.isoformat())
        return found

    def list(self, group_id: str | None, *, size: int, token: str) -> tuple[Sequence[Alias], str]:
        """Return a page of the aliases of a group, or of all groups if `group_id` is None.

        Returns:
            The aliases, and the token of the next page, which is empty for the last page.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            InvalidArgumentError: The size or the token is invalid.
        """
        limit = page_size(size)
        query = ("aliases", group_id or "")
        start = decode_page_token(token, query, (int,))
        after = start[0] if start is not None and isinstance(start[0], int) else 0
        with self.database.transaction() as transaction:
            group = None if group_id is None else transaction.groups.get(group_id).handle
            page = transaction.aliases.list(group, after=after, limit=limit, max_bytes=MAX_PAGE_BYTES)
        aliases = [alias for _, alias in page.aliases]
        return aliases, encode_page_token(query, (page.aliases[-1][0],)) if page.more else ""

    def list_moves(
        self, group_id: str | None, alias: str | None, *, size: int, token: str
    ) -> tuple[Sequence[AliasMove], str]:
        """Return a page of the moves of an alias, or of all, newest first.

        Args:
            group_id: The model group; None for all groups.
            alias: The alias; None for all aliases.
            size: Maximum number of moves; 0 for the default.
            token: The token of the page; empty for the first page.

        Returns:
            The moves, and the token of the next page, which is empty for the last page.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: The group never had the alias.
            InvalidArgumentError: The size or the token is invalid.
        """
        limit = page_size(size)
        query = ("moves", group_id or "", alias or "")
        start = decode_page_token(token, query, (datetime, int, int))
        before = cast("MoveKey | None", start)
        with self.database.transaction() as transaction:
            group = None if group_id is None else transaction.groups.get(group_id).handle
            if group is not None and alias is not None and transaction.aliases.find(group, alias).head is None:
                raise AliasNotFoundError(alias, group.key.name)
            page = transaction.aliases.moves(group, alias, before=before, limit=limit, max_bytes=MAX_PAGE_BYTES)
        moves = [move for _, move in page.moves]
        return moves, encode_page_token(query, page.moves[-1][0]) if page.more else ""

    def _verification(self, group_id: str, model_id: str, requirements: Requirements) -> Verification | None:
        """Verify the artifact of a model, or return None if the recorded verification is recent enough.

        Runs before any lock is taken, because reading an artifact may take minutes.
        """
        with self.database.transaction() as transaction:
            model = transaction.models.get(model_id)
            # Don't read the artifact for a call that fails anyway.
            _group_of(transaction, group_id, model)
            if _is_recent(model, requirements.max_verification_age, transaction.now):
                return None
        verification = self.artifacts.verify(model_id)
        current_caller.get().check_access()
        return verification


def _kept(transaction: Transaction, state: AliasState, moved: Moved) -> Moved:
    """Return a result, and keep it for repeated calls with the same idempotency key."""
    transaction.idempotency.keep(moved, resource_id="", project_id=state.group.key.project_id)
    return moved


def _group_of(transaction: Transaction, group_id: str, model: Model) -> GroupHandle:
    """Return the id and the key of a group, or raise ModelNotInGroupError if the model is in another one."""
    group = transaction.groups.get(group_id)
    if group.key != GroupKey.of(model):
        raise ModelNotInGroupError(model.id, shown_model(model), group_id)
    return group.handle


def _is_recent(model: Model, max_age: timedelta | None, now: datetime) -> bool:
    verified = model.artifact_verify_time
    return max_age is not None and verified is not None and now - verified <= max_age


def _verified(verification: Verification | None, model: Model) -> Check:
    """Return whether the artifact of a model is intact, by a verification or, if None, by the recorded one."""
    if verification is None:
        time = model.artifact_verify_time
        return Check(
            requirement="verified",
            passed=time is not None,
            description="the stored bytes are no longer known to be those that were registered."
            if time is None
            else f"the stored bytes were those that were registered at {time.isoformat(timespec='seconds')}.",
        )
    if verification.model.artifact != model.artifact:
        raise AbortedError("The model was replaced concurrently. Try again.", model_id=model.id)
    return Check(
        requirement="verified",
        passed=verification.intact,
        description="the stored bytes are those that were registered."
        if verification.intact
        else f"the stored bytes differ from those that were registered: {verification.actual_size} bytes"
        f" with the SHA-256 {verification.actual_sha256 or 'of no bytes'}.",
    )


def _current_model(transaction: Transaction, state: AliasState) -> Model | None:
    """Return the target of an alias. It needs no lock: a model cannot be deleted while its alias is locked."""
    if state.target is None:
        return None
    try:
        return transaction.models.get(state.target.model_id)
    except ModelNotFoundError as error:
        raise AliasChangedError(state.alias, "", "") from error


def _restored_move(transaction: Transaction, state: AliasState, to_model_id: str) -> AliasMove:
    """Return the move whose target a rollback restores."""
    if to_model_id:
        named = transaction.aliases.newest_move_to(state, to_model_id)
        if named is None:
            raise NeverTargetError(state.alias, to_model_id, _shown(transaction, to_model_id))
        return named
    if state.head is None or state.head.previous is None:
        raise NoPreviousTargetError(state.alias)
    return transaction.aliases.get_move(state, state.head.previous)


def _target_now(transaction: Transaction, state: AliasState, target: AliasTarget, *, lock: bool) -> AliasTarget:
    """Return a former target as it is now.

    Raises:
        TargetGoneError: The model was deleted, was replaced under its id, or is in another group now.
    """
    models = transaction.models
    try:
        model = models.lock_for_share(target.model_id) if lock else models.get(target.model_id)
    except ModelNotFoundError as error:
        raise _gone(state, target) from error
    if GroupKey.of(model) != state.group.key or model.artifact.sha256 != target.sha256:
        raise _gone(state, target)
    return AliasTarget.of(model)


def _changed(state: AliasState) -> AliasChangedError:
    target = state.target
    if target is None:
        return AliasChangedError(state.alias, "", "")
    return AliasChangedError(state.alias, target.model_id, shown_version(state.group.key, target.version))


def _gone(state: AliasState, target: AliasTarget) -> TargetGoneError:
    reference = shown_version(state.group.key, target.version)
    return TargetGoneError(state.alias, target.model_id, reference, target.version)


def _shown(transaction: Transaction, model_id: str) -> str:
    """Return how an error names a model that a client named by its id: by its version if the caller may read it."""
    try:
        model = transaction.models.get(model_id)
    except ModelNotFoundError:
        return repr(model_id)
    return shown_model(model)


def _moved(
    transaction: Transaction,
    state: AliasState,
    *,
    kind: MoveKind,
    target: AliasTarget,
    previous: int | None,
    remark: Remark,
    validate_only: bool,
) -> Alias:
    """Move an alias, or with `validate_only` return how it would be."""
    if validate_only:
        caller = current_caller.get()
        move = AliasMove(
            alias=state.alias,
            model_group_id=state.group.id,
            revision=1 if state.head is None else state.head.revision + 1,
            kind=kind,
            before=state.target,
            after=target,
            previous=previous,
            time=transaction.now,
            actor=caller.actor,
            reason=remark.reason,
            request_id=caller.request_id,
        )
    else:
        move = transaction.aliases.move(state, kind=kind, target=target, previous=previous, remark=remark)
    moved = alias_after(state, move)
    if moved is None:
        raise AssertionError("it has a target")
    return moved


def _existing(state: AliasState) -> Alias:
    if state.current is None:
        raise AliasNotFoundError(state.alias, state.group.key.name)
    return state.current
