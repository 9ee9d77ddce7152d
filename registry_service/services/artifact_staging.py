"""Registers models: metadata and artifact, whole or not at all."""

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
    checked_spec,
    compat_date,
    compat_precision,
    is_zip_media_type,
)
from registry_service.domain.object_keys import new_object_key
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.signature import Signature
from registry_service.services.archives import open_archive
from registry_service.services.checksums import ChecksumVerifier
from registry_service.services.garbage_collection import DiscardObject
from registry_service.services.policy import Policy
from registry_service.services.signature_reading import read_signature


@dataclass(frozen=True, slots=True)
class RegisterModel:
    """Registers a model whose artifact arrives as a stream.

    The object is written first, under a key that only the ledger knows; then one
    transaction makes the model and takes the key out of the ledger. Dying in
    between leaves an object that the sweeper finds.
    """

    database: Database
    store: ArtifactStore
    discard: DiscardObject
    policy: Policy

    def __call__(self, spec: ModelSpec, pieces: Iterable[bytes], confirm: Callable[[], None]) -> Model:
        """Returns the model.

        `confirm` raises when the end of `pieces` was none: called last of all,
        right before the transaction is committed, and the model is then not there.

        Raises:
            InvalidArgumentError: A field is wrong, or the bytes are not the declared ones.
            AlreadyExistsError: The id or the identity is taken; said before the bytes are read where possible.
            ArtifactTooLargeError: There are too many bytes.
        """
        spec = self.checked(spec)
        with self.stage(spec) as staged:
            staged.write(pieces, spec.artifact)
            check_archive(self.store, spec, staged.key, staged.size, self.policy)
            return staged.commit(spec, confirm)

    def checked(self, spec: ModelSpec) -> ModelSpec:
        """Returns the spec with its defaults (`InvalidArgumentError`)."""
        return checked_spec(
            spec,
            metadata_max_bytes=self.policy.metadata_max_bytes,
            artifact_max_bytes=self.policy.artifact_max_bytes,
        )

    def check_absent(self, spec: ModelSpec) -> None:
        """Raises AlreadyExistsError where `commit` of a checked spec would now."""
        with self.database.transaction() as transaction:
            transaction.models.check_absent(spec)

    @contextmanager
    def stage(self, spec: ModelSpec | None = None) -> "Iterator[StagedArtifact]":
        """Gives a place for an artifact; discarded at the end of the block unless committed.

        Raises:
            AlreadyExistsError: `spec`, where it is known by now, clashes with a model.
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
            # No model refers to the object, but bytes that came after the sweeper may be there.
            with self.database.transaction() as transaction:
                held = transaction.objects.renew(key, self.policy.registration_lease)
                transaction.objects.doom(key)
            if held:
                raise
            raise _lease_lost() from error
        finally:
            if not staged.is_committed:
                # Also right when nobody knows whether the transaction went through:
                # then a model refers to the object, and the ledger's row is gone.
                self.discard.now_or_later(key)


class StagedArtifact:
    """An artifact under way to a model, under a lease that its writer keeps alive."""

    def __init__(self, use_case: RegisterModel, key: str) -> None:
        self._use_case = use_case
        self._renewed = time.monotonic()
        self._recheck = AccessRecheck()
        self.sha256 = ""
        self._head = b""
        self.key = key
        self.size = 0
        self.is_committed = False

    def write(self, pieces: Iterable[bytes], spec: ArtifactSpec) -> None:
        """Stores and measures the bytes, once.

        Raises:
            InvalidArgumentError: There are none, or they are not the declared ones.
            ArtifactTooLargeError: There are too many.
            LeaseLostError: The bytes were swept.
        """
        verifier = ChecksumVerifier(spec, self._use_case.policy.artifact_max_bytes)
        self._use_case.store.write(self.key, verifier.verified(self._holding_lease(pieces)))
        self.sha256 = verifier.sha256()
        self._head = verifier.checksum.head
        self.size = verifier.checksum.size

    def hold(self) -> None:
        """Renews the lease when it is time; called again and again by whoever waits for more of the request.

        Raises:
            LeaseLostError: The bytes were swept.
            UnauthenticatedError, AccessDeniedError: The caller may not go on.
        """
        self._recheck()
        lease = self._use_case.policy.registration_lease
        if time.monotonic() - self._renewed > lease.total_seconds() / 3:
            with self._use_case.database.transaction() as transaction:
                _expect_lease(transaction.objects.renew(self.key, lease))
            self._renewed = time.monotonic()

    def commit(self, spec: ModelSpec, confirm: Callable[[], None]) -> Model:
        """Makes the model of a checked spec, with what its artifact says; `confirm` as for RegisterModel.

        Raises:
            AlreadyExistsError: The id or the identity is taken.
            LeaseLostError: The bytes were swept.
        """
        self.hold()
        signature = self.signature(spec.artifact)
        models: list[Model] = []

        def add(transaction: Transaction) -> None:
            model = new_model(
                spec, self.key, self.size, self.sha256, self._use_case.policy, signature=signature, now=transaction.now
            )
            model = transaction.models.add(model)
            transaction.idempotency.keep(
                model, resource_id=model.id, project_id=model.project_id, artifact_sha256=self.sha256
            )
            models.append(model)
            confirm()

        self.commit_with(add)
        return models[0]

    def signature(self, artifact: ArtifactSpec) -> Signature | None:
        """Returns what the bytes say about the model inside."""
        return read_signature(self._use_case.store, artifact, self.key, self.size, self._head)

    def commit_with(self, write: Callable[[Transaction], None]) -> None:
        """Has `write` make a model refer to the bytes, in the transaction that takes them out of the ledger.

        Raises:
            LeaseLostError: The bytes were swept.
        """
        # Before the transaction, as the answer may be in the database, or elsewhere.
        current_caller.get().expect_access()
        with self._use_case.database.transaction() as transaction:
            _expect_lease(transaction.objects.release(self.key))
            write(transaction)
        self.is_committed = True

    def _holding_lease(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self.hold()


def _expect_lease(held: bool) -> None:
    if not held:
        raise _lease_lost()


def _lease_lost() -> LeaseLostError:
    return LeaseLostError(
        "The registration sent nothing for so long that its bytes were removed. Register the model again."
    )


def check_archive(store: ArtifactStore, spec: ModelSpec, key: str, size: int, policy: Policy) -> None:
    """Checks that what was declared as a ZIP is one, and a harmless one.

    Raises:
        InvalidArtifactError: It is not.
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
    """Makes the model of a checked spec, registered `now`."""
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
