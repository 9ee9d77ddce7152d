"""Messages to the domain's objects, and back."""

from datetime import datetime
from typing import Any

from google.protobuf import struct_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from modelregistry.v1 import artifact_service_pb2, model_pb2, model_service_pb2, upload_pb2

from registry_service.domain.consistency import warnings_of
from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    Artifact,
    ArtifactSpec,
    Dataset,
    Json,
    Model,
    ModelFields,
    ModelSpec,
    Provenance,
)
from registry_service.domain.schema import ModelSchema, Tensor
from registry_service.domain.uploads import Upload, UploadState
from registry_service.services.archives import ArchiveMember

_OPTIONAL_TEXTS = (
    "project_id",
    "project_name",
    "target_device",
    "target_device_type",
    "format",
    "origin",
    "category",
    "architecture",
)
_MAPS = ("metrics", "tags")
_STATES = {
    UploadState.ACTIVE: upload_pb2.Upload.STATE_ACTIVE,
    UploadState.COMPLETING: upload_pb2.Upload.STATE_COMPLETING,
    UploadState.COMPLETED: upload_pb2.Upload.STATE_COMPLETED,
}


def fields_of(message: model_pb2.Model) -> ModelFields:
    """Returns the fields that a client gives; what is absent has its default."""
    values: dict[str, Any] = {"name": message.name, "version": message.version}
    values |= {name: getattr(message, name) for name in (*_OPTIONAL_TEXTS, "score") if message.HasField(name)}
    if message.precision:
        values["precision"] = tuple(message.precision)
    for name in ("overview", "optimization_capabilities"):
        if message.HasField(name):
            values[name] = json_of(getattr(message, name))
    if message.HasField("labels"):
        values["labels"] = tuple(json_of(value) for value in message.labels.values)
    values["metrics"] = dict(message.metrics)
    values["tags"] = dict(message.tags)
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
        hyperparameters={key: json_of(value) for key, value in message.hyperparameters.fields.items()},
        environment=dict(message.environment),
        seed=message.seed if message.HasField("seed") else None,
    )


def spec_of(message: model_service_pb2.ModelSpec) -> ModelSpec:
    """Returns what a client wants to register.

    Raises:
        InvalidArgumentError: It has no model.
    """
    if not message.HasField("model"):
        raise InvalidArgumentError.of("spec.model", "is not set.")
    artifact = message.artifact
    return ModelSpec(
        fields=fields_of(message.model),
        id=message.model.id,
        created_date=message.model.created_date,
        artifact=ArtifactSpec(
            file_name=artifact.file_name,
            media_type=artifact.media_type,
            size=artifact.size if artifact.HasField("size") else None,
            sha256=artifact.sha256,
        ),
    )


def changes_of(
    request: model_service_pb2.UpdateModelRequest,
) -> tuple[dict[str, object], dict[tuple[str, str], object]]:
    """Returns an update's new values of whole fields, and of entries of maps by (field, key).

    Raises:
        InvalidArgumentError: The mask names what is no field, or what cannot be changed.
    """
    message = request.model
    fields = fields_of(message)
    paths = list(request.update_mask.paths)
    if not paths:
        present = {descriptor.name for descriptor, _ in message.ListFields()}
        paths = [name for name in MUTABLE_FIELDS if name in present]
    if "*" in paths:
        if len(paths) > 1:
            raise InvalidArgumentError.of("update_mask", "has * and other paths.")
        paths = list(MUTABLE_FIELDS)
    changes: dict[str, object] = {}
    entries: dict[tuple[str, str], object] = {}
    for path in paths:
        name, dot, key = path.partition(".")
        if path in MUTABLE_FIELDS:
            changes[path] = getattr(fields, path)
        elif dot and key and name in _MAPS:
            entries[name, key] = getattr(fields, name).get(key)
        elif name in model_pb2.Model.DESCRIPTOR.fields_by_name:
            raise InvalidArgumentError.of("update_mask", f"{path[:100]!r} cannot be changed.")
        else:
            raise InvalidArgumentError.of("update_mask", f"{path[:100]!r} is not a field of Model.")
    return changes, entries


def model_message(model: Model) -> model_pb2.Model:
    """Returns a model as a message."""
    message = _fields_message(model)
    message.id = model.id
    message.created_date = model.created_date
    message.last_updated_date = model.last_updated_date
    message.artifact.CopyFrom(artifact_message(model.artifact))
    message.create_time.CopyFrom(time_message(model.create_time))
    message.update_time.CopyFrom(time_message(model.update_time))
    message.etag = model.etag
    message.revision = model.revision
    message.creator = model.creator
    if model.schema is not None:
        message.schema.CopyFrom(schema_message(model.schema))
    message.warnings.extend(warnings_of(model))
    return message


def _fields_message(fields: ModelFields) -> model_pb2.Model:
    message = model_pb2.Model(
        name=fields.name,
        version=fields.version,
        precision=fields.precision,
        overview=value_message(fields.overview),
        optimization_capabilities=value_message(fields.optimization_capabilities),
        metrics=fields.metrics,
        tags=fields.tags,
    )
    for name in (*_OPTIONAL_TEXTS, "score"):
        value = getattr(fields, name)
        if value is not None:
            setattr(message, name, value)
    if fields.labels is not None:
        message.labels.values.extend(value_message(label) for label in fields.labels)
        message.labels.SetInParent()
    if fields.provenance != Provenance():
        message.provenance.CopyFrom(_provenance_message(fields.provenance))
    return message


def artifact_message(artifact: Artifact) -> model_pb2.Artifact:
    """Returns an artifact as a message."""
    return model_pb2.Artifact(
        file_name=artifact.file_name,
        media_type=artifact.media_type,
        size=artifact.size,
        sha256=artifact.sha256,
        file_url=artifact.file_url,
    )


def schema_message(schema: ModelSchema) -> model_pb2.ModelSchema:
    """Returns a schema as a message."""
    return model_pb2.ModelSchema(
        format=schema.format,
        file_name=schema.file_name,
        inputs=map(tensor_message, schema.inputs),
        outputs=map(tensor_message, schema.outputs),
        weights=map(tensor_message, schema.weights),
        weight_count=schema.weight_count,
        precision=schema.precision,
        producer=schema.producer,
        opsets=schema.opsets,
        metadata=schema.metadata,
        problems=schema.problems,
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
        message.hyperparameters.update(provenance.hyperparameters)
    return message


def spec_message(spec: ModelSpec) -> model_service_pb2.ModelSpec:
    """Returns a spec as a message."""
    message = model_service_pb2.ModelSpec(
        model=_fields_message(spec.fields),
        artifact=model_service_pb2.ArtifactSpec(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size=spec.artifact.size,
            sha256=spec.artifact.sha256,
        ),
    )
    message.model.id = spec.id
    message.model.created_date = spec.created_date
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
    )


def file_message(member: ArchiveMember) -> artifact_service_pb2.ArtifactFile:
    """Returns a member of an archive as a message."""
    return artifact_service_pb2.ArtifactFile(
        # Names that no text can hold are shown with replacement characters.
        name=member.name.encode(errors="replace").decode(),
        size=member.size,
        compressed_size=member.compressed_size,
        crc32=member.crc32,
        modify_time=None if member.modify_time is None else time_message(member.modify_time),
    )


def time_message(time: datetime) -> Timestamp:
    """Returns a time as a message."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def json_of(message: struct_pb2.Value) -> Json:
    """Returns a JSON value; whole numbers, which a Value holds as doubles, become integers again."""
    match message.WhichOneof("kind"):
        case "number_value":
            number = message.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return message.string_value
        case "bool_value":
            return message.bool_value
        case "struct_value":
            return {key: json_of(value) for key, value in message.struct_value.fields.items()}
        case "list_value":
            return [json_of(value) for value in message.list_value.values]
        case _:
            return None


def value_message(value: Json) -> struct_pb2.Value:
    """Returns a JSON value as a message."""
    message = struct_pb2.Value()
    ParseDict(value, message)  # type: ignore[arg-type]  # its stub knows of objects only
    return message
