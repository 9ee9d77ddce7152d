"""Reads, describes and deletes model groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from registry_service.domain import filter as filters
from registry_service.domain.errors import InvalidArgumentError, ModelGroupEtagMismatchError, ModelGroupNotFoundError
from registry_service.domain.listing import decode_page_token, encode_page_token, page_size
from registry_service.domain.model_groups import (
    GroupQuery,
    ModelGroup,
    check_group_fields,
    group_sort_kinds,
    group_sort_values,
    parse_group_order,
)
from registry_service.domain.ports import Database


@dataclass(frozen=True, slots=True)
class GetModelGroup:
    """Gets a model group."""

    database: Database

    def __call__(self, group_id: str) -> ModelGroup:
        """Return the group (`ModelGroupNotFoundError`)."""
        with self.database.reading() as transaction:
            return transaction.groups.get(group_id)


@dataclass(frozen=True, slots=True)
class ListModelGroups:
    """Lists model groups, a page at a time."""

    database: Database

    def __call__(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        order_by: str,
        show_empty: bool,
        size: int,
        token: str,
    ) -> tuple[Sequence[ModelGroup], str]:
        """Return the groups of a page and the token of the next, empty where this is the last.

        Raises:
            InvalidArgumentError: Filter, order, size or token are wrong.
        """
        limit = page_size(size)
        order = parse_group_order(order_by)
        if show_empty and any(field.name == "version_count" for field in order):
            # Empty groups have no count that an index could hold, so that each page would sort all groups.
            raise InvalidArgumentError.of("order_by", "version_count is not supported with show_empty.")
        query = ("groups", filter, order_by, repr(show_empty))
        after = decode_page_token(token, query, group_sort_kinds(order))
        node = filters.parse(filter, filters.Subject.MODEL_GROUP)
        with self.database.reading() as transaction:
            page = transaction.groups.list(
                GroupQuery(filter=node, show_empty=show_empty, order=order, after=after, limit=limit)
            )
        if not page.more:
            return page.groups, ""
        return page.groups, encode_page_token(query, group_sort_values(page.groups[-1], order))


@dataclass(frozen=True, slots=True)
class UpdateModelGroup:
    """Changes fields of a model group, all or none."""

    database: Database

    def __call__(
        self,
        group_id: str,
        changes: Mapping[str, Any],
        *,
        entries: Mapping[tuple[str, str], object] | None = None,
        etag: str = "",
    ) -> ModelGroup:
        """Return the group as it then is; unchanged, with its etag, where nothing changes.

        Args:
            group_id: Of the group.
            changes: New values of fields in `model_groups.MUTABLE_FIELDS`.
            entries: New values of single entries of maps, by (field, key); None removes the entry.
            etag: What the group must have; empty for any.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            InvalidArgumentError: A value is wrong.
            ModelGroupEtagMismatchError: The group has another etag.
        """

        def change(old: ModelGroup) -> ModelGroup:
            _check_etag(old, etag)
            values = dict(changes)
            for (name, key), value in (entries or {}).items():
                others = {k: v for k, v in values.get(name, getattr(old, name)).items() if k != key}
                values[name] = others if value is None else others | {key: value}
            new = replace(old, **values)
            check_group_fields(new)
            if new == old:
                return old
            # A clock may be set back; a group's times never run backwards.
            return replace(new, update_time=max(transaction.now, old.update_time), revision=old.revision + 1)

        with self.database.transaction() as transaction:
            group = transaction.groups.update(group_id, change)
            transaction.idempotency.keep(group, resource_id=group.id, project_id=group.key.project_id)
        return group


@dataclass(frozen=True, slots=True)
class DeleteModelGroup:
    """Deletes an empty model group, with its aliases and their history."""

    database: Database

    def __call__(
        self, group_id: str, *, etag: str = "", allow_missing: bool = False, validate_only: bool = False
    ) -> None:
        """Delete it, or only tell whether that is possible.

        Raises:
            ModelGroupNotFoundError: There is no such group, unless `allow_missing`.
            ModelGroupNotEmptyError: It has models.
            ModelGroupEtagMismatchError: The group has another etag.
        """

        def check(group: ModelGroup) -> None:
            _check_etag(group, etag)
            transaction.idempotency.keep(None, resource_id="", project_id=group.key.project_id)

        try:
            with self.database.transaction() as transaction:
                transaction.groups.remove(group_id, check, validate_only=validate_only)
        except ModelGroupNotFoundError:
            if not allow_missing:
                raise


def _check_etag(group: ModelGroup, etag: str) -> None:
    if etag and etag != group.etag:
        raise ModelGroupEtagMismatchError(group.id)
