"""Read and verify the artifacts of models."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import (
    AbortedError,
    ArtifactDamagedError,
    ArtifactFileNotFoundError,
    ArtifactLostError,
    InvalidArgumentError,
    NotAnArchiveError,
    OutOfRangeError,
    RegistryError,
)
from registry_service.domain.listing import MAX_PAGE_SIZE, decode_page_token, encode_page_token, page_size
from registry_service.domain.models import Model
from registry_service.domain.ports import Database
from registry_service.domain.references import shown_model
from registry_service.services.archives import Archive, ArchiveMember, open_archive
from registry_service.services.policy import Policy

logger = logging.getLogger(__name__)

_TOO_SHORT = "The artifact store holds fewer bytes than were registered."


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationProgress:
    """The progress of a verification."""

    verified: int
    """Bytes that were read."""
    size: int
    """Bytes that were registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of a verification."""

    model: Model
    actual_size: int
    actual_sha256: str
    """Empty if the store has no bytes."""
    time: datetime
    """When the verification began, by the database's clock."""

    @property
    def intact(self) -> bool:
        """Whether the stored bytes are the registered ones."""
        expected = self.model.artifact
        return (self.actual_size, self.actual_sha256) == (expected.size, expected.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A member of a ZIP artifact, open for reading."""

    model: Model
    member: ArchiveMember
    archive: Archive

    def range(self, offset: int, limit: int) -> tuple[int, int]:
        """Return the offset and the length of the requested range.

        Args:
            offset: The first byte.
            limit: Maximum number of bytes; 0 for no limit.

        Raises:
            InvalidArgumentError: The offset or the limit is negative.
            OutOfRangeError: The offset is past the end.
        """
        return _range(offset, limit, self.member.size, "The file", self.model.id)

    def pieces(self, offset: int, length: int, check_cancelled: Callable[[], None]) -> Iterator[bytes]:
        """Yield the bytes of a range; see `Archive.pieces`."""
        return self.archive.pieces(self.member, offset, length, check_cancelled)


@dataclass(frozen=True, slots=True)
class ArtifactService:
    """The artifacts of the registered models."""

    database: Database
    store: ArtifactStore
    policy: Policy

    def read(self, model_id: str, offset: int = 0, limit: int = 0) -> tuple[Model, Iterator[bytes]]:
        """Return a model, and the bytes of its artifact from `offset` on; see `pieces` for errors while they are read.

        Args:
            model_id: The model.
            offset: The first byte.
            limit: Maximum number of bytes; 0 for no limit.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidArgumentError: The offset or the limit is negative.
            OutOfRangeError: The offset is past the end.
        """
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
        offset, length = _range(offset, limit, model.artifact.size, "The artifact", model_id)
        return model, self.pieces(model, offset, length)

    def pieces(self, model: Model, offset: int, length: int) -> Iterator[bytes]:
        """Yield exactly `length` bytes of a model's artifact.

        A whole artifact is hashed while it is read, and its last piece is held back until the digest is known to be
        right. A part of an artifact has no digest to compare with.

        Raises:
            ArtifactLostError: The store has fewer bytes than were registered.
            ArtifactDamagedError: The store has other bytes than were registered.
            ModelNotFoundError: The model, and its artifact with it, was deleted meanwhile.
        """
        if length == 0:
            return
        with _unless_deleted(self.database, model):
            if length == model.artifact.size:
                yield from self._hashed(model)
                return
            done = 0

            def counted(piece: bytes) -> bytes:
                nonlocal done
                done += len(piece)
                return piece

            # Not a loop, whose variable would reference each piece until the next one: see `chunk_messages`.
            yield from map(counted, self.store.read(model.artifact.object_key, offset, length))
            if done != length:
                raise ArtifactLostError(_TOO_SHORT)

    def verify(self, model_id: str) -> Verification:
        """Read and hash all stored bytes of an artifact, record the result, and return it. Damage is a result.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        for step in self.verify_in_steps(model_id):
            if isinstance(step, Verification):
                return step
        raise AssertionError("the last step is the result")

    def verify_in_steps(self, model_id: str) -> Iterator[VerificationProgress | Verification]:
        """Yield the progress at the start and after each piece, and last the result; see `verify`.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
            time = transaction.now
        yield VerificationProgress(verified=0, size=model.artifact.size)
        digest = hashlib.sha256()
        size = 0
        sha256 = ""
        try:
            for piece in self.store.read(model.artifact.object_key):
                size += len(piece)
                digest.update(piece)
                yield VerificationProgress(verified=size, size=model.artifact.size)
            sha256 = digest.hexdigest()
        except ArtifactLostError:
            size = 0
        found = Verification(model=model, actual_size=size, actual_sha256=sha256, time=time)
        with self.database.transaction() as transaction:
            transaction.models.keep_verification(model, time=time, is_intact=found.intact)
        yield found

    def list_files(self, model_id: str, *, size: int, token: str) -> tuple[Sequence[ArchiveMember], str]:
        """Return a page of the members of a ZIP artifact, in its order, and the token of the next page.

        Raises:
            ModelNotFoundError: There is no such model.
            NotAnArchiveError: The artifact is not a readable ZIP.
        """
        limit = page_size(size, default=MAX_PAGE_SIZE)
        start = decode_page_token(token, (model_id,), (int,))
        first = start[0] if start is not None and isinstance(start[0], int) else 0
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
        with self._opened(model) as archive:
            members = archive.members()
        end = max(first, 0) + limit
        return members[max(first, 0) : end], encode_page_token((model_id,), (end,)) if end < len(members) else ""

    @contextmanager
    def open_file(self, model_id: str, path: str) -> Iterator[OpenFile]:
        """Open a member of a ZIP artifact until the end of the block.

        Raises:
            ModelNotFoundError: There is no such model.
            NotAnArchiveError: The artifact or the member cannot be read, or several members have this path.
            ArtifactFileNotFoundError: There is no such member.
        """
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
        with self._opened(model) as archive:
            member = archive.member(path)
            if member is None:
                raise ArtifactFileNotFoundError(model_id, shown_model(model), path)
            if archive.count(path) > 1:
                # Programs differ in which of the members they read.
                raise NotAnArchiveError(
                    f"The ZIP has several files with the path {path!r}. Download the whole artifact to read them.",
                    path=path,
                )
            yield OpenFile(model=model, member=member, archive=archive)

    @contextmanager
    def _opened(self, model: Model) -> Iterator[Archive]:
        artifact = model.artifact
        limit = self.policy.zip_directory_max_bytes
        with (
            _unless_deleted(self.database, model),
            open_archive(
                self.store,
                artifact.object_key,
                artifact.size,
                directory_max_bytes=limit,
                subject=f"The artifact of the model {shown_model(model)}",
            ) as archive,
        ):
            yield archive

    def _hashed(self, model: Model) -> Iterator[bytes]:
        artifact = model.artifact
        digest = hashlib.sha256()
        done = 0

        def hashed(piece: bytes) -> bytes:
            nonlocal done
            digest.update(piece)
            done += len(piece)
            if done == artifact.size and digest.hexdigest() != artifact.sha256:
                logger.error(
                    "the stored bytes of a model are not the registered ones",
                    extra={
                        "model_id": model.id,
                        "object_key": artifact.object_key,
                        "actual_sha256": digest.hexdigest(),
                    },
                )
                # An earlier verification must not count any more.
                with suppress(RegistryError), self.database.transaction() as transaction:
                    transaction.models.keep_verification(model, time=transaction.now, is_intact=False)
                raise ArtifactDamagedError(model.id, shown_model(model))
            return piece

        # Not a loop, as in `pieces`.
        yield from map(hashed, self.store.read(artifact.object_key, 0, artifact.size))
        if done != artifact.size:
            raise ArtifactLostError(_TOO_SHORT)


@contextmanager
def _unless_deleted(database: Database, model: Model) -> Iterator[None]:
    """Look up a model again if its bytes are missing: they are deleted with the model, and then nothing is lost.

    Raises:
        ModelNotFoundError: The model was deleted meanwhile.
        AbortedError: The model has another artifact now.
    """
    try:
        yield
    except ArtifactLostError:
        with database.reading() as transaction:
            now = transaction.models.get(model.id)
        if now.artifact.object_key != model.artifact.object_key:
            raise AbortedError("The artifact was replaced concurrently. Try again.", model_id=model.id) from None
        raise


def _range(offset: int, limit: int, size: int, subject: str, model_id: str) -> tuple[int, int]:
    """Return the offset and the length of the requested range of `size` bytes.

    Raises:
        InvalidArgumentError: The offset or the limit is negative.
        OutOfRangeError: The offset is past the end.
    """
    for name, number in (("read_offset", offset), ("read_limit", limit)):
        if number < 0:
            raise InvalidArgumentError.of(name, "must not be negative.")
    if offset > size:
        raise OutOfRangeError(
            f"{subject} has {size} bytes; read_offset {offset} is past its end.", size=str(size), model_id=model_id
        )
    return offset, min(limit or size, size - offset)
