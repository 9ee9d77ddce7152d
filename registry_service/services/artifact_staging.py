"""Stage artifacts: store their bytes before a model refers to them.

The object is written first, under a key that only the ledger of objects knows. Then one transaction makes a model
refer to the object and removes the key from the ledger. A crash in between leaves an object for garbage collection.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.caller import AccessRecheck, current_caller
from registry_service.domain.errors import ArtifactLostError, InvalidArtifactError, LeaseLostError, NotAnArchiveError
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    Artifact,
    ArtifactSpec,
    Model,
    ModelSpec,
    compat_date,
    compat_precision,
    is_zip_media_type,
)
from registry_service.domain.object_keys import new_object_key
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.signature import Signature
from registry_service.services.archives import open_archive
from registry_service.services.checksums import ChecksumVerifier
from registry_service.services.object_deletion import ObjectDeletion
from registry_service.services.policy import Policy
from registry_service.services.signature_reading import read_signature


@dataclass(frozen=True, slots=True)
class ArtifactStaging:
    """Gives keys under which artifacts are staged."""

    database: Database
    store: ArtifactStore
    deletion: ObjectDeletion
    policy: Policy

    @contextmanager
    def stage(self, spec: ModelSpec | None = None) -> "Iterator[StagedArtifact]":
        """Give a staged artifact without bytes. Discard it at the end of the block unless it was committed.

        Args:
            spec: The model that the artifact is for, if it is known already.

        Raises:
            AlreadyExistsError: The id or the identity of `spec` is taken.
        """
        key = new_object_key()
        with self.database.transaction() as transaction:
            if spec is not None:
                transaction.models.check_absent(spec)
            transaction.objects.lease(key, self.policy.registration_lease)
        staged = StagedArtifact(self, key)
        try:
            yield staged
        except (LeaseLostError, ArtifactLostError) as error:
            # No model refers to the object, but bytes may have arrived after garbage collection removed it.
            with self.database.transaction() as transaction:
                held = transaction.objects.renew(key, self.policy.registration_lease)
                transaction.objects.mark_for_deletion(key)
            if held:
                raise
            raise _lease_lost() from error
        finally:
            if not staged.is_committed:
                # Also right if the outcome of the commit is unknown. If it took place, a model refers to the object
                # and the ledger has no row that would allow the deletion.
                self.deletion.delete_or_defer(key)


class StagedArtifact:
    """The bytes of one artifact, under a lease that its writer renews."""

    def __init__(self, staging: ArtifactStaging, key: str) -> None:
        self._staging = staging
        self._renewed = time.monotonic()
        self._recheck = AccessRecheck()
        self.sha256 = ""
        self._head = b""
        self.key = key
        self.size = 0
        self.is_committed = False

    def write(self, pieces: Iterable[bytes], spec: ArtifactSpec) -> None:
        """Store and hash the bytes. Call this once.

        Raises:
            InvalidArgumentError: There are no bytes, or their size or digest differs from the declared one.
            ArtifactTooLargeError: There are more than ARTIFACT_MAX_BYTES.
            LeaseLostError: Garbage collection removed the bytes.
        """
        verifier = ChecksumVerifier(spec, self._staging.policy.artifact_max_bytes)
        self._staging.store.write(self.key, verifier.verified(self._renewing_lease(pieces)))
        self.sha256 = verifier.sha256()
        self._head = verifier.checksum.head
        self.size = verifier.checksum.size

    def renew_lease(self) -> None:
        """Renew the lease when that is due. Call this repeatedly while more of the request is awaited.

        Raises:
            LeaseLostError: Garbage collection removed the bytes.
            UnauthenticatedError, AccessDeniedError: The caller lost access.
        """
        self._recheck()
        lease = self._staging.policy.registration_lease
        if time.monotonic() - self._renewed > lease.total_seconds() / 3:
            with self._staging.database.transaction() as transaction:
                _require_lease(transaction.objects.renew(self.key, lease))
            self._renewed = time.monotonic()

    def check_archive(self, spec: ModelSpec) -> None:
        """Raise InvalidArtifactError if the bytes are declared as a ZIP, but are not a harmless one."""
        check_archive(self._staging.store, spec, self.key, self.size, self._staging.policy)

    def commit_model(self, spec: ModelSpec, check_cancelled: Callable[[], None]) -> Model:
        """Add a model with this artifact, and return the model.

        Args:
            spec: A checked specification.
            check_cancelled: Raises if the bytes ended because the call was cancelled. Called last, right before the
                commit.

        Raises:
            AlreadyExistsError: The id or the identity is taken.
            LeaseLostError: Garbage collection removed the bytes.
        """
        self.renew_lease()
        signature = self.read_signature(spec.artifact)
        models: list[Model] = []

        def add(transaction: Transaction) -> None:
            model = new_model(
                spec, self.key, self.size, self.sha256, self._staging.policy, signature=signature, now=transaction.now
            )
            model = transaction.models.add(model)
            transaction.idempotency.keep(
                model, resource_id=model.id, project_id=model.project_id, artifact_sha256=self.sha256
            )
            models.append(model)
            check_cancelled()

        self.commit(add)
        return models[0]

    def read_signature(self, artifact: ArtifactSpec) -> Signature | None:
        """Return the signature of the model in the bytes, or None if their format is unknown."""
        return read_signature(self._staging.store, artifact, self.key, self.size, self._head)

    def commit(self, write: Callable[[Transaction], None]) -> None:
        """Commit the artifact.

        Args:
            write: Makes a model refer to the artifact, in the transaction that removes its key from the ledger.

        Raises:
            LeaseLostError: Garbage collection removed the bytes.
        """
        # Before the transaction, because the check may query the database or an OpenID provider.
        current_caller.get().check_access()
        with self._staging.database.transaction() as transaction:
            _require_lease(transaction.objects.release(self.key))
            write(transaction)
        self.is_committed = True

    def _renewing_lease(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self.renew_lease()


def _require_lease(held: bool) -> None:
    if not held:
        raise _lease_lost()


def _lease_lost() -> LeaseLostError:
    return LeaseLostError(
        "The registration sent nothing for so long that its bytes were removed. Register the model again."
    )


def check_archive(store: ArtifactStore, spec: ModelSpec, key: str, size: int, policy: Policy) -> None:
    """Check that an artifact that is declared as a ZIP is one, and that no name in it leads out of its folder.

    Raises:
        InvalidArtifactError: The artifact is not a readable ZIP, or it has an unsafe name.
    """
    if not is_zip_media_type(spec.artifact.media_type):
        return
    try:
        with open_archive(store, key, size, directory_max_bytes=policy.zip_directory_max_bytes) as archive:
            unsafe = archive.unsafe_name()
    except NotAnArchiveError as error:
        raise InvalidArtifactError.of("artifact", f"is declared as {spec.artifact.media_type}: {error}") from error
    if unsafe is not None:
        raise InvalidArtifactError.of("artifact", f"has a file with the unsafe name {unsafe[:200]!r}.")


def new_model(
    spec: ModelSpec, key: str, size: int, sha256: str, policy: Policy, *, signature: Signature | None, now: datetime
) -> Model:
    """Return the model that a checked specification describes, registered at `now`."""
    date = compat_date(now)
    return Model(
        **{name: getattr(spec.fields, name) for name in MUTABLE_FIELDS},
        id=spec.id,
        created_date=spec.created_date or date,
        last_updated_date=date,
        compat_size=spec.compat_size,
        compat_precision=spec.compat_precision or compat_precision(spec.fields.precisions),
        create_time=now,
        update_time=now,
        creator=current_caller.get().actor,
        artifact=Artifact(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size=size,
            sha256=sha256,
            file_url=f"minio://{policy.bucket_name}/{spec.id}/{spec.artifact.file_name}",
            object_key=key,
            kind=spec.artifact.kind,
        ),
        signature=signature,
    )
