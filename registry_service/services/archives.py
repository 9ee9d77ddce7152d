"""Reads ZIP artifacts where they are: the directory and single members, by ranged reads.

A ZIP is hostile until shown otherwise. Its directory is read up to a limit,
members are only looked up by name, never written anywhere, and decompressed in
small pieces, no further than the directory says.
"""

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from registry_service.domain.artifact_store import CHUNK_SIZE, ArtifactStore
from registry_service.domain.errors import ArtifactLostError, DataLossError, NotAnArchiveError

_READ_AHEAD = 256 * 1024
_UNSAFE_NAME = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|[\x00-\x1f\x7f]")
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
_LOCAL_SIGNATURE = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Before a member's bytes: its signature .. the lengths of the name and the extra field that follow."""
_MAX_SIZE = 2**63 - 1
# What zipfile raises at damage, beside its own BadZipFile.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveMember:
    """A member of a ZIP, as the directory describes it. Sizes in bytes."""

    name: str
    size: int
    compressed_size: int
    crc32: int
    modify_time: datetime | None
    """Aware, UTC; None where the archive holds no possible time."""


class _StoredFile(io.RawIOBase):
    """A stored object as a seekable file."""

    def __init__(self, store: ArtifactStore, key: str, size: int) -> None:
        self._store = store
        self._key = key
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(self._size - self._position, 0))
        if wanted == 0:
            return 0
        done = 0
        for piece in self._store.read(self._key, self._position, wanted):
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        if done < wanted:
            raise ArtifactLostError("The artifact store holds fewer bytes than were registered.")
        self._position += done
        return done


class _DirectoryReader(io.BufferedReader):
    """Refuses a read of more than a limit: zipfile reads the whole directory at once."""

    def __init__(self, raw: io.RawIOBase, size: int, limit: int) -> None:
        super().__init__(raw, _READ_AHEAD)
        self._size = size
        self._limit = limit

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            size = self._size - self.tell()
        if size > self._limit:
            raise NotAnArchiveError(
                f"The ZIP's central directory is larger than {self._limit} bytes.", limit=str(self._limit)
            )
        return super().read(size)


class Archive:
    """An open ZIP."""

    def __init__(self, file: zipfile.ZipFile, size: int) -> None:
        self._file = file
        self._size = size

    @property
    def entries(self) -> list[zipfile.ZipInfo]:
        """The entries of the directory, as they are."""
        return self._file.infolist()

    @property
    def directory_offset(self) -> int:
        """Where in the ZIP its directory begins."""
        return self._file.start_dir

    def members(self) -> Sequence[ArchiveMember]:
        """Returns the members in the archive's order."""
        return [_member(info) for info in self._file.infolist()]

    def unsafe_name(self) -> str | None:
        """Returns a member's name that would harm whoever unpacks it without care, None where there is none."""
        return next(
            (info.orig_filename for info in self._file.infolist() if _UNSAFE_NAME.search(info.orig_filename)), None
        )

    def is_readable(self, name: str) -> bool:
        """Return whether `open` reads a member: it is neither encrypted nor compressed in a way we don't read."""
        try:
            info = self._file.getinfo(name)
        except KeyError:
            return False
        return info.compress_type in _METHODS and not info.flag_bits & _ENCRYPTED

    def stored_offset(self, name: str) -> int | None:
        """Returns where in the ZIP a member's bytes begin; None where they are compressed, encrypted, or not there.

        Whoever reads them there sees them unchecked.
        """
        try:
            info = self._file.getinfo(name)
        except KeyError:
            return None
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED or self._file.fp is None:
            return None
        if info.header_offset < 0:  # an odd directory may say so
            return None
        self._file.fp.seek(info.header_offset)
        header = self._file.fp.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            return None
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        is_whole = info.file_size == info.compress_size and offset + info.file_size <= self._size
        return offset if signature == _LOCAL_SIGNATURE and is_whole else None

    def open(self, name: str) -> tuple[ArchiveMember, Iterator[bytes]] | None:
        """Returns a member and its bytes, decompressed, in pieces of at most CHUNK_SIZE; None where there is none.

        The pieces end with a `DataLossError` when CRC or size are not the directory's.

        Raises:
            NotAnArchiveError: The member is encrypted, or compressed in a way we don't read.
        """
        try:
            info = self._file.getinfo(name)
        except KeyError:
            return None
        if info.flag_bits & _ENCRYPTED:
            raise NotAnArchiveError(f"The file {name!r} is encrypted.", file_name=name)
        if info.compress_type not in _METHODS:
            # Others can ask for gigabytes of memory to decompress a few bytes.
            raise NotAnArchiveError(
                f"The file {name!r} is compressed with method {info.compress_type}; only stored and deflate are read.",
                file_name=name,
            )
        return _member(info), self._pieces(info)

    def read(self, member: ArchiveMember) -> Iterator[bytes]:
        """Yields the bytes of a member as `open` does, and raises what that raises, on the first `next` as well."""
        found = self.open(member.name)
        if found is None:
            raise NotAnArchiveError(f"There is no file {member.name!r}.", file_name=member.name)
        yield from found[1]

    def _pieces(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        done = 0
        try:
            with self._file.open(info) as member:
                while piece := member.read(CHUNK_SIZE):
                    done += len(piece)
                    yield piece
        except _DAMAGE as error:
            raise DataLossError(f"The file {info.filename!r} is damaged.", file_name=info.filename) from error
        if done != info.file_size:
            raise DataLossError(f"The file {info.filename!r} is cut short.", file_name=info.filename)


@contextmanager
def open_archive(store: ArtifactStore, key: str, size: int, *, directory_max_bytes: int) -> Iterator[Archive]:
    """Opens a stored ZIP and reads its directory.

    Raises:
        NotAnArchiveError: It is no ZIP, or its directory is damaged or too large.
        ArtifactLostError: There is no such object.
    """
    raw = _StoredFile(store, key, size)
    with _DirectoryReader(raw, size, max(directory_max_bytes, CHUNK_SIZE)) as reader:
        try:
            file = zipfile.ZipFile(reader)
        except _DAMAGE as error:
            raise NotAnArchiveError("The artifact has no readable ZIP directory.") from error
        with file:
            if any(info.file_size > _MAX_SIZE or info.compress_size > _MAX_SIZE for info in file.infolist()):
                raise NotAnArchiveError("The ZIP's directory has an impossible size.")
            yield Archive(file, size)


def _member(info: zipfile.ZipInfo) -> ArchiveMember:
    try:
        modify_time = datetime(*info.date_time, tzinfo=UTC)
    except ValueError:
        modify_time = None
    return ArchiveMember(
        name=info.filename,
        size=info.file_size,
        compressed_size=info.compress_size,
        crc32=info.CRC,
        modify_time=modify_time,
    )
