"""Convert models, their specs, artifacts and signatures."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelregistry.v1 import (
    model_pb2,
    model_service_pb2,
)

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.format_warnings import format_warnings
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    ArtifactKind,
    ArtifactSpec,
    Dataset,
    FieldKind,
    Model,
    ModelFields,
    ModelSpec,
    Provenance,
    fields_of_kind,
)
from registry_service.domain.signature import Signature, Tensor
from registry_service.transport.grpc.convert.values import json_of, set_struct, set_value, time_message, value_message
from registry_service.transport.grpc.update_mask import fields_and_entries

_FIELDS = model_pb2.Model.DESCRIPTOR.fields_by_name
_SCALARS = fields_of_kind(FieldKind.TEXT, FieldKind.LONG_TEXT, FieldKind.NUMBER)

_OPTIONAL = tuple(name for name in _SCALARS if _FIELDS[name].has_presence)

_ALWAYS_SET = tuple(name for name in _SCALARS if not _FIELDS[name].has_presence)

_JSON_FIELDS = fields_of_kind(FieldKind.JSON)

_MAPS = fields_of_kind(FieldKind.MAP)

_COPIED = (*_ALWAYS_SET, *_MAPS, "precisions")

_NO_PROVENANCE = Provenance()

KINDS = {
    ArtifactKind.FILE: model_pb2.Artifact.KIND_FILE,
    ArtifactKind.FOLDER: model_pb2.Artifact.KIND_FOLDER,
}

_KINDS_OF: Mapping[int, ArtifactKind] = {value: kind for kind, value in KINDS.items()}


def fields_of(message: model_pb2.Model) -> ModelFields:
    """Return the fields that a client sets; absent fields have their defaults."""
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
    """Return the spec of a registration.

    Raises:
        InvalidArgumentError: The model is missing.
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
    """Return the new values of an update: those of whole fields, and those of map entries by (field, key).

    Without a mask, the message's present fields are updated.

    Raises:
        InvalidArgumentError: The mask has a path that is not a field or cannot be changed.
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
    """Return whether a view contains the signature, `default` for the unspecified view.

    Raises:
        InvalidArgumentError: The view is unknown.
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
        set_value(getattr(message, name), getattr(fields, name))
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
        kind=KINDS[artifact.kind],
        verify_time=None if verify_time is None else time_message(verify_time),
    )


def signature_message(signature: Signature) -> model_pb2.ModelSignature:
    """Return a signature as a message."""
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
    """Return a tensor as a message."""
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
        set_struct(message.hyperparameters, provenance.hyperparameters)
    return message


def spec_message(spec: ModelSpec) -> model_service_pb2.ModelSpec:
    """Return a spec as a message."""
    message = model_service_pb2.ModelSpec(
        model=fields_message(spec.fields),
        artifact=model_service_pb2.ArtifactSpec(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size_bytes=spec.artifact.size,
            sha256=spec.artifact.sha256,
            kind=KINDS[spec.artifact.kind],
        ),
    )
    message.model.id = spec.id
    return message
