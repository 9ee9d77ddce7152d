"""Unpacks a folder from a ZIP that anyone may have made.

Nothing of the ZIP is trusted: names, types, sizes, and that its parts do not overlap. Everything is checked before the
first file is written, except the contents, which are checked while they are written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from modelreg._folders import portable_names
from modelreg.errors import IntegrityError

_CHUNK_BYTES = 1 << 20
MAX_ENTRIES = 1_000_000
_DIRECTORY_MAX_BYTES = 256 << 20
"""Largest central directory that is read. 1,000,000 entries with paths of 200 bytes fit."""
_ENTRY_MAGIC = b"PK\x01\x02"
_ENTRY_MIN_BYTES = 46
_LOCAL_HEADER_BYTES = 30
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1
# What zipfile raises for a damaged ZIP. An OSError is one of the disk.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, NotImplementedError)


@dataclass(frozen=True)
class UnpackedFile:
    """A file that was unpacked."""

    path: str
    """Path inside the folder, with `/`."""
    size_bytes: int
    crc32: int


def unpack_folder(
    source: str | os.PathLike[str] | BinaryIO,
    target: str | os.PathLike[str],
    *,
    progress: Callable[[int], object] | None = None,
    select: Callable[[str], bool] | None = None,
) -> Sequence[UnpackedFile]:
    """Unpack a ZIP into a new folder, and check the size and CRC-32 of each file.

    The ZIP may be of any origin: the packed form of this client, or what another program made. Its files must be
    stored or deflated. Files get the default mode and the present time.

    Args:
        source: The ZIP: a path, or a seekable binary file that starts with it.
        target: The folder: new, or empty. If unpacking fails, it is as it was before.
        progress: Called after each piece with the number of bytes that were written. An exception that it raises ends
            the unpacking, and reaches the caller.
        select: Tells whether to unpack the file of a path. Default: all files, and folders without files.

    Returns:
        The files, in the order of the ZIP.

    Raises:
        IntegrityError: The ZIP is damaged, or not safe to unpack: a path leaves the folder, is not portable, or
            collides with another one; a member is a link, a device or encrypted; members overlap. The `reason` is
            `ARCHIVE_DAMAGED` or `ARCHIVE_UNSAFE`.
        FileExistsError: The target is not empty.
        OSError: The target cannot be written, for example because the disk has too little space.
    """
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            return unpack_folder(file, target, progress=progress, select=select)
    root = Path(target)
    with _opened(source) as archive:
        files, folders = _checked(archive)
        if select is not None:
            files, folders = [member for member in files if select(member.filename)], []
        with _new_folder(root):
            _check_space(root, sum(member.file_size for member in files))
            for path in folders:
                os.makedirs(root / path, exist_ok=True)  # noqa: PTH103 - does not recurse
            return tuple(_unpacked(archive, member, root, progress) for member in files)


def _unpacked(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, root: Path, progress: Callable[[int], object] | None
) -> UnpackedFile:
    path = root / member.filename
    os.makedirs(path.parent, exist_ok=True)  # noqa: PTH103 - does not recurse
    with path.open("xb") as file:
        for piece in _pieces(archive, member):
            file.write(piece)
            if progress is not None:
                progress(len(piece))
    return UnpackedFile(member.filename, member.file_size, member.CRC)


def _pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of a member.

    Raises:
        IntegrityError: It does not have the size and the CRC-32 of the directory.
    """
    size = checksum = 0
    try:
        with archive.open(member) as packed:  # compares the header with the directory
            while piece := packed.read(_CHUNK_BYTES):
                size += len(piece)
                checksum = zlib.crc32(piece, checksum)
                yield piece
    except _DAMAGE as error:
        raise _damaged(f"{member.filename!r}: {error}") from error
    if size != member.file_size or checksum != member.CRC:
        raise _damaged(f"{member.filename!r} has another size or CRC-32")


@contextmanager
def _opened(source: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Read the directory of a ZIP."""
    try:
        archive = zipfile.ZipFile(_BoundedReads(source))
    except _DAMAGE as error:
        raise _damaged(f"its directory cannot be read: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a seek to where a damaged directory points
            raise
        raise _damaged(f"its directory cannot be read: {error}") from error
    with archive:
        yield archive


class _BoundedReads:
    """A file that refuses a directory of too many bytes or entries: zipfile trusts the size that a ZIP states."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > _DIRECTORY_MAX_BYTES:
            position = self._file.tell()
            remaining = self._file.seek(0, os.SEEK_END) - position
            self._file.seek(position)
            if remaining > _DIRECTORY_MAX_BYTES:
                raise zipfile.BadZipFile(f"it has more than {_DIRECTORY_MAX_BYTES} bytes")
        data = self._file.read(size)
        # zipfile makes an object of each entry in a directory, whatever number the ZIP states.
        if len(data) > _ENTRY_MIN_BYTES * MAX_ENTRIES and data.count(_ENTRY_MAGIC) > MAX_ENTRIES:
            raise zipfile.BadZipFile(f"it has more than {MAX_ENTRIES} members")
        return data


def _checked(archive: zipfile.ZipFile) -> tuple[list[zipfile.ZipInfo], list[str]]:
    """Return the members that are files, and the paths of the folders, after checking all of them."""
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _unsafe(f"it has more than {MAX_ENTRIES} members")
    paths = portable_names.PathSet()
    files: list[zipfile.ZipInfo] = []
    folders: list[str] = []
    for entry in entries:
        path = entry.filename.removesuffix("/")
        if (problem := _problem(entry, path)) is not None:
            raise _unsafe(f"the path {entry.orig_filename[:200]!r} {problem}")
        if entry.is_dir():
            folders.append(path)
            other = paths.add_folder(path)
        else:
            files.append(entry)
            other = paths.add(path)
        if other is not None:
            raise _unsafe(f"the paths {other!r} and {path!r} are the same file on some platforms")
    _check_layout(archive, entries)
    return files, folders


def _problem(entry: zipfile.ZipInfo, path: str) -> str | None:
    """Return what is wrong with an entry, as the end of a sentence, or None."""
    # zipfile ends a name at a NUL, and on Windows replaces backslashes.
    if "\0" in entry.orig_filename or "\\" in entry.orig_filename:
        return "has a NUL or a backslash"
    return portable_names.problem_of_path(path) or _problem_of_type(entry) or _problem_of_content(entry)


def _problem_of_type(entry: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in {0, stat.S_IFDIR if entry.is_dir() else stat.S_IFREG}:
        return "is neither a file nor a folder"
    return "is a folder with content" if entry.is_dir() and entry.file_size else None


def _problem_of_content(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if entry.compress_type not in _METHODS:
        return f"is compressed with method {entry.compress_type}, and only stored and deflate are read"
    is_stored = entry.compress_type == zipfile.ZIP_STORED
    return "is stored, but has two sizes" if is_stored and entry.compress_size != entry.file_size else None


def _check_layout(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse members that share bytes, by which a small ZIP unpacks to an enormous folder."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise _unsafe(f"the member {entry.orig_filename[:200]!r} overlaps another one")
        end = entry.header_offset + _LOCAL_HEADER_BYTES + len(entry.orig_filename) + entry.compress_size
    if end > archive.start_dir:
        raise _unsafe("a member overlaps its directory")


@contextmanager
def _new_folder(root: Path) -> Iterator[None]:
    """Create a folder, or take an empty one. After an error it is as it was before."""
    try:
        root.mkdir()
        is_new = True
    except FileExistsError:
        is_new = False
        if not root.is_dir():
            raise
        if any(root.iterdir()):
            raise FileExistsError(errno.EEXIST, "The folder must be new or empty", str(root)) from None
    try:
        yield
    except BaseException:
        _clear(root)
        if is_new:
            root.rmdir()
        raise


def _clear(root: Path) -> None:
    for path in list(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_space(root: Path, size: int) -> None:
    """Raise OSError at once if the disk cannot hold the files."""
    free = shutil.disk_usage(root).free
    if size > free:
        raise OSError(errno.ENOSPC, f"The folder takes {size} bytes, and {free} bytes are free", str(root))


def _damaged(what: str) -> IntegrityError:
    return IntegrityError(f"The ZIP of the folder is damaged: {what}. Pull it again.", reason="ARCHIVE_DAMAGED")


def _unsafe(what: str) -> IntegrityError:
    return IntegrityError(
        f"The ZIP of the folder is not safe to unpack: {what}. Nothing was written. "
        "Ask for it to be registered again, as a folder that this client pushes.",
        reason="ARCHIVE_UNSAFE",
    )
