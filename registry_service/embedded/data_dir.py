"""The data folder of `model-registry up`.

<data_dir>/lock               locked (flock) while a process uses the folder
<data_dir>/postgres           the PostgreSQL cluster
<data_dir>/postgres.initdb    an unfinished cluster
<data_dir>/artifacts          the artifacts
<data_dir>/run                the Unix socket of PostgreSQL; a link to another folder if this path is too long
<data_dir>/envoy.yaml         the gateway's configuration
<data_dir>/*.log              the servers' logs; older lines are in *.log.1
"""

import fcntl
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import IO

from registry_service.embedded.process import EmbeddedError

_FOLDERS = ("postgres", "postgres.initdb", "artifacts", "run")
_FILES = ("lock", "envoy.yaml", "registry.log", "gateway.log", "postgres.log")


class DataDirInUseError(EmbeddedError):
    """Another process uses the data folder."""


def make_data_dir(path: Path) -> None:
    """Create the folder if it is missing, private to its user, and check the entries in it.

    Raises:
        EmbeddedError: The folder cannot be created, or an entry is a file instead of a folder or the reverse.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise EmbeddedError(f"{path} is not a folder; move it away, or choose another data folder") from None
    except OSError as error:
        raise EmbeddedError(f"{path}: {error.strerror}") from None
    for name in _FOLDERS:
        if (path / name).exists() and not (path / name).is_dir():
            raise EmbeddedError(f"{path / name} is not a folder; move it away")
    for name in _FILES:
        if (path / name).exists() and not (path / name).is_file():
            raise EmbeddedError(f"{path / name} is not a file; move it away")


class DataDirLock:
    """An exclusive lock on a data folder, held until it is released or this process ends in any way."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Acquire the lock without waiting.

        Raises:
            DataDirInUseError: Another process holds the lock.
            EmbeddedError: The folder belongs to another user, who could not use files that root creates in it.
        """
        path = self._data_dir / "lock"
        owner = self._data_dir.stat()
        try:
            # Private: a process that can open the file could lock it.
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="ascii")
            with suppress(PermissionError):
                os.fchmod(file.fileno(), 0o600)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        except OSError as error:
            raise EmbeddedError(f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip()
            file.close()
            user = f"process {holder}" if holder else "another process"
            raise DataDirInUseError(f"{self._data_dir} is in use by {user}") from None
        except BaseException:
            file.close()
            raise
        if owner.st_uid != os.geteuid():
            file.close()
            raise EmbeddedError(
                f"{self._data_dir} belongs to {_name_of(owner.st_uid)}; run the command as that user, or choose another"
                " data folder"
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Release the lock. Does nothing if it is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _name_of(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"another user (uid {uid})"
