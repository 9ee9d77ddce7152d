"""Assemble the object of a completed upload from its parts and its tail."""

import logging
import time
from dataclasses import dataclass

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import ArtifactLostError, UnavailableError
from registry_service.domain.ports import Database
from registry_service.domain.uploads import Upload
from registry_service.services.checksums import RunningChecksum
from registry_service.services.upload_writing import UploadChecksums, read_tail, require_newest_writer

logger = logging.getLogger(__name__)

# Seconds before each check for an object that another process, or the store on its own, may be finishing.
_APPEARANCE_PAUSES = (0.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class UploadAssembly:
    """Assembles the objects of uploads."""

    database: Database
    store: ArtifactStore
    checksums: UploadChecksums

    def assemble(self, upload: Upload) -> None:
        """Assemble the object, unless an earlier or a concurrent attempt does.

        A concurrent attempt may be a completion that was displaced, or a request that the store still carries out
        although the process that sent it has crashed. All attempts make the same object, and missing parts may be in
        it already.

        Raises:
            ArtifactLostError: Bytes are missing.
            WriterDisplacedError: Another call took over the upload, or removed it.
        """
        try:
            self._finish(upload)
        except ArtifactLostError:
            require_newest_writer(self.database, upload)
            if not self._appears(upload):
                raise
        try:
            self.store.abort(upload.object_key)
        except UnavailableError:
            logger.warning("unfinished objects under %s are left to garbage collection", upload.object_key)

    def digest(self, upload: Upload) -> tuple[str, bytes]:
        """Return the SHA-256 of the assembled object, and its first HEAD_BYTES."""
        checksum = self.checksums.get(upload.id, upload.committed_size)
        if checksum is None:
            # This process did not receive all bytes.
            checksum = RunningChecksum()
            for piece in self.store.read(upload.object_key):
                checksum.add(piece)
            if checksum.size != upload.committed_size:
                raise ArtifactLostError
        return checksum.sha256(), checksum.head

    def _finish(self, upload: Upload) -> None:
        handle, parts = upload.handle, list(upload.parts)
        if upload.tail_key is not None:
            if self.store.size(upload.object_key) == upload.committed_size:
                return  # A finished object takes no more parts.
            tail = read_tail(self.store, upload)
            if handle is None or not parts:
                self.store.put(upload.object_key, tail)
                return
            number, offset = len(parts) + 1, upload.parts_size
            parts.append(self.store.write_part(upload.object_key, handle, number=number, offset=offset, pieces=[tail]))
        if handle is None:
            raise AssertionError("bytes that are not in the tail are in parts")
        self.store.finish(upload.object_key, handle, parts)

    def _appears(self, upload: Upload) -> bool:
        """Return whether the object appears within seconds. Clients do not retry after DATA_LOSS."""
        for pause in _APPEARANCE_PAUSES:
            time.sleep(pause)
            if self.store.size(upload.object_key) == upload.committed_size:
                return True
        return False
