"""Aliases: movable names for the models of a group, with their history.

The moves of an alias form a stack for rollbacks. Each move names its `previous`: the move that a rollback goes back to.
Setting an alias puts a move on top of the current one. A rollback to a move takes over the `previous` of that move,
so the next rollback goes further back. Deleting an alias starts a new stack. Moves are never changed or removed.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from registry_service.domain.access import Projects
from registry_service.domain.errors import FieldViolation, InvalidArgumentError
from registry_service.domain.model_groups import GroupHandle
from registry_service.domain.models import Model
from registry_service.domain.validation import MAX_TEXT_LENGTH

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RESERVED = "latest"


class MoveKind(StrEnum):
    """The kinds of moves."""

    SET = "set"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasTarget:
    """The model that an alias points to."""

    model_id: str
    version: str
    sha256: str
    """The digest of the artifact."""

    @classmethod
    def of(cls, model: Model) -> "AliasTarget":
        """Return a model as a target."""
        return cls(model_id=model.id, version=model.version, sha256=model.artifact.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One entry in the history of an alias."""

    alias: str
    model_group_id: str
    revision: int
    """From 1, without gaps."""
    kind: MoveKind
    before: AliasTarget | None
    """None if the alias had no target."""
    after: AliasTarget | None
    """None if the alias was deleted."""
    previous: int | None
    """The revision of the move that a rollback goes back to; None if there is none."""
    time: datetime
    """Aware, UTC, by the clock of the database. Later than every earlier move."""
    actor: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """An alias that points to a model."""

    group: GroupHandle
    alias: str
    target: AliasTarget
    revision: int
    """The revision of the newest move."""
    time: datetime
    """The time of the newest move."""
    actor: str
    reason: str

    @property
    def etag(self) -> str:
        """Differs between any two states of an alias."""
        state = [self.group.id, self.alias, self.revision]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasState:
    """The state of an alias, with or without a target."""

    key: int | None
    """Internal to the repository; None if the alias was never set."""
    group: GroupHandle
    alias: str
    head: AliasMove | None
    """The newest move; None if there is none. Its target has the current version of the model."""

    @property
    def target(self) -> AliasTarget | None:
        """The current target."""
        return None if self.head is None else self.head.after

    @property
    def current(self) -> Alias | None:
        """The alias; None if it has no target."""
        return None if self.head is None else alias_after(self, self.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """The actor and the reason of a move, checked by `checked_remark`."""

    reason: str = ""


MoveKey = tuple[datetime, int, int]
"""The time of a move, and an internal value that distinguishes moves of the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasPage:
    """A page of aliases, each with the key of the next page."""

    aliases: Sequence[tuple[int, Alias]]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePage:
    """A page of a history, each move with the key of the next page."""

    moves: Sequence[tuple[MoveKey, AliasMove]]
    more: bool


class AliasRepository(Protocol):
    """The aliases. Every move records an event.

    A transaction that locks models and aliases locks the models first, which prevents deadlocks.
    """

    def find(self, group: GroupHandle, alias: str) -> AliasState:
        """Return the state of an alias."""

    def lock(self, group: GroupHandle, alias: str, *, add: bool = False) -> AliasState:
        """Return the state of an alias that no other transaction moves until this one ends.

        To lock an alias that was never set, pass `add`, which creates its row.
        """

    def lock_all_of(self, model_id: str) -> Sequence[AliasState]:
        """Lock the aliases that point to a model, and return them. The caller has locked the model."""

    def move(
        self, state: AliasState, *, kind: MoveKind, target: AliasTarget | None, previous: int | None, remark: Remark
    ) -> AliasMove:
        """Move an alias that `lock` locked, and return the move."""

    def at(self, group: GroupHandle, alias: str, time: datetime) -> Alias | None:
        """Return an alias as it was at a time, or None if it had no target.

        Wait for a concurrent move, so that the result stays correct.

        Raises:
            InvalidArgumentError: The time is in the future, by the clock of the database.
        """

    def get_move(self, state: AliasState, revision: int) -> AliasMove:
        """Return the move of an existing revision."""

    def newest_move_to(self, state: AliasState, model_id: str) -> AliasMove | None:
        """Return the newest move to a model, or None if there is none."""

    def list(
        self, group: GroupHandle | None, *, after: int, limit: int, max_bytes: int, within: Projects = None
    ) -> AliasPage:
        """Return the aliases with a target of a group (None: of all groups), by key, after a key (0: all).

        Only aliases in the projects `within`. At most `limit` of `max_bytes` together, but at least one if any
        matches.
        """

    def moves(
        self,
        group: GroupHandle | None,
        alias: str | None,
        *,
        before: MoveKey | None,
        limit: int,
        max_bytes: int,
        within: Projects = None,
    ) -> MovePage:
        """Return the moves of an alias (None: all) of a group (None: all) before a key (None: all), newest first.

        Only moves in the projects `within`, with the limits of `list`.
        """

    def of_models(self, model_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the sorted names of the aliases of these models. Models without aliases are left out."""


def alias_after(state: AliasState, move: AliasMove) -> Alias | None:
    """Return an alias after a move, or None if the move deleted it."""
    if move.after is None:
        return None
    return Alias(
        group=state.group,
        alias=state.alias,
        target=move.after,
        revision=move.revision,
        time=move.time,
        actor=move.actor,
        reason=move.reason,
    )


def checked_alias(text: str) -> str:
    """Return a text that can be the name of an alias, whether or not the alias exists.

    Raises:
        InvalidArgumentError: No alias can have this name.
    """
    if not _ALIAS.fullmatch(text):
        raise InvalidArgumentError.of(
            "alias", "must be 1 to 128 characters of A-Z, a-z, 0-9, ., _ and -, the first a letter or a digit."
        )
    if text.lower() == _RESERVED:
        raise InvalidArgumentError.of("alias", f"must not be {text}, which is reserved for the latest version.")
    return text


def checked_remark(*, reason: str) -> Remark:
    """Return the actor and the reason of a move.

    Raises:
        InvalidArgumentError: Names every invalid field.
    """
    violations = _text_violations("reason", reason, MAX_TEXT_LENGTH)
    if violations:
        raise InvalidArgumentError(violations)
    return Remark(reason=reason)


def _text_violations(name: str, text: str, limit: int) -> list[FieldViolation]:
    if len(text) > limit:
        return [FieldViolation(name, f"must have at most {limit} characters, not {len(text)}.")]
    return [FieldViolation(name, "must not contain a NUL character.")] if "\0" in text else []
