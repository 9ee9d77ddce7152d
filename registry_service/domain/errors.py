"""Errors that clients see, in the terms of the domain.

An error has a reason and the variables of its message (AIP-193), never a status
code: `transport.grpc.errors` holds the one table from here to gRPC. Each reason
is a value of the enum ErrorReason in protos/, which documents it. Messages are
shown to clients, so they hold nothing internal.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One thing wrong with one field of the input."""

    field: str
    """Path of the field in the resource that has it, or else in the request: `metrics.mAP50`."""
    description: str
    """What is wrong, for a person."""


class RegistryError(Exception):
    """Base of all errors that a client may see. Abstract: raise a subclass."""

    reason: str
    """UPPER_SNAKE_CASE, at most 63 characters. Stable, for machines."""
    retry_seconds: float | None = None
    """Delay after which the same call may succeed; None for errors that a retry does not help."""

    def __init__(self, message: str, /, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata
        """Every variable part of the message."""


class NotFoundError(RegistryError):
    """What the request names does not exist."""

    reason = "NOT_FOUND"


class ModelNotFoundError(NotFoundError):
    """There is no model with this id."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, model_id: str) -> None:
        super().__init__(f"No model has the id {model_id!r}.", model_id=model_id)


class ModelGroupNotFoundError(NotFoundError):
    """There is no model group with this id."""

    reason = "MODEL_GROUP_NOT_FOUND"

    def __init__(self, model_group_id: str) -> None:
        super().__init__(f"No model group has the id {model_group_id!r}.", model_group_id=model_group_id)


class UploadNotFoundError(NotFoundError):
    """There is no upload with this id: never was, expired, or cancelled."""

    reason = "UPLOAD_NOT_FOUND"

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"No upload has the id {upload_id!r}. It may have expired.", upload_id=upload_id)


class ArtifactFileNotFoundError(NotFoundError):
    """The ZIP artifact has no member of this name."""

    reason = "ARTIFACT_FILE_NOT_FOUND"

    def __init__(self, model_id: str, name: str) -> None:
        super().__init__(f"The artifact of the model {model_id!r} has no file {name!r}.", model_id=model_id, path=name)


class ProjectNotFoundError(NotFoundError):
    """Geti has no project with this id."""

    reason = "GETI_PROJECT_NOT_FOUND"

    def __init__(self, project_id: str) -> None:
        super().__init__(f"No Geti project has the id {project_id!r}.", project_id=project_id)


class GetiModelNotFoundError(NotFoundError):
    """The project has no OpenVINO model with this id."""

    reason = "GETI_MODEL_NOT_FOUND"

    def __init__(self, project_id: str, model_id: str) -> None:
        super().__init__(
            f"The Geti project {project_id!r} has no OpenVINO model with the id {model_id!r}.",
            project_id=project_id,
            model_id=model_id,
        )


class AliasNotFoundError(NotFoundError):
    """The alias points, or at that time pointed, to nothing."""

    reason = "ALIAS_NOT_FOUND"

    def __init__(self, alias: str, name: str, *, at_time: str = "") -> None:
        when = f" at {at_time}" if at_time else ""
        super().__init__(f"The alias {alias!r} of {name!r} has no target{when}.", alias=alias, name=name)
        if at_time:
            self.metadata["at_time"] = at_time


class TokenNotFoundError(NotFoundError):
    """There is no token with this id or name."""

    reason = "TOKEN_NOT_FOUND"

    def __init__(self, token_id: str) -> None:
        super().__init__(f"No token has the id or name {token_id!r}.", token_id=token_id)


class ReferenceNotFoundError(NotFoundError):
    """A part of the reference names nothing that there is."""

    reason = "REFERENCE_NOT_FOUND"

    def __init__(self, reference: str, part: str, description: str) -> None:
        super().__init__(f"{description} (reference {reference!r}).", reference=reference, part=part)


class InvalidArgumentError(RegistryError):
    """The input is wrong whatever the state of the registry."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__(" ".join(f"{v.field}: {v.description}" for v in violations), field=violations[0].field)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidArgumentError":
        """Makes the error of one field."""
        return cls([FieldViolation(field, description)])

    def with_violations(self, violations: Sequence[FieldViolation]) -> "InvalidArgumentError":
        """Return an error with the same reason and metadata, but with other violations."""
        error = InvalidArgumentError(violations)
        error.reason = self.reason
        error.metadata = self.metadata | error.metadata
        return error


class InvalidFilterError(InvalidArgumentError):
    """The filter does not parse, or compares what cannot be compared."""

    reason = "INVALID_FILTER"

    def __init__(self, description: str, position: int) -> None:
        super().__init__([FieldViolation("filter", f"{description} (position {position}).")])
        self.metadata["position"] = str(position)


class InvalidReferenceError(InvalidArgumentError):
    """The text is no reference (`domain.references`)."""

    reason = "INVALID_REFERENCE"

    def __init__(self, description: str, position: int) -> None:
        super().__init__([FieldViolation("reference", f"{description} (position {position}).")])
        self.metadata["position"] = str(position)


class ArtifactMismatchError(InvalidArgumentError):
    """The bytes that arrived are not the ones that were declared."""

    reason = "ARTIFACT_MISMATCH"


class InvalidArtifactError(InvalidArgumentError):
    """The artifact was declared as a ZIP and is none, or a harmful one."""

    reason = "INVALID_ARTIFACT"


class ProvenanceCycleError(InvalidArgumentError):
    """The model would be its own ancestor."""

    reason = "PROVENANCE_CYCLE"

    def __init__(self, cycle: Sequence[str]) -> None:
        path = " from ".join(cycle)
        super().__init__([FieldViolation("provenance.parent_model_ids", f"would close a cycle: {path}.")])
        self.metadata["model_ids"] = ",".join(cycle)
        self.cycle = tuple(cycle)
        """Ids of models, each made from the next; the last is the first."""


class AncestryTooLargeError(InvalidArgumentError):
    """The model would have more ancestors than are searched for a cycle."""

    reason = "ANCESTRY_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(
            [
                FieldViolation(
                    "provenance.parent_model_ids", f"would give the model more than {limit} links to ancestors."
                )
            ]
        )
        self.metadata["limit"] = str(limit)


class AlreadyExistsError(RegistryError):
    """Another model has the id, or the identity, of this one."""

    reason = "MODEL_ALREADY_EXISTS"

    def __init__(self, message: str, *, model_id: str, conflict: str) -> None:
        super().__init__(message, model_id=model_id, conflict=conflict)
        self.model_id = model_id
        """Id of the model that is in the way."""
        self.conflict = conflict
        """`id` or `identity` (project, name, version, precision)."""


class ModelsRegisteredError(AlreadyExistsError):
    """Some of the models to import are registered already."""

    reason = "MODELS_REGISTERED"

    def __init__(self, model_ids: Sequence[str]) -> None:
        super().__init__(
            f"Already registered: {', '.join(model_ids)}. Nothing was imported.",
            model_id=model_ids[0],
            conflict="id",
        )
        self.model_ids = tuple(model_ids)


class TokenExistsError(RegistryError):
    """Another token has the name, or had it until it was revoked."""

    reason = "TOKEN_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"A token has, or had, the name {name!r}.", name=name)


class FailedPreconditionError(RegistryError):
    """The request cannot be served in the present state; another one could."""

    reason = "FAILED_PRECONDITION"


class UploadNotActiveError(FailedPreconditionError):
    """The upload takes no more bytes."""

    reason = "UPLOAD_NOT_ACTIVE"

    def __init__(self, upload_id: str, state: str) -> None:
        super().__init__(
            f"The upload {upload_id!r} is {state} and accepts no more bytes.", upload_id=upload_id, state=state
        )


class NotAnArchiveError(FailedPreconditionError):
    """The artifact, or its member, cannot be read as a ZIP."""

    reason = "NOT_AN_ARCHIVE"


class GetiNotConfiguredError(FailedPreconditionError):
    """The registry is not connected to a Geti."""

    reason = "GETI_NOT_CONFIGURED"

    def __init__(self) -> None:
        super().__init__("The server is not connected to an Intel Geti.")


class GetiRefusedError(FailedPreconditionError):
    """Geti will not give a model away."""

    reason = "GETI_REFUSED"


class GetiDeploymentError(FailedPreconditionError):
    """What Geti made of a model for us is unusable, or it made nothing."""

    reason = "GETI_DEPLOYMENT_FAILED"


class PermissionDeniedError(RegistryError):
    """Something that the registry needs is denied to it."""

    reason = "PERMISSION_DENIED"


class GetiDeniedError(PermissionDeniedError):
    """Geti does not take the registry's key, or the key is not for this workspace."""

    reason = "GETI_DENIED"

    def __init__(self) -> None:
        super().__init__("Geti rejects the API key of the server. It may be wrong or expired.")


class AccessDeniedError(PermissionDeniedError):
    """The caller may not do this."""

    reason = "ACCESS_DENIED"
    actor: str = ""
    """Who is refused, for the log; empty where the call itself was let in."""


class RoleMissingError(AccessDeniedError):
    """The caller has no role that allows this, in any project."""

    reason = "ROLE_MISSING"

    def __init__(self, permission: str) -> None:
        super().__init__(f"You have no role with the permission {permission!r}.", permission=permission)


class ProjectDeniedError(AccessDeniedError):
    """The caller may do this in other projects only."""

    reason = "PROJECT_DENIED"

    def __init__(self, project_id: str | None) -> None:
        where = "outside of all projects" if project_id is None else f"in the project {project_id!r}"
        super().__init__(f"You have no role that allows this call {where}.", project_id=project_id or "")


class UnauthenticatedError(RegistryError):
    """The caller has not shown who they are."""

    reason = "UNAUTHENTICATED"

    def __init__(self, message: str = "Missing bearer token in the `Authorization` header.") -> None:
        super().__init__(message)


class InvalidCredentialsError(UnauthenticatedError):
    """What the caller shows does not count, or not any more. One message for all causes: the log has them."""

    reason = "INVALID_CREDENTIALS"

    def __init__(self) -> None:
        super().__init__("Invalid bearer token.")


class ModelInUseError(FailedPreconditionError):
    """Aliases point to the model, so it can't be deleted."""

    reason = "MODEL_IN_USE"

    def __init__(self, model_id: str, aliases: Sequence[str]) -> None:
        names = ", ".join(aliases)
        super().__init__(
            f"The model {model_id!r} cannot be deleted while aliases point to it: {names}.",
            model_id=model_id,
            aliases=names,
        )


class ModelHasAliasesError(FailedPreconditionError):
    """Aliases point to the model, so it can't move to another model group."""

    reason = "MODEL_HAS_ALIASES"

    def __init__(self, model_id: str, aliases: Sequence[str]) -> None:
        names = ", ".join(aliases)
        super().__init__(
            f"The model {model_id!r} cannot move to another model group while aliases point to it: {names}.",
            model_id=model_id,
            aliases=names,
        )


class ModelNotInGroupError(FailedPreconditionError):
    """The alias of one model group is to point to a model of another."""

    reason = "MODEL_NOT_IN_GROUP"

    def __init__(self, model_id: str, model_group_id: str) -> None:
        super().__init__(
            f"The model {model_id!r} (model_id) is not in the model group {model_group_id!r}.",
            model_id=model_id,
            model_group_id=model_group_id,
        )


class ModelGroupNotEmptyError(FailedPreconditionError):
    """The model group has models, so it can't be deleted."""

    reason = "MODEL_GROUP_NOT_EMPTY"

    def __init__(self, model_group_id: str) -> None:
        super().__init__(
            f"The model group {model_group_id!r} has models; only an empty group can be deleted.",
            model_group_id=model_group_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that an ambiguous reference may mean."""

    kind: str
    """`model` or `model_group`."""
    id: str
    description: str
    """Of a group, a reference that names it alone; of a model, what tells it from the others, for a person."""
    owner: str = ""
    """The project of a group, for a person."""


class AmbiguousReferenceError(FailedPreconditionError):
    """The reference may mean several things."""

    reason = "AMBIGUOUS_REFERENCE"

    def __init__(self, reference: str, description: str, candidates: Sequence[Candidate]) -> None:
        super().__init__(f"{description} (reference {reference!r}).", reference=reference)
        self.candidates = tuple(candidates)


class PrecisionMismatchError(FailedPreconditionError):
    """The reference names one model, which has other precisions than were asked for."""

    reason = "PRECISION_MISMATCH"

    def __init__(self, model_id: str, precisions: Sequence[str], wanted: Sequence[str]) -> None:
        has, asked = ",".join(precisions), ",".join(wanted)
        super().__init__(
            f"The model {model_id!r} has the precisions {has}, not {asked}.",
            model_id=model_id,
            precisions=has,
            requested_precisions=asked,
        )


class NoPreviousTargetError(FailedPreconditionError):
    """The alias has pointed to nothing else since it was first set, or that is where rollbacks have led."""

    reason = "NO_PREVIOUS_TARGET"

    def __init__(self, alias: str) -> None:
        super().__init__(f"The alias {alias!r} has no previous target to roll back to.", alias=alias)


class NeverTargetError(FailedPreconditionError):
    """The alias is to go back to a model that it never pointed to."""

    reason = "NEVER_A_TARGET"

    def __init__(self, alias: str, model_id: str) -> None:
        super().__init__(
            f"The alias {alias!r} never pointed to the model {model_id!r}.", alias=alias, model_id=model_id
        )


class TargetGoneError(FailedPreconditionError):
    """What the alias is to go back to was deleted, or its id is another model's now."""

    reason = "TARGET_GONE"

    def __init__(self, alias: str, model_id: str, version: str) -> None:
        super().__init__(
            f"The alias {alias!r} cannot roll back to the model {model_id!r} (version {version!r}) because that model"
            " was deleted or replaced. Name another target in to_model_id.",
            alias=alias,
            model_id=model_id,
            version=version,
        )


class RequirementsNotMetError(FailedPreconditionError):
    """The model does not meet what an alias's move requires."""

    reason = "REQUIREMENTS_NOT_MET"

    def __init__(self, model_id: str, violations: Sequence[FieldViolation]) -> None:
        super().__init__(
            f"The model {model_id!r} does not meet the promotion requirements. "
            + " ".join(f"{v.field}: {v.description}" for v in violations),
            model_id=model_id,
        )
        self.violations = tuple(violations)
        """Each with the requirement as its field."""


class IdempotencyKeyReusedError(FailedPreconditionError):
    """The caller has used the idempotency key for another request."""

    reason = "IDEMPOTENCY_KEY_REUSED"

    def __init__(self, key: str) -> None:
        super().__init__(
            f"The idempotency key {key!r} was used for another request. Use a new key for each request.",
            idempotency_key=key,
        )


class AbortedError(RegistryError):
    """A concurrent change was committed first."""

    reason = "ABORTED"
    retry_seconds: float | None = 0.1


class EtagMismatchError(AbortedError):
    """The model has changed since the client read it."""

    reason = "ETAG_MISMATCH"
    retry_seconds = None

    def __init__(self, model_id: str) -> None:
        super().__init__(f"The model {model_id!r} has changed since its etag was read.", model_id=model_id)


class ModelGroupEtagMismatchError(EtagMismatchError):
    """The model group has changed since the client read it."""

    def __init__(self, model_group_id: str) -> None:
        AbortedError.__init__(
            self,
            f"The model group {model_group_id!r} has changed since its etag was read.",
            model_group_id=model_group_id,
        )


class ArtifactEtagMismatchError(EtagMismatchError):
    """The bytes to download do not meet the condition that the client sets."""

    def __init__(self, model_id: str, etag: str) -> None:
        AbortedError.__init__(
            self,
            f"The artifact of the model {model_id!r} does not meet the condition of the request.",
            model_id=model_id,
        )
        self.etag = etag
        """Of the bytes that there are."""


class AliasChangedError(AbortedError):
    """The alias is not as the client expects it."""

    reason = "ALIAS_CHANGED"
    retry_seconds = None

    def __init__(self, alias: str, model_id: str) -> None:
        now = f"it points to the model {model_id!r}" if model_id else "it has no target"
        super().__init__(f"The alias {alias!r} is not as expected: {now}.", alias=alias, model_id=model_id)


class WriterDisplacedError(AbortedError):
    """A newer writer, or the upload's completion, took the upload over."""

    reason = "WRITER_DISPLACED"
    retry_seconds = None

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"A newer call has taken over the upload {upload_id!r}.", upload_id=upload_id)


class IdempotentCallRunningError(AbortedError):
    """A call with the same idempotency key is under way."""

    reason = "IDEMPOTENT_CALL_RUNNING"
    retry_seconds = 1.0

    def __init__(self, key: str) -> None:
        super().__init__(
            f"A call with the idempotency key {key!r} is still running. Try again in a moment.", idempotency_key=key
        )


class CallCancelledError(RegistryError):
    """The client has gone, or its time is over: nobody waits for the answer."""

    reason = "CANCELLED"

    def __init__(self) -> None:
        super().__init__("The call was cancelled.")


class LeaseLostError(AbortedError):
    """The registration went on for so long without a sign of life that its bytes were swept."""

    reason = "LEASE_LOST"
    retry_seconds = None


class OutOfRangeError(RegistryError):
    """An offset is past the end, or not where the upload stands."""

    reason = "OUT_OF_RANGE"


class RangeNotSatisfiableError(OutOfRangeError):
    """None of the bytes to download is in the range."""

    reason = "RANGE_NOT_SATISFIABLE"

    def __init__(self, model_id: str, size: int) -> None:
        super().__init__(f"The range has none of the {size} bytes.", model_id=model_id, size=str(size))
        self.size = size


class ResourceExhaustedError(RegistryError):
    """A limit is reached."""

    reason = "RESOURCE_EXHAUSTED"


class ArtifactTooLargeError(ResourceExhaustedError):
    """The artifact is larger than ARTIFACT_MAX_BYTES."""

    reason = "ARTIFACT_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The artifact is larger than {limit} bytes.", limit=str(limit))


class StorageFullError(ResourceExhaustedError):
    """There is no space for what is to be written; what is there can be read, and deleted."""

    reason = "STORAGE_FULL"
    retry_seconds = 30.0

    def __init__(self, place: str, reserve_bytes: int | None = None) -> None:
        kept = "" if reserve_bytes is None else f" beyond the reserve of {reserve_bytes} bytes (DISK_RESERVE_BYTES)"
        super().__init__(f"No space is left in {place}{kept}. Writes fail until space is freed.", place=place)


class TooManyStreamsError(ResourceExhaustedError):
    """As many long calls are under way as may be, of all callers or of this one."""

    reason = "TOO_MANY_STREAMS"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(
            f"The limit of {limit} concurrent streams is reached. Try again in {retry_seconds:.0f} s.", limit=str(limit)
        )
        self.retry_seconds = retry_seconds


class TooManyCallsError(ResourceExhaustedError):
    """As many short calls run and wait as may, of all callers or of this one."""

    reason = "TOO_MANY_CALLS"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(
            f"The limit of {limit} concurrent calls is reached. Try again in {retry_seconds:.0f} s.", limit=str(limit)
        )
        self.retry_seconds = retry_seconds


class TooManyIdempotencyKeysError(ResourceExhaustedError):
    """The caller has used as many new idempotency keys as it may for now."""

    reason = "TOO_MANY_IDEMPOTENCY_KEYS"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        super().__init__(
            f"The limit of {limit} new idempotency keys of one caller in 24 hours is reached. Try again in"
            f" {retry_seconds:.0f} s, or send the request without a key.",
            limit=str(limit),
        )
        self.retry_seconds = retry_seconds


class DeadlineExceededError(RegistryError):
    """The request asks for more work than one request may take."""

    reason = "DEADLINE_EXCEEDED"


class QueryTooSlowError(DeadlineExceededError):
    """The database needed longer than UNARY_TIMEOUT_SECONDS."""

    reason = "QUERY_TOO_SLOW"

    def __init__(self) -> None:
        super().__init__("The database query took too long. Use a narrower filter.")


class UnavailableError(RegistryError):
    """A dependency is away; the same request may succeed later."""

    reason = "UNAVAILABLE"
    retry_seconds = 2.0


class DatabaseUnavailableError(UnavailableError):
    """Postgres does not answer."""

    reason = "DATABASE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The database does not respond. Try again later.")


class DatabaseBusyError(UnavailableError):
    """Another change keeps what this one needs for too long."""

    reason = "DATABASE_BUSY"

    def __init__(self) -> None:
        super().__init__("A concurrent change held a lock for too long. Try again in a moment.")


class IdentityProviderUnavailableError(UnavailableError):
    """The keys that bearer tokens are checked with cannot be had."""

    reason = "IDENTITY_PROVIDER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The identity provider does not respond, or its response is invalid. Try again later.")


class ServerStoppingError(UnavailableError):
    """The server ends a call that would go on for ever, as it stops."""

    reason = "SERVER_STOPPING"

    def __init__(self) -> None:
        super().__init__("The server is shutting down. Try again in a moment; another server may answer.")


class TooManyOpenFilesError(UnavailableError):
    """The server may open no more files at present."""

    reason = "TOO_MANY_OPEN_FILES"

    def __init__(self) -> None:
        super().__init__("The server has reached its limit of open files and connections. Try again later.")


class ArtifactStoreUnavailableError(UnavailableError):
    """The artifact store does not answer."""

    reason = "ARTIFACT_STORE_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The artifact store does not respond. Try again later.")


class GetiUnavailableError(UnavailableError):
    """Geti does not answer, or not what it should."""

    reason = "GETI_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("Geti does not respond, or its response is invalid. Try again later.")


class DataLossError(RegistryError):
    """Stored bytes are gone or damaged."""

    reason = "DATA_LOSS"


class ArtifactDamagedError(DataLossError):
    """The artifact store has other bytes than were registered."""

    reason = "ARTIFACT_DAMAGED"

    def __init__(self, model_id: str) -> None:
        super().__init__(
            f"The stored bytes of the model {model_id!r} differ from those that were registered.", model_id=model_id
        )


class ArtifactLostError(DataLossError):
    """The artifact store no longer has (all of) the bytes."""

    reason = "ARTIFACT_LOST"

    def __init__(self, message: str = "The artifact store no longer has these bytes.") -> None:
        super().__init__(message)
