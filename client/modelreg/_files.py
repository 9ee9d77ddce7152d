"""Files of the client's own directories: written atomically, for this user only."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelreg.errors import InvalidArgument, Unavailable

_REPLACE_ATTEMPTS = 20
_REPLACE_PAUSE_SECONDS = 0.05
_LOCK_SECONDS = 60.0
_MAX_BYTES = 4 * 1024 * 1024


def make_private_directory(path: Path) -> None:
    """Make a directory, with its parents, that only this user may enter. One that exists is left as it is.

    Raises:
        OSError: The directory cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_small_file(path: Path) -> bytes | None:
    """Return the content of a file, or None if there is none.

    Raises:
        InvalidArgument: The file is larger than any that the client writes, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{path} is larger than {_MAX_BYTES} bytes, so it is not a file of modelreg.")
    return content


@contextmanager
def lock_file(path: Path, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock of a file, which is made if need be, against other threads and processes.

    Raises:
        Unavailable: Another process held the lock for all these seconds.
        OSError: The file cannot be made, for example because the directory is read-only.
    """
    import filelock  # noqa: PLC0415 - slow to import, and few calls need it

    # A lock object of its own for each caller: one object would let threads in together.
    lock = filelock.FileLock(str(path), timeout=seconds)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise Unavailable(
            f"Another process has held the lock {path} for {seconds:g} s. End that process, or try again later."
        ) from None
    try:
        yield
    finally:
        lock.release()


def write_private_file(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 atomically: readers, and a crash, see the old content or the new one.

    The directory must exist. If `path` is a symbolic link, the file that it names is replaced.

    Raises:
        OSError: The file cannot be written. Nothing is changed.
    """
    target = Path(os.path.realpath(path))
    name = None
    try:
        # Has mode 0600 from its first moment on. On Windows, the directory inherits the access of the user's profile.
        descriptor, name = tempfile.mkstemp(prefix=".modelreg-", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(Path(name), target)
    except BaseException as error:
        if name is not None:
            with suppress(OSError):
                os.unlink(name)  # noqa: PTH108
        if isinstance(error, OSError):
            # A full disk names no file, and the temporary name tells nobody anything.
            error.filename = str(target)
        raise


def replace(source: Path, target: Path) -> None:
    """Rename a file over another one, patiently on Windows, where a reader of the target is in the way.

    Raises:
        OSError: The rename failed.
    """
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            os.replace(source, target)  # noqa: PTH105
        except PermissionError:
            if os.name != "nt" or attempt == _REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(_REPLACE_PAUSE_SECONDS)
        else:
            return
