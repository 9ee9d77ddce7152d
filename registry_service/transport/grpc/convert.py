"""Messages to the domain's objects, and back."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.geti.v1 import geti_service_pb2, project_pb2
from modelregistry.v1 import (
    artifact_service_pb2,
    audit_pb2,
    comparison_pb2,
    lineage_pb2,
    model_group_pb2,
    model_pb2,
    model_service_pb2,
    upload_pb2,
)

from registry_service.domain.comparison import ArtifactComparison, Comparison, FileChange, LabelComparison
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.events import UNKNOWN_TIME, Event, LogHead
from registry_service.domain.format_warnings import format_warnings
from registry_service.domain.lineage import Direction, Lineage
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    ArtifactKind,
    ArtifactSpec,
    Dataset,
    FieldKind,
    Json,
    Model,
    ModelFields,
    ModelSpec,
    Provenance,
    fields_of_kind,
)
from registry_service.domain.signature import Signature, Tensor
from registry_service.domain.uploads import Upload, UploadState
from registry_service.domain.vocabulary import Action, MetricGoal
from registry_service.geti.imports import ImportProgress, ImportState
from registry_service.geti.port import Project
from registry_service.services.archives import ArchiveMember
from registry_service.services.lineage import Manifest
from registry_service.transport.grpc.errors import error_status
from registry_service.transport.grpc.update_mask import fields_and_entries

_FIELDS = model_pb2.Model.DESCRIPTOR.fields_by_name
_SCALARS = fields_of_kind(FieldKind.TEXT, FieldKind.LONG_TEXT, FieldKind.NUMBER)
_OPTIONAL = tuple(name for name in _SCALARS if _FIELDS[name].has_presence)
_ALWAYS_SET = tuple(name for name in _SCALARS if not _FIELDS[name].has_presence)
_JSON_FIELDS = fields_of_kind(FieldKind.JSON)
_MAPS = fields_of_kind(FieldKind.MAP)
_COPIED = (*_ALWAYS_SET, *_MAPS, "precisions")
METRIC_GOALS: Mapping[MetricGoal, model_group_pb2.MetricGoal] = {
    MetricGoal.MAXIMIZE: model_group_pb2.METRIC_GOAL_MAXIMIZE,
    MetricGoal.MINIMIZE: model_group_pb2.METRIC_GOAL_MINIMIZE,
}
"""What a group says about a metric, in messages."""
_DIRECTIONS: Mapping[int, Direction] = {
    model_service_pb2.GetLineageRequest.DIRECTION_ANCESTORS: Direction.ANCESTORS,
    model_service_pb2.GetLineageRequest.DIRECTION_DESCENDANTS: Direction.DESCENDANTS,
}
_CHANGES = {
    FileChange.UNKNOWN: comparison_pb2.FileVersion.CHANGE_UNSPECIFIED,
    FileChange.SAME: comparison_pb2.FileVersion.CHANGE_SAME,
    FileChange.CHANGED: comparison_pb2.FileVersion.CHANGE_CHANGED,
    FileChange.ADDED: comparison_pb2.FileVersion.CHANGE_ADDED,
    FileChange.REMOVED: comparison_pb2.FileVersion.CHANGE_REMOVED,
}
# From here on, a double may be an integer that was rounded; up to what the largest one of 64 bits is rounded to.
_FIRST_INEXACT = 2.0**53
_LAST_INTEGER = 2.0**64
_MAX_PLACE_LENGTH = 200
_NO_PROVENANCE = Provenance()
# Fields of a model and of its artifact that the log, which is never rewritten, has under another name or in another
# place than the API.
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
# Fields of a model that the Intel-compatible API alone has.
_COMPAT_NAMES = frozenset({"created_date", "documented_size", "documented_precision", "last_updated_date", "file_url"})
_KINDS = {
    ArtifactKind.FILE: model_pb2.Artifact.KIND_FILE,
    ArtifactKind.FOLDER: model_pb2.Artifact.KIND_FOLDER,
}
_KINDS_OF: Mapping[int, ArtifactKind] = {value: kind for kind, value in _KINDS.items()}
_STATES = {
    UploadState.ACTIVE: upload_pb2.Upload.STATE_ACTIVE,
    UploadState.COMPLETING: upload_pb2.Upload.STATE_COMPLETING,
    UploadState.COMPLETED: upload_pb2.Upload.STATE_COMPLETED,
}
_IMPORT_STATES = {
    ImportState.PREPARING: geti_service_pb2.ImportProgress.STATE_PREPARING,
    ImportState.DOWNLOADING: geti_service_pb2.ImportProgress.STATE_DOWNLOADING,
    ImportState.REGISTERED: geti_service_pb2.ImportProgress.STATE_REGISTERED,
    ImportState.FAILED: geti_service_pb2.ImportProgress.STATE_FAILED,
}

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


def fields_of(message: model_pb2.Model) -> ModelFields:
    """Returns the fields that a client gives; what is absent has its default."""
    values: dict[str, Any] = {name: getattr(message, name) for name in _ALWAYS_SET}
    values |= {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    if message.precisions:
        values["precisions"] = tuple(message.precisions)
    for name in _JSON_FIELDS:
        if message.HasField(name):
            values[name] = json_of(getattr(message, name), name)
    if message.HasField("labels"):
        values["labels"] = tuple(json_of(value, f"labels[{i}]") for i, value in enumerate(message.labels.values))
    values |= {name: dict(getattr(message, name)) for name in _MAPS}
    values["provenance"] = _provenance_of(message.provenance)
    return ModelFields(**values)


def _provenance_of(message: model_pb2.Provenance) -> Provenance:
    return Provenance(
        source_repository=message.source_repository,
        source_commit=message.source_commit,
        training_run=message.training_run,
        datasets=tuple(Dataset(name=d.name, uri=d.uri, digest=d.digest) for d in message.datasets),
        parent_model_ids=tuple(message.parent_model_ids),
        framework=message.framework,
        framework_version=message.framework_version,
        hyperparameters={
            key: json_of(value, f"provenance.hyperparameters.{key}")
            for key, value in message.hyperparameters.fields.items()
        },
        environment=dict(message.environment),
        seed=message.seed if message.HasField("seed") else None,
    )


def spec_of(message: model_service_pb2.ModelSpec) -> ModelSpec:
    """Returns what a client wants to register.

    Raises:
        InvalidArgumentError: It has no model.
    """
    if not message.HasField("model"):
        raise InvalidArgumentError.of("model", "must be set.")
    artifact = message.artifact
    return ModelSpec(
        fields=fields_of(message.model),
        id=message.model.id,
        artifact=ArtifactSpec(
            file_name=artifact.file_name,
            media_type=artifact.media_type,
            kind=_kind_of(artifact.kind),
            size=artifact.size_bytes if artifact.HasField("size_bytes") else None,
            sha256=artifact.sha256,
        ),
    )


def _kind_of(value: int) -> ArtifactKind:
    if value == model_pb2.Artifact.KIND_UNSPECIFIED:
        return ArtifactKind.FILE
    if value not in _KINDS_OF:
        raise InvalidArgumentError.of("artifact.kind", f"must be KIND_FILE or KIND_FOLDER, not {value}.")
    return _KINDS_OF[value]


def changes_of(
    message: model_pb2.Model, mask: Sequence[str]
) -> tuple[dict[str, object], dict[tuple[str, str], object]]:
    """Returns an update's new values of whole fields, and of entries of maps by (field, key).

    Without a mask, the fields are those that the message sets.

    Raises:
        InvalidArgumentError: The mask names what is no field, or what cannot be changed.
    """
    fields = fields_of(message)
    if not mask:
        present = {descriptor.name for descriptor, _ in message.ListFields()}
        mask = [name for name in MUTABLE_FIELDS if name in present]
    if "*" in mask:
        if len(mask) > 1:
            raise InvalidArgumentError.of("update_mask", "must not have other paths beside *.")
        mask = MUTABLE_FIELDS
    changes: dict[str, object] = {}
    entries: dict[tuple[str, str], object] = {}
    for name, key in fields_and_entries(mask):
        if key is None:
            changes[name] = getattr(fields, name)
        else:
            entries[name, key] = getattr(fields, name).get(key)
    return changes, entries


def is_full(view: int, *, default: bool) -> bool:
    """Tell whether a view has the signature; the unspecified one has it by `default`.

    Raises:
        InvalidArgumentError: There is no such view.
    """
    if view not in model_pb2.ModelView.values():
        raise InvalidArgumentError.of("view", f"must be MODEL_VIEW_BASIC or MODEL_VIEW_FULL, not {view}.")
    return default if view == model_pb2.MODEL_VIEW_UNSPECIFIED else view == model_pb2.MODEL_VIEW_FULL


def model_message(model: Model, *, full: bool = True) -> model_pb2.Model:
    """Return a model as a message, without its signature unless `full`."""
    message = fields_message(model)
    message.id = model.id
    message.model_group_id = model.model_group_id
    message.aliases.extend(model.aliases)
    message.artifact.CopyFrom(artifact_message(model))
    message.create_time.CopyFrom(time_message(model.create_time))
    message.update_time.CopyFrom(time_message(model.update_time))
    message.etag = model.etag
    message.revision = model.revision
    message.creator = model.creator
    if full and model.signature is not None:
        message.signature.CopyFrom(signature_message(model.signature))
    message.warnings.extend(format_warnings(model))
    return message


def fields_message(fields: ModelFields) -> model_pb2.Model:
    """Return the fields that a client sets as a message."""
    values: dict[str, Any] = {name: getattr(fields, name) for name in _COPIED}
    message = model_pb2.Model(**values)
    for name in _JSON_FIELDS:
        _set_value(getattr(message, name), getattr(fields, name))
    for name in _OPTIONAL:
        value = getattr(fields, name)
        if value is not None:
            setattr(message, name, value)
    if fields.labels is not None:
        message.labels.values.extend(value_message(label) for label in fields.labels)
        message.labels.SetInParent()
    if fields.provenance != _NO_PROVENANCE:
        message.provenance.CopyFrom(_provenance_message(fields.provenance))
    return message


def artifact_message(model: Model) -> model_pb2.Artifact:
    """Return the artifact of a model as a message."""
    artifact, verify_time = model.artifact, model.artifact_verify_time
    return model_pb2.Artifact(
        file_name=artifact.file_name,
        media_type=artifact.media_type,
        size_bytes=artifact.size,
        sha256=artifact.sha256,
        kind=_KINDS[artifact.kind],
        verify_time=None if verify_time is None else time_message(verify_time),
    )


def signature_message(signature: Signature) -> model_pb2.ModelSignature:
    """Returns what an artifact says as a message."""
    return model_pb2.ModelSignature(
        format=signature.format,
        path=signature.file_name,
        inputs=map(tensor_message, signature.inputs),
        outputs=map(tensor_message, signature.outputs),
        weights=map(tensor_message, signature.weights),
        weight_count=signature.weight_count,
        precisions=signature.precision,
        producer=signature.producer,
        opsets=signature.opsets,
        metadata=signature.metadata,
        problems=signature.problems,
    )


def tensor_message(tensor: Tensor) -> model_pb2.Tensor:
    """Returns a tensor as a message."""
    message = model_pb2.Tensor(name=tensor.name, element_type=tensor.element_type)
    if tensor.shape is not None:
        message.shape.SetInParent()
        message.shape.extend(tensor.shape)
    return message


def _provenance_message(provenance: Provenance) -> model_pb2.Provenance:
    message = model_pb2.Provenance(
        source_repository=provenance.source_repository,
        source_commit=provenance.source_commit,
        training_run=provenance.training_run,
        datasets=[model_pb2.Dataset(name=d.name, uri=d.uri, digest=d.digest) for d in provenance.datasets],
        parent_model_ids=provenance.parent_model_ids,
        framework=provenance.framework,
        framework_version=provenance.framework_version,
        environment=provenance.environment,
        seed=provenance.seed,
    )
    if provenance.hyperparameters:
        _set_struct(message.hyperparameters, provenance.hyperparameters)
    return message


def spec_message(spec: ModelSpec) -> model_service_pb2.ModelSpec:
    """Returns a spec as a message."""
    message = model_service_pb2.ModelSpec(
        model=fields_message(spec.fields),
        artifact=model_service_pb2.ArtifactSpec(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size_bytes=spec.artifact.size,
            sha256=spec.artifact.sha256,
            kind=_KINDS[spec.artifact.kind],
        ),
    )
    message.model.id = spec.id
    return message


def upload_message(upload: Upload) -> upload_pb2.Upload:
    """Returns an upload as a message."""
    return upload_pb2.Upload(
        id=upload.id,
        spec=spec_message(upload.spec),
        state=_STATES[upload.state],
        committed_size=upload.committed_size,
        create_time=time_message(upload.create_time),
        expire_time=time_message(upload.expire_time),
        model_id=upload.spec.id,
        creator=upload.creator,
    )


def planned_model_message(upload: Upload) -> model_pb2.Model:
    """Return the model that an upload may become, as far as it is known."""
    spec = upload.spec
    message = fields_message(spec.fields)
    message.id = spec.id
    message.artifact.CopyFrom(
        model_pb2.Artifact(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size_bytes=upload.committed_size,
            sha256=spec.artifact.sha256,
            kind=_KINDS[spec.artifact.kind],
        )
    )
    return message


def file_message(member: ArchiveMember) -> artifact_service_pb2.ArtifactFile:
    """Returns a member of an archive as a message."""
    return artifact_service_pb2.ArtifactFile(
        path=_printable(member.name),
        size_bytes=member.size,
        compressed_size_bytes=member.compressed_size,
        crc32=member.crc32,
        modify_time=None if member.modify_time is None else time_message(member.modify_time),
    )


def project_message(project: Project) -> project_pb2.Project:
    """Returns a project as a message."""
    return project_pb2.Project(
        id=project.id,
        name=project.name,
        create_time=_iso_time(project.creation_time),
        task_types=project.task_types,
        model_groups=[
            project_pb2.ProjectModelGroup(
                id=group.id,
                name=group.name,
                versions=[
                    project_pb2.ProjectModelVersion(
                        id=version.id,
                        name=version.name,
                        number=version.number,
                        openvino_models=[
                            project_pb2.ProjectModel(id=model.id, name=model.name) for model in version.openvino_models
                        ],
                    )
                    for version in group.versions
                ],
            )
            for group in project.model_groups
        ],
    )


def import_message(progress: ImportProgress, request_id: str) -> geti_service_pb2.ImportModelsResponse:
    """Return a step of an import as a message."""
    error = progress.error
    return geti_service_pb2.ImportModelsResponse(
        progress=geti_service_pb2.ImportProgress(
            model_id=progress.model_id,
            state=_IMPORT_STATES[progress.state],
            downloaded_bytes=progress.downloaded_bytes,
            model=None if progress.model is None else model_message(progress.model),
            error=None if error is None else error_status(error, request_id),
        )
    )


def import_result_message(ended: Mapping[str, ImportState]) -> geti_service_pb2.ImportModelsResponse:
    """Return how the imports of all models ended as a message."""
    return geti_service_pb2.ImportModelsResponse(
        result=geti_service_pb2.ImportResult(
            registered_model_ids=[name for name, state in ended.items() if state is ImportState.REGISTERED],
            failed_model_ids=[name for name, state in ended.items() if state is ImportState.FAILED],
        )
    )


def _iso_time(text: str) -> Timestamp | None:
    """Return a time that another service wrote; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
        return time_message(time.replace(tzinfo=UTC) if time.tzinfo is None else time)
    except ValueError:
        return None


def event_message(event: Event, *, max_bytes: int | None = None) -> audit_pb2.AuditEvent:
    """Returns an event as a message; without its details where it would be larger than `max_bytes`."""
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
    # Unlike the action, this can be told of damaged events, too.
    is_of_model = bool(event.model_id) and not event.alias
    for name, values in (("before", event.before), ("after", event.after)):
        if values is not None:
            shown = _model_details(values) if is_of_model else _details(values)
            _set_struct(getattr(message, name), shown)
    if max_bytes is not None and message.ByteSize() > max_bytes:
        message.ClearField("before")
        message.ClearField("after")
        message.details_omitted = True
    return message


def _model_details(stored: Mapping[str, Json]) -> dict[str, Json]:
    """Return what an event says about a model in the shape of the JSON of `Model`.

    Whatever is not as the registry writes it, as somebody changed the log, keeps its value.
    """
    details = {
        _EVENT_NAMES.get(name, name): value
        for name, value in _details(stored).items()
        if name not in _COMPAT_NAMES and name not in _EVENT_ARTIFACT_NAMES
    }
    artifact = {shown: stored[name] for name, shown in _EVENT_ARTIFACT_NAMES.items() if name in stored}
    kind = artifact.get("kind")
    if isinstance(kind, str) and kind in _KINDS:
        artifact["kind"] = model_pb2.Artifact.Kind.Name(_KINDS[ArtifactKind(kind)])
    return details | {"artifact": artifact} if artifact else details


def _details(stored: Mapping[str, Json]) -> dict[str, Json]:
    """Return what an event says about anything, with times and enums in the form of the API's JSON."""
    details = dict(stored)
    for name in _EVENT_TIMES:
        if name in details:
            details[name] = _json_time(details[name])
    goals = details.get("metric_goals")
    if isinstance(goals, dict):
        details["metric_goals"] = {metric: _GOALS.get(str(goal), goal) for metric, goal in goals.items()}
    return details


def _json_time(value: Json) -> Json:
    """Return a time in ISO 8601 as the JSON of a Timestamp has it; any other value as it is."""
    try:
        return time_message(datetime.fromisoformat(value)).ToJsonString() if isinstance(value, str) else value
    except (ValueError, OverflowError):
        return value


def position_message(head: LogHead) -> audit_pb2.AuditLogPosition:
    """Returns a place in the log as a message."""
    return audit_pb2.AuditLogPosition(sequence=head.sequence, hash=head.hash)


def comparison_message(comparison: Comparison) -> model_service_pb2.CompareModelsResponse:
    """Returns a comparison as a message."""
    artifacts = comparison.artifacts
    return model_service_pb2.CompareModelsResponse(
        models=[
            comparison_pb2.ComparedModel(
                model_id=model.id,
                name=model.name,
                version=model.version,
                etag=model.etag,
                sha256=model.artifact.sha256,
                create_time=time_message(model.create_time),
            )
            for model in comparison.models
        ],
        fields=[
            comparison_pb2.FieldComparison(path=f.path, values=map(value_message, f.values), equal=f.equal)
            for f in comparison.fields
        ],
        metrics=[
            comparison_pb2.MetricComparison(
                name=metric.name,
                values=[
                    comparison_pb2.MetricValue(value=value, delta=delta)
                    for value, delta in zip(metric.values, metric.deltas, strict=True)
                ],
                equal=metric.equal,
            )
            for metric in comparison.metrics
        ],
        labels=None if comparison.labels is None else _labels_message(comparison.labels),
        artifacts=None if artifacts is None else _artifacts_message(artifacts, comparison.models),
        truncated=comparison.truncated,
    )


def _labels_message(labels: LabelComparison) -> comparison_pb2.LabelComparison:
    return comparison_pb2.LabelComparison(
        common=map(value_message, labels.common),
        models=[
            comparison_pb2.ModelLabels(only=map(value_message, model.only), lacking=map(value_message, model.lacking))
            for model in labels.models
        ],
        equal=labels.equal,
    )


def _artifacts_message(artifacts: ArtifactComparison, models: Sequence[Model]) -> comparison_pb2.ArtifactComparison:
    return comparison_pb2.ArtifactComparison(
        artifacts=[
            comparison_pb2.ComparedArtifact(
                file_name=model.artifact.file_name,
                size_bytes=model.artifact.size,
                sha256=model.artifact.sha256,
                problem=_printable(problem),
            )
            for model, problem in zip(models, artifacts.problems, strict=True)
        ],
        equal=artifacts.equal,
        files=[
            comparison_pb2.FileComparison(
                path=_printable(file.name),
                versions=[
                    comparison_pb2.FileVersion(change=_CHANGES[change])
                    if content is None
                    else comparison_pb2.FileVersion(
                        present=True, size_bytes=content.size, digest=content.digest, change=_CHANGES[change]
                    )
                    for content, change in file.versions
                ],
            )
            for file in artifacts.files
        ],
        file_count=artifacts.file_count,
        truncated=len(artifacts.files) < artifacts.file_count,
    )


def direction_of(direction: int) -> Direction:
    """Return the direction of a lineage.

    Raises:
        InvalidArgumentError: It is unspecified or unknown.
    """
    if direction not in _DIRECTIONS:
        raise InvalidArgumentError.of("direction", "must be DIRECTION_ANCESTORS or DIRECTION_DESCENDANTS.")
    return _DIRECTIONS[direction]


def nodes_messages(lineage: Lineage) -> Iterator[lineage_pb2.LineageNode]:
    """Yield the models of a lineage as messages."""
    for node in lineage.nodes:
        model = None if node.model is None else model_message(node.model)
        yield lineage_pb2.LineageNode(model_id=node.id, depth=node.depth, model=model)


def edges_messages(lineage: Lineage) -> Iterator[lineage_pb2.LineageEdge]:
    """Yield the links of a lineage as messages."""
    return (lineage_pb2.LineageEdge(child_model_id=edge.child, parent_model_id=edge.parent) for edge in lineage.edges)


def manifest_message(manifest: Manifest) -> lineage_pb2.ModelManifest:
    """Returns a manifest as a message."""
    return lineage_pb2.ModelManifest(
        api_version=lineage_pb2.DESCRIPTOR.package,
        make_time=time_message(manifest.make_time),
        model=model_message(manifest.model),
        files=map(file_message, manifest.files),
        file_count=manifest.file_count,
        artifact_problem=manifest.artifact_problem,
        ancestors=nodes_messages(manifest.ancestors),
        edges=edges_messages(manifest.ancestors),
        unknown_model_ids=manifest.unknown_ids,
        ancestors_truncated=manifest.ancestors.truncated,
    )


def _printable(text: str) -> str:
    """Replaces what no message can hold."""
    return text.encode(errors="replace").decode()


def time_of(message: Timestamp, name: str) -> datetime:
    """Return a time, aware, in UTC (`InvalidArgumentError`; `name` is the field)."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgumentError.of(name, "must be a time of the years 1 to 9999.") from error


def time_message(time: datetime) -> Timestamp:
    """Returns a time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def json_of(message: struct_pb2.Value, place: str) -> Json:
    """Returns a JSON value; whole numbers, which a Value holds as doubles, become integers again.

    Raises:
        InvalidArgumentError: It has a number that looks like a 64-bit integer that was rounded to a double; names the
            place inside, which is at `place`.
    """
    match message.WhichOneof("kind"):
        case "number_value":
            return _number_of(message.number_value, place)
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return {key: json_of(value, f"{place}.{key}") for key, value in message.struct_value.fields.items()}
        case "list_value":
            return [json_of(value, f"{place}[{i}]") for i, value in enumerate(message.list_value.values)]
        case _:
            return None


def _number_of(number: float, place: str) -> int | float:
    if not number.is_integer() or abs(number) > _LAST_INTEGER:
        return number
    if abs(number) >= _FIRST_INEXACT:
        raise InvalidArgumentError.of(
            place[:_MAX_PLACE_LENGTH],
            f"{number:.0f} may be rounded, because a double holds integers below 2^53 only. Write it as a string.",
        )
    return int(number)


def value_message(value: Json) -> struct_pb2.Value:
    """Returns a JSON value as a message; an integer that no double can hold is a text, as in the JSON of an int64."""
    message = struct_pb2.Value()
    _set_value(message, value)
    return message


def _set_value(message: struct_pb2.Value, value: Json) -> None:
    """Does what json_format.ParseDict does, in a fraction of its time."""
    match value:
        case None:
            message.null_value = struct_pb2.NULL_VALUE
        case bool():
            message.bool_value = value
        case str():
            message.string_value = value
        case int() if abs(value) >= _FIRST_INEXACT and not _is_double(value):
            message.string_value = str(value)
        case int() | float():
            message.number_value = value
        case Mapping():
            _set_struct(message.struct_value, value)
        case _:
            message.list_value.SetInParent()
            for item in value:
                _set_value(message.list_value.values.add(), item)


def _set_struct(message: struct_pb2.Struct, values: Mapping[str, Json]) -> None:
    message.SetInParent()
    for key, item in values.items():
        _set_value(message.fields[key], item)


def _is_double(integer: int) -> bool:
    """Tells whether an integer is a double, as it is or as the shortest text of one (1e300, which Postgres expands)."""
    try:
        number = float(integer)
    except OverflowError:
        return False
    return number == integer or Decimal(repr(number)) == integer
