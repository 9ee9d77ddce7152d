"""ModelGroupService."""

from collections.abc import Mapping, Sequence

import grpc
from modelregistry.v1 import model_group_pb2, model_group_service_pb2_grpc
from modelregistry.v1 import model_group_service_pb2 as pb

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.model_groups import MUTABLE_FIELDS, ModelGroup, checked_group_id
from registry_service.domain.vocabulary import MetricGoal
from registry_service.services.services import Services
from registry_service.transport.grpc.convert.model_groups import METRIC_GOALS, group_message
from registry_service.transport.grpc.idempotency import idempotent
from registry_service.transport.grpc.if_match import etag_of
from registry_service.transport.grpc.update_mask import FIELD, MODEL_GROUP, fields_and_entries, mask_of

_GOALS_OF: Mapping[int, MetricGoal] = {number: goal for goal, number in METRIC_GOALS.items()}


def _deleted(_: None) -> pb.DeleteModelGroupResponse:
    return pb.DeleteModelGroupResponse()


class ModelGroupServicer(model_group_service_pb2_grpc.ModelGroupServiceServicer):
    """Converts requests, calls one method of a service, and converts its result."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def GetModelGroup(
        self, request: pb.GetModelGroupRequest, context: grpc.ServicerContext
    ) -> model_group_pb2.ModelGroup:
        return group_message(self._services.model_groups.get(checked_group_id(request.model_group_id)))

    def ListModelGroups(
        self, request: pb.ListModelGroupsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelGroupsResponse:
        groups, next_page_token = self._services.model_groups.list(
            filter=request.filter,
            order_by=request.order_by,
            show_empty=request.show_empty,
            size=request.page_size,
            token=request.page_token,
        )
        is_everything = not request.page_token and not next_page_token
        return pb.ListModelGroupsResponse(
            model_groups=map(group_message, groups),
            next_page_token=next_page_token,
            total_size=len(groups) if is_everything else None,
        )

    @idempotent(
        model_group_pb2.ModelGroup,
        group_message,
        again=lambda services, group_id: services.model_groups.get(group_id),
    )
    def UpdateModelGroup(self, request: pb.UpdateModelGroupRequest, context: grpc.ServicerContext) -> ModelGroup:
        message = request.model_group
        group_id = checked_group_id(message.id, "model_group.id")
        changes, entries = _changes_of(message, mask_of(request, context))
        etag = etag_of(message.etag, context)
        return self._services.model_groups.update(group_id, changes, entries=entries, etag=etag)

    @idempotent(pb.DeleteModelGroupResponse, _deleted)
    def DeleteModelGroup(self, request: pb.DeleteModelGroupRequest, context: grpc.ServicerContext) -> None:
        self._services.model_groups.delete(
            checked_group_id(request.model_group_id),
            etag=etag_of(request.etag, context),
            allow_missing=request.allow_missing,
            validate_only=request.validate_only,
        )


def _changes_of(
    message: model_group_pb2.ModelGroup, mask: Sequence[str]
) -> tuple[dict[str, object], dict[tuple[str, str], object]]:
    """Return an update's new values of whole fields, and of entries of maps by (field, key).

    Without a mask, the fields are those that the message sets.

    Raises:
        InvalidArgumentError: The mask names an unknown or immutable field, or a goal is invalid.
    """
    values: dict[str, object] = {
        "description": message.description,
        "owner": message.owner,
        "tags": dict(message.tags),
        "metric_goals": {metric: _goal_of(metric, number) for metric, number in message.metric_goals.items()},
    }
    if not mask:
        present = {descriptor.name for descriptor, _ in message.ListFields()}
        mask = [name for name in MUTABLE_FIELDS if name in present]
    if "*" in mask:
        if len(mask) > 1:
            raise InvalidArgumentError.of(FIELD, "has * and other paths.")
        mask = MUTABLE_FIELDS
    changes: dict[str, object] = {}
    entries: dict[tuple[str, str], object] = {}
    for name, key in fields_and_entries(mask, MODEL_GROUP):
        value = values[name]
        if key is None:
            changes[name] = value
        elif isinstance(value, dict):
            entries[name, key] = value.get(key)
    return changes, entries


def _goal_of(metric: str, number: int) -> MetricGoal:
    if number not in _GOALS_OF:
        raise InvalidArgumentError.of(
            f"model_group.metric_goals.{metric}", "must be METRIC_GOAL_MAXIMIZE or METRIC_GOAL_MINIMIZE."
        )
    return _GOALS_OF[number]
