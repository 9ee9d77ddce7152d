"""Files of the client's own directories: written atomically, for this user only."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_REPLACE_ATTEMPTS = 20
_REPLACE_PAUSE_SECONDS = 0.05


def make_private_directory(path: Path) -> None:
    """Make a directory, with its parents, that only this user may enter. One that exists is left as it is.

    Raises:
        OSError: The directory cannot be made.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private_file(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 atomically: readers, and a crash, see the old content or the new one.

    The directory must exist. If `path` is a symbolic link, the file that it names is replaced.

    Raises:
        OSError: The file cannot be written. Nothing is changed.
    """
    target = Path(os.path.realpath(path))
    # Has mode 0600 from its first moment on. On Windows, the directory inherits the access of the user's profile.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        replace(Path(name), target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)  # noqa: PTH108
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
