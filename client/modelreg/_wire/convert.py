"""Conversion between the messages of the API and plain data."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from modelregistry.v1 import (
    alias_pb2,
    alias_service_pb2,
    artifact_service_pb2,
    audit_pb2,
    audit_service_pb2,
    lineage_pb2,
    model_group_pb2,
    model_pb2,
    system_service_pb2,
    upload_pb2,
)

from modelreg import _arguments
from modelreg._results import keeps_message
from modelreg._wire.values import (
    duration_of,
    enum_name,
    json_of,
    json_of_list,
    json_of_struct,
    sorted_map,
    struct_of,
    time_of,
)
from modelreg.aliases import Alias, AliasMove, AliasTarget, Bound, MoveKind, Promotion, RequirementCheck, Requirements
from modelreg.audit import Event, LogPosition, LogVerification
from modelreg.errors import InvalidArgument
from modelreg.lineage import LineageEdge, LineageNode
from modelreg.models import Artifact, Kind, Model, ModelGroup, Signature, Tensor
from modelreg.provenance import Dataset, Provenance
from modelreg.server import (
    ArtifactFile,
    Authentication,
    AuthenticationMode,
    Grant,
    Identity,
    ServerInfo,
    ServerLimits,
    Upload,
    Verification,
)

_NO_PROVENANCE = Provenance()
_A_DATASET = 'Write Dataset(uri="s3://bucket/voices.tar")'


# ---- models --------------------------------------------------------------------


@keeps_message
def model(message: model_pb2.Model, *, created: bool = True) -> Model:
    """Return a model."""
    has = message.HasField
    return Model(
        id=message.id,
        name=message.name,
        version=message.version,
        artifact=artifact(message.artifact),
        project_id=message.project_id if has("project_id") else None,
        project_name=message.project_name if has("project_name") else None,
        precisions=tuple(message.precisions),
        target_device=message.target_device if has("target_device") else None,
        target_device_type=message.target_device_type if has("target_device_type") else None,
        format=message.format if has("format") else None,
        origin=message.origin if has("origin") else None,
        category=message.category if has("category") else None,
        architecture=message.architecture if has("architecture") else None,
        description=message.description,
        score=message.score if has("score") else None,
        overview=json_of(message.overview) if has("overview") else None,
        optimization_capabilities=(
            json_of(message.optimization_capabilities) if has("optimization_capabilities") else None
        ),
        labels=tuple(json_of_list(message.labels)) if has("labels") else (),
        metrics=sorted_map(message.metrics),
        tags=sorted_map(message.tags),
        provenance=_provenance(message.provenance) if has("provenance") else _NO_PROVENANCE,
        signature=_signature(message.signature) if has("signature") else None,
        warnings=tuple(message.warnings),
        aliases=tuple(message.aliases),
        creator=message.creator,
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
        revision=message.revision,
        etag=message.etag,
        model_group_id=message.model_group_id,
        created=created,
    )


def artifact(message: model_pb2.Artifact) -> Artifact:
    """Return an artifact."""
    kind: Kind = "folder" if message.kind == model_pb2.Artifact.KIND_FOLDER else "file"
    return Artifact(
        file_name=message.file_name,
        media_type=message.media_type,
        size_bytes=message.size_bytes,
        sha256=message.sha256,
        kind=kind,
        verify_time=time_of(message, "verify_time"),
    )


def _tensor(message: model_pb2.Tensor) -> Tensor:
    shape = tuple(json_of_list(message.shape)) if message.HasField("shape") else None
    return Tensor(name=message.name, element_type=message.element_type, shape=shape)


def _signature(message: model_pb2.ModelSignature) -> Signature:
    return Signature(
        format=message.format,
        path=message.path,
        inputs=tuple(_tensor(tensor) for tensor in message.inputs),
        outputs=tuple(_tensor(tensor) for tensor in message.outputs),
        weights=tuple(_tensor(tensor) for tensor in message.weights),
        weight_count=message.weight_count,
        precisions=tuple(message.precisions),
        producer=message.producer,
        opsets=sorted_map(message.opsets),
        metadata=sorted_map(message.metadata),
        problems=tuple(message.problems),
    )


def _provenance(message: model_pb2.Provenance) -> Provenance:
    return Provenance(
        source_repository=message.source_repository,
        source_commit=message.source_commit,
        training_run=message.training_run,
        datasets=tuple(Dataset(name=found.name, uri=found.uri, digest=found.digest) for found in message.datasets),
        parents=tuple(message.parent_model_ids),
        framework=message.framework,
        framework_version=message.framework_version,
        hyperparameters=json_of_struct(message.hyperparameters),
        environment=sorted_map(message.environment),
        seed=message.seed if message.HasField("seed") else None,
    )


def provenance_message(provenance: Provenance) -> model_pb2.Provenance:
    """Return a provenance as a message. Its parents must be ids.

    Raises:
        InvalidArgument: A value has the wrong type.
    """
    found = _arguments.instance(
        provenance, Provenance, "provenance", advice='Write Provenance(parents=["vad:6.2.2"], seed=42).'
    )

    def text(name: str) -> str:
        return _arguments.text(getattr(found, name), f"provenance.{name}")

    datasets = _arguments.items(found.datasets, "provenance.datasets", advice=f"{_A_DATASET}, in a list.")
    hyperparameters = _arguments.mapping(
        found.hyperparameters, "provenance.hyperparameters", advice='Write {"learning_rate": 0.001}.'
    )
    environment = _arguments.mapping(found.environment, "provenance.environment", advice='Write {"python": "3.12.4"}.')
    message = model_pb2.Provenance(
        source_repository=text("source_repository"),
        source_commit=text("source_commit"),
        training_run=text("training_run"),
        datasets=[_dataset_message(dataset, f"provenance.datasets[{index}]") for index, dataset in enumerate(datasets)],
        parent_model_ids=_arguments.texts(found.parents, "provenance.parents"),
        framework=text("framework"),
        framework_version=text("framework_version"),
        hyperparameters=struct_of(hyperparameters, "provenance.hyperparameters"),
        environment={
            key: _arguments.text(value, f"provenance.environment.{key}") for key, value in environment.items()
        },
    )
    if found.seed is not None:
        try:
            message.seed = _arguments.whole_number(found.seed, "provenance.seed")
        except (ValueError, OverflowError) as error:
            if isinstance(error, InvalidArgument):
                raise
            raise InvalidArgument(f"provenance.seed: {found.seed} does not fit into 64 bits.") from None
    return message


def _dataset_message(dataset: Dataset, name: str) -> model_pb2.Dataset:
    found = _arguments.instance(dataset, Dataset, name, advice=f"{_A_DATASET}.")
    return model_pb2.Dataset(
        name=_arguments.text(found.name, f"{name}.name"),
        uri=_arguments.text(found.uri, f"{name}.uri"),
        digest=_arguments.text(found.digest, f"{name}.digest"),
    )


@keeps_message
def model_group(message: model_group_pb2.ModelGroup) -> ModelGroup:
    """Return a model group."""
    goals = {
        key: cast(Literal["maximize", "minimize"], enum_name(model_group_pb2.MetricGoal, goal, "METRIC_GOAL_"))
        for key, goal in sorted_map(message.metric_goals).items()
    }
    return ModelGroup(
        id=message.id,
        name=message.name,
        project_id=message.project_id if message.HasField("project_id") else None,
        project_name=message.project_name if message.HasField("project_name") else None,
        description=message.description,
        owner=message.owner,
        tags=sorted_map(message.tags),
        metric_goals=goals,
        version_count=message.version_count,
        latest_version=message.latest_version,
        latest_model_id=message.latest_model_id,
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
        etag=message.etag,
    )


def metric_goal(goal: str, name: str) -> model_group_pb2.MetricGoal:
    """Return which values of a metric are better, as a number.

    Raises:
        InvalidArgument: The text is neither `maximize` nor `minimize`.
    """
    if goal == "maximize":
        return model_group_pb2.METRIC_GOAL_MAXIMIZE
    if goal == "minimize":
        return model_group_pb2.METRIC_GOAL_MINIMIZE
    raise InvalidArgument(f"{name}: {goal!r:.200} is neither 'maximize' nor 'minimize'.")


@keeps_message
def artifact_file(message: artifact_service_pb2.ArtifactFile) -> ArtifactFile:
    """Return a file inside an artifact."""
    return ArtifactFile(
        path=message.path,
        size_bytes=message.size_bytes,
        compressed_size_bytes=message.compressed_size_bytes,
        crc32=message.crc32,
        modify_time=time_of(message, "modify_time"),
        sha256=message.sha256 if message.HasField("sha256") else None,
    )


@keeps_message
def verification(message: artifact_service_pb2.VerificationResult) -> Verification:
    """Return what a verification found."""
    return Verification(
        intact=message.intact,
        expected=artifact(message.expected) if message.HasField("expected") else None,
        actual_size_bytes=message.actual_size_bytes,
        actual_sha256=message.actual_sha256,
        verify_time=time_of(message, "verify_time"),
    )


@keeps_message
def upload(message: upload_pb2.Upload) -> Upload:
    """Return an upload."""
    declared = message.spec.artifact
    return Upload(
        id=message.id,
        name=message.spec.model.name,
        version=message.spec.model.version,
        file_name=declared.file_name,
        state=cast(Any, enum_name(upload_pb2.Upload.State, message.state, "STATE_")),
        committed_size=message.committed_size,
        size_bytes=declared.size_bytes if declared.HasField("size_bytes") else None,
        create_time=time_of(message, "create_time"),
        expire_time=time_of(message, "expire_time"),
        model_id=message.model_id,
        creator=message.creator,
    )


# ---- aliases ---------------------------------------------------------------------


@keeps_message
def alias(message: alias_pb2.Alias) -> Alias:
    """Return an alias."""
    return Alias(
        alias=message.alias,
        model_group_id=message.model_group_id,
        model_id=message.model_id,
        version=message.version,
        sha256=message.sha256,
        etag=message.etag,
        revision=message.revision,
        update_time=time_of(message, "update_time"),
        actor=message.actor,
        reason=message.reason,
    )


def alias_target(message: Message, field: str) -> AliasTarget | None:
    """Return what an alias pointed to, or None if the field is absent."""
    if not message.HasField(field):
        return None
    target: alias_pb2.AliasTarget = getattr(message, field)
    return AliasTarget(model_id=target.model_id, version=target.version, sha256=target.sha256)


@keeps_message
def alias_move(message: alias_pb2.AliasMove) -> AliasMove:
    """Return one entry of a history."""
    return AliasMove(
        alias=message.alias,
        model_group_id=message.model_group_id,
        revision=message.revision,
        kind=cast(MoveKind, enum_name(alias_pb2.AliasMove.Kind, message.kind, "KIND_")),
        before=alias_target(message, "before"),
        after=alias_target(message, "after"),
        move_time=time_of(message, "move_time"),
        actor=message.actor,
        reason=message.reason,
        request_id=message.request_id,
    )


@keeps_message
def promotion(
    message: alias_service_pb2.SetAliasResponse | alias_service_pb2.RollbackAliasResponse,
) -> Promotion:
    """Return what a promotion or a rollback did."""
    checks = message.checks if isinstance(message, alias_service_pb2.SetAliasResponse) else ()
    return Promotion(
        alias=alias(message.alias),
        before=alias_target(message, "before"),
        changed=message.changed,
        checks=tuple(
            RequirementCheck(requirement=check.requirement, passed=check.passed, description=check.description)
            for check in checks
        ),
    )


def requirements_message(requirements: Requirements) -> alias_pb2.PromotionRequirements:
    """Return requirements as a message.

    Raises:
        InvalidArgument: A value has the wrong type.
    """
    requirements = _arguments.instance(
        requirements, Requirements, "require", advice="Write Requirements(verified=True)."
    )
    bounds = _arguments.mapping(requirements.metrics, "require.metrics", advice='Write metrics={"f1": Bound(min=0.9)}.')
    age = requirements.max_verification_age
    if age is not None:
        _arguments.instance(age, timedelta, "require.max_verification_age", advice="Write timedelta(days=1).")
    return alias_pb2.PromotionRequirements(
        verified=requirements.verified,
        max_verification_age=None
        if age is None
        else Duration(seconds=int(age.total_seconds()), nanos=age.microseconds * 1000),
        metrics=[_bound_message(bound, name) for name, bound in bounds.items()],
        same_inputs=requirements.same_inputs,
        same_outputs=requirements.same_outputs,
        same_labels=requirements.same_labels,
    )


def _bound_message(bound: Bound, metric: str) -> alias_pb2.MetricBound:
    name = f"require.metrics.{metric}"
    found = _arguments.instance(bound, Bound, name, advice="Write Bound(min=0.9), Bound(max=0.1), or both.")
    return alias_pb2.MetricBound(
        metric=metric,
        min=None if found.min is None else _arguments.number(found.min, f"{name}.min"),
        max=None if found.max is None else _arguments.number(found.max, f"{name}.max"),
    )


# ---- audit log, lineage --------------------------------------------------------


@keeps_message
def event(message: audit_pb2.AuditEvent, *, resume_token: str = "") -> Event:
    """Return an event of the audit log."""
    has = message.HasField
    return Event(
        sequence=message.sequence,
        action=enum_name(audit_pb2.AuditEvent.Action, message.action, "ACTION_"),
        event_time=time_of(message, "event_time"),
        actor=message.actor,
        request_id=message.request_id,
        project_id=message.project_id if has("project_id") else None,
        project_name=message.project_name if has("project_name") else None,
        name=message.name,
        model_id=message.model_id,
        model_group_id=message.model_group_id,
        alias=message.alias,
        reason=message.reason,
        before=json_of_struct(message.before) if has("before") else None,
        after=json_of_struct(message.after) if has("after") else None,
        details_omitted=message.details_omitted,
        previous_hash=message.previous_hash,
        hash=message.hash,
        damaged=message.damaged,
        moved_away=message.moved_away,
        resume_token=resume_token,
    )


@keeps_message
def log_verification(message: audit_service_pb2.VerifyAuditLogResponse) -> LogVerification:
    """Return what a verification of the audit log found."""
    broken = message.broken if message.HasField("broken") else None
    return LogVerification(
        valid=message.valid,
        checked_count=message.checked_count,
        head=LogPosition(sequence=message.head.sequence, hash=message.head.hash),
        broken_sequence=None if broken is None else broken.sequence,
        problem="" if broken is None else broken.description,
    )


@keeps_message
def lineage_node(message: lineage_pb2.LineageNode) -> LineageNode:
    """Return a model of a lineage."""
    found = model(message.model) if message.HasField("model") else None
    return LineageNode(model_id=message.model_id, depth=message.depth, model=found)


@keeps_message
def lineage_edge(message: lineage_pb2.LineageEdge) -> LineageEdge:
    """Return a step of a lineage."""
    return LineageEdge(child_model_id=message.child_model_id, parent_model_id=message.parent_model_id)


# ---- servers -----------------------------------------------------------------------


@keeps_message
def server_info(message: system_service_pb2.ServerInfo) -> ServerInfo:
    """Return what a server says of itself."""
    limits = message.limits
    signing_in = message.authentication
    return ServerInfo(
        version=message.version,
        limits=ServerLimits(
            max_artifact_bytes=limits.max_artifact_bytes,
            max_metadata_bytes=limits.max_metadata_bytes,
            max_message_bytes=limits.max_message_bytes,
            recommended_chunk_bytes=limits.recommended_chunk_bytes,
            default_page_size=limits.default_page_size,
            max_page_size=limits.max_page_size,
            max_filter_characters=limits.max_filter_characters,
            upload_ttl=duration_of(limits, "upload_ttl"),
            stream_idle_timeout=duration_of(limits, "stream_idle_timeout"),
            watch_heartbeat_interval=duration_of(limits, "watch_heartbeat_interval"),
            idempotency_key_ttl=duration_of(limits, "idempotency_key_ttl"),
        ),
        features=tuple(message.features),
        authentication=Authentication(
            mode=cast(AuthenticationMode, enum_name(system_service_pb2.Authentication.Mode, signing_in.mode, "MODE_")),
            oidc_issuer=signing_in.oidc_issuer,
            oidc_client_id=signing_in.oidc_client_id,
            oidc_scopes=tuple(signing_in.oidc_scopes),
            oidc_audience=signing_in.oidc_audience,
        ),
    )


@keeps_message
def identity(message: system_service_pb2.WhoAmIResponse) -> Identity:
    """Return who the caller is."""
    return Identity(
        subject=message.subject,
        grants=tuple(
            Grant(
                role=grant.role,
                project_id=grant.project_id if grant.HasField("project_id") else None,
                permissions=tuple(grant.permissions),
            )
            for grant in message.grants
        ),
        expire_time=time_of(message, "expire_time"),
    )
