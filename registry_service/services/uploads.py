"""Resumable uploads.

What is stored and what is committed never part: bytes are stored first, then
one transaction commits them, and only if no newer writer has come. A tail that
does not fill a part is an object of its own, under a new key each time; the
ledger knows it before it is written.
"""

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self, cast

from registry_service.domain.artifact_store import ArtifactStore, Part, Pieces
from registry_service.domain.caller import AccessRecheck, current_caller
from registry_service.domain.errors import (
    AbortedError,
    ArtifactLostError,
    ArtifactMismatchError,
    ArtifactTooLargeError,
    FailedPreconditionError,
    InvalidArgumentError,
    ModelNotFoundError,
    OutOfRangeError,
    UnavailableError,
    WriterDisplacedError,
)
from registry_service.domain.listing import MAX_PAGE_BYTES, decode_page_token, encode_page_token, page_size
from registry_service.domain.models import Model, ModelSpec, checked_sha256, checked_spec
from registry_service.domain.object_keys import new_object_key
from registry_service.domain.parts import MAX_PARTS_IN_FLIGHT, PartBuffer, PartsInFlight
from registry_service.domain.ports import Database, Transaction
from registry_service.domain.uploads import Upload, UploadQuery, UploadState
from registry_service.services.artifact_staging import check_archive, new_model
from registry_service.services.checksums import RunningChecksum
from registry_service.services.garbage_collection import DiscardObject, doom_upload
from registry_service.services.policy import Policy
from registry_service.services.signature_reading import read_signature

logger = logging.getLogger(__name__)

# Seconds before each look for an object that another process, or the store by itself, may be finishing.
_APPEARANCE_PAUSES = (0.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class CreateUpload:
    """Begins an upload."""

    database: Database
    policy: Policy

    def __call__(self, spec: ModelSpec) -> Upload:
        """Returns the upload.

        Raises:
            InvalidArgumentError: A field is wrong.
            AlreadyExistsError: The id or the identity is taken.
        """
        spec = checked_spec(
            spec,
            metadata_max_bytes=self.policy.metadata_max_bytes,
            artifact_max_bytes=self.policy.artifact_max_bytes,
        )
        with self.database.transaction() as transaction:
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
                expire_time=transaction.now + self.policy.upload_ttl,
            )
            transaction.uploads.add(upload)
            transaction.idempotency.keep(upload, resource_id=upload.id, project_id=spec.fields.project_id)
        return upload


@dataclass(frozen=True, slots=True)
class GetUpload:
    """Gets an upload."""

    database: Database

    def __call__(self, upload_id: str) -> Upload:
        """Returns the upload (`UploadNotFoundError`)."""
        with self.database.transaction() as transaction:
            return transaction.uploads.get(upload_id)


@dataclass(frozen=True, slots=True)
class ListUploads:
    """Lists the caller's open uploads, a page at a time."""

    database: Database

    def __call__(self, *, size: int, token: str) -> tuple[Sequence[Upload], str]:
        """Return the uploads of a page, the newest first, and the token of the next page, empty where this is the last.

        They are those that the caller began; all, where nobody shows who they are.

        Raises:
            InvalidArgumentError: Size or token are wrong.
        """
        limit = page_size(size)
        caller = current_caller.get()
        query = ("uploads",)
        after = decode_page_token(token, query, (datetime, str))
        with self.database.reading() as transaction:
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


class SeenUploads:
    """The uploads of which this process has seen every byte, so that they need not be read again to be hashed.

    Knowing nothing is no harm: other processes, and this one after a restart, read.
    """

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._seen: OrderedDict[str, RunningChecksum] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, upload_id: str, size: int) -> RunningChecksum | None:
        """Returns what is known of the first `size` bytes of an upload, to go on from; None where that is not all."""
        if size == 0:
            return RunningChecksum()
        with self._lock:
            seen = self._seen.get(upload_id)
            return seen.copy() if seen is not None and seen.size == size else None

    def keep(self, upload_id: str, seen: RunningChecksum) -> None:
        """Keeps it, and forgets the oldest of too many."""
        with self._lock:
            self._seen[upload_id] = seen
            self._seen.move_to_end(upload_id)
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)


@dataclass(frozen=True, slots=True)
class WriteUpload:
    """Appends bytes to an upload."""

    database: Database
    store: ArtifactStore
    discard: DiscardObject
    policy: Policy
    seen: SeenUploads

    def __call__(self, upload_id: str, offset: int, pieces: Iterable[bytes]) -> Upload:
        """Returns the upload as it stands afterwards.

        When `pieces` raises, what came before is committed all the same.

        Raises:
            UploadNotFoundError: There is none (any more).
            UploadNotActiveError: It takes no more bytes.
            OutOfRangeError: `offset` is not the committed size, or there are more bytes than were declared.
            WriterDisplacedError: A newer writer has come.
            ArtifactTooLargeError: There are too many bytes.
        """
        with self.database.transaction() as transaction:
            upload = transaction.uploads.take_over(upload_id, offset=offset, ttl=self.policy.upload_ttl)
        try:
            with _Writer(self, upload) as writer:
                for piece in pieces:
                    writer.write(piece)
        except ArtifactLostError:
            _expect_newest(self.database, upload)
            raise
        return writer.upload


class _Writer:
    """Turns pieces into parts and a tail; parts are on their way while the bytes of the next one come.

    A context manager: commits what does not fill a part at the end of the block,
    however that ends.
    """

    def __init__(self, use_case: WriteUpload, upload: Upload) -> None:
        self._database = use_case.database
        self._store = use_case.store
        self._discard = use_case.discard
        self._policy = use_case.policy
        self._uploads_seen = use_case.seen
        self._recheck = AccessRecheck()
        self.upload = upload
        self._size = upload.committed_size
        self._seen = self._uploads_seen.of(upload.id, upload.committed_size)
        self._held = PartBuffer(self._store.part_size)
        self._sent_size = upload.parts_size
        self._sent_parts = len(upload.parts)
        self._senders = ThreadPoolExecutor(MAX_PARTS_IN_FLIGHT, thread_name_prefix="part-sender")
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="part-committer")
        self._in_flight = PartsInFlight()
        self._begun: Future[str] | None = None
        """What gives the handle."""
        self._in_doubt = False
        """Whether a part before the held bytes was not committed, or nobody knows."""
        if upload.tail_key is not None:
            self._take(read_tail(self._store, upload))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._in_flight, self._committer, self._senders:
            if self._in_doubt and kind is not None:
                return
            while self._in_flight:
                self._in_flight.settle()
            self._commit_tail()
        if self._seen is not None and self._seen.size == self.upload.committed_size:
            self._uploads_seen.keep(self.upload.id, self._seen)

    def write(self, piece: bytes) -> None:
        self._recheck()
        declared = self.upload.spec.artifact.size
        size = self._size + len(piece)
        if size > self._policy.artifact_max_bytes:
            raise ArtifactTooLargeError(self._policy.artifact_max_bytes)
        if declared is not None and size > declared:
            raise OutOfRangeError(f"Received more than the declared {declared} bytes.", declared_size=str(declared))
        self._size = size
        if self._seen is not None:
            self._seen.add(piece)
        self._take(piece)
        if self._size == declared and self._held:
            self._send(self._held.take())  # the last part may be short

    def _take(self, piece: bytes) -> None:
        for part in self._held.add(piece):
            self._send(part)

    def _send(self, pieces: Pieces) -> None:
        """Hands bytes that are not held any more over to be stored and then committed as the next part."""
        if self._begun is None:
            self._begun = self._committer.submit(copy_context().run, self._begin)
        self._sent_parts += 1
        number, offset = self._sent_parts, self._sent_size
        self._sent_size += sum(map(len, pieces))
        self._in_flight.make_room()
        stored = self._senders.submit(copy_context().run, self._store_part, self._begun, number, offset, pieces)
        self._in_flight.add(self._committer.submit(copy_context().run, self._commit_part, stored))

    def _begin(self) -> str:
        """Begins the object, unless somebody has, commits that, and returns its handle.

        A writer that dies in between has begun it and told nobody: nothing is ever
        written there, and the upload's end, whichever it is, aborts it.
        """
        upload = self.upload
        if upload.handle is not None:
            return upload.handle
        handle = self._store.begin(upload.object_key)
        try:
            with self._database.transaction() as transaction:
                transaction.uploads.commit(
                    upload,
                    committed_size=upload.committed_size,
                    handle=handle,
                    part=None,
                    tail_key=upload.tail_key,
                    ttl=self._policy.upload_ttl,
                )
        except WriterDisplacedError:
            # The upload may have ended already.
            self._store.abort(upload.object_key, handle)
            raise
        self.upload = replace(upload, handle=handle)
        return handle

    def _store_part(self, begun: Future[str], number: int, offset: int, pieces: Pieces) -> Part:
        handle = begun.result()
        return self._store.write_part(self.upload.object_key, handle, number=number, offset=offset, pieces=pieces)

    def _commit_part(self, stored: Future[Part]) -> None:
        """Commits a part as soon as it is stored; the tail, whose bytes it begins with, is then no longer needed."""
        if self._in_doubt:
            raise AbortedError("An earlier part was not committed.")
        try:
            part = stored.result()
            self._commit(part.offset + part.size, part=part, tail_key=None)
        except BaseException:
            self._in_doubt = True
            raise

    def _commit_tail(self) -> None:
        """Stores and commits what does not fill a part."""
        upload = self.upload
        if self._size == upload.committed_size:
            return
        key = new_object_key()
        with self._database.transaction() as transaction:
            transaction.objects.lease(key, self._policy.registration_lease)
        try:
            self._store.put(key, b"".join(self._held.take()))
            self._commit(self._size, part=None, tail_key=key)
        except BaseException:
            self._discard.now_or_later(key)
            raise

    def _commit(self, size: int, *, part: Part | None, tail_key: str | None) -> None:
        old = self.upload
        ttl = self._policy.upload_ttl
        with self._database.transaction() as transaction:
            expire_time = transaction.uploads.commit(
                old, committed_size=size, handle=old.handle, part=part, tail_key=tail_key, ttl=ttl
            )
            if old.tail_key is not None:
                transaction.objects.doom(old.tail_key)
            if tail_key is not None and not transaction.objects.release(tail_key):
                raise ArtifactLostError
        self.upload = replace(
            old,
            committed_size=size,
            parts=(*old.parts, part) if part is not None else old.parts,
            tail_key=tail_key,
            expire_time=expire_time,
        )
        if old.tail_key is not None:
            self._discard.now_or_later(old.tail_key)


@dataclass(frozen=True, slots=True)
class CompleteUpload:
    """Makes a model of an upload. Can be repeated at any point."""

    database: Database
    store: ArtifactStore
    discard: DiscardObject
    policy: Policy
    seen: SeenUploads

    def __call__(self, upload_id: str, sha256: str = "") -> Model:
        """Returns the model; of an upload that is completed already, the model that it became.

        Raises:
            UploadNotFoundError: There is none (any more).
            ModelNotFoundError: It was completed, and the model has been deleted since.
            FailedPreconditionError: Bytes are missing; the upload still takes them.
            ArtifactMismatchError: The bytes are not the declared ones; the upload is gone.
            InvalidArtifactError: It is not the ZIP that it was declared as; the upload is gone.
            AlreadyExistsError: The id or the identity is taken; the upload stays.
            ProvenanceCycleError: The model would be its own ancestor; the upload stays.
        """
        sha256 = checked_sha256(sha256, "sha256")
        with self.database.transaction() as transaction:
            upload = transaction.uploads.begin_completion(upload_id, ttl=self.policy.upload_ttl)
            if upload.state is UploadState.COMPLETED:
                model = _model_of(transaction, upload)
                transaction.idempotency.keep(model, resource_id=model.id, project_id=model.project_id)
                return model
            _check_whole(upload)  # an error takes back what has begun
        try:
            return self._complete(upload, sha256)
        except WriterDisplacedError:
            # Whoever removed the upload may have deleted its object before the last bytes of it came.
            with self.database.transaction() as transaction:
                if transaction.objects.unknown([upload.object_key]):
                    transaction.objects.doom(upload.object_key)
            self.discard.now_or_later(upload.object_key)
            raise

    def validate(self, upload_id: str, sha256: str = "") -> Upload | Model:
        """Check whether an upload could be completed, and change nothing.

        Returns:
            The upload; of one that is completed already, the model that it became.

        Raises:
            UploadNotFoundError: There is none (any more).
            ModelNotFoundError: It was completed, and the model has been deleted since.
            FailedPreconditionError: Bytes are missing.
            ArtifactMismatchError: Two different digests are declared.
            AlreadyExistsError: The id or the identity is taken.
            ProvenanceCycleError: The model would be its own ancestor.
        """
        sha256 = checked_sha256(sha256, "sha256")
        with self.database.transaction() as transaction:
            upload = transaction.uploads.get(upload_id)
            if upload.state is UploadState.COMPLETED:
                return _model_of(transaction, upload)
            _check_whole(upload)
            declared = upload.spec.artifact.sha256
            if sha256 and declared and sha256 != declared:
                raise ArtifactMismatchError.of("sha256", f"is not the {declared} that the spec declares.")
            transaction.models.check_absent(upload.spec)
        return upload

    def _complete(self, upload: Upload, sha256: str) -> Model:
        try:
            self._join(upload)
            digest, head = self._digest(upload)
            for name, declared in (("artifact.sha256", upload.spec.artifact.sha256), ("sha256", sha256)):
                if declared and declared != digest:
                    raise ArtifactMismatchError.of(
                        name, f"does not match the received bytes, which have the SHA-256 {digest}."
                    )
            check_archive(self.store, upload.spec, upload.object_key, upload.committed_size, self.policy)
            signature = read_signature(self.store, upload.spec.artifact, upload.object_key, upload.committed_size, head)
        except InvalidArgumentError:
            with self.database.transaction() as transaction:
                transaction.uploads.hold(upload)
                keys = doom_upload(transaction, transaction.uploads.remove(upload.id))
            for key in keys:
                self.discard.now_or_later(key)
            raise
        except ArtifactLostError:
            _expect_newest(self.database, upload)
            raise
        current_caller.get().expect_access()
        with self.database.transaction() as transaction:
            transaction.uploads.complete(upload)
            model = new_model(
                upload.spec,
                upload.object_key,
                upload.committed_size,
                digest,
                self.policy,
                signature=signature,
                now=transaction.now,
            )
            model = transaction.models.add(model)
            transaction.idempotency.keep(model, resource_id=model.id, project_id=model.project_id)
            if upload.tail_key is not None:
                transaction.objects.doom(upload.tail_key)
        if upload.tail_key is not None:
            self.discard.now_or_later(upload.tail_key)
        return model

    def _join(self, upload: Upload) -> None:
        """Makes the whole object of parts and tail, unless an earlier try did, or does so just now.

        Others may be at it: a completion that was displaced, or a request that the
        store still carries out though the process that sent it is dead. All of them make
        the same object, and parts that are gone may be in it already.
        """
        try:
            self._make_whole(upload)
        except ArtifactLostError:
            _expect_newest(self.database, upload)
            if not self._appears(upload):
                raise
        try:
            self.store.abort(upload.object_key)
        except UnavailableError:
            logger.warning("what else is under construction on %s is left to gc", upload.object_key)

    def _make_whole(self, upload: Upload) -> None:
        handle, parts = upload.handle, list(upload.parts)
        if upload.tail_key is not None:
            if self.store.size(upload.object_key) == upload.committed_size:
                return  # finished, it takes no more parts
            tail = read_tail(self.store, upload)
            if handle is None or not parts:
                self.store.put(upload.object_key, tail)
                return
            number, offset = len(parts) + 1, upload.parts_size
            parts.append(self.store.write_part(upload.object_key, handle, number=number, offset=offset, pieces=[tail]))
        if handle is None:
            raise AssertionError("bytes that are in no tail are in parts")
        self.store.finish(upload.object_key, handle, parts)

    def _appears(self, upload: Upload) -> bool:
        """Tells whether the object is there, looking again for some seconds: a client gives up on DATA_LOSS."""
        for pause in _APPEARANCE_PAUSES:
            time.sleep(pause)
            if self.store.size(upload.object_key) == upload.committed_size:
                return True
        return False

    def _digest(self, upload: Upload) -> tuple[str, bytes]:
        """Returns the SHA-256 of the object, and its first HEAD_BYTES."""
        seen = self.seen.of(upload.id, upload.committed_size)
        if seen is None:
            # Read anew, as no process may have seen all the bytes.
            seen = RunningChecksum()
            for piece in self.store.read(upload.object_key):
                seen.add(piece)
            if seen.size != upload.committed_size:
                raise ArtifactLostError
        return seen.sha256(), seen.head


@dataclass(frozen=True, slots=True)
class CancelUpload:
    """Drops an upload."""

    database: Database
    discard: DiscardObject
    policy: Policy

    def __call__(self, upload_id: str) -> None:
        """Drops it with its bytes; those of one that is being completed when nobody can be writing them any more.

        Raises:
            UploadNotFoundError: There is none (any more).
            FailedPreconditionError: It has become a model.
        """
        with self.database.transaction() as transaction:
            upload = transaction.uploads.remove(upload_id)
            if upload.state is UploadState.COMPLETED:
                raise FailedPreconditionError(f"The upload {upload_id!r} is already completed.", upload_id=upload_id)
            transaction.idempotency.keep(None, resource_id="", project_id=upload.spec.fields.project_id)
            keys = doom_upload(transaction, upload)
            if upload.state is UploadState.COMPLETING:
                keys = tuple(key for key in keys if key != upload.object_key)
                transaction.objects.renew(upload.object_key, self.policy.registration_lease)
        for key in keys:
            self.discard.now_or_later(key)


def read_tail(store: ArtifactStore, upload: Upload) -> bytes:
    """Reads the bytes that are committed but not in a part (`ArtifactLostError`)."""
    if upload.tail_key is None:
        return b""
    tail = b"".join(store.read(upload.tail_key))
    if upload.parts_size + len(tail) != upload.committed_size:
        raise ArtifactLostError
    return tail


def _model_of(transaction: Transaction, upload: Upload) -> Model:
    """Return the model that a completed upload became (`ModelNotFoundError`)."""
    model = transaction.models.get(upload.spec.id)
    if model.artifact.object_key != upload.object_key:
        # It was deleted, and its id registered anew.
        raise ModelNotFoundError(model.id)
    return model


def _check_whole(upload: Upload) -> None:
    declared = upload.spec.artifact.size
    if upload.committed_size == 0 or (declared is not None and upload.committed_size < declared):
        raise FailedPreconditionError(
            f"The upload {upload.id!r} has {upload.committed_size} bytes"
            + (" so far." if declared is None else f" of {declared} so far."),
            upload_id=upload.id,
            committed_size=str(upload.committed_size),
        )


def _expect_newest(database: Database, upload: Upload) -> None:
    """Raises WriterDisplacedError where the upload was taken over or removed: no wonder then that bytes are gone."""
    with database.transaction() as transaction:
        transaction.uploads.hold(upload)
