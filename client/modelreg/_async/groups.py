"""Finding, changing and deleting model groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from google.protobuf.field_mask_pb2 import FieldMask
from modelregistry.v1 import model_group_pb2, model_group_service_pb2

from modelreg import _arguments
from modelreg._async.connection import Connection, new_idempotency_key
from modelreg._async.listing import Listing, Page, listed
from modelreg._wire import convert, methods
from modelreg.errors import Ambiguous, InvalidArgument, NotFound
from modelreg.metadata import set_entries, set_field
from modelreg.models import ModelGroup
from modelreg.references import format_reference, parse_reference

_MAX_CANDIDATES = 5


class ModelGroupCalls:
    """The calls about model groups: one for all versions of a model."""

    _connection: Connection

    async def group(self, name: str) -> ModelGroup:
        """Return the model group of a name. A group whose models were all deleted still exists.

        Args:
            name: `name`, or `project/name` with the id or the name of the project; `/name` means no project. The id
                of a group, such as `Model.model_group_id`, also names it.

        Raises:
            NotFound: There is no such model group.
            Ambiguous: Several projects have one of the name; `candidates` names them.
            InvalidArgument: The text is not the name of a model group.

        >>> group = await reg.group("vad")
        >>> group.name, group.latest_version
        ('vad', '6.2.3')
        """
        reference = parse_reference(name)
        if reference.version is not None or reference.alias is not None:
            group_name = format_reference(reference.name, project=reference.project)
            raise InvalidArgument(f"{name!r} names one version. Write {group_name} for its model group.")
        listed = await self.groups(f"name = {_quoted(reference.name)}", show_empty=True).to_list()
        found = _in_project(listed, reference.project)
        if not found and reference.model_id is not None:
            request = model_group_service_pb2.GetModelGroupRequest(model_group_id=reference.model_id)
            return convert.model_group(await self._connection.unary(methods.GET_MODEL_GROUP, request))
        if not found:
            raise NotFound(
                f"There is no model group {name}. Check its name, its project, and your permissions.",
                reason="MODEL_GROUP_NOT_FOUND",
            )
        if len(found) > 1:
            error = Ambiguous(f"Several model groups fit {name}. Use one of their references, which `candidates` has.")
            error.candidates = tuple(_reference_to(group, listed) for group in found[:_MAX_CANDIDATES])
            raise error
        return found[0]

    def groups(self, filter: str = "", *, order_by: str = "", show_empty: bool = False) -> Listing[ModelGroup]:  # noqa: A002
        """Return the model groups that a filter matches.

        Args:
            filter: A filter (AIP-160), for example `tags.team = audio`. Default: all groups.
            order_by: Fields to order by, for example `name`. Default: the newest first.
            show_empty: Whether to return the groups without models, too.

        Raises:
            InvalidArgument: At the first iteration: the filter or the order is wrong, at `position`.

        >>> [group.name async for group in reg.groups("name = v*")]
        ['vad']
        """
        filter_text, order = _arguments.text(filter, "filter"), _arguments.text(order_by, "order_by")

        async def fetch(token: str, size: int) -> Page:
            request = model_group_service_pb2.ListModelGroupsRequest(
                filter=filter_text, order_by=order, show_empty=show_empty, page_size=size, page_token=token
            )
            response = await self._connection.unary(methods.LIST_MODEL_GROUPS, request)
            return response.model_groups, response.next_page_token

        return Listing(fetch, convert.model_group, of=listed("model groups", filter=filter_text, order_by=order))

    async def update_group(
        self,
        group: ModelGroup | str,
        *,
        description: str | None = None,
        owner: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        metric_goals: Mapping[str, Literal["maximize", "minimize"] | None] | None = None,
    ) -> ModelGroup:
        """Change the fields of a model group, all of them or none, and return the group as it is then.

        Args:
            group: The group. Its `etag` makes the call fail if the group was changed since it was read. A name, as of
                `group`, changes whatever state the group is in.
            description: The description, in Markdown. Default of this and of the others: unchanged.
            owner: The person or the team that is responsible.
            tags: Merged by key; None removes a key.
            metric_goals: Which values of a metric are better. Merged by key; None removes a key.

        Raises:
            Conflict: The group was changed since it was read.
            NotFound: There is no such group.
            InvalidArgument: A value is invalid; `violations` names it.

        >>> group = await reg.update_group("vad", owner="audio", metric_goals={"f1": "maximize"})
        >>> group.owner, group.metric_goals["f1"]
        ('audio', 'maximize')
        """
        message = model_group_pb2.ModelGroup()
        paths = []
        for name, text in (("description", description), ("owner", owner)):
            if text is not None:
                set_field(message, name, text)
                paths.append(name)
        paths += set_entries(message, "tags", tags or {})
        given = _arguments.mapping(metric_goals or {}, "metric_goals", advice='Write metric_goals={"f1": "maximize"}.')
        goals = {
            key: None if goal is None else convert.metric_goal(goal, f"metric_goals.{key}")
            for key, goal in given.items()
        }
        paths += set_entries(message, "metric_goals", goals)
        before = group if isinstance(group, ModelGroup) else await self.group(group)
        message.id, message.etag = before.id, before.etag if isinstance(group, ModelGroup) else ""
        if not paths:
            return before
        request = model_group_service_pb2.UpdateModelGroupRequest(
            model_group=message, update_mask=FieldMask(paths=paths), idempotency_key=new_idempotency_key()
        )
        return convert.model_group(await self._connection.unary(methods.UPDATE_MODEL_GROUP, request))

    async def delete_group(self, group: ModelGroup | str, *, missing_ok: bool = False) -> None:
        """Delete a model group that has no models, with its aliases and their history.

        Args:
            group: The group, which must not have been changed since it was read, or a name, as of `group`.
            missing_ok: Whether a group that does not exist counts as deleted.

        Raises:
            NotFound: There is no such group, and `missing_ok` is not set.
            PreconditionFailed: The group has models. Delete them first.
            Conflict: The group was changed since it was read.
        """
        try:
            found = group if isinstance(group, ModelGroup) else await self.group(group)
        except NotFound:
            if missing_ok:
                return
            raise
        request = model_group_service_pb2.DeleteModelGroupRequest(
            model_group_id=found.id,
            etag=found.etag if isinstance(group, ModelGroup) else "",
            allow_missing=missing_ok,
            idempotency_key=new_idempotency_key(),
        )
        await self._connection.unary(methods.DELETE_MODEL_GROUP, request)


def _quoted(text: str) -> str:
    """Return a text as a value of a filter, which has no wildcards."""
    return '"' + "".join(f"\\{character}" if character in '\\"*' else character for character in text) + '"'


def _in_project(groups: Sequence[ModelGroup], project: str | None) -> Sequence[ModelGroup]:
    """Return the groups of a project of a reference, by the rules of the server."""
    if project is None:
        return groups
    if not project:
        return [group for group in groups if not group.project_id and not group.project_name]
    fits = (
        [group for group in groups if group.id == project],
        [group for group in groups if group.project_id == project],
        [group for group in groups if group.project_name == project],
    )
    return next((found for found in fits if found), [])


def _reference_to(group: ModelGroup, groups: Sequence[ModelGroup]) -> str:
    """Return a reference that names only this one of several groups of one name."""
    project = group.project_id or group.project_name or ""
    is_clear = [found.id for found in _in_project(groups, project)] == [group.id]
    return format_reference(group.name, project=project if is_clear else group.id)
