"""Files on the disk of a pull: space, copies, and files that are there already."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from contextlib import suppress
from pathlib import Path

from modelreg._checksums import Checksum, has_checksum
from modelreg._files import replace
from modelreg._pulls.removal import remove_path
from modelreg._sizes import format_size

_PIECE_BYTES = 1 << 20
_MAX_FLUSHED_FILES = 100


def require_space(path: Path, size: int) -> None:
    """Check that a file can grow to a size, before hours go by.

    Raises:
        OSError: The disk has too little space.
    """
    with suppress(FileNotFoundError):
        size -= os.lstat(path).st_size
    try:
        usage = shutil.disk_usage(path.parent)
    except OSError:
        return
    # Some network file systems report nothing.
    if usage.total and size > usage.free:
        raise OSError(
            errno.ENOSPC,
            f"Not enough space: {format_size(size)} are needed, and {format_size(usage.free)} are free. "
            "`mreg cache prune` deletes what was pulled earlier",
            str(path.parent),
        )


def make_folder(folder: Path) -> None:
    """Make a folder, with its parents, unless it is there.

    Raises:
        NotADirectoryError: A file has the name.
        OSError: The folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "A file has the name of the folder", str(folder)) from None


def existing_file_has(path: Path, size: int, checksum: Checksum) -> bool:
    """Tell whether a file is there already, complete.

    Raises:
        IsADirectoryError: A folder has the name.
    """
    try:
        found = os.stat(path)  # noqa: PTH116
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "A folder has the name of the file", str(path))
        return found.st_size == size and has_checksum(path, checksum)
    # A file that has the name of the folder is reported where the folder is made.
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False


def copy_file(source: Path, target: Path, checksum: Checksum) -> bool:
    """Copy a file. Return False, without a file, if the copy does not have the checksum.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    checksum = checksum.fresh()
    try:
        with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
            while data := reader.read(_PIECE_BYTES):
                checksum.update(data)
                rest = memoryview(data)
                while rest:
                    rest = rest[writer.write(rest) :]
    except FileExistsError:
        raise
    except BaseException:
        remove_path(target)
        raise
    if checksum.found() == checksum.expected:
        return True
    remove_path(target)
    return False


def replace_by_copy(source: Path, target: Path, checksum: Checksum) -> bool:
    """Copy a file, and give the copy its name at the end, as `copy_file`. A file of the name is replaced."""
    # Not with the name of the file, which may be as long as the file system allows.
    temporary = target.with_name(f".modelreg-{uuid.uuid4().hex}.part")
    try:
        is_intact = copy_file(source, temporary, checksum)
        if is_intact:
            flush(temporary)
            replace(temporary, target)
    except BaseException:
        remove_path(temporary)
        raise
    return is_intact


def flush(path: Path) -> None:
    """Have the content of a file, or of the files in a folder, on the disk before it gets its name.

    For what belongs to the caller, who reads it without checks, and may lose an old file to it in a power failure. A
    file of the cache that a power failure truncated is found by its size. Folders of many files are left to the file
    system, because each file costs milliseconds.

    Raises:
        OSError: The disk failed.
    """
    files = [found for found in path.rglob("*") if found.is_file()] if path.is_dir() else [path]
    for file in files if len(files) <= _MAX_FLUSHED_FILES else ():
        # Windows flushes only what is open for writing.
        with file.open("r+b") as opened:
            os.fsync(opened.fileno())


def progress_mark(path: Path) -> tuple[int, int]:
    """Return the size and the time of a file, which change as long as its writer is alive. (0, 0): there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def touch(path: Path) -> None:
    """Set the time of a file to now, if it is there."""
    with suppress(OSError):
        os.utime(path)
