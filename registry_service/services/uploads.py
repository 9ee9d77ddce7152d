"""Resumable uploads."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import cast

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.caller import current_caller
from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactMismatchError,
    FailedPreconditionError,
    InvalidArgumentError,
    ModelNotFoundError,
    WriterDisplacedError,
)
from registry_service.domain.listing import MAX_PAGE_BYTES, decode_page_token, encode_page_token, page_size
from registry_service.domain.models import Model, ModelSpec
from registry_service.domain.object_keys import new_object_key
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.uploads import Upload, UploadQuery, UploadState
from registry_service.domain.validation import checked_sha256, checked_spec
from registry_service.services.artifact_staging import check_archive, new_model
from registry_service.services.object_deletion import ObjectDeletion, mark_upload_for_deletion
from registry_service.services.policy import Policy
from registry_service.services.signature_reading import read_signature
from registry_service.services.upload_assembly import UploadAssembly
from registry_service.services.upload_writing import UploadChecksums, UploadWriter, require_newest_writer


class UploadService:
    """The resumable uploads."""

    def __init__(self, database: Database, store: ArtifactStore, deletion: ObjectDeletion, policy: Policy) -> None:
        self._database = database
        self._store = store
        self._deletion = deletion
        self._policy = policy
        self._checksums = UploadChecksums()
        self._assembly = UploadAssembly(database, store, self._checksums)

    def create(self, spec: ModelSpec) -> Upload:
        """Create an upload, and return it.

        Raises:
            InvalidArgumentError: A field is invalid.
            AlreadyExistsError: The id or the identity is taken.
        """
        spec = checked_spec(
            spec,
            metadata_max_bytes=self._policy.metadata_max_bytes,
            artifact_max_bytes=self._policy.artifact_max_bytes,
        )
        with self._database.transaction() as transaction:
            transaction.models.check_absent(spec)
            upload = Upload(
                id=str(uuid.uuid4()),
                spec=spec,
                state=UploadState.ACTIVE,
                object_key=new_object_key(),
                handle=None,
                tail_key=None,
                committed_size=0,
                epoch=0,
                creator=current_caller.get().actor,
                create_time=transaction.now,
                expire_time=transaction.now + self._policy.upload_ttl,
            )
            transaction.uploads.add(upload)
            transaction.idempotency.keep(upload, resource_id=upload.id, project_id=spec.fields.project_id)
        return upload

    def get(self, upload_id: str) -> Upload:
        """Return an upload, or raise UploadNotFoundError."""
        with self._database.transaction() as transaction:
            return transaction.uploads.get(upload_id)

    def list(self, *, size: int, token: str) -> tuple[Sequence[Upload], str]:
        """Return a page of open uploads, newest first, and the token of the next page, empty for the last page.

        An authenticated caller gets the uploads that it created. With AUTH_MODE=none, a caller gets all uploads.

        Raises:
            InvalidArgumentError: The size or the token is invalid.
        """
        limit = page_size(size)
        caller = current_caller.get()
        query = ("uploads",)
        after = decode_page_token(token, query, (datetime, str))
        with self._database.reading() as transaction:
            page = transaction.uploads.list(
                UploadQuery(
                    creator=caller.actor if caller.is_authenticated else None,
                    after=cast("tuple[datetime, str] | None", after),
                    limit=limit,
                    max_bytes=MAX_PAGE_BYTES,
                )
            )
        if not page.more:
            return page.uploads, ""
        last = page.uploads[-1]
        return page.uploads, encode_page_token(query, (last.create_time, last.id))

    def write(self, upload_id: str, offset: int, pieces: Iterable[bytes]) -> Upload:
        """Append bytes to an upload, and return it.

        If `pieces` raises, the bytes before are committed all the same.

        Raises:
            UploadNotFoundError: There is no such upload.
            UploadNotActiveError: The upload is being completed, or is completed.
            OutOfRangeError: `offset` is not the committed size, or there are more bytes than were declared.
            WriterDisplacedError: A newer writer took over.
            ArtifactTooLargeError: There are more than ARTIFACT_MAX_BYTES.
        """
        with self._database.transaction() as transaction:
            upload = transaction.uploads.take_over(upload_id, offset=offset, ttl=self._policy.upload_ttl)
        try:
            with UploadWriter(
                upload,
                database=self._database,
                store=self._store,
                deletion=self._deletion,
                policy=self._policy,
                checksums=self._checksums,
            ) as writer:
                for piece in pieces:
                    writer.write(piece)
        except ArtifactLostError:
            require_newest_writer(self._database, upload)
            raise
        return writer.upload

    def complete(self, upload_id: str, sha256: str = "") -> Model:
        """Make a model of an upload, and return the model. A completed upload returns its model again.

        Raises:
            UploadNotFoundError: There is no such upload.
            ModelNotFoundError: The upload was completed, and its model was deleted since.
            FailedPreconditionError: Bytes are missing. The upload still accepts them.
            ArtifactMismatchError: The bytes have another digest than declared. The upload is removed.
            InvalidArtifactError: The bytes are declared as a ZIP, but are not a harmless one. The upload is removed.
            AlreadyExistsError: The id or the identity is taken. The upload stays.
            ProvenanceCycleError: The model would be its own ancestor. The upload stays.
        """
        sha256 = checked_sha256(sha256, "sha256")
        with self._database.transaction() as transaction:
            upload = transaction.uploads.begin_completion(upload_id, ttl=self._policy.upload_ttl)
            if upload.state is UploadState.COMPLETED:
                model = _model_of(transaction, upload)
                transaction.idempotency.keep(model, resource_id=model.id, project_id=model.project_id)
                return model
            _require_all_bytes(upload)  # An error rolls back the new state.
        try:
            return self._complete(upload, sha256)
        except WriterDisplacedError:
            # Another call removed the upload, and may have deleted its object before the last bytes arrived.
            with self._database.transaction() as transaction:
                if transaction.objects.unknown([upload.object_key]):
                    transaction.objects.mark_for_deletion(upload.object_key)
            self._deletion.delete_or_defer(upload.object_key)
            raise

    def validate_completion(self, upload_id: str, sha256: str = "") -> Upload | Model:
        """Check whether an upload could be completed, and change nothing.

        Returns:
            The upload, or the model of a completed upload.

        Raises:
            UploadNotFoundError: There is no such upload.
            ModelNotFoundError: The upload was completed, and its model was deleted since.
            FailedPreconditionError: Bytes are missing.
            ArtifactMismatchError: Two different digests are declared.
            AlreadyExistsError: The id or the identity is taken.
            ProvenanceCycleError: The model would be its own ancestor.
        """
        sha256 = checked_sha256(sha256, "sha256")
        with self._database.transaction() as transaction:
            upload = transaction.uploads.get(upload_id)
            if upload.state is UploadState.COMPLETED:
                return _model_of(transaction, upload)
            _require_all_bytes(upload)
            declared = upload.spec.artifact.sha256
            if sha256 and declared and sha256 != declared:
                raise ArtifactMismatchError.of("sha256", f"is not the {declared} that the spec declares.")
            transaction.models.check_absent(upload.spec)
        return upload

    def cancel(self, upload_id: str) -> None:
        """Remove an upload and its bytes.

        The bytes of an upload that is being completed are deleted later, when no writer can be left.

        Raises:
            UploadNotFoundError: There is no such upload.
            FailedPreconditionError: The upload is completed.
        """
        with self._database.transaction() as transaction:
            upload = transaction.uploads.remove(upload_id)
            if upload.state is UploadState.COMPLETED:
                raise FailedPreconditionError(f"The upload {upload_id!r} is already completed.", upload_id=upload_id)
            transaction.idempotency.keep(None, resource_id="", project_id=upload.spec.fields.project_id)
            keys = mark_upload_for_deletion(transaction, upload)
            if upload.state is UploadState.COMPLETING:
                keys = tuple(key for key in keys if key != upload.object_key)
                transaction.objects.renew(upload.object_key, self._policy.registration_lease)
        for key in keys:
            self._deletion.delete_or_defer(key)

    def _complete(self, upload: Upload, sha256: str) -> Model:
        artifact, key, size = upload.spec.artifact, upload.object_key, upload.committed_size
        try:
            self._assembly.assemble(upload)
            digest, head = self._assembly.digest(upload)
            for name, declared in (("artifact.sha256", artifact.sha256), ("sha256", sha256)):
                if declared and declared != digest:
                    raise ArtifactMismatchError.of(
                        name, f"does not match the received bytes, which have the SHA-256 {digest}."
                    )
            check_archive(self._store, upload.spec, key, size, self._policy)
            signature = read_signature(self._store, artifact, key, size, head)
        except InvalidArgumentError:
            with self._database.transaction() as transaction:
                transaction.uploads.lock_for_update(upload)
                keys = mark_upload_for_deletion(transaction, transaction.uploads.remove(upload.id))
            for unused in keys:
                self._deletion.delete_or_defer(unused)
            raise
        except ArtifactLostError:
            require_newest_writer(self._database, upload)
            raise
        current_caller.get().check_access()
        with self._database.transaction() as transaction:
            transaction.uploads.complete(upload)
            model = new_model(upload.spec, key, size, digest, self._policy, signature=signature, now=transaction.now)
            model = transaction.models.add(model)
            transaction.idempotency.keep(model, resource_id=model.id, project_id=model.project_id)
            if upload.tail_key is not None:
                transaction.objects.mark_for_deletion(upload.tail_key)
        if upload.tail_key is not None:
            self._deletion.delete_or_defer(upload.tail_key)
        return model


def _model_of(transaction: Transaction, upload: Upload) -> Model:
    """Return the model of a completed upload, or raise ModelNotFoundError."""
    model = transaction.models.get(upload.spec.id)
    if model.artifact.object_key != upload.object_key:
        # The model was deleted, and another one was registered under its id.
        raise ModelNotFoundError(model.id)
    return model


def _require_all_bytes(upload: Upload) -> None:
    declared = upload.spec.artifact.size
    if upload.committed_size == 0 or (declared is not None and upload.committed_size < declared):
        raise FailedPreconditionError(
            f"The upload {upload.id!r} has {upload.committed_size} bytes"
            + (" so far." if declared is None else f" of {declared} so far."),
            upload_id=upload.id,
            committed_size=str(upload.committed_size),
        )
