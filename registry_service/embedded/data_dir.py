"""The folder where `model-registry up` keeps everything.

<data_dir>/lock               held (flock) while we run
<data_dir>/postgres           the cluster
<data_dir>/postgres.initdb    a cluster that is being made
<data_dir>/artifacts          the artifacts
<data_dir>/run                the Unix socket of PostgreSQL; a link to a short folder where this path is too long
<data_dir>/envoy.yaml         the gateway's configuration
<data_dir>/*.log              what the servers say; what they said before is in *.log.1
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
    """Another process runs on this data folder."""


def make_data_dir(path: Path) -> None:
    """Make the folder when it is missing, for its user alone, and see that nothing in it is in our way.

    Raises:
        EmbeddedError: It cannot be made, or a file is where a folder belongs, or the other way round.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise EmbeddedError(f"{path} is not a folder: move it away, or choose another data folder") from None
    except OSError as error:
        raise EmbeddedError(f"{path}: {error.strerror}") from None
    for name in _FOLDERS:
        if (path / name).exists() and not (path / name).is_dir():
            raise EmbeddedError(f"{path / name} is not a folder: move it away")
    for name in _FILES:
        if (path / name).exists() and not (path / name).is_file():
            raise EmbeddedError(f"{path / name} is not a file: move it away")


class DataDirLock:
    """Keeps others away from a data folder, until released or until this process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the lock at once.

        Raises:
            DataDirInUseError: Another has it.
            EmbeddedError: The folder is another user's, who could not use what root would write there.
        """
        path = self._data_dir / "lock"
        owner = self._data_dir.stat()
        try:
            # Whoever may read it could lock it, too.
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
            who = f"the process {holder}" if holder else "another process"
            raise DataDirInUseError(f"{self._data_dir} is in use by {who}") from None
        except BaseException:
            file.close()
            raise
        if owner.st_uid != os.geteuid():
            file.close()
            raise EmbeddedError(
                f"{self._data_dir} belongs to {_name_of(owner.st_uid)}: run this as that user, or choose another data"
                " folder"
            )
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Gives the lock back. Does nothing when it isn't held."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _name_of(uid: int) -> str:
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"another user (uid {uid})"
