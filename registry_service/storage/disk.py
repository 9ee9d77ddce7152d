"""The space that is left on a disk."""

import errno
import logging
import os
from pathlib import Path

from registry_service.domain.errors import StorageFullError

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}


def is_full(error: OSError) -> bool:
    """Tell whether an error says that a disk, or a user's share of it, is full."""
    return error.errno in _FULL


class DiskReserve:
    """A part of a disk that is left free, so that whatever shares the disk goes on: Postgres' log, deletions.

    Args:
        folder: Any on the disk.
        name: How clients are told of it.
        reserve_bytes: How much is left free.
    """

    def __init__(self, folder: Path, name: str, reserve_bytes: int) -> None:
        self._folder = folder
        self._name = name
        self._reserve_bytes = reserve_bytes
        self._was_full = False

    def check(self, size: int = 0) -> None:
        """Return when so many bytes can be written.

        Raises:
            StorageFullError: They would take from the reserve.
        """
        try:
            status = os.statvfs(self._folder)
        except OSError:
            # It is away; whoever writes hears so.
            return
        free = status.f_bavail * status.f_frsize
        is_full = free < self._reserve_bytes + size
        if is_full != self._was_full:
            self._was_full = is_full
            logger.log(
                logging.ERROR if is_full else logging.INFO,
                "writes are refused: no space" if is_full else "writes are taken again: there is space",
                extra={"folder": str(self._folder), "free_bytes": free, "reserve_bytes": self._reserve_bytes},
            )
        if is_full:
            raise StorageFullError(self._name, self._reserve_bytes)
