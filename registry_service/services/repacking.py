"""Repacks the members of a ZIP under one folder, as a stream."""

import io
import re
import zipfile
from collections.abc import Iterator, Sequence

from registry_service.domain.artifact_store import CHUNK_SIZE
from registry_service.domain.errors import (
    ArtifactLostError,
    ArtifactTooLargeError,
    DataLossError,
    GetiDeploymentError,
    NotAnArchiveError,
)
from registry_service.domain.validation import MAX_FILE_NAME_BYTES
from registry_service.services.archives import Archive, ArchiveMember

# Separators and a drive letter would make the name a path.
_FORBIDDEN_IN_NAMES = re.compile(r"[/\\\x00-\x1f\x7f]|(?<=^.):")
_EXTENSION = ".zip"
_FILE_MODE = 0o100644
_FOLDER_MODE = 0o40755
_MS_DOS_FOLDER = 0x10
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Higher levels take longer and hardly compress weights any further.
_COMPRESSION_LEVEL = 1


def folder_name(project_name: str) -> str:
    """Return the folder name for a project's models, for example `cattle-detection-v12`."""
    name = _FORBIDDEN_IN_NAMES.sub("-", project_name.lower().replace(" ", "-").replace(".", ""))
    data = name.encode()[: MAX_FILE_NAME_BYTES - len(_EXTENSION)]
    return data.decode(errors="ignore") or "project"


def file_name(folder: str) -> str:
    """Return the file name of the ZIP that contains a folder."""
    return folder + _EXTENSION


def repacked(archive: Archive, folder: str, *, max_bytes: int) -> Iterator[bytes]:
    """Yield a ZIP of the archive's members under one folder. An entry for each folder precedes its content.

    Names, times and bytes of the members are kept. Any member that is not a folder
    becomes a plain file, also a link.

    Raises:
        GetiDeploymentError: The archive is empty or damaged, or has an unsafe name.
        ArtifactTooLargeError: The members have more than `max_bytes` unpacked.
    """
    members = archive.members()
    _check(archive, members, max_bytes)
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as target:
        folders: set[str] = set()
        for member in members:
            name = f"{folder}/{member.name}"
            for parent in _folders(name):
                if parent not in folders:
                    folders.add(parent)
                    target.writestr(_entry(parent, member, _FOLDER_MODE), b"")
            if not member.name.endswith("/"):
                yield from _copied(archive, member, target, name, sink)
    yield sink.take()


def _check(archive: Archive, members: Sequence[ArchiveMember], max_bytes: int) -> None:
    unsafe = archive.unsafe_name()
    if unsafe is not None:
        raise GetiDeploymentError(f"The ZIP from Geti has a file with the unsafe name {unsafe[:200]!r}.")
    names = {member.name for member in members}
    if not any(not name.endswith("/") for name in names):
        raise GetiDeploymentError("The ZIP from Geti is empty.")
    if len(names) != len(members):
        raise GetiDeploymentError("The ZIP from Geti has two files of the same name.")
    if sum(member.size for member in members) > max_bytes:
        raise ArtifactTooLargeError(max_bytes)


def _copied(
    archive: Archive, member: ArchiveMember, target: zipfile.ZipFile, name: str, sink: "_Sink"
) -> Iterator[bytes]:
    entry = _entry(name, member, _FILE_MODE)
    entry.file_size = member.size
    with target.open(entry, "w") as copy:
        for piece in _pieces(archive, member):
            copy.write(piece)
            if sink.size >= CHUNK_SIZE:
                yield sink.take()


def _pieces(archive: Archive, member: ArchiveMember) -> Iterator[bytes]:
    try:
        yield from archive.read(member)
    except ArtifactLostError:
        raise  # lost by our own store, not damaged by Geti
    except (NotAnArchiveError, DataLossError) as error:
        raise GetiDeploymentError(f"The ZIP from Geti cannot be read: {error.message}") from error


def _folders(name: str) -> Iterator[str]:
    """Yield the folders on the path of a name, and the name itself if it is a folder, the outermost first."""
    for i, character in enumerate(name):
        if character == "/":
            yield name[: i + 1]


def _entry(name: str, member: ArchiveMember, mode: int) -> zipfile.ZipInfo:
    time = member.modify_time
    entry = zipfile.ZipInfo(name, time.timetuple()[:6] if time is not None and time.year >= 1980 else _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix: the mode is in external_attr
    entry.external_attr = mode << 16
    if name.endswith("/"):
        entry.compress_type = zipfile.ZIP_STORED
        entry.external_attr |= _MS_DOS_FOLDER
    return entry


class _Sink(io.RawIOBase):
    """A write-only file without seek. `take` removes and returns what was written."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def size(self) -> int:
        return len(self._buffer)

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        self._buffer += view
        return view.nbytes

    def take(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data
