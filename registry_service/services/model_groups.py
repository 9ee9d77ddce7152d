"""Read, change and delete model groups."""

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
class ModelGroupService:
    """The model groups."""

    database: Database

    def get(self, group_id: str) -> ModelGroup:
        """Return a group, or raise ModelGroupNotFoundError."""
        with self.database.reading() as transaction:
            return transaction.groups.get(group_id)

    def list(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        order_by: str,
        show_empty: bool,
        size: int,
        token: str,
    ) -> tuple[Sequence[ModelGroup], str]:
        """Return a page of groups, and the token of the next page, which is empty for the last page.

        Raises:
            InvalidArgumentError: The filter, the order, the size or the token is invalid.
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

    def update(
        self,
        group_id: str,
        changes: Mapping[str, Any],
        *,
        entries: Mapping[tuple[str, str], object] | None = None,
        etag: str = "",
    ) -> ModelGroup:
        """Change fields of a group, all or none, and return the group. Its etag stays if nothing changes.

        Args:
            group_id: The group.
            changes: New values of fields in `model_groups.MUTABLE_FIELDS`.
            entries: New values of single entries of maps, by (field, key). None removes the entry.
            etag: The etag that the group must have; empty for any.

        Raises:
            ModelGroupNotFoundError: There is no such group.
            InvalidArgumentError: A value is invalid.
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
            # The database's clock may be set back. A group's times never run backwards.
            return replace(new, update_time=max(transaction.now, old.update_time), revision=old.revision + 1)

        with self.database.transaction() as transaction:
            group = transaction.groups.update(group_id, change)
            transaction.idempotency.keep(group, resource_id=group.id, project_id=group.key.project_id)
        return group

    def delete(
        self, group_id: str, *, etag: str = "", allow_missing: bool = False, validate_only: bool = False
    ) -> None:
        """Delete an empty group, with its aliases and their history. With `validate_only`, change nothing.

        Raises:
            ModelGroupNotFoundError: There is no such group, unless `allow_missing`.
            ModelGroupNotEmptyError: The group has models.
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
        raise ModelGroupEtagMismatchError(group.id, group.key.name)
