"""Aliases: names for models of a group that can be moved, with all their moves.

The moves of an alias make a stack on which rollbacks walk: each move names the
one that a rollback from there goes back to, its `previous`. Setting an alias
puts a move on top of the present one. Rolling back to a move takes over where
that one went back to, so that the next rollback goes further. A deleted alias
begins a new stack. Moves are only ever added.
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
    """What was done."""

    SET = "set"
    ROLLED_BACK = "rolled_back"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasTarget:
    """A model as an alias points to it."""

    model_id: str
    version: str
    sha256: str
    """Of the artifact."""

    @classmethod
    def of(cls, model: Model) -> "AliasTarget":
        """Returns a model as a target."""
        return cls(model_id=model.id, version=model.version, sha256=model.artifact.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One entry of an alias's history."""

    alias: str
    model_group_id: str
    revision: int
    """Counts from 1, without gaps."""
    kind: MoveKind
    before: AliasTarget | None
    """None where the alias pointed nowhere."""
    after: AliasTarget | None
    """None where it was deleted."""
    previous: int | None
    """Revision of the move that a rollback from here goes back to; None where there is none."""
    time: datetime
    """Aware, UTC, by the database's clock; later than that of every earlier move."""
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
    """Of the move that led here."""
    time: datetime
    """Of that move."""
    actor: str
    reason: str

    @property
    def etag(self) -> str:
        """Differs between any two states of an alias."""
        state = [self.group.id, self.alias, self.revision]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasState:
    """An alias as it stands, whether it points anywhere or not."""

    key: int | None
    """The repository's own; None where the alias was never set."""
    group: GroupHandle
    alias: str
    head: AliasMove | None
    """The newest move; None where there is none. Its target has the version that the model has now."""

    @property
    def target(self) -> AliasTarget | None:
        """What it points to."""
        return None if self.head is None else self.head.after

    @property
    def current(self) -> Alias | None:
        """The alias; None where it points nowhere."""
        return None if self.head is None else alias_after(self, self.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a move is written down with, as `checked_remark` returns it."""

    reason: str = ""


MoveKey = tuple[datetime, int, int]
"""When a move was, and what tells it from others of that time: the repository's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasPage:
    """A page of aliases, each with the key to go on from."""

    aliases: Sequence[tuple[int, Alias]]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePage:
    """A page of a history, each move with the key to go on from."""

    moves: Sequence[tuple[MoveKey, AliasMove]]
    more: bool


class AliasRepository(Protocol):
    """The aliases. Whatever moves one records an event.

    Who locks models as well locks them before aliases; so nobody waits in a circle.
    """

    def find(self, group: GroupHandle, alias: str) -> AliasState:
        """Returns an alias as it stands."""

    def lock(self, group: GroupHandle, alias: str, *, add: bool = False) -> AliasState:
        """The same, and nobody else moves it until the transaction ends.

        Where it was never set, that takes `add`, which makes a place for it.
        """

    def lock_all_of(self, model_id: str) -> Sequence[AliasState]:
        """Locks the aliases that point to a model which the caller has locked, and returns them."""

    def move(
        self, state: AliasState, *, kind: MoveKind, target: AliasTarget | None, previous: int | None, remark: Remark
    ) -> AliasMove:
        """Moves an alias that was locked (and added), and returns the move."""

    def at(self, group: GroupHandle, alias: str, time: datetime) -> Alias | None:
        """Returns an alias as it was; None where it pointed nowhere.

        Waits for a move that is under way, so that the answer stays true.

        Raises:
            InvalidArgumentError: The time is in the future, by the database's clock.
        """

    def get_move(self, state: AliasState, revision: int) -> AliasMove:
        """Returns the move of this revision, which there is."""

    def newest_move_to(self, state: AliasState, model_id: str) -> AliasMove | None:
        """Returns the newest move to a model; None where there was none."""

    def list(
        self, group: GroupHandle | None, *, after: int, limit: int, max_bytes: int, within: Projects = None
    ) -> AliasPage:
        """Returns the aliases of a group (None: of all) that point somewhere, by key, after one (0: all).

        Only those in the projects `within`. At most `limit`, and no more than fit in `max_bytes`, but one at least
        where there is one.
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
        """Return the moves of an alias (None: of all) of a group (None: of all) before one (None: all), newest first.

        Of aliases in the projects `within`, with the same limits.
        """

    def of_models(self, model_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Returns the names of the aliases that point to each of these models, sorted; without those that have none."""


def alias_after(state: AliasState, move: AliasMove) -> Alias | None:
    """Returns an alias as a move left it; None where that deleted it."""
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
    """Returns the name of an alias, existing or not.

    Raises:
        InvalidArgumentError: No alias can have it.
    """
    if not _ALIAS.fullmatch(text):
        raise InvalidArgumentError.of(
            "alias", "must be 1 to 128 characters of A-Z, a-z, 0-9, ., _ and -, the first a letter or a digit."
        )
    if text.lower() == _RESERVED:
        raise InvalidArgumentError.of("alias", f"must not be {text}, which is reserved for the latest version.")
    return text


def checked_remark(*, reason: str) -> Remark:
    """Returns what a move is written down with.

    Raises:
        InvalidArgumentError: Names every field that is wrong.
    """
    violations = _text_violations("reason", reason, MAX_TEXT_LENGTH)
    if violations:
        raise InvalidArgumentError(violations)
    return Remark(reason=reason)


def _text_violations(name: str, text: str, limit: int) -> list[FieldViolation]:
    if len(text) > limit:
        return [FieldViolation(name, f"must have at most {limit} characters, not {len(text)}.")]
    return [FieldViolation(name, "must not contain a NUL character.")] if "\0" in text else []
