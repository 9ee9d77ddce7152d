"""Model groups: all models of one name in one project, with fields of their own.

The first model creates its group. The group stays when its last model is deleted, with its id, its description and the
history of its aliases. The key of a group never changes: a model with a new name or project moves to another group.
"""

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from registry_service.domain import filter as filters
from registry_service.domain.errors import FieldViolation, InvalidArgumentError
from registry_service.domain.listing import MAX_PAGE_BYTES, OrderField, SortValue
from registry_service.domain.models import GroupKey
from registry_service.domain.validation import DIRECTION_CONTROLS, MAX_TEXT_LENGTH
from registry_service.domain.vocabulary import MetricGoal

MAX_DESCRIPTION_BYTES = 64 * 1024
MAX_MAP_BYTES = 256 * 1024
"""Maximum size of the keys and values of one map, so that an audit event with both states stays a small message."""
DEFAULT_ORDER = "create_time desc"
SORTABLE_FIELDS = (
    "id",
    "name",
    "project_id",
    "project_name",
    "owner",
    "version_count",
    "create_time",
    "update_time",
)
TIED_BY_TIME = ("owner", "project_id", "project_name")
"""Fields whose order, where it ends with them, goes on by `create_time`: one index serves it and filters by them."""
MUTABLE_FIELDS = ("description", "owner", "tags", "metric_goals")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_MAX_KEY_LENGTH = 256
_SORT_KINDS: Mapping[str, type] = {"version_count": int, "create_time": datetime, "update_time": datetime}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupHandle:
    """A model group by its id and its key."""

    id: str
    key: GroupKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGroup:
    """All models of one name in one project."""

    id: str
    key: GroupKey
    description: str = ""
    """Markdown."""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    metric_goals: Mapping[str, MetricGoal] = field(default_factory=dict)
    create_time: datetime
    """Aware, UTC."""
    update_time: datetime
    """Aware, UTC. When the fields of the group last changed."""
    revision: int = 1
    version_count: int = 0
    """The number of models."""
    latest_version: str = ""
    """The latest release, or the latest pre-release if there is no release. Empty for an empty group."""
    latest_model_id: str = ""

    @property
    def handle(self) -> GroupHandle:
        """The group's id and key."""
        return GroupHandle(id=self.id, key=self.key)

    @property
    def etag(self) -> str:
        """Differs between any two states of the mutable fields."""
        return hashlib.sha256(f"{self.id} {self.revision}".encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupQuery:
    """A page of a listing."""

    filter: filters.Node | None
    show_empty: bool
    order: tuple[OrderField, ...]
    """Ends with the id, which makes it total."""
    after: tuple[SortValue, ...] | None
    """The sort values of the last group of the previous page."""
    limit: int
    max_bytes: int = MAX_PAGE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPage:
    """The result of a listing."""

    groups: Sequence[ModelGroup]
    more: bool


class ModelGroupRepository(Protocol):
    """The model groups. Every change records an event."""

    def get(self, group_id: str) -> ModelGroup:
        """Return a group (`ModelGroupNotFoundError`)."""

    def list(self, query: GroupQuery) -> GroupPage:
        """Return the groups of a page, in order, and whether there are more. The limits are those of models."""

    def update(self, group_id: str, change: Callable[[ModelGroup], ModelGroup]) -> ModelGroup:
        """Replace a group with the result of `change` (`ModelGroupNotFoundError`)."""

    def remove(self, group_id: str, check: Callable[[ModelGroup], None], *, validate_only: bool = False) -> ModelGroup:
        """Remove a group with its aliases and their history unless `check` raises, and return its last state.

        From before the call of `check` until the transaction ends, no model can join the group. With `validate_only`,
        only raise the errors.

        Raises:
            ModelGroupNotFoundError: The group does not exist.
            ModelGroupNotEmptyError: The group has models.
        """


def checked_group_id(text: str, name: str = "model_group_id") -> str:
    """Return a text that can be the id of a group, whether or not the group exists.

    Raises:
        InvalidArgumentError: No group can have this id; `name` is the field.
    """
    if text == "-":
        raise InvalidArgumentError.of(
            name, "must name one model group. - is all of them, in ListAliases and ListAliasMoves."
        )
    if not _ID.fullmatch(text):
        raise InvalidArgumentError.of(name, "must be the id of a model group: 1 to 256 characters of A-Z a-z 0-9 _ -.")
    return text


def check_group_fields(group: ModelGroup) -> None:
    """Check the new values of an update.

    Raises:
        InvalidArgumentError: Names every invalid field.
    """
    violations = list(_violations(group))
    if violations:
        raise InvalidArgumentError(violations)


def _violations(group: ModelGroup) -> Iterator[FieldViolation]:
    size = len(group.description.encode())
    if size > MAX_DESCRIPTION_BYTES:
        yield FieldViolation("description", f"must have at most {MAX_DESCRIPTION_BYTES} bytes in UTF-8, not {size}.")
    if len(group.owner) > MAX_TEXT_LENGTH:
        yield FieldViolation("owner", f"has {len(group.owner)} characters, more than {MAX_TEXT_LENGTH}.")
    if DIRECTION_CONTROLS.search(group.owner):
        yield FieldViolation("owner", "must not contain bidirectional control characters (Unicode Bidi_Control).")
    for name in ("description", "owner"):
        if "\0" in getattr(group, name):
            yield FieldViolation(name, "must not contain a NUL character.")
    yield from _map_violations("tags", group.tags)
    yield from _map_violations("metric_goals", group.metric_goals)


def _map_violations(name: str, texts: Mapping[str, str]) -> Iterator[FieldViolation]:
    for key, text in texts.items():
        if not key or len(key) > _MAX_KEY_LENGTH or "\0" in key:
            yield FieldViolation(name, f"has a key that is empty, over {_MAX_KEY_LENGTH} characters, or contains NUL.")
        if "\0" in text:
            yield FieldViolation(f"{name}.{key}", "must not contain a NUL character.")
    size = sum(len(key.encode()) + len(text.encode()) for key, text in texts.items())
    if size > MAX_MAP_BYTES:
        yield FieldViolation(name, f"takes {size} bytes, more than {MAX_MAP_BYTES}.")


def parse_group_order(text: str) -> tuple[OrderField, ...]:
    """Parse `order_by`: fields with ` desc` or ` asc`, separated by commas.

    Raises:
        InvalidArgumentError: A field is unknown or named twice.
    """
    order: list[OrderField] = []
    start = 1
    for item in (text if text.strip() else DEFAULT_ORDER).split(","):
        words = item.split()
        position = start + len(item) - len(item.lstrip())
        if not words:
            raise _order_error("missing name of a field", start)
        name = words[0]
        if name[0] == "-" and name[1:] in SORTABLE_FIELDS:
            raise _order_error(f"write {name[1:]} desc instead of {name}", position)
        if name not in SORTABLE_FIELDS:
            nearest = difflib.get_close_matches(name[:100], SORTABLE_FIELDS, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]}?" if nearest else f"the fields are {', '.join(SORTABLE_FIELDS)}"
            raise _order_error(f"unknown field {name[:100]}; {hint}", position)
        if words[1:] not in ([], ["asc"], ["desc"]):
            raise _order_error(f"expected asc, desc or a comma after {name}", position + len(name))
        if any(name == named.name for named in order):
            raise _order_error(f"{name} appears twice", position)
        order.append(OrderField(name, words[1:] == ["desc"]))
        start += len(item) + 1
    names = {named.name for named in order}
    if order[-1].name in TIED_BY_TIME and not names & {"create_time", "id"}:
        order.append(OrderField("create_time", order[-1].descending))
    if "id" not in names:
        order.append(OrderField("id", order[-1].descending))
    return tuple(order)


def _order_error(description: str, position: int) -> InvalidArgumentError:
    """Return the error at a character, counted from 1."""
    return InvalidArgumentError.of("order_by", f"{description} (position {position}).")


def group_sort_values(group: ModelGroup, order: Sequence[OrderField]) -> tuple[SortValue, ...]:
    """Return the values of a group that an order compares. An absent text counts as an empty one."""

    def value(name: str) -> SortValue:
        if name in {"name", "project_id", "project_name"}:
            return getattr(group.key, name) or ""
        found: SortValue = getattr(group, name)
        return found

    return tuple(value(named.name) for named in order)


def group_sort_kinds(order: Sequence[OrderField]) -> tuple[type, ...]:
    """Return the types of `group_sort_values`."""
    return tuple(_SORT_KINDS.get(named.name, str) for named in order)
