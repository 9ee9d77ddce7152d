"""Locks between processes, where the file system has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import filelock


class PathLock:
    """A lock between processes and threads, which ends with its process.

    Locks of the cache only save double work: nothing breaks without them.

    Args:
        path: The file of the lock. It stays, because to delete it would let two processes hold the lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: filelock.BaseFileLock | None = None

    def acquire(self) -> bool | None:
        """Take the lock without waiting. Return False if another one holds it, and None if locks do not work here."""
        import filelock  # noqa: PLC0415 - slow to import

        if self._lock is None:
            # Not per thread: asyncio takes and releases it on any thread. One object per holder.
            self._lock = filelock.FileLock(self._path, timeout=0, thread_local=False)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            return False
        # A read-only file system, a network file system without locks, or a file of another user.
        except (OSError, NotImplementedError):
            return None
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        if self._lock is not None:
            self._lock.release(force=True)
