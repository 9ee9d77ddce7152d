"""Temporary folders that a server of another user can enter."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 4 * 1024**3
_PREFIX = "model-registry-test-"


@contextmanager
def accessible_folder(*, on_disk: bool = False) -> Iterator[Path]:
    """Create a folder outside of pytest's.

    As root, Postgres runs as another user, and pytest closes its folders to other users at each start of a session.

    Args:
        on_disk: False for a folder in memory, if enough is free. A database is hundreds of files. Where as many were
            just deleted, ext4 takes 0.3 s of CPU time to create them, because it reuses no inode within five seconds.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=None if on_disk else _memory()))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def _remove_leftovers() -> None:
    """Free the memory of runs that were killed."""
    for folder in _MEMORY.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _memory() -> Path | None:
    """Return a folder in memory; None if there is none, or too little memory."""
    if not os.access(_MEMORY, os.W_OK | os.X_OK):
        return None
    _remove_leftovers()
    is_enough = min(shutil.disk_usage(_MEMORY).free, psutil.virtual_memory().available) >= _ENOUGH_BYTES
    return _MEMORY if is_enough else None
