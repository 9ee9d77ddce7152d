"""Convert model groups."""

from collections.abc import Mapping

from modelregistry.v1 import model_group_pb2

from registry_service.domain.model_groups import ModelGroup
from registry_service.domain.vocabulary import MetricGoal
from registry_service.transport.grpc.convert.values import time_message

METRIC_GOALS: Mapping[MetricGoal, model_group_pb2.MetricGoal] = {
    MetricGoal.MAXIMIZE: model_group_pb2.METRIC_GOAL_MAXIMIZE,
    MetricGoal.MINIMIZE: model_group_pb2.METRIC_GOAL_MINIMIZE,
}
"""The goal of a metric in messages."""


def group_message(group: ModelGroup) -> model_group_pb2.ModelGroup:
    """Return a group as a message."""
    return model_group_pb2.ModelGroup(
        id=group.id,
        name=group.key.name,
        project_id=group.key.project_id,
        project_name=group.key.project_name,
        description=group.description,
        owner=group.owner,
        tags=group.tags,
        metric_goals={metric: METRIC_GOALS[goal] for metric, goal in group.metric_goals.items()},
        version_count=group.version_count,
        latest_version=group.latest_version,
        latest_model_id=group.latest_model_id,
        create_time=time_message(group.create_time),
        update_time=time_message(group.update_time),
        etag=group.etag,
    )
