"""Registers models: metadata and artifact, whole or not at all."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from registry_service.domain.artifact_store import ArtifactStore, new_object_key
from registry_service.domain.errors import ArtifactLostError, InvalidArtifactError, LeaseLostError, NotAnArchiveError
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    Artifact,
    Model,
    ModelSpec,
    checked_spec,
    documented_date,
    is_zip_media_type,
    utc_now,
)
from registry_service.domain.ports import Database
from registry_service.services.archives import open_archive
from registry_service.services.object_writing import Measure, write_object
from registry_service.services.policy import Policy
from registry_service.services.sweeping import DiscardObject


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
        spec = checked_spec(
            spec,
            metadata_max_bytes=self.policy.metadata_max_bytes,
            artifact_max_bytes=self.policy.artifact_max_bytes,
        )
        key = new_object_key()
        with self.database.transaction() as transaction:
            transaction.models.check_absent(spec)
            transaction.objects.lease(key, self.policy.registration_lease)
        try:
            measure = Measure(spec.artifact, self.policy.artifact_max_bytes)
            write_object(self.store, key, measure.of(self._holding_lease(key, pieces)))
            sha256 = measure.sha256()
            check_archive(self.store, spec, key, measure.size, self.policy)
            model = new_model(spec, key, measure.size, sha256, self.policy)
            with self.database.transaction() as transaction:
                _expect_lease(transaction.objects.release(key))
                transaction.models.add(model)
                confirm()
        except (LeaseLostError, ArtifactLostError) as error:
            # No model refers to the object, but bytes that came after the sweeper may be there.
            with self.database.transaction() as transaction:
                held = transaction.objects.lock(key)
                transaction.objects.doom(key)
            self.discard.now_or_later(key)
            if held:
                raise
            raise _lease_lost() from error
        except BaseException:
            # Also right when nobody knows whether the transaction went through:
            # then a model refers to the object, and the ledger's row is gone.
            self.discard.now_or_later(key)
            raise
        return model

    def _holding_lease(self, key: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
        period = self.policy.registration_lease.total_seconds() / 3
        renewed = time.monotonic()
        for piece in pieces:
            yield piece
            if time.monotonic() - renewed > period:
                with self.database.transaction() as transaction:
                    _expect_lease(transaction.objects.renew(key, self.policy.registration_lease))
                renewed = time.monotonic()


def _expect_lease(held: bool) -> None:
    if not held:
        raise _lease_lost()


def _lease_lost() -> LeaseLostError:
    return LeaseLostError("The registration took so long that its bytes were swept.")


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


def new_model(spec: ModelSpec, key: str, size: int, sha256: str, policy: Policy) -> Model:
    """Makes the model of a checked spec, registered now."""
    now = utc_now()
    date = documented_date(now)
    return Model(
        **{name: getattr(spec.fields, name) for name in MUTABLE_FIELDS},
        id=spec.id,
        created_date=spec.created_date or date,
        last_updated_date=date,
        create_time=now,
        update_time=now,
        artifact=Artifact(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size=size,
            sha256=sha256,
            file_url=f"minio://{policy.bucket_name}/{spec.id}/{spec.artifact.file_name}",
            object_key=key,
        ),
    )
