"""Convert audit events."""

from collections.abc import Mapping
from datetime import datetime

from modelregistry.v1 import (
    audit_pb2,
    model_group_pb2,
    model_pb2,
)

from registry_service.domain.events import UNKNOWN_TIME, Event, LogHead
from registry_service.domain.models import (
    ArtifactKind,
    Json,
)
from registry_service.domain.vocabulary import Action
from registry_service.transport.grpc.convert.model_groups import METRIC_GOALS
from registry_service.transport.grpc.convert.models import KINDS
from registry_service.transport.grpc.convert.values import set_struct, time_message

# The log is never rewritten: it keeps these fields of a model and its artifact under other names than the API.
_EVENT_NAMES = {"precision": "precisions"}

_EVENT_ARTIFACT_NAMES = {
    "file_name": "file_name",
    "media_type": "media_type",
    "size": "size_bytes",
    "sha256": "sha256",
    "artifact_kind": "kind",
}

_GOALS: Mapping[str, Json] = {
    goal.value: model_group_pb2.MetricGoal.Name(number) for goal, number in METRIC_GOALS.items()
}

_EVENT_TIMES = ("create_time", "update_time", "expire_time")

# Fields that only the Intel-compatible API has.
_COMPAT_NAMES = frozenset({"created_date", "documented_size", "documented_precision", "last_updated_date", "file_url"})

_ACTIONS = {
    Action.MODEL_REGISTERED: audit_pb2.AuditEvent.ACTION_MODEL_REGISTERED,
    Action.MODEL_UPDATED: audit_pb2.AuditEvent.ACTION_MODEL_UPDATED,
    Action.MODEL_DELETED: audit_pb2.AuditEvent.ACTION_MODEL_DELETED,
    Action.ALIAS_SET: audit_pb2.AuditEvent.ACTION_ALIAS_SET,
    Action.ALIAS_ROLLED_BACK: audit_pb2.AuditEvent.ACTION_ALIAS_ROLLED_BACK,
    Action.ALIAS_DELETED: audit_pb2.AuditEvent.ACTION_ALIAS_DELETED,
    Action.TOKEN_CREATED: audit_pb2.AuditEvent.ACTION_TOKEN_CREATED,
    Action.TOKEN_REVOKED: audit_pb2.AuditEvent.ACTION_TOKEN_REVOKED,
    Action.MODEL_GROUP_UPDATED: audit_pb2.AuditEvent.ACTION_MODEL_GROUP_UPDATED,
    Action.MODEL_GROUP_DELETED: audit_pb2.AuditEvent.ACTION_MODEL_GROUP_DELETED,
    Action.UNKNOWN: audit_pb2.AuditEvent.ACTION_UNSPECIFIED,
}


def event_message(event: Event, *, max_bytes: int | None = None) -> audit_pb2.AuditEvent:
    """Return an event as a message, without `before` and `after` if it would be larger than `max_bytes`."""
    message = audit_pb2.AuditEvent(
        sequence=event.sequence,
        event_time=None if event.time == UNKNOWN_TIME else time_message(event.time),
        actor=event.actor,
        request_id=event.request_id,
        action=_ACTIONS[event.action],
        project_id=event.group_key.project_id,
        project_name=event.group_key.project_name,
        name=event.group_key.name,
        model_id=event.model_id,
        model_group_id=event.model_group_id or "",
        alias=event.alias,
        reason=event.reason,
        previous_hash=event.previous_hash,
        hash=event.hash,
        damaged=event.is_damaged,
        moved_away=event.moved_away,
    )
    # Known of damaged events, too, unlike the action.
    is_of_model = bool(event.model_id) and not event.alias
    for name, values in (("before", event.before), ("after", event.after)):
        if values is not None:
            shown = _model_details(values) if is_of_model else _details(values)
            set_struct(getattr(message, name), shown)
    if max_bytes is not None and message.ByteSize() > max_bytes:
        message.ClearField("before")
        message.ClearField("after")
        message.details_omitted = True
    return message


def _model_details(stored: Mapping[str, Json]) -> dict[str, Json]:
    """Return an event's details of a model in the form of the JSON of `Model`.

    A value that the registry did not write, because the log was changed, is returned as it is.
    """
    details = {
        _EVENT_NAMES.get(name, name): value
        for name, value in _details(stored).items()
        if name not in _COMPAT_NAMES and name not in _EVENT_ARTIFACT_NAMES
    }
    artifact = {shown: stored[name] for name, shown in _EVENT_ARTIFACT_NAMES.items() if name in stored}
    kind = artifact.get("kind")
    if isinstance(kind, str) and kind in KINDS:
        artifact["kind"] = model_pb2.Artifact.Kind.Name(KINDS[ArtifactKind(kind)])
    return details | {"artifact": artifact} if artifact else details


def _details(stored: Mapping[str, Json]) -> dict[str, Json]:
    """Return an event's details with times and enums in the form of the API's JSON."""
    details = dict(stored)
    for name in _EVENT_TIMES:
        if name in details:
            details[name] = _json_time(details[name])
    goals = details.get("metric_goals")
    if isinstance(goals, dict):
        details["metric_goals"] = {metric: _GOALS.get(str(goal), goal) for metric, goal in goals.items()}
    return details


def _json_time(value: Json) -> Json:
    """Return a time in ISO 8601 in the form of the JSON of a Timestamp; any other value as it is."""
    try:
        return time_message(datetime.fromisoformat(value)).ToJsonString() if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return value


def position_message(head: LogHead) -> audit_pb2.AuditLogPosition:
    """Return a position in the log as a message."""
    return audit_pb2.AuditLogPosition(sequence=head.sequence, hash=head.hash)
