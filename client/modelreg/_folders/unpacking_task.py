"""Unpacking that can be stopped from another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from modelreg._folders.unpacking import UnpackedFile, unpack_folder
from modelreg._pulls.disk import touch

_HEARTBEAT_SECONDS = 1.0


class UnpackingTask:
    """Unpacks a ZIP into a new folder, and shows processes that wait for it that it goes on.

    Args:
        source: The ZIP. Its time is kept at the present.
        target: The folder.
        select: Tells whether to unpack the file of a path. Default: all files.
    """

    def __init__(self, source: Path, target: Path, select: Callable[[str], bool] | None = None) -> None:
        self._source = source
        self._target = target
        self._select = select
        self._busy = threading.Lock()
        self._is_stopped = False
        self._last = time.monotonic()

    def run(self) -> Sequence[UnpackedFile]:
        """Unpack, as `unpack_folder`."""
        with self._busy:
            return unpack_folder(self._source, self._target, progress=self._progress, select=self._select)

    def stop(self) -> None:
        """Stop it, and wait until it has stopped. Its thread can still run when a task of asyncio was cancelled."""
        self._is_stopped = True
        with self._busy:
            pass

    def _progress(self, _: int) -> None:
        if self._is_stopped:
            raise InterruptedError("The pull was cancelled.")
        if time.monotonic() - self._last > _HEARTBEAT_SECONDS:
            self._last = time.monotonic()
            touch(self._source)
