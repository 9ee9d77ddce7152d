"""Reads models and artifacts."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from registry_service.domain import filter as filters
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
from registry_service.domain.listing import (
    MAX_PAGE_SIZE,
    ListQuery,
    OrderField,
    decode_page_token,
    encode_page_token,
    page_query,
    page_size,
    parse_order,
    sort_kinds,
    sort_values,
)
from registry_service.domain.models import Model
from registry_service.domain.ports import Database
from registry_service.services.archives import Archive, ArchiveMember, open_archive
from registry_service.services.policy import Policy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GetModel:
    """Gets a model."""

    database: Database

    def __call__(self, model_id: str) -> Model:
        """Returns the model (`ModelNotFoundError`)."""
        with self.database.reading() as transaction:
            return transaction.models.get(model_id)


@dataclass(frozen=True, slots=True)
class ListModels:
    """Lists models, a page at a time."""

    database: Database

    def __call__(
        self,
        *,
        filter: str,  # noqa: A002 - AIP-160's name
        order_by: str,
        size: int,
        token: str,
        with_signature: bool = False,
    ) -> tuple[Sequence[Model], str]:
        """Return the models of a page and the token of the next page, empty if this is the last.

        Args:
            filter: See `domain.filter`.
            order_by: See `domain.listing.parse_order`.
            size: Most models in the page; 0 is the default.
            token: Of the page; empty for the first.
            with_signature: Whether the models come with what their artifacts say.

        Raises:
            InvalidArgumentError: Filter, order, size or token are wrong.
        """
        limit = page_size(size)
        order = parse_order(order_by)
        query = page_query(filter, order_by, order)
        after = decode_page_token(token, query, sort_kinds(order))
        node = filters.parse(filter)
        with self.database.reading() as transaction:
            page = transaction.models.list(
                ListQuery(filter=node, order=order, after=after, limit=limit, with_signature=with_signature)
            )
        if not page.more:
            return page.models, ""
        return page.models, encode_page_token(query, sort_values(page.models[-1], order))


@dataclass(frozen=True, slots=True)
class FindModels:
    """Finds every model that a filter matches."""

    database: Database

    def __call__(self, node: filters.Node | None) -> Iterator[Sequence[Model]]:
        """Yields the models in the order of their ids (bytes), in pages; no page where there are none.

        Each page is read when it is asked for, in a transaction of its own: who
        takes hours holds no connection. A model that is registered or deleted
        meanwhile is there or not; all others are there exactly once.
        """
        after: tuple[str] | None = None
        more = True
        while more:
            query = ListQuery(
                filter=node, order=(OrderField("id", descending=False),), after=after, limit=MAX_PAGE_SIZE
            )
            with self.database.reading() as transaction:
                page = transaction.models.list(query)
            if page.models:
                yield page.models
                after = (page.models[-1].id,)
            more = page.more


_FEWER = "The artifact store holds fewer bytes than were registered."


@contextmanager
def _unless_deleted(database: Database, model: Model) -> Iterator[None]:
    """Look again at the model where its bytes are gone: they are deleted with it, and then nothing is lost.

    Raises:
        ModelNotFoundError: It was deleted meanwhile.
        AbortedError: It has other bytes by now.
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
    """Return offset and length of what a client asks for of `size` bytes.

    Raises:
        InvalidArgumentError: Offset or limit are negative.
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


@dataclass(frozen=True, slots=True)
class ReadArtifact:
    """Reads an artifact, or a range of it."""

    database: Database
    store: ArtifactStore

    def __call__(self, model_id: str, offset: int = 0, limit: int = 0) -> tuple[Model, Iterator[bytes]]:
        """Returns the model and the bytes, at most `limit` unless that is 0, in pieces.

        The pieces end with a `DataLossError` when the store has not the bytes that were
        registered, never silently; see `pieces`.

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidArgumentError: Offset or limit are negative.
            OutOfRangeError: The offset is past the end.
        """
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
        offset, length = _range(offset, limit, model.artifact.size, "The artifact", model_id)
        return model, self.pieces(model, offset, length)

    def pieces(self, model: Model, offset: int, length: int) -> Iterator[bytes]:
        """Yield exactly so many bytes of a model's artifact.

        All of them are hashed on the way, and the last piece is held back until it is
        known that they are the registered ones. Of a part nobody can know.

        Raises:
            ArtifactLostError: The store has fewer bytes than were registered.
            ArtifactDamagedError: It has others.
            ModelNotFoundError: The model was deleted meanwhile, and its bytes with it.
        """
        if length == 0:
            return
        with _unless_deleted(self.database, model):
            if length == model.artifact.size:
                yield from self._checked(model)
                return
            done = 0

            def counted(piece: bytes) -> bytes:
                nonlocal done
                done += len(piece)
                return piece

            # Not a loop, which would reference each piece until the next one: see `chunk_messages` of the transport.
            yield from map(counted, self.store.read(model.artifact.object_key, offset, length))
            if done != length:
                raise ArtifactLostError(_FEWER)

    def _checked(self, model: Model) -> Iterator[bytes]:
        artifact = model.artifact
        digest = hashlib.sha256()
        done = 0

        def checked(piece: bytes) -> bytes:
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
                # What an earlier verification found counts no more.
                with suppress(RegistryError), self.database.transaction() as transaction:
                    transaction.models.keep_verification(model, time=transaction.now, is_intact=False)
                raise ArtifactDamagedError(model.id)
            return piece

        # No loop, as above.
        yield from map(checked, self.store.read(artifact.object_key, 0, artifact.size))
        if done != artifact.size:
            raise ArtifactLostError(_FEWER)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationProgress:
    """How far a verification is."""

    verified: int
    """Bytes that were read."""
    size: int
    """Bytes that were registered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What an artifact's stored bytes were found to be."""

    model: Model
    actual_size: int
    actual_sha256: str
    """Empty where there are none."""
    time: datetime
    """When the first byte was asked for, by the database's clock."""

    @property
    def intact(self) -> bool:
        """Whether they are the ones that were registered."""
        expected = self.model.artifact
        return (self.actual_size, self.actual_sha256) == (expected.size, expected.sha256)


@dataclass(frozen=True, slots=True)
class VerifyArtifact:
    """Re-hashes an artifact, and stores what was found."""

    database: Database
    store: ArtifactStore

    def __call__(self, model_id: str) -> Verification:
        """Read all stored bytes, and return what they are; damage is a result.

        Raises:
            ModelNotFoundError: There is no such model.
        """
        for step in self.steps(model_id):
            if isinstance(step, Verification):
                return step
        raise AssertionError("the last step is the result")

    def steps(self, model_id: str) -> Iterator[VerificationProgress | Verification]:
        """Yield how far it is, first of all and after each piece, and what was found at the end.

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


@dataclass(frozen=True, slots=True)
class ListArtifactFiles:
    """Lists the members of a ZIP artifact."""

    database: Database
    store: ArtifactStore
    policy: Policy

    def __call__(self, model_id: str, *, size: int, token: str) -> tuple[Sequence[ArchiveMember], str]:
        """Returns a page of members in the archive's order and the token of the next.

        Raises:
            ModelNotFoundError: There is no such model.
            NotAnArchiveError: The artifact is no readable ZIP.
        """
        limit = page_size(size, default=MAX_PAGE_SIZE)
        start = decode_page_token(token, (model_id,), (int,))
        first = start[0] if start is not None and isinstance(start[0], int) else 0
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
        with (
            _unless_deleted(self.database, model),
            open_archive(
                self.store,
                model.artifact.object_key,
                model.artifact.size,
                directory_max_bytes=self.policy.zip_directory_max_bytes,
            ) as archive,
        ):
            members = archive.members()
        end = max(first, 0) + limit
        return members[max(first, 0) : end], encode_page_token((model_id,), (end,)) if end < len(members) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A member of a ZIP artifact, ready to be read."""

    model: Model
    member: ArchiveMember
    archive: Archive

    def range(self, offset: int, limit: int) -> tuple[int, int]:
        """Return offset and length of what a client asks for: at most `limit` bytes, unless that is 0.

        Raises:
            InvalidArgumentError: Offset or limit are negative.
            OutOfRangeError: The offset is past the end.
        """
        return _range(offset, limit, self.member.size, "The file", self.model.id)

    def pieces(self, offset: int, length: int, confirm: Callable[[], None]) -> Iterator[bytes]:
        """Yield the bytes of a range; see `Archive.pieces`."""
        return self.archive.pieces(self.member, offset, length, confirm)


@dataclass(frozen=True, slots=True)
class ReadArtifactFile:
    """Reads one member of a ZIP artifact."""

    database: Database
    store: ArtifactStore
    policy: Policy

    @contextmanager
    def __call__(self, model_id: str, path: str) -> Iterator[OpenFile]:
        """Give the file, to be read within the block.

        Raises:
            ModelNotFoundError: There is no such model.
            NotAnArchiveError: The artifact, or the member, cannot be read, or several members have this path.
            ArtifactFileNotFoundError: There is no such member.
        """
        with self.database.reading() as transaction:
            model = transaction.models.get(model_id)
        with (
            _unless_deleted(self.database, model),
            open_archive(
                self.store,
                model.artifact.object_key,
                model.artifact.size,
                directory_max_bytes=self.policy.zip_directory_max_bytes,
            ) as archive,
        ):
            member = archive.member(path)
            if member is None:
                raise ArtifactFileNotFoundError(model_id, path)
            if archive.count(path) > 1:
                # Programs differ in which of them they read.
                raise NotAnArchiveError(
                    f"The ZIP has several files with the path {path!r}. Download the whole artifact to read them.",
                    path=path,
                )
            yield OpenFile(model=model, member=member, archive=archive)
