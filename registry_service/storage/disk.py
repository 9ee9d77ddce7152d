"""Checks of the free space of a disk."""

import errno
import logging
import os
from pathlib import Path

from registry_service.domain.errors import StorageFullError

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: OSError) -> bool:
    """Return whether an error means that a disk, or a user's quota of it, is full."""
    return error.errno in _FULL


class DiskReserve:
    """Space that writes leave free on a disk, so that Postgres' log and deletions still work when it fills up.

    Args:
        folder: Any folder on the disk.
        name: Name of the disk's content in errors.
        reserve_bytes: Bytes to leave free.
    """

    def __init__(self, folder: Path, name: str, reserve_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._reserve_bytes = reserve_bytes
        self._was_full = False

    def check(self, size: int = 0) -> None:
        """Raise StorageFullError if writing `size` bytes would use the reserve."""
        try:
            status = os.statvfs(self._folder)
        except OSError:
            # The folder is unavailable: the write itself reports that.
            return
        free = status.f_bavail * status.f_frsize
        is_full = free < self._reserve_bytes + size
        if is_full != self._was_full:
            self._was_full = is_full
            logger.log(
                logging.ERROR if is_full else logging.INFO,
                "writes are refused: no space" if is_full else "writes are accepted again: there is space",
                extra={"folder": str(self._folder), "free_bytes": free, "reserve_bytes": self._reserve_bytes},
            )
        if is_full:
            raise StorageFullError(self._name, self._reserve_bytes)
