"""Write the bytes of resumable uploads.

Bytes are stored first. Then one transaction commits them, and only if no newer writer took over. Bytes that do not fill
a part form the tail: an object of its own, under a new key each time, which the ledger of objects knows before it is
written.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from typing import Self

from registry_service.domain.artifact_store import ArtifactStore, Part, Pieces
from registry_service.domain.caller import AccessRecheck
from registry_service.domain.errors import (
    AbortedError,
    ArtifactLostError,
    ArtifactTooLargeError,
    OutOfRangeError,
    WriterDisplacedError,
)
from registry_service.domain.object_keys import new_object_key
from registry_service.domain.parts import MAX_PARTS_IN_FLIGHT, PartBuffer, PartsInFlight
from registry_service.domain.ports import Database
from registry_service.domain.uploads import Upload
from registry_service.services.checksums import RunningChecksum
from registry_service.services.object_deletion import ObjectDeletion
from registry_service.services.policy import Policy


class UploadChecksums:
    """Running checksums of the uploads of which this process received every byte.

    They spare reading an upload again to hash it. Other processes, and this one after a restart, read it.
    """

    def __init__(self, most: int = 1024) -> None:
        self._most = most
        self._checksums: OrderedDict[str, RunningChecksum] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, upload_id: str, size: int) -> RunningChecksum | None:
        """Return a copy of the checksum of the first `size` bytes of an upload, or None if it is unknown."""
        if size == 0:
            return RunningChecksum()
        with self._lock:
            checksum = self._checksums.get(upload_id)
            return checksum.copy() if checksum is not None and checksum.size == size else None

    def keep(self, upload_id: str, checksum: RunningChecksum) -> None:
        """Keep a checksum, and drop the oldest one if there are too many."""
        with self._lock:
            self._checksums[upload_id] = checksum
            self._checksums.move_to_end(upload_id)
            if len(self._checksums) > self._most:
                self._checksums.popitem(last=False)


class UploadWriter:
    """Turns pieces into parts and a tail. Parts are stored while the bytes of the next part arrive.

    A context manager: it commits the tail at the end of the block, even if the block raises.
    """

    def __init__(
        self,
        upload: Upload,
        *,
        database: Database,
        store: ArtifactStore,
        deletion: ObjectDeletion,
        policy: Policy,
        checksums: UploadChecksums,
    ) -> None:
        self._database = database
        self._store = store
        self._deletion = deletion
        self._policy = policy
        self._checksums = checksums
        self._recheck = AccessRecheck()
        self.upload = upload
        self._size = upload.committed_size
        self._checksum = checksums.get(upload.id, upload.committed_size)
        self._held = PartBuffer(self._store.part_size)
        self._sent_size = upload.parts_size
        self._sent_parts = len(upload.parts)
        self._senders = ThreadPoolExecutor(MAX_PARTS_IN_FLIGHT, thread_name_prefix="part-sender")
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="part-committer")
        self._in_flight = PartsInFlight()
        self._begun: Future[str] | None = None
        """The handle of the object under construction."""
        self._in_doubt = False
        """Whether the commit of a part before the held bytes failed, or its outcome is unknown."""
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
        if self._checksum is not None and self._checksum.size == self.upload.committed_size:
            self._checksums.keep(self.upload.id, self._checksum)

    def write(self, piece: bytes) -> None:
        """Append bytes.

        Raises:
            ArtifactTooLargeError: There are more than ARTIFACT_MAX_BYTES.
            OutOfRangeError: There are more than were declared.
            UnauthenticatedError, AccessDeniedError: The caller lost access.
        """
        self._recheck()
        declared = self.upload.spec.artifact.size
        size = self._size + len(piece)
        if size > self._policy.artifact_max_bytes:
            raise ArtifactTooLargeError(self._policy.artifact_max_bytes)
        if declared is not None and size > declared:
            raise OutOfRangeError(f"Received more than the declared {declared} bytes.", declared_size=str(declared))
        self._size = size
        if self._checksum is not None:
            self._checksum.add(piece)
        self._take(piece)
        if self._size == declared and self._held:
            self._send(self._held.take())  # The last part may be short.

    def _take(self, piece: bytes) -> None:
        for part in self._held.add(piece):
            self._send(part)

    def _send(self, pieces: Pieces) -> None:
        """Store bytes in the background, and then commit them as the next part."""
        if self._begun is None:
            self._begun = self._committer.submit(copy_context().run, self._begin)
        self._sent_parts += 1
        number, offset = self._sent_parts, self._sent_size
        self._sent_size += sum(map(len, pieces))
        self._in_flight.make_room()
        stored = self._senders.submit(copy_context().run, self._store_part, self._begun, number, offset, pieces)
        self._in_flight.add(self._committer.submit(copy_context().run, self._commit_part, stored))

    def _begin(self) -> str:
        """Begin the object unless an earlier writer did, commit its handle, and return the handle.

        If a writer crashes in between, the database does not know its handle. Nothing is written there, and completing,
        cancelling or expiring the upload aborts it.
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
        """Commit a part once it is stored. It begins with the bytes of the tail, which is then dropped."""
        if self._in_doubt:
            raise AbortedError("An earlier part was not committed.")
        try:
            part = stored.result()
            self._commit(part.offset + part.size, part=part, tail_key=None)
        except BaseException:
            self._in_doubt = True
            raise

    def _commit_tail(self) -> None:
        """Store and commit the bytes that do not fill a part."""
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
            self._deletion.delete_or_defer(key)
            raise

    def _commit(self, size: int, *, part: Part | None, tail_key: str | None) -> None:
        old = self.upload
        ttl = self._policy.upload_ttl
        with self._database.transaction() as transaction:
            expire_time = transaction.uploads.commit(
                old, committed_size=size, handle=old.handle, part=part, tail_key=tail_key, ttl=ttl
            )
            if old.tail_key is not None:
                transaction.objects.mark_for_deletion(old.tail_key)
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
            self._deletion.delete_or_defer(old.tail_key)


def read_tail(store: ArtifactStore, upload: Upload) -> bytes:
    """Return the committed bytes that are in no part, or raise ArtifactLostError."""
    if upload.tail_key is None:
        return b""
    tail = b"".join(store.read(upload.tail_key))
    if upload.parts_size + len(tail) != upload.committed_size:
        raise ArtifactLostError
    return tail


def require_newest_writer(database: Database, upload: Upload) -> None:
    """Raise WriterDisplacedError if the upload was taken over or removed, which explains missing bytes."""
    with database.transaction() as transaction:
        transaction.uploads.lock_for_update(upload)
