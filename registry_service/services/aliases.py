"""Moves aliases, and tells what they point to."""

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
from registry_service.services.artifacts import Verification, VerifyArtifact


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a client says of the alias that it moves."""

    model_id: str | None = None
    """What it points to; empty: nothing. None: whatever it is."""
    etag: str = ""
    """Empty: whatever it is."""
    must_exist: bool = False
    """Whether it has to point to anything."""

    @property
    def is_given(self) -> bool:
        """Whether the client names a state of the alias."""
        return self.model_id is not None or bool(self.etag)

    def check(self, state: AliasState) -> None:
        """Raises AliasChangedError where it is not so."""
        model_id = "" if state.target is None else state.target.model_id
        etag = "" if state.current is None else state.current.etag
        is_lacking = self.must_exist and not model_id
        if is_lacking or self.model_id not in {None, model_id} or self.etag not in {"", etag}:
            raise AliasChangedError(state.alias, model_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What became of an alias, or would become of it."""

    alias: Alias
    before: AliasTarget | None
    changed: bool
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class SetAlias:
    """Points an alias of a model group to one of its models."""

    database: Database
    verify: VerifyArtifact

    def __call__(
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
        """Returns the alias as it then is; with `validate_only` as it would be.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            ModelNotFoundError: There is no such model.
            ModelNotInGroupError: The model is in another group.
            AliasChangedError: The alias is not as expected.
            RequirementsNotMetError: The model does not meet them, unless `validate_only`.
        """
        verification = self._verified(group_id, model_id, requirements) if requirements.verified else None
        with self.database.transaction() as transaction:
            model = transaction.models.get(model_id) if validate_only else transaction.models.hold(model_id)
            # After the model: while it is held, nobody deletes its group.
            group = _group_with(transaction, group_id, model)
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
                raise RequirementsNotMetError(model_id, failed)
            if state.current is not None and state.current.target.model_id == model_id:
                same = Moved(alias=state.current, before=state.target, changed=False, checks=checks)
                return _kept(transaction, state, same)
            # Set anew after a deletion, it begins a new stack.
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

    def _verified(self, group_id: str, model_id: str, requirements: Requirements) -> Verification | None:
        """Read the artifact: before all locks, as that may take minutes, but not for a call that fails anyway.

        Returns:
            None where a stored verification is young enough, so that nothing was read.
        """
        with self.database.transaction() as transaction:
            model = transaction.models.get(model_id)
            _group_with(transaction, group_id, model)
            if _is_young(model, requirements.max_verification_age, transaction.now):
                return None
        verification = self.verify(model_id)
        current_caller.get().expect_access()
        return verification


def _kept(transaction: Transaction, state: AliasState, moved: Moved) -> Moved:
    """Return what became of an alias, having written it down for a call with an idempotency key."""
    transaction.idempotency.keep(moved, resource_id="", project_id=state.group.key.project_id)
    return moved


def _group_with(transaction: Transaction, group_id: str, model: Model) -> GroupHandle:
    group = transaction.groups.get(group_id)
    if group.key != GroupKey.of(model):
        raise ModelNotInGroupError(model.id, group_id)
    return group.handle


def _is_young(model: Model, max_age: timedelta | None, now: datetime) -> bool:
    verified = model.artifact_verify_time
    return max_age is not None and verified is not None and now - verified <= max_age


def _verified(verification: Verification | None, model: Model) -> Check:
    """Return whether the artifact of a model is intact, by what was read, or by what is stored where nothing was."""
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
    """Returns what an alias points to. Not locked: as long as the alias is, it stays, with its schema."""
    if state.target is None:
        return None
    try:
        return transaction.models.get(state.target.model_id)
    except ModelNotFoundError as error:
        raise AliasChangedError(state.alias, "") from error


@dataclass(frozen=True, slots=True)
class RollbackAlias:
    """Points an alias to what it pointed to before."""

    database: Database

    def __call__(
        self,
        group_id: str,
        alias: str,
        *,
        to_model_id: str = "",
        expectation: Expectation,
        remark: Remark,
        validate_only: bool,
    ) -> Moved:
        """Returns the alias as it then is; with `validate_only` as it would be.

        Goes back to `to_model_id` as it last was a target, or to the target before. The latter depends on where the
        alias is, so it takes an expectation: a call that is repeated after a lost answer must not go back twice.

        Raises:
            InvalidArgumentError: There is neither a `to_model_id` nor an expectation.
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: It points nowhere.
            AliasChangedError: It is not as expected, or was moved meanwhile.
            NoPreviousTargetError: There is nothing before.
            NeverTargetError: It never pointed to `to_model_id`.
            TargetGoneError: The model to go back to is not there any more.
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
            goal = _goal(transaction, state, to_model_id)
            if goal.after is None:
                raise AssertionError("no rollback leads to a deletion")
            target = _there(transaction, state, goal.after, hold=not validate_only)
            if not validate_only:
                # After the model, as models are locked first; whoever was faster made the goal another.
                locked = transaction.aliases.lock(group, alias)
                if locked.head is None or locked.head.revision != current.revision:
                    raise AliasChangedError(alias, "" if locked.target is None else locked.target.model_id)
            moved = _moved(
                transaction,
                state,
                kind=MoveKind.ROLLED_BACK,
                target=target,
                previous=goal.previous,
                remark=remark,
                validate_only=validate_only,
            )
            return _kept(transaction, state, Moved(alias=moved, before=current.target, changed=True))


def _goal(transaction: Transaction, state: AliasState, to_model_id: str) -> AliasMove:
    if to_model_id:
        named = transaction.aliases.newest_move_to(state, to_model_id)
        if named is None:
            raise NeverTargetError(state.alias, to_model_id)
        return named
    if state.head is None or state.head.previous is None:
        raise NoPreviousTargetError(state.alias)
    return transaction.aliases.get_move(state, state.head.previous)


def _there(transaction: Transaction, state: AliasState, target: AliasTarget, *, hold: bool) -> AliasTarget:
    """Returns a former target as it is now.

    Raises:
        TargetGoneError: It was deleted, was replaced under its id, or is in another group now.
    """
    models = transaction.models
    try:
        model = models.hold(target.model_id) if hold else models.get(target.model_id)
    except ModelNotFoundError as error:
        raise TargetGoneError(state.alias, target.model_id, target.version) from error
    if GroupKey.of(model) != state.group.key or model.artifact.sha256 != target.sha256:
        raise TargetGoneError(state.alias, target.model_id, target.version)
    return AliasTarget.of(model)


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
    """Moves an alias, or tells how it would be."""
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


@dataclass(frozen=True, slots=True)
class DeleteAlias:
    """Deletes an alias; its history stays."""

    database: Database

    def __call__(
        self,
        group_id: str,
        alias: str,
        *,
        expectation: Expectation,
        allow_missing: bool,
        remark: Remark,
        validate_only: bool = False,
    ) -> AliasTarget | None:
        """Returns what it pointed to; None where it pointed nowhere. With `validate_only` it still does.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: It points nowhere, unless `allow_missing`.
            AliasChangedError: It is not as expected.
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


@dataclass(frozen=True, slots=True)
class GetAlias:
    """Tells what an alias points to, or did."""

    database: Database

    def __call__(self, group_id: str, alias: str, at_time: datetime | None = None) -> Alias:
        """Returns the alias, now or as it was.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            AliasNotFoundError: It points, or pointed, nowhere.
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


@dataclass(frozen=True, slots=True)
class ListAliases:
    """Lists aliases, a page at a time."""

    database: Database

    def __call__(self, group_id: str | None, *, size: int, token: str) -> tuple[Sequence[Alias], str]:
        """Returns the aliases of a page and the token of the next, empty where this is the last.

        Raises:
            ModelGroupNotFoundError: There is no such group. None names all of them.
            InvalidArgumentError: Size or token are wrong.
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


@dataclass(frozen=True, slots=True)
class ListAliasMoves:
    """Lists the moves of an alias, or of several, a page at a time."""

    database: Database

    def __call__(
        self, group_id: str | None, alias: str | None, *, size: int, token: str
    ) -> tuple[Sequence[AliasMove], str]:
        """Returns the moves of a page, newest first, and the token of the next, empty where this is the last.

        Raises:
            ModelGroupNotFoundError: There is no such group. None names all of them.
            AliasNotFoundError: The group never had the alias. None names all of them.
            InvalidArgumentError: Size or token are wrong.
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


def _existing(state: AliasState) -> Alias:
    if state.current is None:
        raise AliasNotFoundError(state.alias, state.group.key.name)
    return state.current
